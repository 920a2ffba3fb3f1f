"""A qcow2 is compared with the snapshot it is of: both ends read and hash, and only digests cross the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Callable

from ceph_rsnapshot.client import AgentClient
from ceph_rsnapshot.read_ahead import CHUNK, read_ahead
from ceph_rsnapshot_common.block_digests import PIECE
from ceph_rsnapshot_common.digest import digest
from ceph_rsnapshot_common.errors import ContentDiffers
from ceph_rsnapshot_common.ranges import Range, Ranges, clipped, cut
from ceph_rsnapshot_common.records import DigestRequest, SnapshotRequest

Taker = Callable[[int, memoryview], None]
"""Gets each content that was read, with its offset."""

_GROUP_BYTES = 4 * 1024**2
_GROUP_RANGES = 256
_BATCH_GROUPS = 64

Group = tuple[Range, ...]
_Asked = tuple[tuple[Group, ...], Callable[[], tuple[str, ...]]]


@dataclass(frozen=True)
class SourceCheck:
    """``progress`` gets the bytes done and the bytes in all."""

    client: AgentClient
    snapshot: SnapshotRequest
    size: int
    progress: Callable[[int, int], None]

    def compare(self, handle: Any, wanted: Ranges, take: Taker) -> None:
        """Compare ``wanted`` (widened to whole pieces); what was read goes to ``take`` too.

        Raises:
            ContentDiffers: the qcow2 does not hold what the snapshot holds.
        """
        whole = Ranges(wanted, grain=PIECE)
        contents = read_ahead(handle, clipped(whole, self.size))
        done = 0
        for groups, theirs in self._asked(clipped(whole, self.size)):
            self.progress(done, whole.bytes)
            ours = [digest(_taken(contents, group, take)) for group in groups]
            for group, their, our in zip(groups, theirs(), ours):
                if their != our:
                    self._differs(group)
            done += sum(length for group in groups for _, length in group)

    def _asked(self, ranges: Iterable[Range]) -> Iterator[_Asked]:
        """Batches with the agent's digests to come; the agent is always a batch ahead: both ends work at once."""
        ahead: deque[_Asked] = deque()
        for batch in batches(ranges):
            request = DigestRequest(snapshot=self.snapshot, groups=batch)
            ahead.append((batch, self.client.digests(request)))
            if len(ahead) > 1:
                yield ahead.popleft()
        yield from ahead

    def _differs(self, group: Group) -> None:
        offset, about = group[0][0], self.snapshot
        length = sum(group[-1]) - offset
        names = {"pool": about.pool, "image": about.image, "snapshot": about.snapshot}
        raise ContentDiffers(**names, offset=offset, length=length)


def _taken(contents: Iterator[tuple[int, memoryview]], group: Group, take: Taker) -> Iterator[memoryview]:
    """The contents of a group; reading has cut its ranges in the same way."""
    for offset, content in islice(contents, sum(1 for _ in cut(group, CHUNK))):
        take(offset, content)
        yield content


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
    for start, count in cut(ranges, CHUNK):
        if count > left or len(group) == _GROUP_RANGES:
            yield tuple(group)
            group, left = [], _GROUP_BYTES
        group.append((start, count))
        left -= count
    if group:
        yield tuple(group)
