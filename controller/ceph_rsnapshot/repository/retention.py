"""Which days a rotation removes: the one beyond RETAIN_NUMBER, unless it is younger than RETAIN_MIN_AGE."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ceph_rsnapshot.repository.layout import ImageFolder, readable_manifest
from ceph_rsnapshot_common.config.settings import Settings


@dataclass(frozen=True)
class Retention:
    """What a rotation that begins now does.

    Attributes:
        dropped: numbers of the days that go.
        too_young: numbers of those that would go if they were older.
        retain: how many days rsnapshot may count, so that itself it deletes nothing.
    """

    dropped: tuple[int, ...]
    too_young: tuple[int, ...]
    retain: int


def retention(folder: ImageFolder, settings: Settings) -> Retention:
    """By the notes of when this node landed each day.

    Without RETAIN_MIN_AGE days beyond RETAIN_NUMBER are of an earlier, larger RETAIN_NUMBER: they are left alone, as
    rsnapshot does it. With it, they are those that were too young before.
    """
    last, numbers = settings.retain_number - 1, folder.numbers() if folder.path.is_dir() else []
    if not settings.retain_min_age:
        return Retention((last,) if last in numbers else (), (), settings.retain_number)
    oldest = datetime.now(timezone.utc) - timedelta(days=settings.retain_min_age)
    too_young = tuple(number for number in numbers if number >= last and _landed(folder, number) > oldest)
    dropped = tuple(number for number in numbers if number >= last and number not in too_young)
    return Retention(dropped, too_young, max([settings.retain_number, *(number + 2 for number in too_young)]))


def _landed(folder: ImageFolder, number: int) -> datetime:
    """Of a day that says nothing (a deleted image rolls off in empty ones), when its folder was made."""
    manifest = readable_manifest(folder.day(number))
    if manifest:
        return manifest.landed or manifest.ended
    return datetime.fromtimestamp(folder.day(number).folder.stat().st_mtime, timezone.utc)
