"""Images that have backups and no longer exist: they roll off day by day, and their empty folder goes.

An image that exists and lacks the snapshot of the day is no orphan, one of another cluster is none of this one, and a
listing that looks wrong makes none. What is on its way out is said each night, with the date on which it will be gone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Optional

from pydantic import ValidationError

from ceph_rsnapshot.archiver.commit import prepared
from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.report import OrphanReport, OrphanResult, error_record
from ceph_rsnapshot.repository import rotation, verdicts
from ceph_rsnapshot.repository.layout import ImageFolder, known_images, readable_manifest
from ceph_rsnapshot.repository.retention import retention
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.config.snapshot_name import Night
from ceph_rsnapshot_common.errors import CephRsnapshotError, OrphansSuspicious
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import Listing

_NAMES_SHOWN = 5


class Mark(Record):
    """This node's note of an orphan, in ``.orphan.json`` beside its days.

    Attributes:
        since: when this node first saw that the image is gone.
        first, last: the dates of the nights for which it was rotated first and last.
        accepted: somebody said that the listing is right (``--rotate-many-orphans``).
    """

    since: datetime
    first: date
    last: date
    accepted: bool = False


@dataclass(frozen=True)
class Known:
    """Images of a pool that had backups before a run.

    Attributes:
        established: those with at least half as many days as the one that has most: new images must not make up for
            old ones that are gone.
    """

    folders: Mapping[str, ImageFolder]
    established: frozenset[str]


def known_before(settings: Settings, pool: Pool) -> Known:
    """To be asked before the run backs anything up."""
    found = known_images(settings, pool)
    days = {name: len(folder.numbers()) for name, folder in found.items()}
    most = max(days.values(), default=0)
    return Known(found, frozenset(name for name, count in days.items() if 2 * count >= most))


def find(settings: Settings, listing: Listing, known: Known, night: Night, accept_many: bool) -> dict[str, ImageFolder]:
    """Orphans of the listed pool whose names match IMAGE_RE.

    Raises:
        OrphansSuspicious: there would be so many that the listing is not believed.
    """
    gone = {name: folder for name, folder in known.folders.items() if name not in listing.names}
    orphans = {name: folder for name, folder in gone.items() if _is_of_cluster(folder, listing.fsid)}
    marks = {name: mark for name, folder in orphans.items() if (mark := read_mark(folder))}
    if orphans and not accept_many:
        window = night.date - timedelta(days=settings.retain_number)
        recent = {name for name, mark in marks.items() if not mark.accepted and mark.first > window}
        going = recent | (orphans.keys() - marks.keys())
        judge(listing.pool, (known.established - marks.keys()) | going, going, recent, not listing.names)
    chooses = re.compile(settings.image_re).match
    return {name: folder for name, folder in orphans.items() if chooses(name)}


def judge(
    pool: Pool, known: Collection[str], going: Collection[str], recent: Collection[str], listing_empty: bool
) -> None:
    """See that the new orphans are believable, together with those of the last nights.

    Args:
        known: images that had backups before this run, with those that are going.
        going: the orphans of the last RETAIN_NUMBER nights and of this one: half of what is left each night is all.
        recent: those of them that were orphans before this night.

    Raises:
        OrphansSuspicious: the listing is empty, or more than two and more than half of the images would be orphans.
    """
    new = sorted(set(going) - set(recent))
    if listing_empty or (new and len(going) > 2 and 2 * len(going) > len(known)):
        names = ", ".join(new[:_NAMES_SHOWN]) + (", ..." if len(new) > _NAMES_SHOWN else "")
        raise OrphansSuspicious(pool=pool, new=len(going), known=len(known), names=names)


def rotate_all(context: Context, listing: Listing, orphans: Mapping[str, ImageFolder]) -> list[OrphanReport]:
    """Rotate each orphan with an empty source, once for a night."""
    return [_rotate(context, listing, name, folder) for name, folder in orphans.items()]


def reports(
    settings: Settings, listing: Listing, orphans: Mapping[str, ImageFolder], night: Night, result: OrphanResult
) -> list[OrphanReport]:
    """A report of the same result for each orphan."""
    return [
        OrphanReport(pool=str(listing.pool), image=name, result=result, gone_on=gone_on(settings, folder, night))
        for name, folder in orphans.items()
    ]


def unmark(folder: ImageFolder) -> None:
    """The image of this name exists (again): what is rotated from now on are backups."""
    _mark_path(folder).unlink(missing_ok=True)


def gone_on(settings: Settings, folder: ImageFolder, night: Night) -> date | None:
    """The date of the night on which the last day of an orphan will go; None if nothing is left."""
    days = _days_with_content(folder)
    if not days:
        return None
    mark = read_mark(folder)
    done = 1 if mark and mark.last >= night.date else 0
    nights = max(0, settings.retain_number - min(days) - (1 - done))
    rolled_off = night.date + timedelta(days=nights)
    if not settings.orphan_keep:
        return rolled_off
    return max(rolled_off, _kept_until(settings, mark.since if mark else datetime.now(timezone.utc)))


def read_mark(folder: ImageFolder) -> Mark | None:
    """The note; None if it is no orphan, as far as is known."""
    try:
        return Mark.model_validate_json(_mark_path(folder).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _rotate(context: Context, listing: Listing, name: str, folder: ImageFolder) -> OrphanReport:
    settings, night = context.settings, context.night
    report = OrphanReport(pool=str(listing.pool), image=name, result="rotated")
    try:
        mark = read_mark(folder)
        if mark and mark.last >= night.date:
            result: OrphanResult = "already-rotated"
        elif _is_last_and_young(settings, folder, mark):
            result = "kept"
        else:
            rotation.finish_rotation(folder)
            _rotate_empty(context, folder, mark)
            result = "removed" if _remove_if_empty(folder) else "rotated"
        left = None if result == "removed" else gone_on(settings, folder, night)
        return report.model_copy(update={"result": result, "gone_on": left})
    except (CephRsnapshotError, OSError) as error:
        return report.model_copy(update={"result": "failed", "error": error_record(error)})


def _rotate_empty(context: Context, folder: ImageFolder, mark: Mark | None) -> None:
    rules, today = retention(folder, context.settings), context.night.date
    accepted = context.options.rotate_many_orphans or bool(mark and mark.accepted)
    new = Mark(since=datetime.now(timezone.utc), first=today, last=today, accepted=accepted)
    if mark:
        new = mark.model_copy(update={"last": today, "accepted": accepted})
    with prepared(context, folder, Source(_empty_folder(context)), rules.retain) as rsnapshot:
        with rsnapshot.syncing():
            pass
        with rotation.arrived(folder, None):
            # the mark first: a day too many is kept if we are killed between the two, rather than one too few
            folders.write_durably(_mark_path(folder), new.model_dump_json() + "\n")
        rotation.rotate(rsnapshot, rules)


def _is_last_and_young(settings: Settings, folder: ImageFolder, mark: Optional[Mark]) -> bool:
    """Whether a rotation would remove the last day before ORPHAN_KEEP is over."""
    days = _days_with_content(folder)
    since = mark.since if mark else datetime.now(timezone.utc)
    would_go = bool(days) and min(days) >= settings.retain_number - 1
    return would_go and datetime.now(timezone.utc).date() < _kept_until(settings, since)


def _kept_until(settings: Settings, since: datetime) -> date:
    return since.date() + timedelta(days=settings.orphan_keep)


def _days_with_content(folder: ImageFolder) -> list[int]:
    return [number for number in folder.numbers() if any(folder.day(number).folder.iterdir())]


def _is_of_cluster(folder: ImageFolder, fsid: str) -> bool:
    """Whether the newest backup that says so is of this cluster; in doubt it is not, and nothing goes."""
    manifests = (readable_manifest(folder.day(number)) for number in folder.numbers())
    newest = next((manifest for manifest in manifests if manifest), None)
    return newest is not None and newest.fsid == fsid


def _empty_folder(context: Context) -> str:
    folder = context.folder / "empty"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


def _mark_path(folder: ImageFolder) -> Path:
    return folder.path / ".orphan.json"


def _remove_if_empty(folder: ImageFolder) -> bool:
    """Remove the image's folder if no day holds anything any more; tells whether it did."""
    if _days_with_content(folder):
        return False
    for number in folder.numbers():
        folder.day(number).folder.rmdir()
    unmark(folder)
    verdicts.remove(folder)
    folders.remove_empty(folder.path, folder.path.parent)
    return True
