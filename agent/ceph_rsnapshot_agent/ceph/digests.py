"""Digests of a snapshot's content, read through librbd: neither by nbdkit nor by what an export believes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings
from ceph_rsnapshot_common.content.digest import digest
from ceph_rsnapshot_common.errors import Cancelled, ImageUnreadable
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import ByteRange, DigestRequest, Digests

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
    with cluster.snapshot(request.snapshot) as image:

        def one(group: tuple[ByteRange, ...]) -> str:
            return digest(_pieces(image, group, cancelled))

        try:
            found: list[str] = []
            with cluster.readers.results(one, request.groups) as digests:
                for each in digests:
                    found.append(each)
                    progress("reading", len(found), len(request.groups))
            return Digests(digests=tuple(found))
        except (bindings("rbd").Error, EOFError) as error:
            raise ImageUnreadable(**about, reason=error) from None


def _pieces(image: Any, group: tuple[ByteRange, ...], cancelled: threading.Event) -> Iterator[bytes]:
    for offset, length in group:
        for start in range(offset, offset + length, _PIECE):
            if cancelled.is_set():
                raise Cancelled(what="the verification of a snapshot")
            yield read_fully(image, start, min(_PIECE, offset + length - start))


def read_fully(image: Any, offset: int, length: int) -> bytes:
    """Bytes of an open `rbd.Image`. Raises: rbd.Error; EOFError, if there were fewer."""
    data: bytes = image.read(offset, length)
    if len(data) != length:
        raise EOFError(f"short read: {len(data)} of {length} bytes at {offset}")
    return data
