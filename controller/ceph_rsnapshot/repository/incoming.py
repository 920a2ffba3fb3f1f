"""The folder beside the backups in which a day is made ready before rsnapshot takes it."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common.files import folders, space
from ceph_rsnapshot_common.names import Pool, image_folder
from ceph_rsnapshot_common.process import commands

_FOLDER = ".incoming"
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FS_XFLAG_COWEXTSIZE = 0x00010000
_COW_BYTES = 65536


@dataclass(frozen=True)
class Incoming:
    """The files of one image; rsnapshot gets all that is in ``ready``."""

    folder: Path

    @property
    def ready(self) -> Path:
        return self.folder / "ready"

    @property
    def qcow(self) -> Path:
        return self.ready / f"{self.folder.name}.qcow2"

    @property
    def manifest(self) -> Path:
        return self.ready / f"{self.folder.name}.json"

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.folder.name}.qcow2.partial"

    @property
    def digests(self) -> Path:
        return self.folder / f"{self.folder.name}.digests"


@contextmanager
def incoming(base: Path, pool: Pool, image: str) -> Iterator[Incoming]:
    """A new, empty folder ``<base>/.incoming/<pool>/<image>``, removed at the end; for the holder of the lock."""
    top = base / _FOLDER
    folder = top / image_folder(pool, image)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    files = Incoming(folder)
    files.ready.mkdir(mode=0o700)
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


def _unshare_little(path: Path) -> None:
    """Let a write into a clone on XFS take one cluster of disk, and not the default of 128 KiB (xfs(5), cowextsize)."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        attributes = bytearray(28)  # struct fsxattr of linux/fs.h
        fcntl.ioctl(file, _FS_IOC_FSGETXATTR, attributes)
        flags, size, extents, project, _ = struct.unpack_from("5I", attributes)
        struct.pack_into("5I", attributes, 0, flags | _FS_XFLAG_COWEXTSIZE, size, extents, project, _COW_BYTES)
        fcntl.ioctl(file, _FS_IOC_FSSETXATTR, bytes(attributes))


def _no_progress(_done: int, _total: int) -> None:
    pass


def clone(source: Path, target: Path, minimum: int, progress: Callable[[int, int], None] = _no_progress) -> None:
    """Copy a file: in no time and space where the file system has reflinks, else as a sparse file.

    Args:
        minimum: bytes that must stay free.
        progress: gets the bytes copied and those to copy, several times a second.

    Raises:
        NotEnoughSpace: a real copy would leave less.
        CommandFailed: cp failed.
    """
    cp = commands.find_tool("cp", "backup")
    done = commands.run([cp, "--reflink=always", "--", str(source), str(target)], accepted=(0, 1))
    _unshare_little(target)
    if done.code:
        total = disk_bytes(source)
        space.check(target.parent, total, minimum)
        argv = commands.dying_with_parent([cp, "--sparse=auto", "--", str(source), str(target)], "backup")
        commands.run(argv, waiting=lambda: progress(disk_bytes(target), total))


def disk_bytes(path: Path) -> int:
    """What a file takes of the disk; 0 if it is not there (yet)."""
    return path.stat().st_blocks * 512 if path.exists() else 0
