"""Which images a pool holds, and which of them have the snapshot of the day."""

from __future__ import annotations

import logging
import re
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
from ceph_rsnapshot_common.protocol.records import Image, Listing, ListRequest, Snapshot

# RBD_SNAP_NAMESPACE_TYPE_USER; groups, trash and mirroring have their own
# (https://github.com/ceph/ceph/blob/main/src/include/rbd/librbd.h)
_USER_NAMESPACE = 0
_Noted = Callable[[str, str], Optional[Base]]
"""The base that was noted for an image of this name and id."""

_logger = logging.getLogger(__name__)


def list_images(
    cluster: Cluster,
    settings: Settings,
    request: ListRequest,
    progress: Progress,
    cancelled: threading.Event,
) -> Listing:
    """All names of the pool, and in detail the images whose name matches ``request.image_re``.

    Args:
        progress: gets the number of images looked at, and of those that match.

    Raises:
        PoolNotFound, PoolUnreadable, ClusterUnreachable: the pool's list could not be had; never mistaken for an empty
            pool.
        Cancelled: ``cancelled`` was set.
    """
    progress("listing")
    matches = re.compile(request.image_re).match
    with cluster.pool(request.pool) as ioctx:
        names = _names(cluster, ioctx, request.pool)
        chosen = [entry for entry in names.items() if matches(entry[0])]
        noted = partial(base_notes.read, settings, cluster.fsid, request.pool)
        found: list[tuple[Image, bool]] = []
        with cluster.readers.results(partial(_look_at, ioctx, request, noted, cancelled), chosen) as images:
            for image in images:
                found.append(image)
                progress("listing", len(found), len(chosen))
        # an image that is still listed but can't be opened is an error; one that was deleted meanwhile is not
        now = _names(cluster, ioctx, request.pool) if any(missing for _, missing in found) else names
    vanished = {image.name for image, missing in found if missing and now.get(image.name) != image.id}
    for name in vanished:
        _logger.info("%s was deleted while the pool was listed: skipped", name)
    left = [image for image, _ in found if image.name not in vanished]
    return Listing(
        fsid=cluster.fsid,
        pool=request.pool,
        snapshot_name=request.snapshot_name,
        names=tuple(sorted(names)),
        images=tuple(sorted(left, key=lambda image: image.name)),
        vanished=tuple(sorted(vanished)),
    )


def _names(cluster: Cluster, ioctx: Any, pool: Pool) -> dict[str, str]:
    rbd = bindings("rbd")
    try:
        return {entry["name"]: entry["id"] for entry in rbd.RBD().list2(ioctx) if not is_unfinished(entry["name"])}
    except rbd.Error as error:
        raise cluster.unreadable(pool, error) from None


def _look_at(
    ioctx: Any, request: ListRequest, noted: _Noted, cancelled: threading.Event, named: tuple[str, str]
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
