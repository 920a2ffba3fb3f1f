"""A new RBD image that a restore writes into.

Until it is complete it has a name of its own, ``<name>.restoring-<token>``; only then it gets its true name, which must
be free. So nothing half-written ever has that name, and what a failed restore leaves can be removed without a doubt. A
note in a file tells of it, so that also an agent that was killed removes it at its next start.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


class _Note(Pool):
    """What a note says: where an unfinished image is."""

    fsid: str
    image: str


class Restore:
    """One restore; its image goes with `abort`, and stays after `finish`. Has a connection to Ceph of its own."""

    image_id: str
    loan: Loan
    """The export to write to."""

    def __init__(self, cluster: Cluster, ioctx: Any, request: RestoreRequest, note: Path) -> None:
        self._cluster, self._ioctx, self._request, self._note = cluster, ioctx, request, note
        self._name = unfinished_name(request.image, note.stem)
        self._stack = ExitStack()

    @classmethod
    def started(cls, settings: Settings, request: RestoreRequest) -> Restore:
        """Create the image, and open an export to write to it.

        Raises:
            RestoreNotAllowed: ALLOW_RESTORE is not set.
            TargetExists: there is an image of that name.
            PoolNotFound: there is no such pool, namespace or data pool.
            RestoreFailed: Ceph refused.
            CommandFailed, ToolMissing: nbdkit did not start.
        """
        if not settings.allow_restore:
            raise RestoreNotAllowed
        settings = _as_restore_user(settings)
        with ExitStack() as stack:
            cluster = stack.enter_context(connect(settings))
            ioctx = stack.enter_context(_writable(cluster, request.pool))
            restore = cls(cluster, ioctx, request, _notes(settings) / f"{secrets.token_hex(4)}.note")
            restore._check_free()
            folders.make_private(_notes(settings), "QCOW_TEMP_PATH")
            where = _Note(fsid=cluster.fsid, image=restore._name, **request.pool.model_dump())
            stack.enter_context(locks.hold(restore._note, text=where.model_dump_json() + "\n"))
            stack.callback(restore._remove)
            restore.image_id = restore._create()
            export = nbdkit.serve_new(settings, request.pool, restore.image_id)
            restore.loan = Loan.started(export, settings.export_lease)
            stack.callback(restore.loan.close)
            restore._stack = stack.pop_all()
        return restore

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
        self.loan.close()
        try:
            rbd.RBD().rename(self._ioctx, self._name, self._request.image)
        except rbd.ImageExists:
            raise TargetExists(target=self._target) from None
        except rbd.Error as error:
            raise RestoreFailed(target=self._target, reason=error) from None
        self._name = ""
        self._stack.close()

    def abort(self) -> None:
        """Remove the image, unless it is finished.

        Raises:
            RestoreFailed: it could not be removed.
        """
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
    for path in sorted(_notes(settings).glob("*.note")):
        try:
            _, text = locks.read(path)
            with locks.hold(path, text=text):  # the same text, in case that we are killed here
                _sweep_one(settings, path, _Note.model_validate_json(text))
        except (LockHeld, OSError, ValueError, CephRsnapshotError) as error:
            _logger.info("%s stays for now: %s", path, error)


def _sweep_one(settings: Settings, path: Path, note: _Note) -> None:
    with connect(_as_restore_user(settings)) as cluster:
        if cluster.fsid != note.fsid or not is_unfinished(note.image):
            raise ValueError("it is of another cluster, or names no image of a restore")
        with _writable(cluster, note) as ioctx:
            _logger.warning("removing what a killed restore left: %s/%s", note, note.image)
            if _remove_image(ioctx, note.image):
                path.unlink()


@contextmanager
def _writable(cluster: Cluster, pool: Pool) -> Iterator[Any]:
    """An ioctx that can delete in a full pool, and whose writes fail there instead of waiting."""
    with cluster.pool(pool) as ioctx:
        ioctx.set_osdmap_full_try()
        yield ioctx


def _as_restore_user(settings: Settings) -> Settings:
    return settings.model_copy(update={"ceph_user": settings.restore_user})


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


def _notes(settings: Settings) -> Path:
    return settings.qcow_temp_path.parent / "restores"
