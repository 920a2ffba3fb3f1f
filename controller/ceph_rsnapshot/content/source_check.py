"""A qcow2 is compared with the snapshot it is of: both ends read and hash, and only digests cross the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Callable

from ceph_rsnapshot.nbd.handle import Connection
from ceph_rsnapshot.nbd.read_ahead import CHUNK, read_ahead
from ceph_rsnapshot.remote.client import AgentClient, Pending
from ceph_rsnapshot_common.content.block_digests import PIECE
from ceph_rsnapshot_common.content.digest import digest
from ceph_rsnapshot_common.content.ranges import Range, Ranges, clipped, cut
from ceph_rsnapshot_common.errors import BadAnswer, ContentDiffers
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.records import DigestRequest, Digests, SnapshotRequest

Taker = Callable[[int, memoryview], None]
"""Gets each content that was read, with its offset."""

_GROUP_BYTES = 4 * 1024**2
_GROUP_RANGES = 256
_BATCH_GROUPS = 64
_BATCHES_AHEAD = 2

Group = tuple[Range, ...]


def _ignore(_offset: int, _content: memoryview) -> None:
    pass


@dataclass(frozen=True)
class Compared:
    """What took place: the number of digests that were compared, and the bytes of the image that they cover."""

    digests: int = 0
    bytes: int = 0

    def __add__(self, other: Compared) -> Compared:
        return Compared(self.digests + other.digests, self.bytes + other.bytes)


class SourceCheck:
    """A comparison that has begun: the agent is always some batches ahead, so that both ends work at once."""

    def __init__(self, client: AgentClient, snapshot: SnapshotRequest, size: int, wanted: Iterable[Range]) -> None:
        self._client, self._snapshot, self._size = client, snapshot, size
        self._wanted = Ranges(wanted, grain=PIECE)
        self._batches = batches(clipped(self._wanted, size))
        self._asked: deque[tuple[tuple[Group, ...], Pending[DigestRequest, Digests]]] = deque()
        self._ask()

    def compare(self, handle: Connection, progress: Progress, stage: str, take: Taker = _ignore) -> Compared:
        """Compare what was wanted (widened to whole pieces); what is read of ``handle`` goes to ``take`` too.

        Raises:
            ContentDiffers: the qcow2 does not hold what the snapshot holds.
        """
        contents = read_ahead(handle, clipped(self._wanted, self._size))
        done, total, compared = 0, self._wanted.bytes, 0
        while self._asked:
            groups, theirs = self._asked[0]
            ours = []
            for group in groups:
                progress(stage, done, total)
                ours.append(digest(_taken(contents, group, take)))
                done += sum(length for _, length in group)
            compared += self._equal(groups, ours, theirs.result().digests)
            self._asked.popleft()
            self._ask()
        return Compared(compared, done)

    def abandon(self) -> None:
        """What the agent was asked for and nobody waits for any more need not be read."""
        for _, digests in self._asked:
            digests.cancel()

    def _ask(self) -> None:
        for batch in islice(self._batches, _BATCHES_AHEAD - len(self._asked)):
            self._asked.append(
                (batch, self._client.begin(calls.DIGESTS, DigestRequest(snapshot=self._snapshot, groups=batch)))
            )

    def _equal(self, groups: Sequence[Group], ours: Sequence[str], theirs: Sequence[str]) -> int:
        """See that all digests are equal, and tell how many they are. Raises: ContentDiffers."""
        if not len(groups) == len(ours) == len(theirs):
            raise BadAnswer(call=calls.DIGESTS.name, reason=f"{len(theirs)} digests of {len(groups)}")
        for group, our, their in zip(groups, ours, theirs):
            if our != their:
                raise self._differs(group)
        return len(groups)

    def _differs(self, group: Group) -> ContentDiffers:
        offset, about = group[0][0], self._snapshot
        length = sum(group[-1]) - offset
        names = {"pool": about.pool, "image": about.image, "snapshot": about.snapshot}
        return ContentDiffers(**names, offset=offset, length=length)


@contextmanager
def begun(client: AgentClient, snapshot: SnapshotRequest, size: int, wanted: Iterable[Range]) -> Iterator[SourceCheck]:
    """Begin to compare ``wanted`` of the ``size`` bytes of ``snapshot``: the agent starts to read at once."""
    check = SourceCheck(client, snapshot, size, wanted)
    try:
        yield check
    finally:
        check.abandon()


def _taken(contents: Iterator[tuple[int, memoryview]], group: Group, take: Taker) -> Iterator[memoryview]:
    """The contents of a group; reading has cut its ranges in the same way."""
    for offset, content in islice(contents, sum(1 for _ in cut(group, CHUNK))):
        take(offset, content)
        yield content


def batches(ranges: Iterable[Range]) -> Iterator[tuple[Group, ...]]:
    """Groups of ranges to be hashed together, in batches of about 256 MiB for one request to the agent."""
    groups = _groups(ranges)
    while batch := tuple(islice(groups, _BATCH_GROUPS)):
        yield batch


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
