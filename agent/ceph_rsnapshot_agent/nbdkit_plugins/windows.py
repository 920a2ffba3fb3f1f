"""Extents of an image, asked for window by window: copying starts at once, and no image costs a list of them all.

Standard library only: nbdkit's Python plugin imports this file too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable

Change = tuple[int, int, bool]
"""Offset and length in bytes, and whether there is data (else it became zero)."""

Typed = tuple[int, int, int]
"""Offset, length and NBD type (a sum of HOLE and ZERO, 0 for data)."""

WINDOW = 2 * 1024**3
"""Bytes, about; what the cluster is asked about at once."""

_AHEAD = 3
EXTENTS_KEPT = 500_000


def window_size(object_size: int, stripe_count: int, wanted: int = WINDOW) -> int:
    """Bytes of a window: a multiple of the stripe period, because ranges of diff_iterate must be object-aligned."""
    period = object_size * stripe_count
    return max(1, wanted // period) * period


def typed(changes: Iterable[Change], offset: int, end: int, zero: int, gap: int) -> list[Typed]:
    """What lies between ``offset`` and ``end``: ascending, contiguous and clipped, as NBD demands.

    nbdkit itself was once ended by extents that did not fit: https://nvd.nist.gov/vuln/detail/CVE-2025-47711

    Args:
        changes: ascending, without overlap; data gets type 0, what became zero ``zero``, what lies between ``gap``.
    """
    result: list[Typed] = []
    position = offset
    for start, length, exists in changes:
        first, last = max(start, position), min(start + length, end)
        if first >= last:
            continue
        if first > position:
            result.append((position, first - position, gap))
        result.append((first, last - first, 0 if exists else zero))
        position = last
    if position < end:
        result.append((position, end - position, gap))
    return result


class Windows:
    """Changes by window, some asked for ahead; safe to use from many threads.

    What was asked is kept, so that a reader who goes through the image twice (qemu-img convert) costs Ceph one listing,
    but not more than ``kept`` extents: memory does not grow with the image.

    Args:
        size: bytes of the image.
        window: bytes of a window, see `window_size`.
        ask: asks the cluster for the changes in a range (offset, length).
        ahead: how many windows are asked for before they are needed.
        kept: how many extents.
    """

    def __init__(
        self,
        size: int,
        window: int,
        ask: Callable[[int, int], list[Change]],
        ahead: int = _AHEAD,
        kept: int = EXTENTS_KEPT,
    ) -> None:
        self._size = size
        self._window = window
        self._ask = ask
        self._ahead = ahead
        self._kept = kept
        self._known: dict[int, Future[list[Change]]] = {}
        self._counts: OrderedDict[int, int] = OrderedDict()  # extents of the known windows that were used, oldest first
        self._total = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=1 + ahead)

    def between(self, offset: int, count: int, zero: int, gap: int) -> list[Typed]:
        """Typed extents from ``offset`` to the end of the request or of its first window, whichever comes first."""
        index = offset // self._window
        end = min(offset + count, (index + 1) * self._window, self._size)
        return typed(self._changes(index), offset, end, zero, gap)

    def close(self) -> None:
        """Ask for nothing more."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _changes(self, index: int) -> list[Change]:
        with self._lock:
            wanted = self._asked(index)
            for ahead in range(index + 1, index + 1 + self._ahead):
                if ahead * self._window < self._size:
                    self._asked(ahead)
        changes = wanted.result()
        self._count(index, len(changes))
        return changes

    def _asked(self, index: int) -> Future[list[Change]]:
        failed = index in self._known and self._known[index].done() and self._known[index].exception()
        if index not in self._known or failed:
            start = index * self._window
            self._known[index] = self._threads.submit(self._ask, start, min(self._window, self._size - start))
        return self._known[index]

    def _count(self, index: int, extents: int) -> None:
        """Forget the windows that were not used for longest, if too many extents are kept."""
        with self._lock:
            if index not in self._known:
                return  # another thread has just forgotten it
            self._total += extents - self._counts.pop(index, 0)
            self._counts[index] = extents
            while self._total > self._kept and len(self._counts) > 1:
                oldest, count = self._counts.popitem(last=False)
                del self._known[oldest]
                self._total -= count
