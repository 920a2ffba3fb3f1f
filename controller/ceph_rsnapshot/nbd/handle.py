"""libnbd, which the distribution brings: connections with errors of our own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ceph_rsnapshot.requirements import nbd_bindings
from ceph_rsnapshot_common.errors import NbdFailed

HOLE, ZERO = 1, 2
"""NBD_STATE_HOLE and NBD_STATE_ZERO of the context base:allocation."""

STATUS_BYTES = 2 * 1024**3
"""How much to ask block status for at once: the agent's windows are as large, and lengths are 32 bit numbers in NBD."""


@contextmanager
def connect(address: Path, what: str) -> Iterator[Any]:
    """A handle on the NBD server at unix socket ``address``, with block status; disconnected when the block ends.

    Raises:
        NbdFailed: it could not be connected, or anything within the block failed in libnbd; ``what`` is in the message.
    """
    nbd = nbd_bindings()
    with _hung_up_at_the_end() as connection:
        try:
            connection.connect(str(address))
        except OSError as error:
            raise NbdFailed(what=what, reason=f"{address}: {error.strerror}") from None
        try:
            handle = nbd.NBD()
            handle.add_meta_context("base:allocation")
            handle.set_pread_initialize(False)
            handle.connect_socket(os.dup(connection.fileno()))
            yield handle
            handle.shutdown()
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


def data_extents(handle: Any, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of what may hold other bytes than zeros between ``offset`` and ``offset + length``."""
    end = offset + length
    while offset < end:
        for count, flags in _extents(handle, offset, min(end - offset, STATUS_BYTES)):
            if not flags & ZERO and offset < end:
                yield offset, min(count, end - offset)
            offset += count


def _extents(handle: Any, offset: int, length: int) -> list[tuple[int, int]]:
    """Lengths and flags of the first extents of a range."""
    found: list[int] = []
    handle.block_status(length, offset, lambda _context, _offset, entries, _error: found.extend(entries))
    return list(zip(found[::2], found[1::2]))
