"""What there is to know of a snapshot: the facts for its manifest, its extents, and whether a base is one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings
from ceph_rsnapshot_agent.ceph.features import feature_names
from ceph_rsnapshot_agent.ceph.listing import snapshot_created, user_snapshots
from ceph_rsnapshot_agent.nbdkit_plugins.diff import Diff
from ceph_rsnapshot_agent.nbdkit_plugins.windows import WINDOW, window_size
from ceph_rsnapshot_common.content.ranges import Ranges
from ceph_rsnapshot_common.errors import BaseUnusable, Cancelled, CephRsnapshotError, ImageUnreadable
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.manifest import Layout
from ceph_rsnapshot_common.protocol.records import ExportRequest, Facts, SnapshotRequest

_FIRST_WINDOW = 64 * 1024**2


def read_facts(cluster: Cluster, request: SnapshotRequest) -> Facts:
    """Raises: SnapshotGone, ImageGone, PoolNotFound, ImageUnreadable."""
    with _reading(cluster, request) as image:
        return Facts(
            fsid=cluster.fsid,
            size=image.size(),
            created=snapshot_created(image, request.snapshot_id),
            layout=_layout(cluster, image),
            ceph=cluster.version,
        )


def read_extents(cluster: Cluster, request: SnapshotRequest, progress: Progress, cancelled: threading.Event) -> Ranges:
    """All that is allocated (parents included), as the OSDs tell it.

    Raises:
        ImageUnreadable: Ceph failed.
        Cancelled: ``cancelled`` was set.
    """
    found = Ranges()
    with _reading(cluster, request) as image:
        ask, size = Diff(image), image.size()
        for start, length in _windows(image):
            _go_on(request, cancelled)
            progress("reading extents", start, size)
            for offset, count, exists in ask(start, length):
                if exists:
                    found.add(offset, count)
    return found


def first_change(
    cluster: Cluster, request: ExportRequest, progress: Progress, cancelled: threading.Event
) -> int | None:
    """Where the first window begins in which something has changed since the base of ``request``; None: nothing has.

    Raises:
        BaseUnusable: the base no longer exists, or the image had another size then.
        ImageUnreadable: Ceph failed.
        Cancelled: ``cancelled`` was set.
    """
    with _reading(cluster, request) as image:
        name = _base_name(image, request)
        ask, size = Diff(image, name, request.fast_diff), image.size()
        for start, length in _windows(image):
            _go_on(request, cancelled)
            progress("looking for changes", start, size)
            if ask(start, length):
                return start
    return None


def check_still_there(cluster: Cluster, request: ExportRequest) -> None:
    """See that the snapshot and its base still exist.

    A read-only open is not told when its snapshot is deleted, and then reads what comes after it: so what was copied
    counts only if this holds after the copy.

    Raises:
        SnapshotGone, ImageGone, PoolNotFound: the snapshot does not.
        BaseUnusable: the base does not.
    """
    with _reading(cluster, request) as image:
        if request.base:
            _base_name(image, request)


@contextmanager
def explained(cluster: Cluster, request: ExportRequest) -> Iterator[None]:
    """If the block fails and the snapshot or its base has gone meanwhile, that is the error.

    Raises:
        SnapshotGone, ImageGone, PoolNotFound, BaseUnusable: as `check_still_there`.
    """
    try:
        yield
    except Cancelled:
        raise
    except CephRsnapshotError:
        check_still_there(cluster, request)
        raise


def with_valid_maps(cluster: Cluster, request: ExportRequest) -> ExportRequest:
    """``request``, with FAST_DIFF only if every object map that it would go by is there and valid."""
    if not request.fast_diff:
        return request
    with _reading(cluster, request) as image:
        return request.model_copy(update={"fast_diff": _maps_are_valid(image, request)})


@contextmanager
def _reading(cluster: Cluster, request: SnapshotRequest) -> Iterator[Any]:
    rbd = bindings("rbd")
    with cluster.snapshot(request) as image:
        try:
            yield image
        except rbd.Error as error:
            raise ImageUnreadable(pool=request.pool, image=request.image, reason=error) from None


def _base_name(image: Any, request: ExportRequest) -> str:
    """The name that the base has, by its id (diff_iterate wants a name, and a name may be used again)."""
    assert request.base
    about = f"the base, snapshot {request.base.snapshot} (id {request.base.snapshot_id}),"
    found = next((each for each in user_snapshots(image) if each["id"] == request.base.snapshot_id), None)
    if found is None:
        raise BaseUnusable(reason=f"{about} no longer exists")
    if found["id"] >= request.snapshot_id:
        raise BaseUnusable(reason=f"{about} is not older than {request.snapshot}")
    if found["size"] != image.size():
        raise BaseUnusable(reason=f"the image's size changed from {found['size']} to {image.size()} bytes")
    return str(found["name"])


def _maps_are_valid(image: Any, request: ExportRequest) -> bool:
    """Whether the object maps of all snapshots from the base (or the first) to this one may be believed.

    Where the image was smaller meanwhile they may not: what was cut off then is missing in their differences (seen with
    Ceph 16.2: shrunk, snapshot, grown again).
    """
    rbd = bindings("rbd")
    needed = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
    if image.features() & needed != needed:
        return False
    oldest = request.base.snapshot_id if request.base else 0
    between = [each for each in image.list_snaps() if oldest <= each["id"] <= request.snapshot_id]
    if request.base and len({each["size"] for each in between}) > 1:
        return False
    try:
        return not any(_flags(image, each["id"]) for each in between)
    finally:
        image.set_snap_by_id(request.snapshot_id)


def _flags(image: Any, snapshot_id: int) -> int:
    rbd = bindings("rbd")
    image.set_snap_by_id(snapshot_id)
    return int(image.flags() & (rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID))


def _windows(image: Any) -> Iterator[tuple[int, int]]:
    """Offsets and lengths; the first ones are small, so that a change near the beginning is soon found."""
    size, start, wanted = image.size(), 0, _FIRST_WINDOW
    layout = image.stat()["obj_size"], image.stripe_count()
    while start < size:
        length = min(window_size(*layout, wanted), size - start)
        yield start, length
        start, wanted = start + length, min(2 * wanted, WINDOW)


def _go_on(request: SnapshotRequest, cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Cancelled(what=f"the work on {request.image}")


def _layout(cluster: Cluster, image: Any) -> Layout:
    rbd = bindings("rbd")
    features = image.features()
    data_pool = None
    if features & rbd.RBD_FEATURE_DATA_POOL:
        data_pool = cluster.rados.pool_reverse_lookup(image.data_pool_id())
    return Layout(
        features=feature_names(rbd, features),
        object_size=image.stat()["obj_size"],
        stripe_unit=image.stripe_unit(),
        stripe_count=image.stripe_count(),
        data_pool=data_pool,
    )
