"""Which snapshot of an image was backed up last: the base of the next increment, which must be kept until then.

Only for people and the script that deletes snapshots (`gathernames --json`); increments go by the manifests on the
backup node.
"""

from __future__ import annotations

import logging
import os
from heapq import nsmallest
from pathlib import Path

from pydantic import ValidationError

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.names import Pool, encode, image_folder
from ceph_rsnapshot_common.protocol.manifest import Base
from ceph_rsnapshot_common.protocol.records import LandedRequest

_logger = logging.getLogger(__name__)


class _Note(Base):
    """What a note says; the id of the image, because one of the same name may be another one."""

    fsid: str
    image_id: str


def write(settings: Settings, landed: LandedRequest) -> None:
    """Note the base of the next increment, in place of the oldest notes if there are MAX_BASE_NOTES.

    Failing is logged and does no harm.
    """
    snapshot = landed.snapshot
    path = _path(settings, snapshot.pool, snapshot.image)
    note = _Note(
        fsid=landed.fsid, image_id=snapshot.image_id, snapshot=snapshot.snapshot, snapshot_id=snapshot.snapshot_id
    )
    try:
        folders.make_private(path.parent, "BASES_PATH")
        if not path.exists():
            _make_room(path.parent, settings.max_base_notes)
        partial = path.with_suffix(".partial")
        partial.write_text(note.model_dump_json() + "\n", encoding="utf-8")
        partial.rename(path)
    except (OSError, PathNotUsable) as error:
        _logger.warning("can't note the base of %s/%s: %s", snapshot.pool, snapshot.image, error)


def read(settings: Settings, fsid: str, pool: Pool, image: str, image_id: str) -> Base | None:
    """The base as it was noted for this very image, or None."""
    try:
        found = _Note.model_validate_json(_path(settings, pool, image).read_bytes())
    except (OSError, ValidationError):
        return None
    if (found.fsid, found.image_id) != (fsid, image_id):
        return None
    return Base(snapshot=found.snapshot, snapshot_id=found.snapshot_id)


def _make_room(folder: Path, most: int) -> None:
    """Remove the oldest notes so that one more can be there: a tenth at once, because all have to be looked at."""
    with os.scandir(folder) as entries:
        notes = [entry for entry in entries if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False)]
    too_many = len(notes) - most + 1
    if too_many > 0:
        _logger.warning("%s: the oldest of %d notes go, because MAX_BASE_NOTES is %d", folder, len(notes), most)
        for note in nsmallest(max(too_many, most // 10), notes, key=lambda note: note.stat().st_mtime_ns):
            Path(note.path).unlink()


def _path(settings: Settings, pool: Pool, image: str) -> Path:
    return settings.bases_folder / f"{encode(str(image_folder(pool, image)))}.json"
