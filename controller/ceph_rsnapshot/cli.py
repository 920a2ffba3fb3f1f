"""The command ``ceph_rsnapshot``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import NoReturn

from ceph_rsnapshot_common import logs
from ceph_rsnapshot_common.arguments import chosen, keys_with_flags, make_parser
from ceph_rsnapshot_common.config import Loaded, load
from ceph_rsnapshot_common.entry import exit_with
from ceph_rsnapshot_common.errors import CephRsnapshotError

_EXAMPLES = """\
examples:
  ceph_rsnapshot                                   back up as the configuration file says
  ceph_rsnapshot -n                                only say what would be done
  ceph_rsnapshot -p rbd --image-re 'vm-[0-9]+$'    some images of one pool
  ceph_rsnapshot --transfer-mode direct            only what changed since the last backup crosses the network
  ceph_rsnapshot --snap-date '1 day ago'           yesterday's snapshots

exit codes: 0 done; 1 something failed, or there was nothing to back up; 2 usage or configuration;
3 agent or Ceph unreachable; 4 another run holds the lock; 130, 143 ended by Ctrl-C, SIGTERM
"""
_logger = logging.getLogger(__name__)


def main() -> NoReturn:
    """Console script ``ceph_rsnapshot``."""
    parser = _parser()
    exit_with(lambda: _main(parser.parse_args()), parser.prog)


def _parser() -> argparse.ArgumentParser:
    description = "Back up the snapshots of the day of Ceph RBD images to qcow2 files that rsnapshot keeps."
    parser = make_parser("ceph_rsnapshot", description, _EXAMPLES, keys_with_flags())
    parser.add_argument("--force", action="store_true", help="also back up again what the newest day already holds")
    parser.add_argument("--full", action="store_true", help="make full backups, also where an increment would do")
    parser.add_argument(
        "--rotate-many-orphans",
        action="store_true",
        help="believe a listing that makes more than half of the known images orphans",
    )
    parser.add_argument("--printsettings", action="store_true", help="print the settings in effect and exit")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document on standard output")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    loaded = load(arguments.config, chosen(arguments))
    if arguments.printsettings:
        print(_settings_text(loaded, arguments.json), end="")
        return 0
    return _backup(loaded, arguments)


def _backup(loaded: Loaded, arguments: argparse.Namespace) -> int:
    from ceph_rsnapshot import screen
    from ceph_rsnapshot.api import backup
    from ceph_rsnapshot.report import report_of_error

    settings = loaded.settings
    os.umask(0o077)
    file = None if settings.noop else settings.log_base_path / settings.log_filename
    logs.set_up(settings.verbose, settings.sh_logging, file, quiet=True)
    try:
        report = backup(
            settings,
            force=arguments.force,
            full=arguments.full,
            rotate_many_orphans=arguments.rotate_many_orphans,
            observer=screen.observer(sys.stderr),
        )
    except (CephRsnapshotError, KeyboardInterrupt) as error:
        # for the log; the terminal gets it when the command ends
        _logger.warning("the run ended early: %s", error)
        if arguments.json and isinstance(error, CephRsnapshotError):
            print(report_of_error(settings.ceph_host, error).model_dump_json(indent=2))
        raise
    screen.log_report(report)
    if arguments.json:
        print(report.model_dump_json(indent=2))
    else:
        screen.print_report(report)
    return report.exit_code


def _settings_text(loaded: Loaded, as_json: bool) -> str:
    if as_json:
        return loaded.settings.model_dump_json(indent=2) + "\n"
    lines = [f"# from {loaded.path or 'no file: defaults and flags only'}\n"]
    for key, value in loaded.settings.model_dump(mode="json").items():
        text = json.dumps(_plain(key, value), ensure_ascii=False)  # JSON is YAML too
        lines.append(f"{key.upper()}: {text}  # {loaded.origins.get(key, 'default')}\n")
    return "".join(lines)


def _plain(key: str, value: object) -> object:
    """The value as it would stand in the file."""
    if key == "pool" and isinstance(value, list):
        return [f"{item['pool']}/{item['namespace']}".rstrip("/") for item in value]
    return ",".join(value) if key == "extra_long_args" and isinstance(value, list) else value
