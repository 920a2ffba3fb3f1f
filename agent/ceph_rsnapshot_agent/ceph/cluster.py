"""The connection to Ceph: librados and librbd, with time limits, and errors of our own."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_agent.nbdkit_plugins.diff import MANAGEMENT_OPS
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import (
    BindingsMissing,
    CephRsnapshotError,
    ClusterUnreachable,
    ImageGone,
    ImageUnreadable,
    PoolNotFound,
    PoolUnreadable,
    SnapshotGone,
)
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import SnapshotRequest

_logger = logging.getLogger(__name__)


def bindings(module: str) -> Any:
    """Import ``rados`` or ``rbd``, which come from the distribution and not from PyPI.

    Raises:
        BindingsMissing: with what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BindingsMissing(module=module, reason=error) from None


def client_options(settings: Settings) -> dict[str, str]:
    """Ceph's options: operations that get no answer end (by default they hang for ever), and nothing is cached."""
    seconds = str(settings.rados_timeout)
    return {
        "rados_osd_op_timeout": seconds,
        "rados_mon_op_timeout": seconds,
        "client_mount_timeout": seconds,
        "rbd_cache": "false",  # everything is read once
        "rbd_concurrent_management_ops": MANAGEMENT_OPS,
    }


@dataclass(frozen=True)
class Cluster:
    """An open connection, and the threads that work with it; `connect` makes it."""

    rados: Any
    readers: Readers
    fsid: str
    version: str
    user: str
    conf: Path

    @contextmanager
    def pool(self, pool: Pool) -> Iterator[Any]:
        """An ioctx of the pool or namespace.

        Raises:
            PoolNotFound: the pool or the namespace does not exist.
            PoolUnreadable: whether it does could not be found out, or access is refused.
            ClusterUnreachable: no answer within RADOS_TIMEOUT.
        """
        rados, rbd = bindings("rados"), bindings("rbd")
        try:
            ioctx = self.rados.open_ioctx(pool.pool)
        except rados.ObjectNotFound:
            raise PoolNotFound(pool=pool) from None
        except rados.Error as error:
            raise self.unreadable(pool, error) from None
        with ioctx:
            try:
                if pool.namespace and not _has_namespace(rbd, ioctx, pool.namespace):
                    raise PoolNotFound(pool=pool)
            except rbd.Error as error:
                raise self.unreadable(pool, error) from None
            ioctx.set_namespace(pool.namespace)
            yield ioctx

    def unreadable(self, pool: Pool, error: Exception) -> CephRsnapshotError:
        """The error for a pool that can't be listed: no answer at all means that Ceph is away."""
        if isinstance(error, (bindings("rados").TimedOut, bindings("rbd").Timeout)):
            return ClusterUnreachable(user=self.user, conf=self.conf, reason=f"pool {pool} does not answer: {error}")
        return PoolUnreadable(pool=pool, reason=error)

    @contextmanager
    def snapshot(self, request: SnapshotRequest) -> Iterator[Any]:
        """The image of ``request``, open read-only at its snapshot, both found by id.

        Raises:
            PoolNotFound, ImageGone, SnapshotGone: it no longer exists.
            ImageUnreadable: it could not be opened.
        """
        rbd = bindings("rbd")
        about = {"pool": request.pool, "image": request.image}
        with self.pool(request.pool) as ioctx:
            try:
                image = open_image(rbd, ioctx, request.image, request.image_id)
            except rbd.ImageNotFound:
                raise ImageGone(**about, image_id=request.image_id) from None
            except rbd.Error as error:
                raise ImageUnreadable(**about, reason=error) from None
            with image:
                try:
                    image.set_snap_by_id(request.snapshot_id)
                except (rbd.ImageNotFound, rbd.InvalidArgument):
                    gone = {"snapshot": request.snapshot, "snapshot_id": request.snapshot_id}
                    raise SnapshotGone(**about, **gone) from None
                except rbd.Error as error:
                    raise ImageUnreadable(**about, reason=error) from None
                yield image


def open_image(rbd: Any, ioctx: Any, name: str, image_id: str) -> Any:
    """Open read-only (or librbd would take a watch); by id, which only images of the old format 1 don't have."""
    if image_id:
        return rbd.Image(ioctx, image_id=image_id, read_only=True)
    return rbd.Image(ioctx, name, read_only=True)


@contextmanager
def connect(settings: Settings, readers: Readers | None = None) -> Iterator[Cluster]:
    """Connect to Ceph as the agent's cephx user.

    Args:
        readers: those of the agent; without them there are READ_THREADS for this connection alone.

    Raises:
        ClusterUnreachable: no ceph.conf, no answer within RADOS_TIMEOUT, or the user is refused.
        BindingsMissing: python3-rados is not there.
    """
    rados = bindings("rados")
    conf = settings.ceph_conf_path
    about = {"user": settings.ceph_user, "conf": conf}
    if not conf.is_file():
        raise ClusterUnreachable(**about, reason=f"{conf} does not exist")
    try:
        handle = rados.Rados(
            conffile=str(conf),
            rados_id=settings.ceph_user,
            clustername=settings.ceph_cluster,
            conf=client_options(settings),
        )
        handle.connect(timeout=settings.rados_timeout)
    except rados.Error as error:
        raise ClusterUnreachable(**about, reason=error) from None
    try:
        with nullcontext(readers) if readers else Readers(settings.read_threads) as threads:
            yield Cluster(handle, threads, handle.get_fsid(), _ceph_version(handle), settings.ceph_user, conf)
    finally:
        handle.shutdown()


def _has_namespace(rbd: Any, ioctx: Any, namespace: str) -> bool:
    try:
        return bool(rbd.RBD().namespace_exists(ioctx, namespace))
    except rbd.PermissionError:
        # a key that is limited to the namespace may not read the pool's list of namespaces
        _logger.debug("the list of namespaces is not readable with this key: %s is believed to exist", namespace)
        return True


def _ceph_version(handle: Any) -> str:
    """Ceph's version as the monitors tell it, or ``unknown`` if the key may not ask."""
    code, answer, _ = handle.mon_command(json.dumps({"prefix": "version", "format": "json"}), b"")
    match = re.search(rb"ceph version (\S+)", answer) if code == 0 else None
    return match.group(1).decode() if match else "unknown"
