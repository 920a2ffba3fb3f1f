"""nbdkit plugin: one snapshot of one RBD image, read-only, with its allocated extents or what changed in it.

Runs inside nbdkit in the distribution's Python, not in the virtual environment. Parameters (key=value): conf, user,
cluster, pool, namespace, image, image_id, snapshot_id, and any option of Ceph as ``ceph.OPTION``. With base_id, the
extents are those since that older snapshot: changed (data), became zero (HOLE|ZERO), unchanged (HOLE alone, and still
readable); none are looked for below ``unchanged_below``. fast_diff=1 lets the object map choose the objects.
"""

import errno
import sys
from pathlib import Path

import nbdkit
import rbd

# nbdkit runs this file as a script: its folder is not on the module path
sys.path.insert(0, str(Path(__file__).parent))
import connection  # noqa: E402
import diff  # noqa: E402
import windows  # noqa: E402

API_VERSION = 2
_ZERO = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO


class _Served:
    """The open snapshot; nbdkit's callbacks are functions of the module, so one is kept for all."""

    def __init__(self):
        self.parameters = {}
        self.image = None
        self.size = 0
        self.gap = _ZERO
        self.windows = None

    def open(self):
        given = self.parameters
        self.connection = connection.Connection(given)
        by = {"image_id": given["image_id"]} if given.get("image_id") else {"name": given["image"]}
        self.image = rbd.Image(self.connection.ioctx, read_only=True, **by)
        self.image.set_snap_by_id(int(given["snapshot_id"]))
        self.size = self.image.size()
        self.windows = self._changes(given)

    def close(self):
        if self.image:
            self.windows.close()
            self.image.close()
            self.connection.close()

    def _changes(self, given):
        base = None
        if given.get("base_id"):
            self.gap = nbdkit.EXTENT_HOLE
            # diff_iterate takes a name, which may be used again: the id counts
            names = {each["id"]: each["name"] for each in self.image.list_snaps()}
            base = names.get(int(given["base_id"]))
            if base is None:
                raise RuntimeError(f"the base snapshot {given['base_id']} no longer exists")
        ask = diff.Diff(self.image, base, given.get("fast_diff") == "1")
        unchanged_below = int(given.get("unchanged_below", 0))
        window = windows.window_size(self.image.stat()["obj_size"], self.image.stripe_count())
        return windows.Windows(
            self.size, window, lambda start, length: [] if start + length <= unchanged_below else ask(start, length)
        )


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
    return served.windows.between(offset, count, _ZERO, served.gap)
