"""``ceph_rsnapshot check``."""

from __future__ import annotations

import argparse
import sys

from ceph_rsnapshot.api import check
from ceph_rsnapshot.tables import marks, paint
from ceph_rsnapshot_common import logs
from ceph_rsnapshot_common.config import load


def run(arguments: argparse.Namespace) -> int:
    """Check; exit 1 if something is not ready."""
    loaded = load(arguments.config)
    logs.set_up(loaded.settings.verbose, loaded.settings.sh_logging, quiet=True)
    report = check(loaded.settings)
    if vars(arguments).get("json"):
        print(report.model_dump_json(indent=2))
        return 0 if report.ok else 1
    tick, cross = ("✓", "✗") if marks(sys.stdout) else ("ok ", "BAD")
    colours = paint(sys.stdout)
    print(f"{colours(tick, 'green')} configuration: {loaded.path or 'no file: defaults'}")
    for item in report.items:
        print(f"{colours(tick, 'green') if item.ok else colours(cross, 'red')} {item.name}: {item.detail}")
        if not item.ok:
            print(f"    -> {item.advice}")
    wrong = sum(not item.ok for item in report.items)
    print("ready" if report.ok else f"{wrong} of {len(report.items) + 1} are not right")
    return 0 if report.ok else 1
