"""Temporary files on the ceph node: who owns them, and how what a killed process left is found again.

While an image is exported, its claim is held: a locked file in ``QCOW_TEMP_PATH/.claims`` that says which folder it is
for. A claim whose lock is free belongs to a dead process, so its files may go; files without a claim are not touched
by the sweep (export_qcow leaves finished ones on purpose).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from ceph_rsnapshot_common.errors import ExportInUse, LockHeld
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool, encode, image_folder

_CLAIMS = ".claims"
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
    """Remove what dead processes left: the files of claims that nobody holds."""
    claims = base / _CLAIMS
    for mark in sorted(claims.glob("*")) if claims.is_dir() else []:
        try:
            _, text = locks.read(mark)
            with locks.hold(mark, remove=True, text=text):  # the same text, in case that we are killed here
                _sweep_one(base, text)
        except (LockHeld, OSError, ValueError):
            continue


def _sweep_one(base: Path, text: str) -> None:
    if not text.strip():
        return  # killed before it made anything
    relative = PurePosixPath(_Claim.model_validate_json(text).folder)
    if relative.is_absolute() or ".." in relative.parts:
        return
    _logger.warning("removing what a killed export left in %s", base / relative)
    _files(base, relative).remove()


def _files(base: Path, relative: PurePosixPath) -> Files:
    return Files(base / relative, relative.name, base)
