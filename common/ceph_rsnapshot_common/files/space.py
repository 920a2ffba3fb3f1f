"""Free space: checked before an export and watched while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ceph_rsnapshot_common.errors import NotEnoughSpace
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
    """Whether the free space fell below the minimum while it was watched."""

    def __init__(self, path: Path, minimum: int, cancelled: threading.Event) -> None:
        self._path = path
        self._minimum = minimum
        self._cancelled = cancelled
        self.stop = threading.Event()
        self.error: NotEnoughSpace | None = None

    def stopping(self, progress: Progress) -> Progress:
        """``progress``, which ends the work by raising NotEnoughSpace."""

        def tick(stage: str, done: int = 0, total: int = 0) -> None:
            if self.error:
                raise self.error
            progress(stage, done, total)

        return tick

    def loop(self) -> None:
        """Look until the space is short, or ``stop`` or ``cancelled`` is set."""
        while not self._cancelled.is_set():
            try:
                check(self._path, 0, self._minimum)
            except NotEnoughSpace as error:
                self.error = error
                self.stop.set()
                return
            if self.stop.wait(_INTERVAL_SECONDS):
                return
        self.stop.set()


@contextmanager
def watched(path: Path, minimum: int, cancelled: threading.Event) -> Iterator[Watch]:
    """Watch ``path``; the block's work should end when ``stop`` of the result is set.

    It is set when ``cancelled`` is, and when less than ``minimum`` bytes are free.
    """
    watch = Watch(path, minimum, cancelled)
    thread = threading.Thread(target=watch.loop, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join()
