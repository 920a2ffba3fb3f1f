"""The digests of a restored image, read from Ceph."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import bindings
from ceph_rsnapshot_agent.ceph.digests import read_fully
from ceph_rsnapshot_agent.nbdkit_plugins.diff import Diff
from ceph_rsnapshot_agent.restore.new_image import Restore
from ceph_rsnapshot_common.content.block_digests import BLOCK, PIECE, block_sums, combined
from ceph_rsnapshot_common.content.ranges import Range, clipped, cut, union
from ceph_rsnapshot_common.errors import Cancelled, RestoreFailed
from ceph_rsnapshot_common.protocol.records import BlockDigests, BlockRequest

_READ = 1024**2


def block_digests(restore: Restore, request: BlockRequest, cancelled: threading.Event) -> BlockDigests:
    """The digests of the blocks that ``request`` asks for, but for those that hold nothing.

    Raises:
        RestoreFailed: reading failed.
        Cancelled: ``cancelled`` was set.
    """
    rbd = bindings("rbd")
    try:
        with restore.image() as image:
            digests: dict[int, int] = {}

            def one(each: Range) -> list[tuple[int, int]]:
                if cancelled.is_set():
                    raise Cancelled(what="the verification of a restored image")
                return list(block_sums(each[0], read_fully(image, *each)))

            with restore.readers.results(one, _allocated(image, request)) as sums:
                for block, amount in chain.from_iterable(sums):
                    digests[block] = combined(digests.get(block, 0), amount)
    except (rbd.Error, EOFError) as error:
        raise RestoreFailed(target="the new image", reason=f"it can't be read back: {error}") from None
    return BlockDigests(blocks=tuple((block, f"{digest:032x}") for block, digest in sorted(digests.items()) if digest))


def _allocated(image: Any, request: BlockRequest) -> Iterator[Range]:
    """What the image holds in these blocks, as whole pieces."""
    size = image.size()
    period = image.stat()["obj_size"] * image.stripe_count()
    start, end = request.first * BLOCK, min(size, (request.first + request.count) * BLOCK)
    asked = start // period * period, min(size, -(-end // period) * period)
    found: Iterable[Range] = ((at, n) for at, n, exists in Diff(image)(asked[0], asked[1] - asked[0]) if exists)
    whole = union(found, grain=PIECE)
    inside = ((max(at, start), min(at + n, end) - max(at, start)) for at, n in clipped(whole, size))
    return cut(((at, n) for at, n in inside if n > 0), _READ)
