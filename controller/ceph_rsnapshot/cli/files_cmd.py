"""``ceph_rsnapshot files``."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path, PurePosixPath

from ceph_rsnapshot.api import files
from ceph_rsnapshot.cli.begin import begin
from ceph_rsnapshot.restorer.guest_files import GuestFiles
from ceph_rsnapshot_common.errors import UsageError
from ceph_rsnapshot_common.printable import printable


def run(arguments: argparse.Namespace) -> int:
    """Look into a backup."""
    if arguments.target and arguments.action != "get":
        raise UsageError(path="TARGET", problems=f"{arguments.action} takes none")
    settings = begin(arguments)
    with files(settings, arguments.which, file_system=arguments.file_system) as guest:
        if arguments.action == "ls":
            for name in guest.ls(arguments.path):
                print(_shown(name))
        elif arguments.action == "cat":
            _cat(guest, arguments.path)
        else:
            _get(guest, arguments.path, Path(arguments.target or PurePosixPath(arguments.path).name))
    return 0


def _cat(guest: GuestFiles, path: str) -> None:
    if not sys.stdout.isatty():
        guest.cat(path, sys.stdout.buffer)
        return
    content = io.BytesIO()
    guest.cat(path, content)
    print("\n".join(map(_shown, content.getvalue().split(b"\n"))), end="")


def _get(guest: GuestFiles, path: str, target: Path) -> None:
    left_out = guest.get(path, target)
    print(f"{target}: copied")
    for name in left_out:
        print(f"left out, no regular file: {printable(name)}", file=sys.stderr)


def _shown(name: bytes) -> str:
    return printable(name.decode("utf-8", "surrogateescape"))
