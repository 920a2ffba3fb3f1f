"""Rot: what a failing disk does to the files of a backup."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


def flip(path: Path, offset: int, keep_time: bool = True) -> None:
    """One bit of a byte; with ``keep_time`` as a failing disk would do it."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def extents(qcow: Path) -> list[dict[str, Any]]:
    """The extents of a qcow2 that hold data, as qemu-img tells them."""
    argv = ["qemu-img", "map", "-f", "qcow2", "--output=json", str(qcow)]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return [extent for extent in found if extent["data"]]


def data_cluster(qcow: Path) -> int:
    """Offset in the file of a byte of data."""
    return int(extents(qcow)[0]["offset"]) + 77


def damage_data(day: Path) -> None:
    """A bit of data of image ``a``'s backup."""
    flip(day / "a.qcow2", data_cluster(day / "a.qcow2"))


def l2_table(qcow: Path) -> int:
    """Offset of the lowest byte of the first used L2 entry: its cluster is no longer aligned."""
    table, used = _first_entry(qcow)
    return table + used + 6


def compressed_cluster(qcow: Path) -> int:
    """Offset in the file of the first compressed cluster."""
    table, used = _first_entry(qcow)
    with qcow.open("rb") as file:
        file.seek(table + used)
        entry = int.from_bytes(file.read(8), "big")
    assert entry & (1 << 62), "not compressed"
    # with clusters of 64 KiB the low 54 bits are the offset in the file (qemu's docs/interop/qcow2.txt)
    return entry & ((1 << 54) - 1)


def _first_entry(qcow: Path) -> tuple[int, int]:
    """Offset of the first L2 table, and in it that of its first used entry."""
    with qcow.open("rb") as file:
        file.seek(40)
        file.seek(int.from_bytes(file.read(8), "big"))
        table = int.from_bytes(file.read(8), "big") & 0x00FFFFFFFFFFFE00
        file.seek(table)
        entries = file.read(65536)
    used = next(at for at in range(0, 65536, 8) if int.from_bytes(entries[at : at + 8], "big") & 0x00FFFFFFFFFFFE00)
    return table, used
