"""Landing and rotation: only a complete file becomes day 0, and a rotation that was killed is brought to its end.

The order is `landing` (an empty ``.sync``), `Rsnapshot.syncing`, `arrived`, `rotate`. In ``.sync`` lies what the next
rotation makes day 0, and nothing else: it is emptied before a landing and after one that failed. Only while a rotation
is under way, which a mark shows, it belongs to that rotation, which must be finished.
"""

from __future__ import annotations

import logging
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ceph_rsnapshot.repository.layout import ImageFolder, complete_manifest
from ceph_rsnapshot.repository.rsnapshot import Rsnapshot
from ceph_rsnapshot_common.errors import Qcow2Refused, TransferFailed
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.process import image_file
from ceph_rsnapshot_common.protocol.manifest import Manifest

LONGEST_MANIFEST = 1024**2
"""Bytes; ours have about 2 KiB."""

_logger = logging.getLogger(__name__)


@contextmanager
def landing(folder: ImageFolder, base: Path) -> Iterator[None]:
    """An empty ``.sync``, because rsync links only where there is nothing yet; if the block fails, it goes.

    Args:
        base: BACKUP_BASE_PATH, up to which empty folders go.
    """
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder.sync.folder, ignore_errors=True)
    folder.sync.folder.mkdir(mode=0o700)
    try:
        yield
    except BaseException:
        if not _mark(folder).exists():
            shutil.rmtree(folder.sync.folder, ignore_errors=True)
            folders.remove_empty(folder.path, base)
        raise


@contextmanager
def arrived(folder: ImageFolder, expected: Manifest | None) -> Iterator[None]:
    """See that ``expected`` (None: nothing at all) is in ``.sync``; what is there lasts when the block has ended.

    The disk writes while the block goes on, which may take its time.

    Raises:
        TransferFailed: rsnapshot said that all is well, but what arrived is not what was sent.
    """
    sync = folder.sync
    found = sorted(path.name for path in sync.folder.iterdir()) if sync.folder.is_dir() else []
    files = [] if expected is None else [sync.manifest, sync.qcow]
    if found != sorted(path.name for path in files):
        raise TransferFailed(path=sync.folder, reason=f"holds {found or 'nothing'} after rsnapshot sync")
    if expected is not None:
        _see_that_it_is(expected, sync)
    with folders.syncing(files):
        yield
    folders.sync_folder(sync.folder)


def _see_that_it_is(expected: Manifest, sync: ImageFiles) -> None:
    """Before anything opens what a ceph node sent. Raises: TransferFailed."""
    status = [path.lstat() for path in (sync.manifest, sync.qcow)]
    if not all(stat.S_ISREG(each.st_mode) for each in status) or status[0].st_size > LONGEST_MANIFEST:
        raise TransferFailed(path=sync.folder, reason="the qcow2 or its manifest is no plain file, or too long")
    if complete_manifest(sync) != expected:
        raise TransferFailed(path=sync.folder, reason="the qcow2 or its manifest is not what was exported")
    try:
        with image_file.opened(sync.qcow, size=expected.size):
            pass
    except Qcow2Refused as error:
        raise TransferFailed(path=sync.qcow, reason=error.data["reason"]) from None


def rotate(rsnapshot: Rsnapshot) -> None:
    """Rotate; a mark says that a rotation is under way, for `finish_rotation`.

    Raises:
        RsnapshotFailed: rsnapshot failed; the next run finishes what it began.
    """
    folder = rsnapshot.folder
    mark = _mark(folder)
    folders.write_durably(mark, "rsnapshot rotates here; if it was killed, the next run finishes the rotation\n")
    rsnapshot.rotate()
    folders.sync_folder(folder.path)
    mark.unlink()


def finish_rotation(folder: ImageFolder, retain: int) -> None:
    """Bring a rotation that was killed half-way to its end, or else the next one would delete a day too many.

    rsnapshot moves days up from the oldest and ``.sync`` last, so that the first missing number tells how far it got:
    2 has moved to 3, say, and 1 and 0 still have to move. Days from number ``retain`` on are of an earlier, larger
    RETAIN_NUMBER: rsnapshot leaves them alone, and so do we.
    """
    if not _mark(folder).exists():
        return
    days = [number for number in folder.numbers() if number < retain]
    if folder.sync.folder.is_dir():
        gap = next(number for number in range(len(days) + 1) if number not in days)
        if gap == len(days):
            # nothing was moved yet: the next run syncs and rotates as if this one had not begun
            _logger.warning("%s: a rotation was interrupted before it moved anything", folder.path)
        else:
            _logger.warning("%s: finishing a rotation that was interrupted", folder.path)
            for number in range(gap - 1, -1, -1):
                folder.day(number).folder.rename(folder.day(number + 1).folder)
            folder.sync.folder.rename(folder.day(0).folder)
    folders.sync_folder(folder.path)
    _mark(folder).unlink()


def _mark(folder: ImageFolder) -> Path:
    return folder.path / ".rotating"
