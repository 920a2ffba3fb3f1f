"""A new RBD image that a restore writes into.

Until it is complete it has a name of its own, ``<name>.restoring-<token>``; only then it gets its true name, which must
be free. So nothing half-written ever has that name, and what a failed restore leaves can be removed without a doubt. A
note in a file tells of it, so that also an agent that was killed removes it at its next start.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings, connect
from ceph_rsnapshot_agent.ceph.features import feature_bits
from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.nbd.loan import Loan
from ceph_rsnapshot_agent.restore import removal
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import (
    CephRsnapshotError,
    LockHeld,
    PoolNotFound,
    RestoreFailed,
    RestoreNotAllowed,
    TargetExists,
)
from ceph_rsnapshot_common.files import folders, locks, ownership
from ceph_rsnapshot_common.names import Pool, is_unfinished, unfinished_name
from ceph_rsnapshot_common.protocol.manifest import Layout
from ceph_rsnapshot_common.protocol.records import RestoreRequest

# what Ceph sets by itself, or what does not survive in a new image
_NOT_AT_CREATION = frozenset(("data-pool", "operations", "migrating", "non-primary", "dirty-cache"))
# what an object map can hold: https://github.com/ceph/ceph/blob/main/src/cls/rbd/cls_rbd.h, MAX_OBJECT_MAP_OBJECT_COUNT
_MOST_OBJECTS = 256_000_000
_NOTE = re.compile(r"[0-9a-f]{8}\.note")
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
    readers: Readers
    """Threads to read it back with."""

    def __init__(self, cluster: Cluster, ioctx: Any, request: RestoreRequest, note: Path) -> None:
        self.readers = cluster.readers
        self._cluster, self._ioctx, self._request, self._note = cluster, ioctx, request, note
        self._name = unfinished_name(request.image, note.stem)
        self._stack = ExitStack()

    @classmethod
    def started(cls, settings: Settings, request: RestoreRequest, readers: Readers) -> Restore:
        """Create the image, and open an export to write to it.

        Raises:
            RestoreNotAllowed: ALLOW_RESTORE is not set.
            TargetExists: there is an image of that name.
            PoolNotFound: there is no such pool, namespace or data pool.
            RestoreFailed: it is larger than may be, or Ceph refused.
            CommandFailed, ToolMissing: nbdkit did not start.
        """
        if not settings.allow_restore:
            raise RestoreNotAllowed
        _check_size(settings, request)
        settings = _as_restore_user(settings)
        with ExitStack() as stack:
            cluster = stack.enter_context(connect(settings, readers))
            ioctx = stack.enter_context(_writable(cluster, request.pool))
            restore = cls(cluster, ioctx, request, _notes(settings) / f"{secrets.token_hex(4)}.note")
            restore._check_free()
            notes = folders.make_private(_notes(settings), "QCOW_TEMP_PATH")
            where = _Note(fsid=cluster.fsid, image=restore._name, **request.pool.model_dump())
            stack.enter_context(locks.hold(restore._note, text=where.model_dump_json() + "\n"))
            folders.sync_file(restore._note)
            folders.sync_folder(notes)
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
        if not self._name or removal.remove(self._cluster, self._ioctx, self._name):
            self._note.unlink()


def _check_size(settings: Settings, request: RestoreRequest) -> None:
    target, layout = f"{request.pool}/{request.image}", request.layout
    if request.size > settings.restore_max_size:
        reason = f"it has {request.size} bytes, and RESTORE_MAX_SIZE on the ceph node is {settings.restore_max_size}"
        raise RestoreFailed(target=target, reason=reason)
    if layout.object_size < 1 or layout.object_size & (layout.object_size - 1):
        raise RestoreFailed(target=target, reason=f"{layout.object_size} bytes are no size of an object")
    if request.size // layout.object_size > _MOST_OBJECTS:
        reason = f"{request.size} bytes in objects of {layout.object_size} are more than {_MOST_OBJECTS} objects"
        raise RestoreFailed(target=target, reason=reason)


def creation_options(rbd: Any, layout: Layout) -> dict[str, Any]:
    """Arguments of RBD.create for an image like the original."""
    features = feature_bits(rbd, [name for name in layout.features if name not in _NOT_AT_CREATION])
    striped = (layout.stripe_unit, layout.stripe_count) != (layout.object_size, 1)
    stripes = {"stripe_unit": layout.stripe_unit, "stripe_count": layout.stripe_count} if striped else {}
    return {"order": int(math.log2(layout.object_size)), "features": features, **stripes}


def sweep(settings: Settings) -> None:
    """Begin to remove the images of restores whose agent was killed; what stays is tried again next time.

    Each in a thread of its own: neither Ceph that is away nor one that takes long keeps anybody waiting.
    """
    folder = _notes(settings)
    if ownership.not_ours(folder):
        return  # not there, or never made by an agent
    for path in folder.iterdir():
        if _NOTE.fullmatch(path.name):
            threading.Thread(target=_sweep_one, args=(settings, path), daemon=True).start()


def _sweep_one(settings: Settings, path: Path) -> None:
    try:
        if not ownership.is_own_file(path):
            raise ValueError("it is no file of this user alone")
        pid, text = locks.read(path)
        if not f"{pid}{text}".strip("\0"):
            # an image is made only when its note is safe on the disk
            locks.remove_abandoned(path)
            return
        note = _Note.model_validate_json(text)
        with locks.hold(path, text=text):  # the same text, in case that we are killed here
            _remove_noted(settings, path, note)
    except (FileNotFoundError, LockHeld):
        pass
    except (OSError, ValueError, CephRsnapshotError) as error:
        _logger.warning("%s stays for now: %s", path, error)


def _remove_noted(settings: Settings, path: Path, note: _Note) -> None:
    with connect(_as_restore_user(settings)) as cluster:
        if cluster.fsid != note.fsid or not is_unfinished(note.image):
            raise ValueError("it is of another cluster, or names no image of a restore")
        with _writable(cluster, note) as ioctx:
            _logger.warning("removing what a killed restore left: %s/%s", note, note.image)
            if removal.remove(cluster, ioctx, note.image):
                path.unlink()


@contextmanager
def _writable(cluster: Cluster, pool: Pool) -> Iterator[Any]:
    """An ioctx that can delete in a full pool, and whose writes fail there instead of waiting."""
    with cluster.pool(pool) as ioctx:
        ioctx.set_osdmap_full_try()
        yield ioctx


def _as_restore_user(settings: Settings) -> Settings:
    return settings.model_copy(update={"ceph_user": settings.restore_user})


def _notes(settings: Settings) -> Path:
    return settings.qcow_temp_path.parent / "restores"
