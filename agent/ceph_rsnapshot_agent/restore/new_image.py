"""A new RBD image that a restore writes into.

Until it is complete it has a name of its own, ``<name>.restoring-<token>``; only then it gets its true name, which must
be free. So nothing half-written ever has that name, and what a failed restore leaves can be removed without a doubt. A
note in a file tells of it, so that also an agent that was killed removes it at its next start.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings, connect
from ceph_rsnapshot_agent.ceph.features import feature_bits
from ceph_rsnapshot_agent.ceph.listing import user_snapshots
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.nbd.loan import Loan
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import (
    CephRsnapshotError,
    LockHeld,
    PoolNotFound,
    RestoreFailed,
    RestoreNotAllowed,
    TargetExists,
)
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.names import Pool, is_unfinished, unfinished_name
from ceph_rsnapshot_common.protocol.manifest import Layout
from ceph_rsnapshot_common.protocol.records import RestoreRequest

# what Ceph sets by itself, or what does not survive in a new image
_NOT_AT_CREATION = frozenset(("data-pool", "operations", "migrating", "non-primary", "dirty-cache"))
_WATCHED_SECONDS = 90.0
_logger = logging.getLogger(__name__)


class Restore:
    """One restore; its image goes with `abort`, and stays after `finish`. Has a connection to Ceph of its own."""

    def __init__(self, settings: Settings, request: RestoreRequest) -> None:
        """Create the image.

        Raises:
            RestoreNotAllowed: ALLOW_RESTORE is not set.
            TargetExists: there is an image of that name.
            PoolNotFound: there is no such pool, namespace or data pool.
            RestoreFailed: Ceph refused.
        """
        if not settings.allow_restore:
            raise RestoreNotAllowed
        self._settings = settings.model_copy(update={"ceph_user": settings.restore_user})
        self._request = request
        self._done = threading.Lock()
        token = secrets.token_hex(4)
        self._name = unfinished_name(request.image, token)
        self._loan: Loan | None = None
        with ExitStack() as stack:
            self._cluster = stack.enter_context(connect(self._settings))
            self._ioctx = stack.enter_context(self._cluster.pool(request.pool))
            self._ioctx.set_osdmap_full_try()
            self._check_free()
            self._note = _note_path(settings, token)
            folders.make_private(self._note.parent, "QCOW_TEMP_PATH")
            text = json.dumps({"fsid": self._cluster.fsid, **request.pool.model_dump(), "image": self._name}) + "\n"
            stack.enter_context(locks.hold(self._note, text=text))
            stack.callback(self._remove)
            self.image_id = self._create()
            self._stack = stack.pop_all()

    def open(self) -> str:
        """Path of the socket to write to.

        Raises:
            CommandFailed, ToolMissing: nbdkit did not start.
        """
        folder = str(self._settings.agent_socket.parent / nbdkit.FOLDER_PREFIX)
        request, image_id = self._request, self.image_id
        self._loan = Loan(lambda: nbdkit.serve_new(self._settings, request.pool, image_id, folder))
        return self._loan.socket()

    def renew(self) -> bool:
        """Whether it is still open to be written."""
        if self._loan is None or not self._loan.open:
            return False
        self._loan.renew()
        return True

    def written(self) -> str:
        """Nothing more comes; returns the end of what nbdkit said."""
        return self._loan.close() if self._loan else ""

    def image(self) -> Any:
        """The image, open for reading; a context manager."""
        return bindings("rbd").Image(self._ioctx, image_id=self.image_id, read_only=True)

    def finish(self) -> None:
        """Give the image its true name.

        Raises:
            TargetExists: the name was taken meanwhile; the image is still the restore's.
            RestoreFailed: Ceph refused.
        """
        rbd = bindings("rbd")
        self.written()
        try:
            rbd.RBD().rename(self._ioctx, self._name, self._request.image)
        except rbd.ImageExists:
            raise TargetExists(target=self._target) from None
        except rbd.Error as error:
            raise RestoreFailed(target=self._target, reason=error) from None
        self._name = ""
        self._stack.close()

    def abort(self) -> None:
        """Remove the image, unless it is finished; safe to call twice and from any thread.

        Raises:
            RestoreFailed: it could not be removed.
        """
        with self._done:
            self.written()
            self._stack.close()
            if self._note.exists():
                where = f"{self._request.pool}/{self._name}"
                reason = f"the unfinished image {where} stays until the next restore or start of the agent; see its log"
                raise RestoreFailed(target=self._target, reason=reason)

    @property
    def _target(self) -> str:
        return f"{self._request.pool}/{self._request.image}"

    def _check_free(self) -> None:
        rbd = bindings("rbd")
        try:
            exists = self._request.image in rbd.RBD().list(self._ioctx)
        except rbd.Error as error:
            raise self._cluster.unreadable(self._request.pool, error) from None
        if exists:
            raise TargetExists(target=self._target)

    def _create(self) -> str:
        """The id of the new image."""
        rbd, request = bindings("rbd"), self._request
        data_pool = request.data_pool or request.layout.data_pool
        if data_pool and not self._cluster.rados.pool_exists(data_pool):
            raise PoolNotFound(pool=f"{data_pool} (the data pool; another one can be chosen)")
        try:
            options = {**creation_options(rbd, request.layout), "data_pool": data_pool}
            rbd.RBD().create(self._ioctx, self._name, request.size, old_format=False, **options)
            with rbd.Image(self._ioctx, self._name, read_only=True) as image:
                return str(image.id())
        except rbd.Error as error:
            raise RestoreFailed(target=self._target, reason=f"the image could not be created: {error}") from None

    def _remove(self) -> None:
        if not self._name or _remove_image(self._ioctx, self._name):
            self._note.unlink()


def creation_options(rbd: Any, layout: Layout) -> dict[str, Any]:
    """Arguments of RBD.create for an image like the original."""
    features = feature_bits(rbd, [name for name in layout.features if name not in _NOT_AT_CREATION])
    striped = (layout.stripe_unit, layout.stripe_count) != (layout.object_size, 1)
    stripes = {"stripe_unit": layout.stripe_unit, "stripe_count": layout.stripe_count} if striped else {}
    return {"order": int(math.log2(layout.object_size)), "features": features, **stripes}


def sweep(settings: Settings) -> None:
    """Remove the images of restores whose agent was killed; what can't be removed now is tried again next time."""
    for path in sorted(_note_path(settings, "x").parent.glob("*.note")):
        try:
            _, text = locks.read(path)
            with locks.hold(path, text=text):
                _sweep_one(settings, path, json.loads(text))
        except (LockHeld, OSError, ValueError, KeyError, CephRsnapshotError) as error:
            _logger.info("%s stays for now: %s", path, error)


def _sweep_one(settings: Settings, path: Path, note: dict[str, str]) -> None:
    settings = settings.model_copy(update={"ceph_user": settings.restore_user})
    pool = Pool(pool=note["pool"], namespace=note["namespace"])
    with connect(settings) as cluster:
        _right_cluster(cluster, note)
        with cluster.pool(pool) as ioctx:
            ioctx.set_osdmap_full_try()
            _logger.warning("removing what a killed restore left: %s/%s", pool, note["image"])
            if _remove_image(ioctx, note["image"]):
                path.unlink()


def _right_cluster(cluster: Cluster, note: dict[str, str]) -> None:
    if cluster.fsid != note["fsid"] or not is_unfinished(note["image"]):
        raise ValueError("it is of another cluster, or names no image of a restore")


def _remove_image(ioctx: Any, name: str) -> bool:
    """Whether it is gone; only ever called with the name of an unfinished restore."""
    deadline = time.monotonic() + _WATCHED_SECONDS
    while (reason := _try_to_remove(ioctx, name)) and time.monotonic() < deadline:
        if not isinstance(reason, bindings("rbd").ImageBusy):
            break
        time.sleep(1)  # an nbdkit that was killed counts as a watcher for 30 seconds (osd_client_watch_timeout)
    if reason:
        _logger.error("the unfinished image %s stays until the next restore or start: %s", name, reason)
    return reason is None


def _try_to_remove(ioctx: Any, name: str) -> Exception | None:
    """Why it is still there, or None."""
    rbd = bindings("rbd")
    try:
        if name in rbd.RBD().list(ioctx):
            _remove_snapshots(ioctx, name)
            rbd.RBD().remove(ioctx, name)
        # a full Ceph says that all is well, and still lists it
        return RuntimeError("it is still listed") if name in rbd.RBD().list(ioctx) else None
    except rbd.Error as error:
        return error  # type: ignore[no-any-return]


def _remove_snapshots(ioctx: Any, name: str) -> None:
    """What makes snapshots of all images has met this one too; they are of nothing."""
    with bindings("rbd").Image(ioctx, name) as image:
        for snapshot in user_snapshots(image):
            image.remove_snap(snapshot["name"])


def _note_path(settings: Settings, token: str) -> Path:
    return settings.qcow_temp_path.parent / "restores" / f"{token}.note"
