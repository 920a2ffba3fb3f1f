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


class _Snapshot(connection.Served):
    """The open snapshot, and what is asked of Ceph about it."""

    def __init__(self):
        super().__init__()
        self.gap = _ZERO
        self.windows = None

    def open_image(self, ioctx):
        by = {"image_id": self.given["image_id"]} if self.given.get("image_id") else {"name": self.given["image"]}
        image = rbd.Image(ioctx, read_only=True, **by)
        image.set_snap_by_id(int(self.given["snapshot_id"]))
        return image

    def after_fork(self):
        super().after_fork()
        base = self._base_name()
        ask = diff.Diff(self.image, base, self.given.get("fast_diff") == "1")
        unchanged_below = int(self.given.get("unchanged_below", 0))
        self.windows = windows.Windows(
            self.size,
            windows.window_size(self.image.stat()["obj_size"], self.image.stripe_count()),
            lambda start, length: [] if start + length <= unchanged_below else ask(start, length),
        )

    def _base_name(self):
        """The base by its id: diff_iterate takes a name, which may be used again."""
        if not self.given.get("base_id"):
            return None
        self.gap = nbdkit.EXTENT_HOLE
        names = {each["id"]: each["name"] for each in self.image.list_snaps()}
        if int(self.given["base_id"]) not in names:
            raise RuntimeError(f"the base snapshot {self.given['base_id']} no longer exists")
        return names[int(self.given["base_id"])]

    def cleanup(self):
        if self.windows:
            self.windows.close()
        super().cleanup()

    def get_size(self, _handle):
        """Bytes; an odd number if the image has one."""
        return self.size

    def can_extents(self, _handle):
        """Clients may ask what is where."""
        return True

    def pread(self, _handle, buf, offset, _flags):
        """Fill ``buf``; fewer bytes than asked for are an error, never zeros."""
        data = self.image.read(offset, len(buf))
        if len(data) != len(buf):
            nbdkit.set_error(errno.EIO)
            raise RuntimeError(f"short read: {len(data)} of {len(buf)} bytes at {offset}")
        buf[:] = data

    def extents(self, _handle, count, offset, _flags):
        """Typed extents from ``offset`` on, ``count`` bytes at most."""
        return self.windows.between(offset, count, _ZERO, self.gap)


_served = _Snapshot()
config, thread_model, after_fork, cleanup = _served.config, _served.thread_model, _served.after_fork, _served.cleanup
open, can_multi_conn, get_size = _served.open, _served.can_multi_conn, _served.get_size  # noqa: A001  (nbdkit's name)
can_extents, pread, extents = _served.can_extents, _served.pread, _served.extents
