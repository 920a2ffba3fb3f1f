"""Landing and rotation: only a complete file becomes day 0, and a rotation that was killed is brought to its end.

The order is `landing` (an empty ``.sync``), `Rsnapshot.syncing`, `arrived`, then `rotate` or `replace`. In ``.sync``
lies what becomes the new day, and nothing else: it is emptied before a landing and after one that failed. Only while a
rotation is under way, which a mark shows, it belongs to that rotation, which must be finished.
"""

from __future__ import annotations

import logging
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from pydantic import ValidationError

from ceph_rsnapshot.repository.layout import ImageFolder, complete_manifest
from ceph_rsnapshot.repository.retention import Retention
from ceph_rsnapshot.repository.rsnapshot import Rsnapshot
from ceph_rsnapshot_common.errors import Qcow2Refused, TransferFailed
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.model import Record
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


def rotate(rsnapshot: Rsnapshot, retention: Retention) -> None:
    """Make ``.sync`` day 0, and let the days go that ``retention`` drops.

    rsnapshot deletes the oldest day first, and a kill in that would leave it half deleted: so it finds none to delete.
    What goes is put aside before, by a rename, and deleted when the rotation is complete.

    Raises:
        RsnapshotFailed: rsnapshot failed; what it had begun was finished.
    """
    folder = rsnapshot.folder
    _write_mark(folder, _Mark(retain=retention.retain, dropped=retention.dropped))
    try:
        for number in retention.dropped:
            folder.day(number).folder.rename(_aside(folder, number))
        rsnapshot.rotate()
    finally:
        finish_rotation(folder)


def replace(folder: ImageFolder, number: int) -> None:
    """Put ``.sync`` into the place of a day; no other day is touched."""
    _write_mark(folder, _Mark(replaced=number))
    if folder.day(number).folder.is_dir():
        folder.day(number).folder.rename(_aside(folder, number))
    finish_rotation(folder)


def finish_rotation(folder: ImageFolder) -> None:
    """Bring what was begun in ``folder`` to its end, or else the next rotation would delete a day too many."""
    mark = _read_mark(folder)
    if mark is None:
        _remove_dropped(folder)
        return
    if folder.sync.folder.is_dir():
        if mark.replaced is None:
            _finish_moving(folder, mark)
        elif not folder.day(mark.replaced).folder.is_dir():
            folder.sync.folder.rename(folder.day(mark.replaced).folder)
    folders.sync_folder(folder.path)
    _mark(folder).unlink()
    _remove_dropped(folder)


def _finish_moving(folder: ImageFolder, mark: _Mark) -> None:
    """Let the days move that rsnapshot has not moved: it does so from the oldest on, and with ``.sync`` last.

    So the first missing number tells how far it got: 2 has moved to 3, say, and 1 and 0 still have to move. Days from
    number ``mark.retain`` on are of an earlier, larger RETAIN_NUMBER: rsnapshot leaves them alone, and so do we.
    """
    days = [number for number in folder.numbers() if mark.retain is None or number < mark.retain]
    gap = next(number for number in range(len(days) + 1) if number not in days)
    if gap == len(days):
        # nothing was moved yet: the next run syncs and rotates as if this one had not begun
        _logger.warning("%s: a rotation was interrupted before it moved anything", folder.path)
        for number in mark.dropped:
            if _aside(folder, number).is_dir():
                _aside(folder, number).rename(folder.day(number).folder)
        return
    _logger.warning("%s: finishing a rotation that was interrupted", folder.path)
    for number in range(gap - 1, -1, -1):
        folder.day(number).folder.rename(folder.day(number + 1).folder)
    folder.sync.folder.rename(folder.day(0).folder)


class _Mark(Record):
    """What is under way, so that it can be finished after a kill."""

    note: str = "a rotation is under way here; if it was killed, the next run finishes it"
    retain: Optional[int] = None
    dropped: tuple[int, ...] = ()
    replaced: Optional[int] = None


def _write_mark(folder: ImageFolder, mark: _Mark) -> None:
    folders.write_durably(_mark(folder), mark.model_dump_json() + "\n")


def _read_mark(folder: ImageFolder) -> _Mark | None:
    """None if nothing is under way; an earlier version's mark says nothing more than that."""
    try:
        return _Mark.model_validate_json(_mark(folder).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        return _Mark()


def _mark(folder: ImageFolder) -> Path:
    return folder.path / ".rotating"


def _aside(folder: ImageFolder, number: int) -> Path:
    return folder.path / f".dropped.{number}"


def _remove_dropped(folder: ImageFolder) -> None:
    for path in folder.path.glob(".dropped.*"):
        shutil.rmtree(path)
