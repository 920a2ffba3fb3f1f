"""Images that have backups and no longer exist: they roll off day by day, and their empty folder goes.

An image that exists and lacks the snapshot of the day is no orphan, and a listing that looks wrong makes none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ceph_rsnapshot.archiver.commit import prepared
from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.report import OrphanReport, OrphanResult, error_record
from ceph_rsnapshot.repository import rotation, verdicts
from ceph_rsnapshot.repository.layout import ImageFolder, known_images
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CephRsnapshotError, OrphansSuspicious
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import Listing

_MARK = ".orphan.json"
_NAMES_SHOWN = 5


def find(settings: Settings, listing: Listing, accept_many: bool) -> dict[str, ImageFolder]:
    """Orphans of the listed pool whose names match IMAGE_RE.

    Raises:
        OrphansSuspicious: there would be so many new ones that the listing is not believed.
    """
    known = known_images(settings, listing.pool)
    orphans = {name: folder for name, folder in known.items() if name not in listing.names}
    marked = {name for name, folder in orphans.items() if (folder.path / _MARK).exists()}
    if orphans and not accept_many:
        judge(listing.pool, known.keys() - marked, orphans.keys() - marked, listing_empty=not listing.names)
    chooses = re.compile(settings.image_re).match
    return {name: folder for name, folder in orphans.items() if chooses(name)}


def judge(pool: Pool, known: Iterable[str], new: Iterable[str], listing_empty: bool) -> None:
    """See that the new orphans are believable, counted among the images that were no orphans before.

    Raises:
        OrphansSuspicious: the listing is empty, or more than two and more than half of the images would be orphans.
    """
    known, new = sorted(known), sorted(new)
    if listing_empty or (len(new) > 2 and 2 * len(new) > len(known)):
        names = ", ".join(new[:_NAMES_SHOWN]) + (", ..." if len(new) > _NAMES_SHOWN else "")
        raise OrphansSuspicious(pool=pool, new=len(new), known=len(known), names=names)


def rotate_all(context: Context, listing: Listing, orphans: Mapping[str, ImageFolder]) -> list[OrphanReport]:
    """Rotate each orphan with an empty source, once for a snapshot date."""
    return [_rotate(context, listing, name, folder) for name, folder in orphans.items()]


def reports(listing: Listing, names: Iterable[str], result: OrphanResult) -> list[OrphanReport]:
    """A report of the same result for each orphan."""
    return [OrphanReport(pool=str(listing.pool), image=name, result=result) for name in names]


def unmark(folder: ImageFolder) -> None:
    """The image of this name exists (again): what is rotated from now on are backups."""
    (folder.path / _MARK).unlink(missing_ok=True)


def _rotate(context: Context, listing: Listing, name: str, folder: ImageFolder) -> OrphanReport:
    report = OrphanReport(pool=str(listing.pool), image=name, result="rotated")
    try:
        if context.snapshot in _rotated_for(folder):
            return report.model_copy(update={"result": "already-rotated"})
        rotation.finish_rotation(folder, context.settings.retain_number)
        with prepared(context, folder, Source(str(_empty_folder(context)))) as rsnapshot:
            with rsnapshot.syncing():
                pass
            with rotation.arrived(folder, None):
                # the mark first: a day too many is kept if we are killed between the two, rather than one too few
                _mark(folder, context.snapshot)
            rotation.rotate(rsnapshot)
        return report.model_copy(update={"result": "removed" if _remove_if_empty(folder) else "rotated"})
    except (CephRsnapshotError, OSError) as error:
        return report.model_copy(update={"result": "failed", "error": error_record(error)})


def _empty_folder(context: Context) -> Path:
    folder = context.folder / "empty"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _mark(folder: ImageFolder, snapshot: str) -> None:
    names = [*_rotated_for(folder), snapshot]
    folders.write_durably(folder.path / _MARK, json.dumps({"rotated_for": names}) + "\n")


def _rotated_for(folder: ImageFolder) -> list[str]:
    """Names of the snapshots of the nights that it was rotated for."""
    try:
        return list(json.loads((folder.path / _MARK).read_text(encoding="utf-8"))["rotated_for"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _remove_if_empty(folder: ImageFolder) -> bool:
    """Remove the image's folder if no day holds anything any more; tells whether it did."""
    days = [folder.day(number).folder for number in folder.numbers()]
    if any(any(day.iterdir()) for day in days):
        return False
    for day in days:
        day.rmdir()
    unmark(folder)
    verdicts.remove(folder)
    folders.remove_empty(folder.path, folder.path.parent)
    return True
