"""Landing and rotation: only a complete file becomes day 0, and a rotation that was killed is brought to its end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Callable

from ceph_rsnapshot.repository.layout import Place
from ceph_rsnapshot.repository.rsnapshot import Rsnapshot
from ceph_rsnapshot_common.errors import TransferFailed
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.protocol.manifest import Manifest

_logger = logging.getLogger(__name__)


def land(
    rsnapshot: Rsnapshot,
    expected: Manifest | None,
    before_rotation: Callable[[], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Sync, see that ``expected`` (None: nothing at all) has arrived, make it last, and rotate.

    Args:
        before_rotation: called when the files have arrived; may complete them.
        meanwhile: called while rsnapshot syncs.

    Raises:
        RsnapshotFailed: rsnapshot failed.
        TransferFailed: it said that all is well, but what arrived is not what was sent.
    """
    place = rsnapshot.place
    with folders.written_back(place.sync), rsnapshot.syncing():
        meanwhile()
    files = _arrived(place, expected)
    with folders.syncing(files):  # the disk writes while a staged backup is verified
        before_rotation()
    folders.sync_folder(place.sync)
    _rotate(rsnapshot)


def has_begun(place: Place) -> bool:
    """Whether a rotation has begun and not ended: what is in ``.sync`` then belongs to it."""
    return _mark(place).exists()


def _rotate(rsnapshot: Rsnapshot) -> None:
    """Rotate; a mark says that a rotation is under way, for `finish_rotation`."""
    mark = _mark(rsnapshot.place)
    folders.write_durably(mark, "rsnapshot rotates here; if it was killed, the next run finishes the rotation\n")
    rsnapshot.rotate()
    folders.sync_folder(rsnapshot.place.root)
    mark.unlink()


def finish_rotation(place: Place, retain: int) -> None:
    """Bring a rotation that was killed half-way to its end, or else the next one would delete a day too many.

    rsnapshot moves days up from the oldest and ``.sync`` last, so that the first missing number tells how far it got.
    Days from number ``retain`` on are of an earlier, larger RETAIN_NUMBER: rsnapshot leaves them alone, and so do we.
    """
    if not has_begun(place):
        return
    days = [number for number in place.days() if number < retain]
    if place.sync.is_dir():
        gap = next(number for number in range(len(days) + 1) if number not in days)
        if gap == len(days):
            # nothing was moved yet: the next run syncs and rotates as if this one had not begun
            _logger.warning("%s: a rotation was interrupted before it moved anything", place.root)
        else:
            _logger.warning("%s: finishing a rotation that was interrupted", place.root)
            for number in range(gap - 1, -1, -1):
                place.day(number).rename(place.day(number + 1))
            place.sync.rename(place.day(0))
    folders.sync_folder(place.root)
    _mark(place).unlink()


def _mark(place: Place) -> Path:
    return place.root / ".rotating"


def _arrived(place: Place, expected: Manifest | None) -> list[Path]:
    """The files in ``.sync``, which must be what was sent."""
    arrived = sorted(path.name for path in place.sync.iterdir()) if place.sync.is_dir() else []
    files = [] if expected is None else [place.manifest(place.sync), place.qcow(place.sync)]
    if arrived != sorted(path.name for path in files):
        raise TransferFailed(path=place.sync, reason=f"holds {arrived or 'nothing'} after rsnapshot sync")
    if expected is not None and place.complete(place.sync) != expected:
        raise TransferFailed(path=place.sync, reason="the qcow2 or its manifest is not what was exported")
    return files
