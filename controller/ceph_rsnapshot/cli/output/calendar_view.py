"""The calendar of backups: a line for each image, a column for each day, so that a gap jumps out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

from rich.cells import cell_len

from ceph_rsnapshot.cli.output.tables import Paint, fitted, marks, wrapped
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot_common.printable import printable

_MARKS = {"complete": "●", "verified": "✓", "failed": "✗", "damaged": "✗", "missing": "□"}
_ASCII = {"complete": "o", "verified": "v", "failed": "X", "damaged": "X", "missing": "-"}
_STYLES = {"complete": "", "verified": "green", "failed": "red", "damaged": "red", "missing": "yellow"}
_WORSE = ("complete", "verified", "damaged", "failed")
_CELL = 3
_MOST_DAYS = 62
_LEGEND_COLUMNS = 48


def calendar(backups: Sequence[Backup], colours: Paint, limit: int | None, today: date | None = None) -> Iterator[str]:
    """The lines of the calendar; days are those on which the snapshots were taken, in local time."""
    images = {
        printable(f"{pool}/{image}"): _states(group)
        for (pool, image), group in groupby(backups, key=lambda each: (each.pool, each.image))
    }
    names = min(max(map(cell_len, images)), 60 if limit is None else max(12, limit // 3))
    days = _days(images.values(), {backup.interval for backup in backups}, today or datetime.now().astimezone().date())
    room = _MOST_DAYS if limit is None else max(1, (limit - names) // _CELL)
    left_out, days = days[:-room], days[-room:]
    yield from _header(days, names, colours)
    symbols = _MARKS if marks(sys.stdout) else _ASCII
    for image, states in images.items():
        cells = (_cell(states, day, symbols, colours) for day in days)
        label = fitted(image, names)
        yield f"{label}{' ' * (names - cell_len(label))}{''.join(cells)}".rstrip()
    legend = ("complete", "verified", "failed", "missing")
    between = "   " if limit is None or limit >= _LEGEND_COLUMNS else "\n"
    yield between.join(f"{colours(symbols[each], _STYLES[each])} {each}" for each in legend)
    if left_out:
        for line in wrapped(f"{len(left_out)} earlier days don't fit and are left out", limit):
            yield colours(line, "dim")


def _states(backups: Iterator[Backup]) -> dict[date, str]:
    """The state of each day; of several backups of one day the worst one counts."""
    found: dict[date, str] = {}
    for backup in backups:
        day = _day(backup)
        if day:
            found[day] = max(found.get(day, _WORSE[0]), backup.state, key=_WORSE.index)
    return found


def _day(backup: Backup) -> date | None:
    """The day of the snapshot; if the manifest can't be read, that on which the folder was made."""
    if backup.taken:
        return backup.taken.astimezone().date()
    try:
        return datetime.fromtimestamp(backup.folder.stat().st_mtime).astimezone().date()
    except OSError:
        return None


def _days(images: Iterable[dict[date, str]], intervals: set[str], today: date) -> list[date]:
    """Every day from the first backup to today; with intervals other than daily, only the days that have backups."""
    known = sorted({day for states in images for day in states})
    if not known:
        return [today]
    if intervals != {"daily"}:
        return known
    # a day is missing only when it is over: today's backups may still be made
    last = max(known[-1], today - timedelta(days=1))
    return [known[0] + timedelta(days=number) for number in range((last - known[0]).days + 1)]


def _header(days: Sequence[date], names: int, colours: Paint) -> Iterator[str]:
    months = ""
    for month, group in groupby(days, key=lambda day: f"{day:%b %Y}"):
        space = len(list(group)) * _CELL
        months += (f" {month}" if space > len(month) else month[:_CELL]).ljust(space)
    yield colours((" " * names + months).rstrip(), "dim")
    yield colours(" " * names + "".join(f"{day.day:{_CELL}}" for day in days), "dim")


def _cell(states: dict[date, str], day: date, symbols: dict[str, str], colours: Paint) -> str:
    """Blank before the first backup that there is: an image that did not exist yet is not missing."""
    if states and day < min(states):
        return " " * _CELL
    state = states.get(day, "missing")
    return " " * (_CELL - 1) + colours(symbols[state], _STYLES[state])
