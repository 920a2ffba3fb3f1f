"""Byte ranges of an image: merged, and bounded in number however fragmented the image is."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""Offset and length in bytes."""

_LIMIT = 65536
_FINEST = 4096


class Ranges:
    """Ascending ranges. With more than ``limit`` of them they become coarser: they cover more, never less.

    Their uses (comparing content, counting) allow that, and no list of all extents of a 10 TiB image is needed.
    """

    def __init__(self, ranges: Iterable[Range] = (), limit: int = _LIMIT, grain: int = 1) -> None:
        """``grain``: each range is widened to multiples of so many bytes."""
        self._limit = limit
        self._grain = grain
        self._starts = array("Q")
        self._ends = array("Q")
        for offset, length in ranges:
            self.add(offset, length)

    def __iter__(self) -> Iterator[Range]:
        return ((start, end - start) for start, end in zip(self._starts, self._ends))

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def bytes(self) -> int:
        """Bytes in all ranges."""
        return sum(self._ends) - sum(self._starts)

    def add(self, offset: int, length: int) -> None:
        """Add a range that does not begin before the last one."""
        start = offset // self._grain * self._grain
        end = -(-(offset + length) // self._grain) * self._grain
        if self._ends and start <= self._ends[-1]:
            self._ends[-1] = max(end, self._ends[-1])
            return
        self._starts.append(start)
        self._ends.append(end)
        if len(self._starts) > self._limit:
            self._coarsen()

    def _coarsen(self) -> None:
        while len(self._starts) > self._limit // 2:
            self._grain = max(_FINEST, self._grain * 2)
            finer = list(self)
            self._starts, self._ends = array("Q"), array("Q")
            for offset, length in finer:
                self.add(offset, length)


def union(*many: Iterable[Range], grain: int = 1) -> Ranges:
    """All ranges of ``many``, widened to multiples of ``grain`` and merged."""
    return Ranges(sorted(each for ranges in many for each in ranges), grain=grain)


def cut(ranges: Iterable[Range], most: int) -> Iterator[Range]:
    """``ranges`` in parts of at most ``most`` bytes."""
    for offset, length in ranges:
        for start in range(offset, offset + length, most):
            yield start, min(most, offset + length - start)


def clipped(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """The parts below ``size`` (a coarse range may go beyond the end of the image)."""
    for offset, length in ranges:
        if offset < size:
            yield offset, min(length, size - offset)
