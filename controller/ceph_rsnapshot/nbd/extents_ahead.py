"""The extents of an NBD export in ascending order, several questions at a time.

Over ssh each answer takes milliseconds, and a 10 TiB image takes thousands of them.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable

from ceph_rsnapshot.nbd.handle import STATUS_BYTES

Extent = tuple[int, int, int]
"""Offset, length, and flags (a sum of HOLE and ZERO)."""

_QUESTIONS = 8


@dataclass
class _Piece:
    """A part of the export: ``found`` goes up to ``at``."""

    at: int
    end: int
    asking: bool = False
    found: list[Extent] = field(default_factory=list)


class ExtentsAhead:
    """Call `take` and `ask` whenever something has come; callbacks of libnbd only take notes.

    Args:
        note: gets libnbd's error number of each answer; returns what libnbd wants of a completion.
        step: bytes that a question is about.
    """

    def __init__(self, source: Any, note: Callable[[Any, str], int], step: int = STATUS_BYTES) -> None:
        self._source = source
        self._note = note
        self._step = step
        self._size = source.get_size()
        self._next = 0
        self._pieces: deque[_Piece] = deque()

    @property
    def ended(self) -> bool:
        """Whether all was taken."""
        return self._next == self._size and not self._pieces

    @property
    def position(self) -> int:
        """All extents below it are known."""
        return self._pieces[0].at if self._pieces else self._next

    def take(self) -> Iterator[Extent]:
        """What has become known since it was called last."""
        while self._pieces:
            head = self._pieces[0]
            found, head.found = head.found, []
            yield from found
            if head.asking or head.at < head.end:
                return
            self._pieces.popleft()

    def ask(self) -> None:
        """Keep so many questions under way; a server may answer less than it was asked."""
        while len(self._pieces) < _QUESTIONS and self._next < self._size:
            end = min(self._next + self._step, self._size)
            self._pieces.append(_Piece(self._next, end))
            self._next = end
        for piece in self._pieces:
            if not piece.asking and piece.at < piece.end:
                piece.asking = True
                found, answered = partial(self._on_extents, piece), partial(self._on_answer, piece)
                self._source.aio_block_status(piece.end - piece.at, piece.at, found, completion=answered)

    def _on_extents(self, piece: _Piece, _context: str, offset: int, entries: list[int], error: Any) -> int:
        if offset + sum(entries[::2]) <= piece.at:  # or it would be asked for ever
            error.value = errno.EPROTO
            return -1
        for length, flags in zip(entries[::2], entries[1::2]):
            if offset < piece.end:
                piece.found.append((offset, min(length, piece.end - offset), flags))
            offset += length
        piece.at = offset
        return 0

    def _on_answer(self, piece: _Piece, error: Any) -> int:
        piece.asking = False
        return self._note(error, "reading extents")
