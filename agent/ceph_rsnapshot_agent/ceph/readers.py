"""Threads that ask Ceph on behalf of jobs: one row of them for the whole agent, however many jobs there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Callable, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Readers:
    """A context manager; jobs take turns, because each of them asks for only so much in advance."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pool.shutdown()

    @contextmanager
    def results(self, do: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[Iterator[_Result]]:
        """What ``do`` gives for each of ``items``, in their order; when the block ends, none is under way any more.

        The results raise what ``do`` raises.
        """
        asked: deque[Future[_Result]] = deque()
        try:
            yield self._results(do, items, asked)
        finally:
            wait([each for each in asked if not each.cancel()])

    def _results(
        self, do: Callable[[_Item], _Result], items: Iterable[_Item], asked: deque[Future[_Result]]
    ) -> Iterator[_Result]:
        for item in items:
            asked.append(self._pool.submit(do, item))
            if len(asked) >= self._threads:
                yield asked[0].result()
                asked.popleft()
        while asked:
            yield asked[0].result()
            asked.popleft()
