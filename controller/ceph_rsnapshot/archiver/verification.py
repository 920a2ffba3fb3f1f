"""A new day is compared with its snapshot as VERIFY says, and the digests of its content are made."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from ceph_rsnapshot.archiver.new_day import NewDay
from ceph_rsnapshot.archiver.plan import Increment, Plan, relied_on
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.content import digest_file, source_check
from ceph_rsnapshot.content.source_check import Compared, SourceCheck, Taker
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.nbd.handle import Connection, data_extents
from ceph_rsnapshot.nbd.read_ahead import read_ahead
from ceph_rsnapshot.remote.client import Pending
from ceph_rsnapshot.repository.reflinks import clone
from ceph_rsnapshot_common.content.block_digests import PIECE
from ceph_rsnapshot_common.content.ranges import Range, Ranges, clipped, union
from ceph_rsnapshot_common.errors import BaseUnusable, ContentDiffers, SnapshotGone
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.manifest import ContentDigests, ContentResult
from ceph_rsnapshot_common.protocol.records import Closed, ExportName, SnapshotRequest

_Extent = Literal["none", "changed", "full"]
_STAGE = "verifying"


def is_brief(task: Task, plan: Plan) -> bool:
    """Whether only what changed and a sample are examined, and not all of the file."""
    return isinstance(plan, Increment) and _extent(task, plan) != "full"


@contextmanager
def sampling(task: Task, plan: Plan) -> Iterator[SourceCheck | None]:
    """The comparison of a sample of an increment, if there is to be one; the agent reads while changes are copied."""
    if not isinstance(plan, Increment) or _extent(task, plan) != "changed":
        yield None
        return
    with _begun(task, task.request, sample(task.snapshot.size, task.settings.verify_sample)) as check:
        yield check


def examine(task: Task, new: NewDay) -> ContentResult:
    """Compare a new day with its snapshot; its file is on the disk when this returns.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
        BaseUnusable: the base can't be read, or is no longer what its snapshot holds where it was overwritten.
        SnapshotGone, ImageGone: the snapshot was deleted while it was copied: that explains any difference.
    """
    plan, extent = new.plan, _extent(task, new.plan)
    with _source_stays(new.closing), folders.syncing([new.qcow]), relied_on(plan):  # the disk writes meanwhile
        if isinstance(plan, Increment) and new.manifest.kind == "unchanged":
            compared = _examine_unchanged(task, new, extent)
            return _result(task, plan, extent, compared, plan.base.digests)
        if isinstance(plan, Increment) and extent != "full":
            compared = _examine_increment(task, plan, new)
        else:
            compared = _examine_whole(task, new, extent)
        return _result(task, plan, extent, compared, _digests_of(new))


def _examine_whole(task: Task, new: NewDay, extent: _Extent) -> Compared:
    """Examine all of a new file, and make its digests."""
    size = task.snapshot.size
    with _opened(task, new.qcow) as handle:
        present = Ranges(data_extents(handle, 0, size))
        with digest_file.new(new.digests, size) as making:
            if extent == "none":
                _read(handle, present, size, making.add)
                return Compared()
            sampled = sample(size, task.settings.verify_sample)
            there = _allocated(task) if extent == "full" else union(new.written, sampled)
            with _begun(task, task.request, union(there, present, _at_least(size))) as check:
                return check.compare(handle, task.show, _STAGE, making.add)


def _examine_increment(task: Task, plan: Increment, new: NewDay) -> Compared:
    """Examine what was written and the sample; the digests are the base's but for what was written."""
    changed = Ranges(new.written, grain=PIECE)
    clone(task.folder.day(0).digests, new.digests, task.settings.min_freespace)
    with digest_file.existing(new.digests) as changing:
        if new.sample is None:
            _replace_unseen(task, new.qcow, changed, changing)
            return Compared()
        return _compare_and_replace(task, plan, new, new.sample, changed, changing)


def _compare_and_replace(
    task: Task, plan: Increment, new: NewDay, sampled: SourceCheck, changed: Ranges, changing: digest_file.DigestFile
) -> Compared:
    """Three comparisons of which the agent reads ahead at once: the sample, the base where it was overwritten, the new.

    What is overwritten is compared with its own snapshot, because a piece that has rotted could not be taken out of the
    sum that a digest is.
    """
    of_base = task.request.model_copy(update=plan.snapshot.model_dump())
    with ExitStack() as stack:
        check_old = stack.enter_context(_begun(task, of_base, changed))
        check_new = stack.enter_context(_begun(task, task.request, changed))
        handle = stack.enter_context(_opened(task, new.qcow))
        base = stack.enter_context(_opened_base(task))
        compared = sampled.compare(handle, task.show, _STAGE)
        try:
            check_old.compare(base, task.show, _STAGE, changing.remove)
        except (ContentDiffers, SnapshotGone) as error:
            raise BaseUnusable(reason=f"the newest backup is not what it was: {error}") from None
        return compared + check_new.compare(handle, task.show, _STAGE, changing.add)


def _replace_unseen(task: Task, qcow: Path, changed: Ranges, changing: digest_file.DigestFile) -> None:
    size = task.snapshot.size
    with _opened(task, qcow) as new, _opened_base(task) as old:
        _read(old, changed, size, changing.remove)
        _read(new, changed, size, changing.add)


def _examine_unchanged(task: Task, new: NewDay, extent: _Extent) -> Compared:
    """Examine the file of the base, which is to be that of this snapshot too; its digests stay as they are."""
    if extent == "none":
        return Compared()
    size = task.snapshot.size
    with _opened(task, new.qcow) as handle:
        if extent == "full":
            wanted = union(_allocated(task), data_extents(handle, 0, size), _at_least(size))
        else:
            wanted = union(sample(size, task.settings.verify_sample))
        with _begun(task, task.request, wanted) as check:
            return check.compare(handle, task.show, _STAGE)


def _at_least(size: int) -> Iterator[Range]:
    """Something to compare, also where an image is said to hold nothing: a verdict needs a comparison."""
    if size:
        yield 0, min(PIECE, size)


def sample(size: int, amount: int) -> Iterator[Range]:
    """Random pieces of ``amount`` bytes in all, one in each of equal parts of the image; all of a small image."""
    if size <= amount:
        yield from [(0, size)] if size else []
        return
    count = -(-amount // PIECE)
    for number in range(count):
        offset = random.randrange(number * size // count, (number + 1) * size // count)  # noqa: S311
        yield offset // PIECE * PIECE, PIECE


@contextmanager
def _source_stays(closing: Pending[ExportName, Closed] | None) -> Iterator[None]:
    """What was copied counts only if its snapshots were there to the end; if not, that explains any difference."""
    try:
        yield
    finally:
        if closing:
            closing.result()


def _extent(task: Task, plan: Plan) -> _Extent:
    """How much is compared."""
    wanted = task.settings.verify
    return "full" if wanted == "changed" and plan.full_check_in == 0 else wanted


def _begun(task: Task, snapshot: SnapshotRequest, wanted: Iterable[Range]) -> AbstractContextManager[SourceCheck]:
    return source_check.begun(task.client, snapshot, task.snapshot.size, wanted)


def _opened(task: Task, qcow: Path) -> AbstractContextManager[Connection]:
    return qemu_nbd.opened(qcow, task.context.folder, "verifying", task.settings.idle_timeout)


def _opened_base(task: Task) -> AbstractContextManager[Connection]:
    idle = task.settings.idle_timeout
    return qemu_nbd.opened(task.folder.day(0).qcow, task.context.folder, "reading the base", idle, name="base")


def _allocated(task: Task) -> Iterable[Range]:
    return task.client.run(calls.EXTENTS, task.request, task.show).allocated


def _read(handle: Connection, ranges: Ranges, size: int, take: Taker) -> None:
    for offset, content in read_ahead(handle, clipped(Ranges(ranges, grain=PIECE), size)):
        take(offset, content)


def _digests_of(new: NewDay) -> ContentDigests:
    """What the manifest says of the file of digests, which lasts now."""
    folders.sync_file(new.digests)
    with new.digests.open("rb") as file, new.qcow.open("rb") as qcow:
        return ContentDigests(root=digest_file.root(file.fileno()), header=digest_file.of_header(qcow.fileno()))


def _result(
    task: Task, plan: Plan, extent: _Extent, compared: Compared, digests: ContentDigests | None
) -> ContentResult:
    """The verdict: only what was compared counts as verified (an image of no bytes has nothing to compare)."""
    every = task.settings.verify_full_every
    verified = extent if compared.digests or not task.snapshot.size else "none"
    return ContentResult(
        verified=verified,
        backups_since_full_check=0 if verified == "full" or not every else every - plan.full_check_in,
        digests=digests,
        comparisons=compared.digests,
        compared_bytes=compared.bytes,
    )
