"""The threads that all jobs share: results in order, turns for everybody, and nothing under way when a block ends."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from ceph_rsnapshot_agent.ceph.readers import Readers


def test_results_come_in_order() -> None:
    with Readers(3) as readers, readers.results(lambda number: number * 2, range(100)) as results:
        assert list(results) == [number * 2 for number in range(100)]


def test_an_endless_job_leaves_others_their_turns() -> None:
    with Readers(2) as readers, readers.results(lambda number: number, count()) as endless:
        assert next(endless) == 0
        with readers.results(str, range(10)) as others:
            assert list(others) == [str(number) for number in range(10)]
        assert next(endless) == 1


def test_nothing_is_under_way_when_the_block_ends() -> None:
    """What the work uses (an open image) is closed then."""
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number == 0:
            entered.wait(20)
            raise ValueError("first")
        entered.set()
        go_on.wait(20)
        done.set()

    def let_go_soon() -> None:
        entered.wait(20)
        go_on.wait(0.05)
        go_on.set()

    let_go = threading.Thread(target=let_go_soon)
    with Readers(2) as readers:
        with pytest.raises(ValueError, match="first"), readers.results(work, range(2)) as results:
            let_go.start()
            next(results)
        assert done.is_set()
