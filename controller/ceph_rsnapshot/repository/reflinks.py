"""How much disk a file holds for itself alone: what would be free if it went."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FS_IOC_FIEMAP = 0xC020660B  # linux/fiemap.h
_HEAD = struct.Struct("=QQIIII")
_EXTENT_BYTES = 56
_EXTENTS = 256
_LAST, _SHARED = 0x1, 0x2000
_WITH_REFLINKS = frozenset(("xfs", "btrfs", "bcachefs"))


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
        return status.st_blocks * 512
    try:
        with path.open("rb") as file:
            return _unshared(file.fileno())
    except OSError:
        return status.st_blocks * 512


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
