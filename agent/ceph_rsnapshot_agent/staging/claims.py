"""Temporary files on the ceph node: who owns them, and how what a killed process left is found again.

While an image is exported, its claim is held: a locked file in ``QCOW_TEMP_PATH/.claims`` that says which folder it is
for. A claim whose lock is free belongs to a dead process, so its files may go; files without a claim are not touched
by the sweep (export_qcow leaves finished ones on purpose).
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from ceph_rsnapshot_common.errors import ExportInUse, LockHeld, PathNotUsable
from ceph_rsnapshot_common.files import folders, locks, ownership
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool, decode, encode, image_folder

_CLAIMS = ".claims"
_PID = re.compile(r"\d*")
_logger = logging.getLogger(__name__)


class _Claim(Record):
    """What a claim says: the image's folder, relative to QCOW_TEMP_PATH."""

    folder: str


@dataclass(frozen=True)
class Files(ImageFiles):
    """The temporary files of one image; ``folder``, which is below ``base``, holds nothing else."""

    base: Path

    def remove(self) -> bool:
        """Remove them, and their folders as far as these are empty; tells whether there was a qcow2."""
        existed = self.qcow.exists()
        for path in (self.partial, self.qcow, self.manifest, self.manifest.with_name(f"{self.manifest.name}.partial")):
            path.unlink(missing_ok=True)
        folders.remove_empty(self.folder, self.base)
        return existed


@contextmanager
def claim(
    base: Path, pool: Pool, image: str, patience: float = 0, cancelled: Optional[threading.Event] = None
) -> Iterator[Files]:
    """Be the only one who makes or removes the temporary files of ``image``.

    The files stay when the block ends; a process that is killed inside it leaves them to `sweep`.

    Args:
        patience: seconds to wait for another one's claim to end, unless ``cancelled`` is set.

    Raises:
        ExportInUse: another process has the claim.
        PathNotUsable: QCOW_TEMP_PATH can't be written.
    """
    folders.make_private(base, "QCOW_TEMP_PATH")
    claims = folders.make_private(base / _CLAIMS, "QCOW_TEMP_PATH")
    relative = image_folder(pool, image)
    mark, text = claims / encode(str(relative)), _Claim(folder=str(relative)).model_dump_json() + "\n"
    with ExitStack() as stack:
        try:
            locks.hold_patiently(
                stack,
                lambda: locks.hold(mark, remove=True, text=text),
                patience,
                lambda _: cancelled is None or not cancelled.is_set(),
            )
        except LockHeld:
            raise ExportInUse(pool=pool, image=image, path=mark) from None
        yield _files(base, relative)


def sweep(base: Path) -> None:
    """Remove what dead processes left: the files of claims that nobody holds. What is no claim is not touched.

    Raises:
        PathNotUsable: QCOW_TEMP_PATH or the folder of the claims is not ours.
    """
    for mark in sorted(folders.make_private(base / _CLAIMS, "QCOW_TEMP_PATH").iterdir()):
        try:
            if not ownership.is_own_file(mark):
                raise ValueError("it is no file of this user alone")
            pid, text = locks.read(mark)
            relative = _claimed(mark.name, pid, text)
            with locks.hold(mark, remove=True, text=text):  # the same text, in case that we are killed here
                _sweep_one(base, relative)
        except LockHeld:
            continue
        except (OSError, ValueError, PathNotUsable) as error:
            _logger.warning("%s stays: %s", mark, error)


def _claimed(name: str, pid: str, text: str) -> PurePosixPath:
    """The folder that a claim of this name and content is for.

    One that is empty or full of zeros was not yet written by a process that was killed, or by the disk before a power
    cut; its name says the same, unless that had to be cut.

    Raises:
        ValueError: it is no claim.
    """
    written = text.strip("\0\n")
    relative = PurePosixPath(_Claim.model_validate_json(written).folder if written else decode(name))
    plain = len(relative.parts) > 1 and not any(part.startswith((".", "/")) for part in relative.parts)
    if not _PID.fullmatch(pid.strip("\0")) or encode(str(relative)) != name or not plain:
        raise ValueError("it is no claim")
    return relative


def _sweep_one(base: Path, relative: PurePosixPath) -> None:
    files = _files(base, relative)
    if files.folder.exists():
        _logger.warning("removing what a killed export left in %s", files.folder)
        files.remove()


def _files(base: Path, relative: PurePosixPath) -> Files:
    """Raises: PathNotUsable, if a link would lead elsewhere."""
    if not ownership.is_plain(base / relative, base):
        raise PathNotUsable(key="QCOW_TEMP_PATH", path=base / relative, reason="is, or is below, a link")
    return Files(base / relative, relative.name, base)
