"""Man pages of ``ceph_rsnapshot`` and its commands, from its parser: ``python docs/manpages.py FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from argparse_manpage.manpage import Manpage

from ceph_rsnapshot.cli.parser import command_parsers, make_parser
from ceph_rsnapshot_common import __version__


def write(folder: Path) -> None:
    """Write a page for the program, and one for each command, named as in ``man ceph_rsnapshot-restore``."""
    folder.mkdir(parents=True, exist_ok=True)
    parser = make_parser()
    pages = {"": (parser, "back up Ceph RBD snapshots, and get the data back")}
    for name, command in command_parsers(parser).items():
        pages[f"-{name}"] = (command, str(command.description).rstrip(".").lower())
    for suffix, (each, summary) in pages.items():
        (folder / f"ceph_rsnapshot{suffix}.1").write_text(_page(each, f"ceph_rsnapshot{suffix}", summary))


def _page(parser: argparse.ArgumentParser, name: str, summary: str) -> str:
    about = {"project_name": "ceph-rsnapshot", "version": __version__, "manual_title": "ceph-rsnapshot"}
    # the epilog has the examples, whose lines must stay as they are
    epilog, parser.epilog = parser.epilog or "", None
    page = Manpage(parser, _data={**about, "description": summary})
    page.prog = name
    text = str(page)
    lines = "\n".join(line.replace("\\", "\\e").replace("-", "\\-") for line in epilog.splitlines()[1:])
    return f"{text.rstrip()}\n.SH EXAMPLES\n.nf\n{lines}\n.fi\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
