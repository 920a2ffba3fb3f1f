"""Which snapshot of an image was backed up last: the base of the next increment, which must be kept until then.

Only for people and the script that deletes snapshots (`gathernames --json`); increments go by the manifests on the
backup node.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.names import Pool, encode, image_folder
from ceph_rsnapshot_common.protocol.manifest import Base
from ceph_rsnapshot_common.protocol.records import LandedRequest

_logger = logging.getLogger(__name__)


class _Note(Base):
    """What a note says; the id of the image, because one of the same name may be another one."""

    fsid: str
    image_id: str


def write(settings: Settings, landed: LandedRequest) -> None:
    """Note the base of the next increment; failing is logged and does no harm."""
    snapshot = landed.snapshot
    path = _path(settings, snapshot.pool, snapshot.image)
    note = _Note(
        fsid=landed.fsid, image_id=snapshot.image_id, snapshot=snapshot.snapshot, snapshot_id=snapshot.snapshot_id
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(note.model_dump_json() + "\n", encoding="utf-8")
        partial.rename(path)
    except OSError as error:
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


def _path(settings: Settings, pool: Pool, image: str) -> Path:
    return settings.bases_folder / f"{encode(str(image_folder(pool, image)))}.json"
