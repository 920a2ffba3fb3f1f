"""What a restore has made."""

from __future__ import annotations

from typing import Optional

from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot_common.model import Record


class Restored(Record):
    """A restore that is complete and was compared with the backup.

    Attributes:
        target: the image ``pool/image``, or the path of the file.
        image_id: of the new image.
        written: bytes of content that were written.
        damage: what is known to differ from what was backed up; only if that was accepted.
        next_steps: commands that put the image in the original's place; none if it is there already.
    """

    backup: Backup
    target: str
    image_id: Optional[str] = None
    size: int
    written: int
    damage: tuple[str, ...] = ()
    seconds: float
    next_steps: tuple[str, ...] = ()
