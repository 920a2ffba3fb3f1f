"""nbdkit plugin: one snapshot of one RBD image, read-only, with its allocated extents.

Runs inside nbdkit in the distribution's Python, not in the virtual environment. Parameters (key=value): conf, user,
cluster, pool, namespace, image, image_id, snapshot_id, and any option of Ceph as ``ceph.OPTION``.
"""

import errno
import sys
from pathlib import Path

import nbdkit
import rados
import rbd

# nbdkit runs this file as a script: its folder is not on the module path
sys.path.insert(0, str(Path(__file__).parent))
import windows  # noqa: E402

API_VERSION = 2
_GAP = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO


class _Served:
    """The open snapshot; nbdkit's callbacks are functions of the module, so one is kept for all."""

    def __init__(self):
        self.parameters = {}
        self.image = None
        self.size = 0
        self.windows = None

    def open(self):
        given = self.parameters
        options = {key[len("ceph.") :]: value for key, value in given.items() if key.startswith("ceph.")}
        self.cluster = rados.Rados(
            conffile=given["conf"], rados_id=given["user"], clustername=given["cluster"], conf=options
        )
        self.cluster.connect(timeout=float(options.get("client_mount_timeout", 120)))
        self.ioctx = self.cluster.open_ioctx(given["pool"])
        self.ioctx.set_namespace(given.get("namespace", ""))
        by = {"image_id": given["image_id"]} if given.get("image_id") else {"name": given["image"]}
        self.image = rbd.Image(self.ioctx, read_only=True, **by)
        self.image.set_snap_by_id(int(given["snapshot_id"]))
        self.size = self.image.size()
        window = windows.window_size(self.image.stat()["obj_size"], self.image.stripe_count())
        self.windows = windows.Windows(self.size, window, self._allocated)

    def close(self):
        if self.image:
            self.image.close()
            self.ioctx.close()
            self.cluster.shutdown()

    def _allocated(self, offset, length):
        extents = []

        def found(start, count, exists):
            if exists:
                extents.append((start, count))

        # list-snaps, not the object map: maps have been wrong in the field (Ceph trackers 42248, 48412, 50787, 54970)
        self.image.diff_iterate(offset, length, None, found, include_parent=True, whole_object=False)
        return extents


_served = _Served()


def config(key, value):
    _served.parameters[key] = value


def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL


def after_fork():
    # librados has threads, which do not survive nbdkit's fork: so not earlier
    _served.open()


def cleanup():
    _served.close()


def open(readonly):  # noqa: A001  (nbdkit's name)
    return _served


def get_size(served):
    return served.size


def can_multi_conn(served):
    return True


def can_extents(served):
    return True


def pread(served, buf, offset, flags):
    data = served.image.read(offset, len(buf))
    if len(data) != len(buf):
        nbdkit.set_error(errno.EIO)
        raise RuntimeError(f"short read: {len(data)} of {len(buf)} bytes at {offset}")
    buf[:] = data


def extents(served, count, offset, flags):
    return served.windows.between(offset, count, 0, _GAP)
