"""What a snapshot holds, or what changed in it since a base snapshot, as Ceph tells it.

Standard library and rbd only: nbdkit's Python plugin imports this file too.
"""

from __future__ import annotations

import threading
from typing import Any, Optional

Change = tuple[int, int, bool]
"""Offset and length in bytes, and whether there is data (else it became zero)."""

MANAGEMENT_OPS = "64"
"""For `rbd_concurrent_management_ops`, which limits list-snaps: 64 is about twice as fast as Ceph's default of 10."""


class Diff:
    """Asks the OSDs (list-snaps), because object maps have been wrong in the field.

    https://tracker.ceph.com/issues/42248, https://tracker.ceph.com/issues/48412,
    https://tracker.ceph.com/issues/50787, https://tracker.ceph.com/issues/54970

    With ``fast`` the object map chooses the objects first, and the OSDs are asked only about those; not if a map that
    counts is marked invalid. Safe to use from several threads.

    Args:
        image: an open `rbd.Image`, at the snapshot.
        base: name of the older snapshot; None means all that is allocated, a parent's data included.
    """

    def __init__(self, image: Any, base: Optional[str] = None, fast: bool = False) -> None:
        self._image = image
        self._base = base
        self._object_size = image.stat()["obj_size"] * image.stripe_count()
        self._fast = fast
        self._chosen: Optional[bytearray] = None
        self._lock = threading.Lock()

    def __call__(self, offset: int, length: int) -> list[Change]:
        """Ascending changes between ``offset`` and ``offset + length``, both at boundaries of stripe periods."""
        changes: list[Change] = []
        for start, end in self._worth_asking(offset, offset + length):
            self._ask(start, end - start, changes, whole_object=False)
        return merged(changes)

    def _ask(self, offset: int, length: int, changes: list[Change], whole_object: bool) -> None:
        def found(start: int, count: int, exists: bool) -> None:
            changes.append((start, count, exists))

        self._image.diff_iterate(offset, length, self._base, found, include_parent=True, whole_object=whole_object)

    def _worth_asking(self, offset: int, end: int) -> list[tuple[int, int]]:
        """The range, or with the object map the runs of chosen stripe periods in it."""
        if not self._fast:
            return [(offset, end)]
        chosen = self._choose()
        period = self._object_size
        runs: list[tuple[int, int]] = []
        for number in range(offset // period, -(-end // period)):
            start = number * period
            if not chosen[number]:
                continue
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], min(start + period, end))
            else:
                runs.append((start, min(start + period, end)))
        return runs

    def _choose(self) -> bytearray:
        """A byte for each stripe period: whether the object map says that there is something.

        One question for the whole image, because librbd reads the whole map for each.
        """
        with self._lock:
            if self._chosen is None:
                size, period = self._image.size(), self._object_size
                chosen = bytearray(-(-size // period))

                def found(start: int, count: int, _exists: bool) -> None:
                    first, last = start // period, (start + count - 1) // period
                    chosen[first : last + 1] = b"\1" * (last + 1 - first)

                self._image.diff_iterate(0, size, self._base, found, include_parent=True, whole_object=True)
                self._chosen = chosen
            return self._chosen


def merged(changes: list[Change]) -> list[Change]:
    """Ascending, neighbours of one kind made one (striped images come in the order of objects).

    What overlaps counts as data: reading it tells the truth in any case.
    """
    result: list[Change] = []
    for offset, length, exists in sorted(change for change in changes if change[1]):
        if result:
            start, before, kind = result[-1]
            end = start + before
            if offset < end or (offset == end and kind == exists):
                result[-1] = (start, max(end, offset + length) - start, kind or exists)
                continue
        result.append((offset, length, exists))
    return result
