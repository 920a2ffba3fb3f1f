"""Copy what an NBD export holds, or what changed in it, into a local qcow2: reads and writes overlap, one pass.

`qemu-img convert` walks the extents of the whole image before it copies the first byte; here the extents are asked for
while the data flows, so that an image of any size starts at once, and what was copied is known exactly.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ceph_rsnapshot.nbd.extents_ahead import ExtentsAhead
from ceph_rsnapshot.nbd.handle import HOLE, TICK_MILLISECONDS, ZERO, Connection, connect
from ceph_rsnapshot.requirements import nbd_bindings
from ceph_rsnapshot_common.content.ranges import Ranges
from ceph_rsnapshot_common.errors import NbdFailed
from ceph_rsnapshot_common.process.interrupts import deferred
from ceph_rsnapshot_common.process.patience import Patience
from ceph_rsnapshot_common.progress import Progress

_CHUNK = 1024**2
_IN_FLIGHT = 16
_ZERO_CHUNK = 1024**3
_ENOUGH_QUEUED = 1024
_MOMENT_SECONDS = 0.1


@dataclass
class Copied:
    """What was written, in bytes: ``data`` crossed the wire, ``ranges`` are all that was written, zeros included."""

    data: int = 0
    zeroed: int = 0
    ranges: Ranges = field(default_factory=Ranges)


def copy(source: Path, target: Path, size: int, onto_zeros: bool, progress: Progress, idle: float) -> Copied:
    """Copy the ``size`` bytes of the NBD server on unix socket ``source`` to that on ``target``.

    Extents of type HOLE alone are unchanged and left alone; HOLE|ZERO became zero.

    Args:
        progress: gets the position in the image and its size in bytes at least once a second, also when nothing moves.
        onto_zeros: the target reads as zeros everywhere, so zeros need not be written.
        idle: seconds in which something must move.

    Raises:
        NbdFailed: a read or write failed, a connection broke, nothing moves, or the source has another size.
    """
    with connect(source, "source", idle) as from_, connect(target, "target", idle) as to:
        if from_.size != size:
            raise NbdFailed(what="source", reason=f"it has {from_.size} bytes instead of {size}", side="source")
        copier = _Copier(from_, to, onto_zeros, progress)
        try:
            copier.run()
        except nbd_bindings().Error as error:
            side = "source" if from_.handle.aio_is_dead() or from_.handle.aio_is_closed() else "target"
            raise NbdFailed(what=side, reason=error.string, side=side) from None
        return copier.copied


class _Copier:
    """The state of one copy. Callbacks of libnbd only take notes; `_fill` issues what comes next."""

    def __init__(self, source: Connection, target: Connection, onto_zeros: bool, progress: Progress) -> None:
        self._source, self._target = source.handle, target.handle
        self._onto_zeros, self._progress = onto_zeros, progress
        self._size = source.size
        self._patience, self._idle = Patience("copying", source.idle), source.idle
        self._listing = ExtentsAhead(source.handle, partial(self._note, side="source"))
        self._extents: deque[tuple[int, int, bool]] = deque()
        self._read: deque[tuple[bytearray, int, int]] = deque()
        self._free: list[bytearray] = []
        self._in_flight = 0
        self._reading = 0
        self._error: NbdFailed | None = None
        self.copied = Copied()

    def run(self) -> None:
        while not self._done():
            self._go_on_for_a_moment()
            if self._error:
                raise self._error
            if self._patience.ended:
                raise self._stalled()
            self._progress("copying", self._extents[0][0] if self._extents else self._listing.position, self._size)

    def _go_on_for_a_moment(self) -> None:
        """libnbd drops an exception that comes up in a callback, so that an interrupt would be lost: it waits."""
        until = time.monotonic() + _MOMENT_SECONDS
        with deferred() as caught:
            while not (self._done() or self._error or caught) and time.monotonic() < until:
                self._fill()
                if not self._done():
                    self._wait()

    def _done(self) -> bool:
        return self._listing.ended and not (self._extents or self._read or self._in_flight)

    def _fill(self) -> None:
        """Issue writes of what was read, questions for extents, and reads, as far as there is room."""
        while self._read:
            whole, count, offset = self._read.popleft()
            self._target.aio_pwrite(memoryview(whole)[:count], offset, completion=partial(self._on_written, whole))
        if len(self._extents) < _ENOUGH_QUEUED:
            self._queue()
            self._listing.ask()
        while self._extents and self._in_flight < _IN_FLIGHT:
            self._copy_next()

    def _queue(self) -> None:
        for offset, length, flags in self._listing.take():
            if flags != HOLE and not (self._onto_zeros and flags & ZERO):
                self._extents.append((offset, length, bool(flags & ZERO)))
                self.copied.ranges.add(offset, length)

    def _copy_next(self) -> None:
        offset, length, zero = self._extents.popleft()
        # to the next multiple of a chunk, so that requests fall together with clusters and objects
        count = min(length, _ZERO_CHUNK if zero else _CHUNK - offset % _CHUNK)
        if length > count:
            self._extents.appendleft((offset + count, length - count, zero))
        self._in_flight += 1
        if zero:
            self.copied.zeroed += count
            self._target.aio_zero(count, offset, completion=partial(self._on_written, None))
        else:
            self.copied.data += count
            self._reading += 1
            # bytearrays that are used again: nbd.Buffer of libnbd 1.14 is never freed
            whole = self._free.pop() if self._free else bytearray(_CHUNK)
            on_read = partial(self._on_read, whole, count, offset)
            self._source.aio_pread(memoryview(whole)[:count], offset, completion=on_read)

    def _on_read(self, whole: bytearray, count: int, offset: int, error: Any) -> int:
        self._reading -= 1
        self._read.append((whole, count, offset))
        return self._note(error, "reading", "source")

    def _on_written(self, whole: bytearray | None, error: Any) -> int:
        self._in_flight -= 1
        if whole is not None:
            self._free.append(whole)
        return self._note(error, "writing", "target")

    def _note(self, error: Any, what: str, side: str) -> int:
        """Remember the first failure; 1 tells libnbd that the command is done with."""
        self._patience.moved()
        if error.value and not self._error:
            self._error = NbdFailed(what=what, reason=os.strerror(error.value), side=side, errno=error.value)
        return 1

    def _stalled(self) -> NbdFailed:
        """The side that owes us something: what was read and is not written is with the target."""
        side = "source" if self._reading or not self._in_flight else "target"
        return NbdFailed(what=side, reason=f"nothing moved for {self._idle:g} s (IDLE_TIMEOUT)", side=side)

    def _wait(self) -> None:
        poller = select.poll()
        handles = {handle.aio_get_fd(): handle for handle in (self._source, self._target)}
        for descriptor, handle in handles.items():
            poller.register(descriptor, _events(handle))
        for descriptor, happened in poller.poll(TICK_MILLISECONDS):
            _notify(handles[descriptor], happened)


def _events(handle: Any) -> int:
    nbd, direction = nbd_bindings(), handle.aio_get_direction()
    events = select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0
    return events | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0)


def _notify(handle: Any, happened: int) -> None:
    wants = _events(handle)
    if wants & select.POLLIN and happened & (select.POLLIN | select.POLLHUP | select.POLLERR):
        handle.aio_notify_read()
    elif wants & select.POLLOUT and happened & (select.POLLOUT | select.POLLERR):
        handle.aio_notify_write()
