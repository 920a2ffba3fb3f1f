"""Extents of an image, asked for window by window: copying starts at once, and no image costs a list of them all.

Standard library only: nbdkit's Python plugin imports this file too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Callable

Extent = tuple[int, int]
"""Offset and length in bytes of an allocated piece."""

Typed = tuple[int, int, int]
"""Offset, length and NBD type (a sum of HOLE and ZERO, 0 for data)."""

_WINDOW = 1024**3
_CACHED = 32


def window_size(object_size: int, stripe_count: int, wanted: int = _WINDOW) -> int:
    """Bytes of a window: a multiple of the stripe period, because ranges of diff_iterate must be object-aligned."""
    period = object_size * stripe_count
    return max(1, wanted // period) * period


def merged(extents: Iterable[Extent]) -> list[Extent]:
    """Ascending extents without overlap; neighbours become one (striped images come in the order of objects)."""
    result: list[Extent] = []
    for offset, length in sorted(extents):
        end = offset + length
        if result and offset <= result[-1][0] + result[-1][1]:
            start, before = result[-1]
            result[-1] = (start, max(start + before, end) - start)
        elif length:
            result.append((offset, length))
    return result


def typed(extents: Iterable[Extent], offset: int, end: int, data: int, gap: int) -> list[Typed]:
    """What lies between ``offset`` and ``end``: ascending, contiguous and clipped, as NBD demands (CVE-2025-47711)."""
    result: list[Typed] = []
    position = offset
    for start, length in extents:
        first, last = max(start, offset), min(start + length, end)
        if first >= last:
            continue
        if first > position:
            result.append((position, first - position, gap))
        result.append((first, last - first, data))
        position = last
    if position < end:
        result.append((position, end - position, gap))
    return result


class Windows:
    """Extents by window, the latest few cached; safe to use from many threads.

    Args:
        size: bytes of the image.
        window: bytes of a window, see `window_size`.
        allocated: asks the cluster for the allocated extents of a range (offset, length).
    """

    def __init__(self, size: int, window: int, allocated: Callable[[int, int], Iterable[Extent]]) -> None:
        self._size = size
        self._window = window
        self._allocated = allocated
        self._cache: OrderedDict[int, list[Extent]] = OrderedDict()
        self._lock = threading.Lock()

    def between(self, offset: int, count: int, data: int, gap: int) -> list[Typed]:
        """Typed extents from ``offset`` to the end of the request or of its first window, whichever comes first."""
        index = offset // self._window
        end = min(offset + count, (index + 1) * self._window, self._size)
        return typed(self._extents(index), offset, end, data, gap)

    def _extents(self, index: int) -> list[Extent]:
        with self._lock:
            if index not in self._cache:
                start = index * self._window
                length = min(self._window, self._size - start)
                self._cache[index] = merged(self._allocated(start, length))
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(index)
            return self._cache[index]
