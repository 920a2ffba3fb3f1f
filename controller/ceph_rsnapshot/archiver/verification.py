"""A new backup is compared with its snapshot as VERIFY says, and the digests of its content are made."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ceph_rsnapshot.archiver.plan import Plan, backups_since_full_check, relied_on
from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.content import digest_file, source_check
from ceph_rsnapshot.content.source_check import SourceCheck, Taker
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.nbd.handle import data_extents
from ceph_rsnapshot.nbd.read_ahead import read_ahead
from ceph_rsnapshot.repository.reflinks import clone
from ceph_rsnapshot_common.content.block_digests import PIECE
from ceph_rsnapshot_common.content.ranges import Range, Ranges, clipped, union
from ceph_rsnapshot_common.errors import BaseUnusable, ContentDiffers, SnapshotGone
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.protocol.manifest import ContentDigests
from ceph_rsnapshot_common.protocol.records import SnapshotRequest


def examine_whole(work: Work, plan: Plan, path: Path, digests: Path, written: Iterable[Range]) -> dict[str, object]:
    """Examine a new file, and make ``digests``; returns the manifest's fields about it.

    Args:
        written: what the snapshot holds, as far as it is known by now.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
    """
    how, size = _how(work, plan), work.snapshot.size
    with _opened(work, path) as handle:
        present = Ranges(data_extents(handle, 0, size))
        with digest_file.new(digests, size) as making:
            if how == "none":
                _read(handle, present, size, making.add)
            else:
                there = _allocated(work) if how == "full" else union(written, sample(size, work.settings.verify_sample))
                with _begun(work, work.request, union(there, present)) as check:
                    check.compare(handle, work.show_verifying, making.add)
    return _fields(work, plan, how, path, digests)


@contextmanager
def sampling(work: Work, plan: Plan) -> Iterator[SourceCheck | None]:
    """The comparison of a sample of an increment, if there is to be one; the agent reads while changes are copied."""
    if plan.base is None or _how(work, plan) != "changed":
        yield None
        return
    with _begun(work, work.request, sample(work.snapshot.size, work.settings.verify_sample)) as check:
        yield check


def examine_increment(
    work: Work, plan: Plan, path: Path, digests: Path, written: Ranges, sampled: SourceCheck | None
) -> dict[str, object]:
    """Examine a file in which ``written`` differs from the base; the digests are the base's but for that.

    Args:
        sampled: of `sampling`.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
        BaseUnusable: the base can't be read, or was no longer what its snapshot holds where it was overwritten.
    """
    how = _how(work, plan)
    with relied_on(plan):
        if how == "full":
            return examine_whole(work, plan, path, digests, written)
        clone(work.place.digests(work.place.day(0)), digests, work.settings.min_freespace)
        changed = Ranges(written, grain=PIECE)
        with digest_file.existing(digests) as changing:
            if sampled is None:
                _replace_unseen(work, path, changed, changing)
            else:
                _compare_and_replace(work, plan, path, changed, changing, sampled)
    return _fields(work, plan, how, path, digests)


def _compare_and_replace(
    work: Work,
    plan: Plan,
    path: Path,
    changed: Ranges,
    changing: digest_file.DigestFile,
    sampled: SourceCheck,
) -> None:
    """Also what is overwritten is compared, with its own snapshot: were it rotten, it could not be taken out of the
    sum that a digest is.
    """
    assert plan.base_snapshot
    of_base = work.request.model_copy(update=plan.base_snapshot.model_dump())
    with ExitStack() as stack:
        old_check = stack.enter_context(_begun(work, of_base, changed))
        new_check = stack.enter_context(_begun(work, work.request, changed))
        new, old = stack.enter_context(_opened(work, path)), stack.enter_context(_opened_base(work))
        sampled.compare(new, work.show_verifying)
        try:
            old_check.compare(old, work.show_verifying, changing.remove)
        except (ContentDiffers, SnapshotGone) as error:
            raise BaseUnusable(reason=f"the newest backup is not what it was: {error}") from None
        new_check.compare(new, work.show_verifying, changing.add)


def _replace_unseen(work: Work, path: Path, changed: Ranges, changing: digest_file.DigestFile) -> None:
    size = work.snapshot.size
    with _opened(work, path) as new, _opened_base(work) as old:
        _read(old, changed, size, changing.remove)
        _read(new, changed, size, changing.add)


def examine_unchanged(work: Work, plan: Plan, path: Path) -> dict[str, object]:
    """Examine the file of the base, which is to be that of this snapshot too; its digests stay as they are.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
        BaseUnusable: it can't be read.
    """
    assert plan.base
    how, size = _how(work, plan), work.snapshot.size
    if how != "none":
        with relied_on(plan), _opened(work, path) as handle:
            if how == "full":
                wanted = union(_allocated(work), data_extents(handle, 0, size))
            else:
                wanted = union(sample(size, work.settings.verify_sample))
            with _begun(work, work.request, wanted) as check:
                check.compare(handle, work.show_verifying)
    return {**_verification(work, plan, how), "digests": plan.base.digests}


def sample(size: int, amount: int) -> Iterator[Range]:
    """Random pieces of ``amount`` bytes in all, one in each of equal parts of the image; all of a small image."""
    if size <= amount:
        yield from [(0, size)] if size else []
        return
    count = -(-amount // PIECE)
    for number in range(count):
        offset = random.randrange(number * size // count, (number + 1) * size // count)  # noqa: S311
        yield offset // PIECE * PIECE, PIECE


def is_brief(work: Work, plan: Plan) -> bool:
    """Whether only what changed and a sample are examined, and not all of the file."""
    return plan.base is not None and _how(work, plan) != "full"


def _how(work: Work, plan: Plan) -> str:
    wanted = work.settings.verify
    return "full" if wanted == "changed" and plan.full_check_in == 0 else wanted


def _begun(work: Work, snapshot: SnapshotRequest, wanted: Iterable[Range]) -> AbstractContextManager[SourceCheck]:
    return source_check.begun(work.context.agent.client(), snapshot, work.snapshot.size, wanted)


def _opened(work: Work, path: Path) -> AbstractContextManager[Any]:
    return qemu_nbd.opened(path, work.context.folder, "verifying")


def _opened_base(work: Work) -> AbstractContextManager[Any]:
    qcow = work.place.qcow(work.place.day(0))
    return qemu_nbd.opened(qcow, work.context.folder, "reading the base", name="base")


def _allocated(work: Work) -> Iterable[Range]:
    return work.context.agent.client().extents(work.request, work.show_status).allocated


def _read(handle: Any, ranges: Ranges, size: int, take: Taker) -> None:
    for offset, content in read_ahead(handle, clipped(Ranges(ranges, grain=PIECE), size)):
        take(offset, content)


def _fields(work: Work, plan: Plan, how: str, path: Path, digests: Path) -> dict[str, object]:
    folders.sync_file(digests)
    with digests.open("rb") as file, path.open("rb") as qcow:
        header = digest_file.of_header(qcow.fileno())
        found = ContentDigests(root=digest_file.root(file.fileno()), header=header)
    return {**_verification(work, plan, how), "digests": found}


def _verification(work: Work, plan: Plan, how: str) -> dict[str, object]:
    since = backups_since_full_check(work.settings, plan, how)
    return {"verified": how, "backups_since_full_check": since}
