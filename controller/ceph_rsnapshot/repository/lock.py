"""The lock of a backup base: one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ceph_rsnapshot_common.errors import LockHeld, PathNotUsable
from ceph_rsnapshot_common.files import locks

_NAME = ".ceph_rsnapshot.lock"
_CHILDREN_SECONDS = 60.0


@contextmanager
def held(base: Path) -> Iterator[int]:
    """Hold it; yields a descriptor, which children may inherit to hold it too.

    If its last holder was killed, rsnapshot may still be at work for it: that is waited for.

    Raises:
        LockHeld: another run works on this base.
        PathNotUsable: the file can't be opened.
    """
    path = base / _NAME
    with ExitStack() as stack:
        try:
            lock = locks.hold_patiently(stack, lambda: locks.hold(path), _CHILDREN_SECONDS, _is_dead)
        except OSError as error:
            raise PathNotUsable(key="BACKUP_BASE_PATH", path=path, reason=error.strerror) from None
        yield lock


def holder(base: Path) -> str | None:
    """The pid of the run that is under way, or None."""
    return locks.held_by(base / _NAME)


def _is_dead(error: LockHeld) -> bool:
    pid = error.data["pid"]
    return pid.isdigit() and not Path("/proc", pid).exists()
