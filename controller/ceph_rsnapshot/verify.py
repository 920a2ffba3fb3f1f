"""A backup is compared with the snapshot that it is of: both ends read and hash, and only digests cross the network."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Callable

from ceph_rsnapshot import qemu_nbd
from ceph_rsnapshot.base import Plan
from ceph_rsnapshot.nbd_client import connect, data_extents
from ceph_rsnapshot.work import Work
from ceph_rsnapshot_common.digest import digest
from ceph_rsnapshot_common.errors import ContentDiffers
from ceph_rsnapshot_common.ranges import Range, Ranges, clipped, gaps, union
from ceph_rsnapshot_common.records import DigestRequest

_SAMPLE_PIECE = 64 * 1024
_GROUP_BYTES = 4 * 1024**2
_GROUP_RANGES = 256
_BATCH_GROUPS = 64
_PIECE = 1024**2
_ZEROS = bytes(_PIECE)

Group = tuple[Range, ...]
Asked = tuple[tuple[Group, ...], Callable[[], tuple[str, ...]]]


def verify(work: Work, plan: Plan, path: Path, written: Iterable[Range]) -> str:
    """Compare ``path`` with the snapshot as VERIFY says; returns what was compared: ``none``, ``changed`` or ``full``.

    Args:
        written: what was written into the file.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
    """
    how = _how(work, plan)
    if how == "none":
        return how
    size = work.snapshot.size
    if how == "full":
        wanted = Ranges(work.context.agent.client().extents(work.request, work.show_status).allocated)
    else:
        wanted = union(written, sample(size, work.settings.verify_sample))
    asked = _ask(work, clipped(wanted, size))
    with qemu_nbd.serve(path, work.context.folder) as address, connect(address, "verifying") as handle:
        _compare(work, handle, asked, wanted.bytes)
        if how == "full":
            _expect_zeros(work, handle, gaps(wanted, size))
    return how


def _how(work: Work, plan: Plan) -> str:
    wanted = work.settings.verify
    return "full" if wanted == "changed" and plan.full_check_in == 0 else wanted


def sample(size: int, amount: int) -> Iterator[Range]:
    """Random pieces of ``amount`` bytes in all, one in each of equal parts of the image; all of a small image."""
    count = amount // _SAMPLE_PIECE
    if size <= amount:
        yield from [(0, size)] if size else []
        return
    part = size // count if count else 0
    for number in range(count):
        yield number * part + random.randrange(part - _SAMPLE_PIECE + 1), _SAMPLE_PIECE  # noqa: S311


def _ask(work: Work, ranges: Iterable[Range]) -> Iterator[Asked]:
    """Batches with the agent's digests to come; it begins now, and is always a batch ahead: both ends work at once."""
    client = work.context.agent.client()
    asked = ((batch, client.digests(DigestRequest(snapshot=work.request, groups=batch))) for batch in batches(ranges))
    ahead = deque(islice(asked, 1))

    def one_by_one() -> Iterator[Asked]:
        for each in asked:
            ahead.append(each)
            yield ahead.popleft()
        yield from ahead

    return one_by_one()


def _compare(work: Work, handle: Any, asked: Iterable[Asked], total: int) -> None:
    buffer, done = memoryview(bytearray(_GROUP_BYTES)), 0
    for groups, theirs in asked:
        work.show("verifying", done, total)
        ours = [digest([_read(handle, buffer, group)]) for group in groups]
        for group, their, our in zip(groups, theirs(), ours):
            if their != our:
                _differs(work, group[0][0], sum(group[-1]) - group[0][0])
        done += sum(length for group in groups for _, length in group)


def _read(handle: Any, buffer: memoryview, group: Group) -> memoryview:
    """The bytes of a group, one range after the other; all reads are under way at once."""
    cookies, at = [], 0
    for start, count in chain.from_iterable(_cut(*each) for each in group):
        cookies.append(handle.aio_pread(buffer[at : at + count], start))
        at += count
    for cookie in cookies:
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
    return buffer[:at]


def batches(ranges: Iterable[Range]) -> Iterator[tuple[Group, ...]]:
    """Groups of ranges to be hashed together, in batches of about 256 MiB for one request to the agent."""
    batch: list[Group] = []
    for group in _groups(ranges):
        batch.append(group)
        if len(batch) == _BATCH_GROUPS:
            yield tuple(batch)
            batch = []
    if batch:
        yield tuple(batch)


def _groups(ranges: Iterable[Range]) -> Iterator[Group]:
    group: list[Range] = []
    left = _GROUP_BYTES
    for offset, length in ranges:
        for start, count in _cut(offset, length, _GROUP_BYTES):
            if count > left or len(group) == _GROUP_RANGES:
                yield tuple(group)
                group, left = [], _GROUP_BYTES
            group.append((start, count))
            left -= count
    if group:
        yield tuple(group)


def _cut(offset: int, length: int, most: int = _PIECE) -> Iterator[Range]:
    return ((start, min(most, offset + length - start)) for start in range(offset, offset + length, most))


def _expect_zeros(work: Work, handle: Any, ranges: Iterable[Range]) -> None:
    """Everything that Ceph holds nothing for must read as zeros; what the qcow2 has no data for does."""
    for offset, length in ranges:
        for start, count in chain.from_iterable(_cut(*each) for each in data_extents(handle, offset, length)):
            if handle.pread(count, start) != _ZEROS[:count]:
                _differs(work, start, count)


def _differs(work: Work, offset: int, length: int) -> None:
    raise ContentDiffers(
        pool=work.listing.pool, image=work.image.name, snapshot=work.snapshot.name, offset=offset, length=length
    )
