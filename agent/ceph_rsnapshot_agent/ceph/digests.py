"""Digests of a snapshot's content, read through librbd: neither by nbdkit nor by what an export believes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings
from ceph_rsnapshot_common.content.digest import digest
from ceph_rsnapshot_common.errors import Cancelled, ImageUnreadable
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import ByteRange, DigestRequest, Digests

_THREADS = 8
_PIECE = 1024**2


def read_digests(cluster: Cluster, request: DigestRequest, progress: Progress, cancelled: threading.Event) -> Digests:
    """One digest for each group of ranges.

    Args:
        progress: gets the number of groups read, and of all.

    Raises:
        SnapshotGone, ImageGone, PoolNotFound: it does not exist.
        ImageUnreadable: a read failed, or came short.
        Cancelled: ``cancelled`` was set.
    """
    about = {"pool": request.snapshot.pool, "image": request.snapshot.image}
    with cluster.snapshot(request.snapshot) as image, ThreadPoolExecutor(_THREADS) as threads:

        def one(group: tuple[ByteRange, ...]) -> str:
            if cancelled.is_set():
                raise Cancelled(what=f"the verification of {request.snapshot.image}")
            return digest(_pieces(image, group))

        try:
            found = []
            for each in threads.map(one, request.groups):
                found.append(each)
                progress("reading", len(found), len(request.groups))
            return Digests(digests=tuple(found))
        except (bindings("rbd").Error, EOFError) as error:
            raise ImageUnreadable(**about, reason=error) from None


def _pieces(image: Any, group: tuple[ByteRange, ...]) -> Iterator[bytes]:
    for offset, length in group:
        for start in range(offset, offset + length, _PIECE):
            yield read_fully(image, start, min(_PIECE, offset + length - start))


def read_fully(image: Any, offset: int, length: int) -> bytes:
    """Bytes of an open `rbd.Image`. Raises: rbd.Error; EOFError, if there were fewer."""
    data: bytes = image.read(offset, length)
    if len(data) != length:
        raise EOFError(f"short read: {len(data)} of {length} bytes at {offset}")
    return data
