"""What `ceph_rsnapshot check` wants to know of the ceph node. Only looks; nothing is written anywhere."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings, connect
from ceph_rsnapshot_agent.ceph.listing import list_images
from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CephRsnapshotError, ErrorRecord, ToolMissing
from ceph_rsnapshot_common.files import space
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import CheckItem, CheckRequest, Checks, Listing, PoolToCheck, bad, good
from ceph_rsnapshot_common.sizes import format_size

_LEAST = "mon 'allow r' osd 'profile rbd-read-only pool=...'"
_TOOLS = ("nbdkit", "qemu-img", "rsync", "setpriv")


def check(
    settings: Settings, request: CheckRequest, readers: Readers, progress: Progress, cancelled: threading.Event
) -> Checks:
    """All items of this node; one that fails does not keep the others from being looked at."""
    items = [*_tools(), *_folders(settings, request)]
    try:
        with connect(settings, readers) as cluster:
            items.append(good("ceph", f"Ceph {cluster.version} answers client.{cluster.user}"))
            for pool in request.pools:
                items += _pool(cluster, settings, request, pool, progress, cancelled)
        items += _restore(settings, request)
    except CephRsnapshotError as error:
        items.append(bad("ceph", str(error), "see that ceph.conf, keyring and CEPH_USER are right: ceph -s --id USER"))
    return Checks(items=tuple(items), time=time.time())


def missing_tools() -> tuple[ErrorRecord, ...]:
    """What is not installed on this node, and which package brings it."""
    missing = []
    for tool in _TOOLS:
        try:
            commands.find_tool(tool, Node.CEPH)
        except ToolMissing as error:
            missing.append(error.record())
    return tuple(missing)


def _tools() -> Iterator[CheckItem]:
    for tool in _TOOLS:
        try:
            said = commands.run([commands.find_tool(tool, Node.CEPH), "--version"], timeout=30).stdout
            yield good(f"ceph node: {tool}", said.strip().split("\n")[0])
        except CephRsnapshotError as error:
            yield bad(f"ceph node: {tool}", str(error), "install what is missing")


def _folders(settings: Settings, request: CheckRequest) -> Iterator[CheckItem]:
    parent = settings.agent_socket.parent
    mode = parent.stat().st_mode & 0o777
    if mode & 0o077:
        yield bad("ceph node: socket", f"{parent} has mode {mode:04o}", f"chmod 0700 {parent}")
    else:
        yield good("ceph node: socket", f"{parent} is private")
    path = settings.qcow_temp_path
    if not os.access(path, os.W_OK | os.X_OK):
        yield bad("ceph node: QCOW_TEMP_PATH", f"{path} can't be written", "see that it belongs to the agent's user")
    elif request.staged:
        yield _free_space("ceph node: QCOW_TEMP_PATH", settings, path)


def _free_space(name: str, settings: Settings, path: Path) -> CheckItem:
    free = space.free_bytes(path)
    said = f"{format_size(free)} free in {path}, of which {format_size(settings.min_freespace)} must stay free"
    return good(name, said) if free > settings.min_freespace else bad(name, said, "make room, or lower MIN_FREESPACE")


def _pool(
    cluster: Cluster,
    settings: Settings,
    request: CheckRequest,
    wanted: PoolToCheck,
    progress: Progress,
    cancelled: threading.Event,
) -> Iterator[CheckItem]:
    pool, name = wanted.pool, f"pool {wanted.pool}"
    chooses = frozenset(wanted.images).__contains__
    try:
        listing = list_images(cluster, settings, pool, request.snapshot_name, chooses, progress, cancelled)
    except CephRsnapshotError as error:
        yield bad(
            name,
            str(error),
            f"see that it exists, and that the cephx user may list it: {_LEAST}",
        )
        return
    yield good(name, f"{len(listing.names)} images, of which {len(listing.images)} match IMAGE_RE")
    yield _snapshots(name, listing, request.snapshot_name)
    with cluster.pool(pool) as ioctx:
        yield _readable(name, ioctx, listing)
        yield _read_only(name, ioctx, settings, cluster.user)


def _snapshots(name: str, listing: Listing, snapshot: str) -> CheckItem:
    without = [image.name for image in listing.images if image.snapshot is None]
    with_it = len(listing.images) - len(without)
    if without or not listing.images:
        some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        said = f"{with_it} of {len(listing.images)} images have the snapshot {snapshot}; not: {some or 'any'}"
        return bad(f"{name}: snapshots", said, "see what makes the snapshots, SNAP_NAMING_DATE_FORMAT and SNAP_DATE")
    return good(f"{name}: snapshots", f"all {with_it} images have the snapshot {snapshot}")


def _readable(name: str, ioctx: Any, listing: Listing) -> CheckItem:
    rbd = bindings("rbd")
    image = next((each for each in listing.images if each.snapshot and each.snapshot.size), None)
    if image is None or image.snapshot is None:
        return good(f"{name}: reading", "there is no snapshot to try it with")
    try:
        with rbd.Image(ioctx, image.name, read_only=True) as opened:
            opened.set_snap_by_id(image.snapshot.id)
            opened.read(0, min(4096, image.snapshot.size))
    except rbd.Error as error:
        return bad(f"{name}: reading", f"{image.name}: {error}", "give the cephx user read rights, on data pools too")
    return good(f"{name}: reading", f"{image.name}@{image.snapshot.name} can be read")


def _read_only(name: str, ioctx: Any, settings: Settings, user: str) -> CheckItem:
    if settings.allow_restore and settings.restore_user == user:
        return good(f"{name}: rights", f"client.{user} may write, because ALLOW_RESTORE is set")
    if _may_write(ioctx):
        said = f"client.{user} may write, and does not need to"
        return bad(f"{name}: rights", said, f"ceph auth caps client.{user} {_LEAST}")
    return good(f"{name}: rights", f"client.{user} can't write")


def _may_write(ioctx: Any) -> bool:
    """Found out without a change: who may not write is refused before Ceph looks whether the object exists."""
    rados = bindings("rados")
    try:
        ioctx.remove_object(f"ceph_rsnapshot_check_{secrets.token_hex(16)}")
    except rados.ObjectNotFound:
        return True
    except rados.Error:
        return False
    return True


def _restore(settings: Settings, request: CheckRequest) -> Iterator[CheckItem]:
    if not settings.allow_restore:
        yield good("restore", "not allowed (ALLOW_RESTORE)")
        return
    try:
        with connect(settings.model_copy(update={"ceph_user": settings.restore_user})) as cluster:
            for pool in (each.pool for each in request.pools):
                with cluster.pool(pool) as ioctx:
                    if _may_write(ioctx):
                        yield good(f"restore to {pool}", f"client.{cluster.user} may write")
                    else:
                        said, advice = (
                            f"client.{cluster.user} can't write",
                            f"give it the caps mon 'allow r' osd 'profile rbd pool={pool.pool}'",
                        )
                        yield bad(f"restore to {pool}", said, advice)
    except CephRsnapshotError as error:
        yield bad("restore", str(error), "see CEPH_RESTORE_USER and its keyring")
