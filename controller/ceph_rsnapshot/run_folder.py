"""The private temporary folder of one command: sockets, outputs and digests that are not needed afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from ceph_rsnapshot_common.files import folders

_PREFIX = "ceph_rsnapshot_run_"


def made() -> AbstractContextManager[Path]:
    """A new folder of mode 0700, which is removed when the block ends."""
    return folders.temporary(_PREFIX)


def sweep() -> None:
    """Remove what killed commands of this user left."""
    folders.sweep(_PREFIX)
