"""libnbd, which the distribution brings: connections with errors of our own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from ceph_rsnapshot.requirements import nbd_bindings
from ceph_rsnapshot_common.errors import NbdFailed
from ceph_rsnapshot_common.process.interrupts import deferred
from ceph_rsnapshot_common.process.patience import Patience

HOLE, ZERO = 1, 2
"""NBD_STATE_HOLE and NBD_STATE_ZERO of the context base:allocation."""

STATUS_BYTES = 2 * 1024**3
"""How much to ask block status for at once: the agent's windows are as large, and lengths are 32 bit numbers in NBD."""

TICK_MILLISECONDS = 1000
"""How long libnbd or poll may wait at once: a signal is seen after that, at the latest."""


@dataclass(frozen=True)
class Connection:
    """An NBD server to read from or write to, which must not keep us waiting.

    Attributes:
        handle: libnbd's. Only its ``aio_`` calls are for use, since the others wait without end, and not even a signal
            ends that; `wait` does the waiting.
        what: it is connected for, in messages.
        idle: seconds in which something must come.
    """

    handle: Any
    what: str
    idle: float

    @property
    def size(self) -> int:
        """Bytes of the export."""
        return int(self.handle.get_size())

    def wait(self, done: Callable[[], bool]) -> None:
        """Until ``done``. Raises: NbdFailed, if that is not so within the time; what libnbd raises."""
        patience = Patience(self.what, self.idle)
        while not done():
            with deferred():  # libnbd drops an exception that comes up in a callback: an interrupt would be lost
                self.handle.poll(min(TICK_MILLISECONDS, max(1, int(self.idle * 1000))))
            if patience.ended and not done():
                raise self.stalled()

    def stalled(self) -> NbdFailed:
        """The error when nothing comes any more."""
        return NbdFailed(what=self.what, reason=f"nothing came for {self.idle:g} s (IDLE_TIMEOUT)")


@contextmanager
def connect(address: Path, what: str, idle: float) -> Iterator[Connection]:
    """A connection to the NBD server at unix socket ``address``, with block status; it ends with the block.

    Raises:
        NbdFailed: it could not be connected, or anything within the block failed in libnbd; ``what`` is in the message.
    """
    nbd = nbd_bindings()
    with _hung_up_at_the_end() as connection:
        connection.settimeout(idle)
        try:
            connection.connect(str(address))
        except OSError as error:
            raise NbdFailed(what=what, reason=f"{address}: {error.strerror or error}") from None
        try:
            handle = nbd.NBD()
            handle.add_meta_context("base:allocation")
            handle.set_pread_initialize(False)
            opened = Connection(handle, what, idle)
            handle.aio_connect_socket(os.dup(connection.fileno()))
            opened.wait(handle.aio_is_ready)
            yield opened
            handle.aio_disconnect(0)
            opened.wait(lambda: bool(handle.aio_is_closed() or handle.aio_is_dead()))
        except nbd.Error as error:
            raise NbdFailed(what=what, reason=error.string) from None


@contextmanager
def _hung_up_at_the_end() -> Iterator[socket.socket]:
    """A unix socket that is shut down with the block: libnbd closes a handle only when nobody remembers it any more.

    An exception that is being handled remembers it, and a server that waits for us to read can't end meanwhile.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            yield connection
        finally:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def data_extents(connection: Connection, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of what may hold other bytes than zeros between ``offset`` and ``offset + length``."""
    end = offset + length
    while offset < end:
        before = offset
        for count, flags in _extents(connection, offset, min(end - offset, STATUS_BYTES)):
            if not flags & ZERO and offset < end:
                yield offset, min(count, end - offset)
            offset += count
        if offset == before:
            raise NbdFailed(what=connection.what, reason=f"no extents are told at {offset}")


def _extents(connection: Connection, offset: int, length: int) -> list[tuple[int, int]]:
    """Lengths and flags of the first extents of a range."""
    found: list[int] = []
    handle = connection.handle

    def take(_context: str, _offset: int, entries: list[int], _error: Any) -> int:
        found.extend(entries)
        return 0

    cookie = handle.aio_block_status(length, offset, take)
    connection.wait(lambda: bool(handle.aio_command_completed(cookie)))
    return list(zip(found[::2], found[1::2]))
