"""The folder beside the backups in which a day is made ready before rsnapshot takes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.names import Pool, image_folder

_FOLDER = ".incoming"


@dataclass(frozen=True)
class Incoming:
    """The files of one image: those being made in ``making``; rsnapshot gets all that is in ``ready``."""

    making: ImageFiles

    @property
    def ready(self) -> ImageFiles:
        """Qcow2 and manifest, complete."""
        return ImageFiles(self.making.folder / "ready", self.making.stem)


@contextmanager
def incoming(base: Path, pool: Pool, image: str) -> Iterator[Incoming]:
    """A new, empty folder ``<base>/.incoming/<pool>/<image>``, removed at the end; for the holder of the lock."""
    folder = base / _FOLDER / image_folder(pool, image)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    files = Incoming(ImageFiles(folder, folder.name))
    files.ready.folder.mkdir(mode=0o700)
    try:
        yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folders.remove_empty(folder.parent, base)


def sweep(base: Path) -> None:
    """Remove what a killed run left. The lock of ``base`` must be held."""
    top = base / _FOLDER
    for pool in top.iterdir() if top.is_dir() else ():  # the folder itself may be a link to another disk
        shutil.rmtree(pool, ignore_errors=True)
    folders.remove_empty(top, base)
