"""A backup that is being read: its files are open, so that a rotation may move or delete their names meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.layout import readable_manifest
from ceph_rsnapshot_common.errors import BackupDamaged, BackupGone, Qcow2Refused
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.process.image_file import see_that_it_stands_alone


@dataclass(frozen=True)
class Held:
    """Open files; the qcow2 stands for itself. ``digests`` is None if there are none."""

    backup: Backup
    descriptor: int
    digests: int | None

    @property
    def qcow(self) -> Path:
        """The open file, whatever its name is by now."""
        return Path(f"/proc/self/fd/{self.descriptor}")


@contextmanager
def hold(backup: Backup) -> Iterator[Held]:
    """Open the files of ``backup``, wherever a rotation has moved it since it was listed.

    Raises:
        BackupGone: it has rolled off.
        BackupDamaged: its qcow2 is not there, can't be read, or would lead qemu to something else than itself.
    """
    files = ImageFiles(Path(), backup.image_folder.path.name)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_opened(where(backup), os.O_RDONLY | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            raise BackupGone(what=backup.name) from None
        try:
            qcow = stack.enter_context(_opened(files.qcow, os.O_RDONLY | os.O_NOFOLLOW, folder))
        except OSError as error:
            raise BackupDamaged(what=backup.name, reason=f"qcow2: {error.strerror}") from None
        _see_that_it_stands_alone(backup, qcow)
        try:
            digests = stack.enter_context(_opened(files.digests, os.O_RDONLY | os.O_NOFOLLOW, folder))
        except FileNotFoundError:
            digests = None
        yield Held(backup, qcow, digests)


def _see_that_it_stands_alone(backup: Backup, qcow: int) -> None:
    try:
        see_that_it_stands_alone(qcow, backup.files.qcow, backup.manifest.size if backup.manifest else None)
    except Qcow2Refused as error:
        raise BackupDamaged(what=backup.name, reason=f"header: {error.data['reason']}") from None


def where(backup: Backup) -> Path:
    """The folder that holds this very backup now."""
    if backup.hold:
        return backup.folder
    # one whose manifest can't be read is known by its place only, and by that
    numbers = [backup.number, *(backup.image_folder.numbers() if backup.manifest else ())]
    for number in numbers:
        day = backup.image_folder.day(number)
        if readable_manifest(day) == backup.manifest:
            return day.folder
    raise BackupGone(what=backup.name)


@contextmanager
def _opened(path: Path, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
