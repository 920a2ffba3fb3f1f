"""``ceph_rsnapshot check``."""

from __future__ import annotations

import argparse
import contextlib
import sys

from ceph_rsnapshot.api import check
from ceph_rsnapshot.cli.begin import begin
from ceph_rsnapshot.cli.output.tables import marks, paint
from ceph_rsnapshot.preflight.report import CheckReport
from ceph_rsnapshot_common.errors import ConfigError
from ceph_rsnapshot_common.printable import printable


def run(arguments: argparse.Namespace) -> int:
    """Check; exit 1 if something is not ready."""
    with contextlib.suppress(ConfigError):  # the report says it
        begin(arguments)
    report = check(config=arguments.config)
    if vars(arguments).get("json"):
        print(report.model_dump_json(indent=2))
    else:
        _print(report)
    return 0 if report.ok else 1


def _print(report: CheckReport) -> None:
    tick, cross = ("✓", "✗") if marks(sys.stdout) else ("ok ", "BAD")
    colours = paint(sys.stdout)
    for item in report.items:
        mark = colours(tick, "green") if item.ok else colours(cross, "red")
        print(f"{mark} {printable(item.name)}: {printable(item.detail)}")
        if not item.ok:
            print(f"    -> {printable(item.advice)}")
    wrong = sum(not item.ok for item in report.items)
    print("ready" if report.ok else f"{wrong} of {len(report.items)} are not right")
