"""A new backup is compared with its snapshot as VERIFY says, and the digests of its content are made."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ceph_rsnapshot import digest_file, qemu_nbd
from ceph_rsnapshot.base import Plan, backups_since_full_check
from ceph_rsnapshot.incoming import clone
from ceph_rsnapshot.nbd_client import data_extents
from ceph_rsnapshot.read_ahead import read_ahead
from ceph_rsnapshot.source_check import SourceCheck, Taker
from ceph_rsnapshot.work import Work
from ceph_rsnapshot_common import folders
from ceph_rsnapshot_common.block_digests import PIECE
from ceph_rsnapshot_common.manifest import ContentDigests
from ceph_rsnapshot_common.ranges import Range, Ranges, clipped, union


def examine_whole(work: Work, plan: Plan, path: Path, digests: Path, written: Iterable[Range]) -> dict[str, object]:
    """Examine a new file, and make ``digests``; returns the manifest's fields about it.

    Args:
        written: what the snapshot holds, as far as it is known by now.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
    """
    how, size = _how(work, plan), work.snapshot.size
    with qemu_nbd.opened(path, work.context.folder, "verifying") as handle:
        present = Ranges(data_extents(handle, 0, size))
        with digest_file.new(digests, size) as making:
            if how == "none":
                _read(handle, present, size, making.add)
            else:
                there = _allocated(work) if how == "full" else union(written, sample(size, work.settings.verify_sample))
                _check(work).compare(handle, union(there, present), making.add)
    return _fields(work, plan, how, path, digests)


def examine_increment(work: Work, plan: Plan, path: Path, digests: Path, written: Ranges) -> dict[str, object]:
    """Examine a file in which ``written`` differs from the base; the digests are the base's but for that.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
    """
    how = _how(work, plan)
    if how == "full":
        return examine_whole(work, plan, path, digests, written)
    base = work.place.day(0)
    clone(work.place.digests(base), digests, work.settings.min_freespace)
    folder, size = work.context.folder, work.snapshot.size
    with qemu_nbd.opened(path, folder, "verifying") as handle:
        if how == "changed":
            wanted = union(written, sample(size, work.settings.verify_sample))
            _check(work).compare(handle, wanted, _ignore)
        with qemu_nbd.opened(work.place.qcow(base), folder, "reading the base", name="base") as old_handle:
            _replace(old_handle, handle, Ranges(written, grain=PIECE), size, digests)
    return _fields(work, plan, how, path, digests)


def examine_unchanged(work: Work, plan: Plan, path: Path) -> dict[str, object]:
    """Examine the file of the base, which is to be that of this snapshot too; its digests stay as they are.

    Raises:
        ContentDiffers: it does not hold what the snapshot holds.
    """
    assert plan.base
    how, size = _how(work, plan), work.snapshot.size
    if how != "none":
        with qemu_nbd.opened(path, work.context.folder, "verifying") as handle:
            if how == "full":
                wanted = union(_allocated(work), data_extents(handle, 0, size))
            else:
                wanted = union(sample(size, work.settings.verify_sample))
            _check(work).compare(handle, wanted, _ignore)
    return {**_verification(work, plan, how), "digests": plan.base.digests}


def sample(size: int, amount: int) -> Iterator[Range]:
    """Random pieces of ``amount`` bytes in all, one in each of equal parts of the image; all of a small image."""
    count = amount // PIECE
    if size <= amount:
        yield from [(0, size)] if size else []
        return
    for number in range(count):
        offset = random.randrange(number * size // count, (number + 1) * size // count)  # noqa: S311
        yield offset // PIECE * PIECE, PIECE


def _how(work: Work, plan: Plan) -> str:
    wanted = work.settings.verify
    return "full" if wanted == "changed" and plan.full_check_in == 0 else wanted


def _check(work: Work) -> SourceCheck:
    client = work.context.agent.client()
    return SourceCheck(
        client, work.request, work.snapshot.size, lambda done, total: work.show("verifying", done, total)
    )


def _allocated(work: Work) -> Iterable[Range]:
    return work.context.agent.client().extents(work.request, work.show_status).allocated


def _read(handle: Any, ranges: Ranges, size: int, take: Taker) -> None:
    for offset, content in read_ahead(handle, clipped(Ranges(ranges, grain=PIECE), size)):
        take(offset, content)


def _replace(old_handle: Any, new_handle: Any, ranges: Ranges, size: int, digests: Path) -> None:
    old, new = (read_ahead(handle, clipped(ranges, size)) for handle in (old_handle, new_handle))
    with digest_file.existing(digests) as changing:
        for (offset, was), (_, now) in zip(old, new):
            changing.replace(offset, was, now)


def _ignore(_offset: int, _content: memoryview) -> None:
    pass


def _fields(work: Work, plan: Plan, how: str, path: Path, digests: Path) -> dict[str, object]:
    folders.sync_file(digests)
    with digests.open("rb") as file, path.open("rb") as qcow:
        header = digest_file.of_header(qcow.fileno())
        found = ContentDigests(root=digest_file.root(file.fileno()), header=header)
    return {**_verification(work, plan, how), "digests": found}


def _verification(work: Work, plan: Plan, how: str) -> dict[str, object]:
    since = backups_since_full_check(work.settings, plan, how)
    return {"verified": how, "backups_since_full_check": since}
