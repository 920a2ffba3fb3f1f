"""Contents of an NBD export in order, with some reads under way ahead of who takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ceph_rsnapshot.nbd.handle import Connection
from ceph_rsnapshot_common.content.ranges import Range, cut

CHUNK = 1024**2
_IN_FLIGHT = 8


def read_ahead(connection: Connection, ranges: Iterable[Range]) -> Iterator[tuple[int, memoryview]]:
    """Offsets and contents of ``ranges``, cut to at most CHUNK bytes each.

    A content is good only until the next one is asked for: its memory is used again.

    Raises:
        NbdFailed: nothing comes any more.
    """
    handle = connection.handle
    free = [bytearray(CHUNK) for _ in range(_IN_FLIGHT)]
    under_way: deque[tuple[Any, int, int, bytearray]] = deque()
    for offset, length in cut(ranges, CHUNK):
        whole = free.pop()
        under_way.append((handle.aio_pread(memoryview(whole)[:length], offset), offset, length, whole))
        if not free:
            yield _taken(connection, under_way, free)
    while under_way:
        yield _taken(connection, under_way, free)


def _taken(
    connection: Connection, under_way: deque[tuple[Any, int, int, bytearray]], free: list[bytearray]
) -> tuple[int, memoryview]:
    cookie, offset, length, whole = under_way.popleft()
    connection.wait(lambda: bool(connection.handle.aio_command_completed(cookie)))
    free.append(whole)
    return offset, memoryview(whole)[:length]
