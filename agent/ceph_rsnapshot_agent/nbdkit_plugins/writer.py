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


class _Served:
    """The open image; nbdkit's callbacks are functions of the module, so one is kept for all."""

    def __init__(self):
        self.parameters = {}
        self.image = None
        self.size = 0

    def open(self):
        given = self.parameters
        self.connection = connection.Connection(given)
        self.connection.ioctx.set_osdmap_full_try()  # a full pool is an error at once, and not a wait
        self.image = rbd.Image(self.connection.ioctx, image_id=given["image_id"])
        self.size = self.image.size()

    def close(self):
        if self.image:
            self.image.close()
            self.connection.close()


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
    # a qcow2 counts in sectors: what lies beyond the true size of the image is zeros
    return -(-served.size // _SECTOR) * _SECTOR


def can_write(served):
    return True


def can_flush(served):
    return True


def can_multi_conn(served):
    return True


def pread(served, buf, offset, flags):
    data = served.image.read(offset, min(len(buf), served.size - offset))
    buf[: len(data)] = data
    buf[len(data) :] = bytes(len(buf) - len(data))


def pwrite(served, buf, offset, flags):
    data = bytes(buf)
    within = data[: max(0, served.size - offset)]
    if any(data[len(within) :]):
        nbdkit.set_error(errno.ENOSPC)
        raise RuntimeError(f"data beyond the end of the image, at {offset}")
    if within:
        with _errors_told():
            served.image.write(within, offset)


def flush(served, flags):
    with _errors_told():
        served.image.flush()


@contextlib.contextmanager
def _errors_told():
    try:
        yield
    except rbd.OSError as error:
        nbdkit.set_error(error.errno or errno.EIO)
        raise
