"""Free space: checked before an export and watched while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common.errors import CephRsnapshotError, NotEnoughSpace
from ceph_rsnapshot_common.progress import Progress

_INTERVAL_SECONDS = 0.25


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def check(path: Path, need: int, minimum: int) -> None:
    """See that ``need`` bytes fit and ``minimum`` bytes stay free.

    Raises:
        NotEnoughSpace: they don't.
    """
    free = free_bytes(path)
    if need > free - minimum:
        raise NotEnoughSpace(path=path, need=need, free=free, minimum=minimum)


class Watch:
    """Whether the free space fell below the minimum while it was watched, or what else was looked at went wrong."""

    def __init__(self, look: Callable[[], None], cancelled: threading.Event) -> None:
        self._look = look
        self._cancelled = cancelled
        self.stop = threading.Event()
        self.error: CephRsnapshotError | None = None

    def stopping(self, progress: Progress) -> Progress:
        """``progress``, which ends the work by raising the error."""

        def tick(stage: str, done: int = 0, total: int = 0) -> None:
            if self.error:
                raise self.error
            progress(stage, done, total)

        return tick

    def loop(self) -> None:
        """Look until that raises an error, or ``stop`` or ``cancelled`` is set."""
        while not self._cancelled.is_set():
            try:
                self._look()
            except CephRsnapshotError as error:
                self.error = error
                self.stop.set()
                return
            if self.stop.wait(_INTERVAL_SECONDS):
                return
        self.stop.set()


@contextmanager
def watched(
    path: Path, minimum: int, cancelled: threading.Event, also: Callable[[], None] = lambda: None
) -> Iterator[Watch]:
    """Watch ``path``; the block's work should end when ``stop`` of the result is set.

    It is set when ``cancelled`` is, when less than ``minimum`` bytes are free, and when ``also``, which is called
    several times a second, raises a `CephRsnapshotError`.
    """

    def look() -> None:
        check(path, 0, minimum)
        also()

    watch = Watch(look, cancelled)
    thread = threading.Thread(target=watch.loop, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join()
