"""Extents that are asked for ahead come in order and whole, however short and late the answers are."""

from __future__ import annotations

import random
from typing import Any, Callable

import pytest

from ceph_rsnapshot.nbd.extents_ahead import ExtentsAhead


class _Server:
    """Answers any of its questions next, often with less than it was asked, and sometimes with more."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._randomly = random.Random(seed)
        self._questions: list[Callable[[], None]] = []

    def get_size(self) -> int:
        return self.size

    def aio_block_status(self, count: int, offset: int, extents: Any, completion: Any) -> None:
        def answer() -> None:
            entries = []
            for _ in range(self._randomly.randint(1, 3)):
                entries += [self._randomly.randint(1, max(1, count)), self._randomly.choice([0, 1, 3])]
            extents("base:allocation", offset, entries, None)
            completion(None)

        self._questions.append(answer)

    def answer_one(self) -> None:
        self._questions.pop(self._randomly.randrange(len(self._questions)))()


@pytest.mark.parametrize("seed", range(50))
def test_whole_and_in_order(seed: int) -> None:
    server = _Server(size=random.Random(seed).choice([0, 1, 99, 100, 101, 5000]), seed=seed)
    listing, position = ExtentsAhead(server, lambda error, what: 1, step=100), 0
    while not listing.ended:
        for offset, length, _flags in listing.take():
            assert offset == position
            assert length > 0
            position += length
        listing.ask()
        if not listing.ended:
            server.answer_one()
    assert position == server.size


class _Number:
    """As libnbd hands over its error number."""

    value = 0


@pytest.mark.parametrize("entries", [[], [0, 0], [0, 1, 0, 3]])
def test_an_answer_without_extents_is_an_error_and_not_asked_for_again(entries: list[int]) -> None:
    """Or a server that says nothing would be asked for ever."""
    asked, failed = [], _Number()

    class Mute:
        def get_size(self) -> int:
            return 10

        def aio_block_status(self, count: int, offset: int, extents: Any, completion: Any) -> None:
            asked.append(offset)
            assert extents("base:allocation", offset, entries, failed) == -1

    ExtentsAhead(Mute(), lambda error, what: 1).ask()
    assert asked == [0]
    assert failed.value
