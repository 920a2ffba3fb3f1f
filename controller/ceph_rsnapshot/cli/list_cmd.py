"""``ceph_rsnapshot list``: a table, a calendar, or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby

from ceph_rsnapshot.api import list_backups, load_settings
from ceph_rsnapshot.cli.output.calendar_view import calendar
from ceph_rsnapshot.cli.output.tables import Column, Paint, gap, marks, paint, render, width, wrapped
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot_common.printable import printable
from ceph_rsnapshot_common.sizes import format_size

_COLUMNS = (
    Column("day"),
    Column("snapshot"),
    Column("taken", drop=2),
    Column("age", right=True),
    Column("size", right=True, drop=3),
    Column("alone", right=True, drop=1),
    Column("mode", drop=4),
    Column("verified"),
)
_KINDS = {"full": "full", "increment": "incr", "unchanged": "same"}
_INDENT = 2


def run(arguments: argparse.Namespace) -> int:
    """List; an empty list is no error."""
    given = vars(arguments)
    backups = list_backups(load_settings(arguments.config), arguments.which)
    if given.get("json"):
        print("[" + ",\n".join(backup.model_dump_json() for backup in backups) + "]")
        return 0
    if not backups:
        print("there are no backups yet", file=sys.stderr)
        return 0
    colours, limit = paint(sys.stdout), width(sys.stdout)
    make = calendar if given.get("calendar") else _table
    for line in make(backups, colours, limit):
        print(line)
    return 0


def _table(backups: Sequence[Backup], colours: Paint, limit: int | None) -> Iterator[str]:
    now = datetime.now(timezone.utc)
    lines = render(_COLUMNS, [_row(backup, now) for backup in backups], limit, _INDENT)
    header = next(lines)
    between = gap(header, limit, _INDENT)
    yield " " * _INDENT + colours(between.join(header), "dim")
    for (pool, image), group in groupby(backups, key=lambda each: (each.pool, each.image)):
        yield colours(printable(f"{pool}/{image}"), "bold")
        for backup in group:
            *cells, last = next(lines)
            yield (" " * _INDENT + between.join([*cells, colours(last, _style(backup))])).rstrip()
            if backup.hold and backup.hold.reason:
                yield " " * 2 * _INDENT + colours(f"held: {printable(backup.hold.reason)}", "dim")
    images = len({(backup.pool, backup.image) for backup in backups})
    counted = f"{images} image{'s' * (images != 1)}, {len(backups)} backup{'s' * (len(backups) != 1)}"
    for line in wrapped(f"{counted}; alone: what would be free if only that day went", limit):
        yield colours(line, "dim")


def _row(backup: Backup, now: datetime) -> tuple[str, ...]:
    manifest = backup.manifest
    alone = format_size(backup.alone_bytes)
    if manifest is None:
        return backup.day, "?", "?", "?", "?", alone, "?", _verified(backup, now)
    taken = manifest.snapshot_created.astimezone()
    return (
        backup.day,
        printable(manifest.snapshot),
        f"{taken:%Y-%m-%d %H:%M}",
        _age(now - taken),
        format_size(manifest.size),
        alone,
        f"{_KINDS[manifest.kind]} {manifest.transfer_mode}",
        _verified(backup, now),
    )


def _verified(backup: Backup, now: datetime) -> str:
    if backup.problem:
        return "DAMAGED"
    if backup.verdict is None:
        return "-"
    good, bad = ("✓ ", "✗ ") if marks(sys.stdout) else ("", "")
    if not backup.verdict.ok:
        return f"{bad}FAILED"
    return f"{good}{_age(now - backup.verdict.at)} ago"


def _style(backup: Backup) -> str:
    return {"damaged": "red", "failed": "red", "verified": "green"}.get(backup.state, "")


def _age(since: timedelta) -> str:
    """How long ago, in its largest unit: ``3d``."""
    seconds = int(since.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if abs(seconds) >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
