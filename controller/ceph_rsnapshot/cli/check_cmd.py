"""``ceph_rsnapshot check``."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ceph_rsnapshot.cli.output.tables import marks, paint
from ceph_rsnapshot.preflight.checks import check
from ceph_rsnapshot.preflight.report import CheckReport
from ceph_rsnapshot_common.config.load import Loaded, load
from ceph_rsnapshot_common.console import logs


def run(arguments: argparse.Namespace) -> int:
    """Check; exit 1 if something is not ready."""
    report = check(partial(_load, arguments))
    if vars(arguments).get("json"):
        print(report.model_dump_json(indent=2))
    else:
        _print(report)
    return 0 if report.ok else 1


def _load(arguments: argparse.Namespace) -> Loaded:
    loaded = load(arguments.config)
    logs.set_up(loaded.settings.verbose, loaded.settings.sh_logging, quiet=True)
    return loaded


def _print(report: CheckReport) -> None:
    tick, cross = ("✓", "✗") if marks(sys.stdout) else ("ok ", "BAD")
    colours = paint(sys.stdout)
    for item in report.items:
        print(f"{colours(tick, 'green') if item.ok else colours(cross, 'red')} {item.name}: {item.detail}")
        if not item.ok:
            print(f"    -> {item.advice}")
    wrong = sum(not item.ok for item in report.items)
    print("ready" if report.ok else f"{wrong} of {len(report.items)} are not right")
