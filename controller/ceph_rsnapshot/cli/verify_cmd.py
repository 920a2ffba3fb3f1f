"""``ceph_rsnapshot verify``."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import timedelta

from ceph_rsnapshot.api import verify
from ceph_rsnapshot.cli.begin import begin
from ceph_rsnapshot.cli.output.bars import bar
from ceph_rsnapshot.cli.output.tables import paint
from ceph_rsnapshot.verifier.report import Verified
from ceph_rsnapshot_common.errors import UsageError
from ceph_rsnapshot_common.printable import printable

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def run(arguments: argparse.Namespace) -> int:
    """Verify; exit 1 if a backup is not good."""
    given = vars(arguments)
    settings = begin(arguments)
    if arguments.which is None and not given.get("all"):
        raise UsageError(path="verify", problems="name what to verify, or give --all")
    since = _parse_age(str(given["since_verified"])) if "since_verified" in given else None
    as_json = bool(given.get("json"))
    with bar(sys.stderr) as show:
        report = verify(
            settings,
            arguments.which,
            not_verified_for=since,
            source=bool(given.get("source")),
            progress=show,
            on_verified=(lambda _: None) if as_json else _print,
        )
    if as_json:
        print(report.model_dump_json(indent=2))
    elif not report.backups:
        print("nothing to verify")
    else:
        gone = sum(each.gone for each in report.backups)
        bad = sum(not each.ok for each in report.backups)
        rolled_off = f", {gone} rolled off meanwhile" if gone else ""
        print(f"{len(report.backups) - gone} verified, {bad} bad{rolled_off}")
    return 0 if report.ok else 1


def _print(verified: Verified) -> None:
    colours, backup = paint(sys.stdout), verified.backup
    result = colours("good", "green") if verified.ok else colours("BAD", "red")
    if verified.gone:
        result = colours("not verified", "yellow")
    source = ", the same as in Ceph" if verified.ok and verified.against_source else ""
    print(f"{printable(backup.name)} ({backup.day}): {result}{source}")
    for note in verified.notes:
        print(f"  {printable(note)}")
    for problem in verified.problems:
        print(f"  {printable(problem)}")
    sys.stdout.flush()


def _parse_age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)\s*([hdw])", text.strip())
    if not match:
        raise UsageError(path="--since-verified", problems=f"{text!r} is no age: write 12h, 7d or 2w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
