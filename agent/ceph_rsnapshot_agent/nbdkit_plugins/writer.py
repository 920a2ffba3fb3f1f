"""nbdkit plugin: a new RBD image, to be written by a restore.

Runs inside nbdkit in the distribution's Python, not in the virtual environment. Parameters (key=value): conf, user,
cluster, pool, namespace, image_id, and any option of Ceph as ``ceph.OPTION``.
"""

import contextlib
import errno
import sys
from pathlib import Path

import nbdkit
import rbd

# nbdkit runs this file as a script: its folder is not on the module path
sys.path.insert(0, str(Path(__file__).parent))
import connection  # noqa: E402

API_VERSION = 2
_SECTOR = 512


class _NewImage(connection.Served):
    """The open image."""

    def open_image(self, ioctx):
        ioctx.set_osdmap_full_try()  # a full pool is an error at once, and not a wait
        return rbd.Image(ioctx, image_id=self.given["image_id"])

    def get_size(self, _handle):
        """Whole sectors, in which a qcow2 counts: what lies beyond the true size of the image is zeros."""
        return -(-self.size // _SECTOR) * _SECTOR

    def can_write(self, _handle):
        """That is what it is for."""
        return True

    def can_flush(self, _handle):
        """librbd may cache."""
        return True

    def pread(self, _handle, buf, offset, _flags):
        """Fill ``buf``."""
        data = self.image.read(offset, min(len(buf), self.size - offset))
        buf[: len(data)] = data
        buf[len(data) :] = bytes(len(buf) - len(data))

    def pwrite(self, _handle, buf, offset, _flags):
        """Write ``buf``; beyond the end of the image only zeros are taken."""
        data = bytes(buf)
        within = data[: max(0, self.size - offset)]
        if any(data[len(within) :]):
            nbdkit.set_error(errno.ENOSPC)
            raise RuntimeError(f"data beyond the end of the image, at {offset}")
        if within:
            with _errors_told():
                self.image.write(within, offset)

    def flush(self, _handle, _flags):
        """What was written lasts."""
        with _errors_told():
            self.image.flush()


@contextlib.contextmanager
def _errors_told():
    try:
        yield
    except rbd.OSError as error:
        nbdkit.set_error(error.errno or errno.EIO)
        raise


_served = _NewImage()
config, thread_model, after_fork, cleanup = _served.config, _served.thread_model, _served.after_fork, _served.cleanup
open, can_multi_conn, get_size = _served.open, _served.can_multi_conn, _served.get_size  # noqa: A001  (nbdkit's name)
can_write, can_flush, pread, pwrite, flush = (
    _served.can_write,
    _served.can_flush,
    _served.pread,
    _served.pwrite,
    _served.flush,
)
