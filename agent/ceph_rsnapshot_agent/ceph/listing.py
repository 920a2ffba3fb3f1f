"""Which images a pool holds, and which of them have the snapshot of the day."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable, Optional

from ceph_rsnapshot_agent.ceph import base_notes
from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings, open_image
from ceph_rsnapshot_agent.ceph.features import feature_names
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import Cancelled, ImageUnreadable
from ceph_rsnapshot_common.names import Pool, is_unfinished
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.manifest import Base
from ceph_rsnapshot_common.protocol.records import (
    Described,
    DescribeRequest,
    Image,
    Listing,
    ListRequest,
    Names,
    Snapshot,
)

# RBD_SNAP_NAMESPACE_TYPE_USER; groups, trash and mirroring have their own
# (https://github.com/ceph/ceph/blob/main/src/include/rbd/librbd.h)
_USER_NAMESPACE = 0
_Noted = Callable[[str, str], Optional[Base]]
"""The base that was noted for an image of this name and id."""

_logger = logging.getLogger(__name__)


def list_names(cluster: Cluster, request: ListRequest) -> Names:
    """The names of all images of the pool, but for restores that are not finished.

    Raises:
        PoolNotFound, PoolUnreadable, ClusterUnreachable: the pool's list could not be had; never mistaken for an empty
            pool.
    """
    with cluster.pool(request.pool) as ioctx:
        names = _names(cluster, ioctx, request.pool)
    return Names(fsid=cluster.fsid, pool=request.pool, names=tuple(sorted(names)))


def describe(
    cluster: Cluster,
    settings: Settings,
    request: DescribeRequest,
    progress: Progress,
    cancelled: threading.Event,
) -> Described:
    """The images of ``request`` in detail.

    Args:
        progress: gets the number of images looked at, and of those that were asked for.

    Raises:
        PoolNotFound, PoolUnreadable, ClusterUnreachable: as `list_names`.
        Cancelled: ``cancelled`` was set.
    """
    progress("listing")
    with cluster.pool(request.pool) as ioctx:
        names = _names(cluster, ioctx, request.pool)
        chosen = [(name, names[name]) for name in request.images if name in names]
        noted = partial(base_notes.read, settings, cluster.fsid, request.pool)
        found: list[tuple[Image, bool]] = []
        with cluster.readers.results(partial(_look_at, ioctx, request, noted, cancelled), chosen) as looked_at:
            for each in looked_at:
                found.append(each)
                progress("listing", len(found), len(chosen))
        # an image that is still listed but can't be opened is an error; one that was deleted meanwhile is not
        now = _names(cluster, ioctx, request.pool) if any(missing for _, missing in found) else names
    deleted = {image.name for image, missing in found if missing and now.get(image.name) != image.id}
    vanished = deleted | (set(request.images) - set(names))
    for name in vanished:
        _logger.info("%s was deleted while the pool was listed: skipped", name)
    images = [image for image, _ in found if image.name not in vanished]
    return Described(
        fsid=cluster.fsid,
        pool=request.pool,
        snapshot_name=request.snapshot_name,
        images=tuple(sorted(images, key=lambda image: image.name)),
        vanished=tuple(sorted(vanished)),
    )


def list_images(
    cluster: Cluster,
    settings: Settings,
    pool: Pool,
    snapshot_name: str,
    chooses: Callable[[str], object],
    progress: Progress,
    cancelled: threading.Event,
) -> Listing:
    """All names of the pool, and the images that ``chooses`` says yes to in detail; raises as `describe`."""
    names = list_names(cluster, ListRequest(pool=pool)).names
    images = tuple(filter(chooses, names))
    wanted = DescribeRequest(pool=pool, snapshot_name=snapshot_name, images=images)
    return Listing(**dict(describe(cluster, settings, wanted, progress, cancelled)), names=names)


def _names(cluster: Cluster, ioctx: Any, pool: Pool) -> dict[str, str]:
    rbd = bindings("rbd")
    try:
        return {entry["name"]: entry["id"] for entry in rbd.RBD().list2(ioctx) if not is_unfinished(entry["name"])}
    except rbd.Error as error:
        raise cluster.unreadable(pool, error) from None


def _look_at(
    ioctx: Any, request: DescribeRequest, noted: _Noted, cancelled: threading.Event, named: tuple[str, str]
) -> tuple[Image, bool]:
    """The image, and whether Ceph said that it does not exist."""
    if cancelled.is_set():
        raise Cancelled(what=f"the listing of {request.pool}")
    rbd = bindings("rbd")
    name, image_id = named
    try:
        with open_image(rbd, ioctx, name, image_id) as image:
            return _describe(rbd, image, name, image_id, request.snapshot_name, noted(name, image_id)), False
    except rbd.Error as error:
        record = ImageUnreadable(pool=request.pool, image=name, reason=error).record()
        return Image(name=name, id=image_id, error=record), isinstance(error, rbd.ImageNotFound)


def _describe(rbd: Any, image: Any, name: str, image_id: str, snapshot_name: str, base: Base | None) -> Image:
    snapshots = user_snapshots(image)
    wanted = next((entry for entry in snapshots if entry["name"] == snapshot_name), None)
    newest = max(snapshots, key=lambda entry: int(entry["id"]), default=None)
    return Image(
        name=name,
        id=image_id,
        size=image.size(),
        features=feature_names(rbd, image.features()),
        snapshot=_snapshot(image, wanted),
        newest=_snapshot(image, newest),
        base=base,
        base_exists=base is not None and any(entry["id"] == base.snapshot_id for entry in snapshots),
    )


def user_snapshots(image: Any) -> list[Any]:
    """The snapshots that people made; one that was deleted while a clone needs it is in the trash namespace."""
    return [entry for entry in image.list_snaps() if entry["namespace"] == _USER_NAMESPACE]


def _snapshot(image: Any, entry: Any) -> Snapshot | None:
    if entry is None:
        return None
    created = snapshot_created(image, entry["id"])
    return Snapshot(name=entry["name"], id=entry["id"], created=created, size=entry["size"])


def snapshot_created(image: Any, snapshot_id: int) -> datetime:
    """When the snapshot was taken (librbd gives a naive time in UTC)."""
    created: datetime = image.get_snap_timestamp(snapshot_id)
    return created.replace(tzinfo=timezone.utc)
