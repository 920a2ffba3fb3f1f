"""Disk that files take and share: clones by reflink, and what would be free if a file went."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import tempfile
from pathlib import Path

from ceph_rsnapshot_common import sizes
from ceph_rsnapshot_common.files import space
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands
from ceph_rsnapshot_common.progress import Progress, unwatched

_FICLONE = 0x40049409  # linux/fs.h
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FS_XFLAG_COWEXTSIZE = 0x00010000
_COW_BYTES = 65536
_FS_IOC_FIEMAP = 0xC020660B  # linux/fiemap.h
_HEAD = struct.Struct("=QQIIII")
_EXTENT_BYTES = 56
_EXTENTS = 256
_LAST, _SHARED = 0x1, 0x2000
_WITH_REFLINKS = frozenset(("xfs", "btrfs", "bcachefs"))


def clone(source: Path, target: Path, minimum: int, progress: Progress = unwatched) -> None:
    """Copy a file: in no time and space where the file system has reflinks, else as a sparse file. Its mode is 0600.

    Args:
        minimum: bytes that must stay free.
        progress: gets the bytes copied and those to copy, several times a second, if there are none.

    Raises:
        NotEnoughSpace: a real copy would leave less.
        CommandFailed: cp failed.
    """
    cp = commands.find_tool("cp", Node.BACKUP)
    done = commands.run([cp, "--reflink=always", "--", str(source), str(target)], accepted=(0, 1))
    _unshare_little(target)
    if done.code:
        total = disk_bytes(source)
        space.check(target.parent, total, minimum)
        argv = commands.dying_with_parent([cp, "--sparse=auto", "--", str(source), str(target)], Node.BACKUP)
        commands.run(argv, waiting=lambda: progress("cloning", disk_bytes(target), total))
    target.chmod(0o600)


def disk_bytes(path: Path) -> int:
    """What a file takes of the disk; 0 if it is not there (yet)."""
    return sizes.disk_bytes(path.stat()) if path.exists() else 0


def link(source: Path, target: Path, minimum: int) -> None:
    """Hard-link, or across file systems clone with the same time, by which rsync sees that it is the same file."""
    try:
        os.link(source, target)
    except OSError:
        clone(source, target, minimum)
        status = source.stat()
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def share(source: Path, target: Path) -> None:
    """A copy of a file that costs nothing: with its own inode where the file system has reflinks, else a hard link.

    Raises:
        OSError: neither is possible.
    """
    status = source.stat()
    try:
        with source.open("rb") as original, target.open("xb") as copy:
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        os.link(source, target)
        return
    target.chmod(0o600)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _unshare_little(path: Path) -> None:
    """Let a write into a clone on XFS take one cluster of disk, and not the default of 128 KiB (xfs(5), cowextsize)."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        attributes = bytearray(28)  # struct fsxattr of linux/fs.h
        fcntl.ioctl(file, _FS_IOC_FSGETXATTR, attributes)
        flags, size, extents, project, _ = struct.unpack_from("5I", attributes)
        struct.pack_into("5I", attributes, 0, flags | _FS_XFLAG_COWEXTSIZE, size, extents, project, _COW_BYTES)
        fcntl.ioctl(file, _FS_IOC_FSSETXATTR, bytes(attributes))


def possible(folder: Path) -> bool:
    """Whether files in ``folder`` can share data; tried with two files that have no name."""
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
            source.write(b"x")
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def shares_extents(path: Path) -> bool:
    """Whether files of the file system that ``path`` is on may share their data (reflinks)."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        kind = right.split(" ")[0]
        # a subvolume of btrfs has a device number that is not in the list
        if (left.split(" ")[2] == wanted or kind == "btrfs") and kind in _WITH_REFLINKS:
            return True
    return False


def alone(path: Path, status: os.stat_result, shares: bool) -> int:
    """Bytes that only this name of the file holds: none of a file with several hard links, no shared extents."""
    if status.st_nlink > 1:
        return 0
    if not shares:
        return sizes.disk_bytes(status)
    try:
        with path.open("rb") as file:
            return _unshared(file.fileno())
    except OSError:
        return sizes.disk_bytes(status)


def _unshared(descriptor: int) -> int:
    total = start = 0
    while True:
        buffer = bytearray(_HEAD.size + _EXTENTS * _EXTENT_BYTES)
        _HEAD.pack_into(buffer, 0, start, (1 << 63) - start, 0, 0, _EXTENTS, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        for logical, _physical, length, flags in _extents(buffer, count):
            total += 0 if flags & _SHARED else length
            start = logical + length
            if flags & _LAST:
                return total
        if not count:
            return total


def _extents(buffer: bytearray, count: int) -> list[tuple[int, int, int, int]]:
    records = memoryview(buffer)[_HEAD.size : _HEAD.size + count * _EXTENT_BYTES]
    return list(struct.iter_unpack("=QQQ16xI12x", records))
