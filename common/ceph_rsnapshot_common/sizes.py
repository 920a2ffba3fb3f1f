"""Sizes in bytes: read as people write them, and written as people read them."""

from __future__ import annotations

import os
import re

_UNITS = "KMGTP"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(?:iB)?|B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of ``5368709120``, ``5G``, ``5 GiB``, ``1.5T``; K, M, G, T, P are powers of 1024, as in rbd and qemu-img.

    Raises:
        ValueError: if it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size: use bytes, or a number with K, M, G or T (5G, 500M)")
    number, unit = match.groups()
    return int(float(number) * 1024 ** (_UNITS.index(unit.upper()) + 1)) if unit else int(float(number))


def format_size(size: float) -> str:
    """``size`` bytes with a binary unit and three digits: ``1.50 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    if unit == "B":
        return f"{int(size)} B"
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{size:.{digits}f} {unit}"


def disk_bytes(status: os.stat_result) -> int:
    """What a file takes of the disk, shared extents included (https://man7.org/linux/man-pages/man2/stat.2.html)."""
    return status.st_blocks * 512
