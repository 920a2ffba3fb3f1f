"""How the image of a restore that is not finished goes again, however large it is and whoever watches it."""

from __future__ import annotations

import logging
import struct
import time
from contextlib import nullcontext
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings
from ceph_rsnapshot_agent.ceph.listing import user_snapshots

_WATCHED_SECONDS = 90.0
# 4 TiB of objects of 4 MiB
_MANY_OBJECTS = 2**20
_logger = logging.getLogger(__name__)


def remove(cluster: Cluster, ioctx: Any, name: str) -> bool:
    """Whether it is gone; only ever called with the name of an unfinished restore."""
    deadline = time.monotonic() + _WATCHED_SECONDS
    while (reason := _try_to_remove(cluster, ioctx, name)) and time.monotonic() < deadline:
        if not isinstance(reason, bindings("rbd").ImageBusy):
            break
        time.sleep(1)  # an nbdkit that was killed counts as a watcher for 30 seconds (osd_client_watch_timeout)
    if reason:
        _logger.error("the unfinished image %s stays until the next restore or start: %s", name, reason)
    return reason is None


def _try_to_remove(cluster: Cluster, ioctx: Any, name: str) -> Exception | None:
    """Why it is still there, or None."""
    rbd = bindings("rbd")
    try:
        if name in rbd.RBD().list(ioctx):
            with rbd.Image(ioctx, name) as image:
                _remove_snapshots(image)
                _remove_objects(cluster, ioctx, image)
            rbd.RBD().remove(ioctx, name)
        # a full Ceph says that all is well, and still lists it
        return RuntimeError("it is still listed") if name in rbd.RBD().list(ioctx) else None
    except (rbd.Error, bindings("rados").Error) as error:
        return error  # type: ignore[no-any-return]


def _remove_snapshots(image: Any) -> None:
    """What makes snapshots of all images has met this one too; they are of nothing."""
    for snapshot in user_snapshots(image):
        image.remove_snap(snapshot["name"])


def _remove_objects(cluster: Cluster, ioctx: Any, image: Any) -> None:
    """Of an image that could have very many objects, remove those that it has, and make its size 0.

    librbd would ask for each that it could have, unless an object map tells which ones exist: for one of 2**60 bytes
    that takes years.
    """
    rbd, features = bindings("rbd"), image.features()
    if image.stat()["num_objs"] <= _MANY_OBJECTS or features & rbd.RBD_FEATURE_OBJECT_MAP:
        return
    separate = features & rbd.RBD_FEATURE_DATA_POOL
    with cluster.rados.open_ioctx2(image.data_pool_id()) if separate else nullcontext(ioctx) as data:
        if separate:
            data.set_namespace(ioctx.get_namespace())
            data.set_osdmap_full_try()
        prefix = f"{image.block_name_prefix()}."  # that of stat() is cut after 23 bytes
        for found in data.list_objects():
            if found.key.startswith(prefix):
                data.remove_object(found.key)
    # https://github.com/ceph/ceph/blob/main/src/cls/rbd/cls_rbd.cc, set_size
    ioctx.execute(f"rbd_header.{image.id()}", "rbd", "set_size", struct.pack("<Q", 0))
