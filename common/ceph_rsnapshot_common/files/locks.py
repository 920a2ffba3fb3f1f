"""Locks with flock(2), which the kernel frees when their holder dies: https://man7.org/linux/man-pages/man2/flock.2.html

The file's first line is the pid of its last holder; what follows is the holder's own text (see `hold`, `read`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from ceph_rsnapshot_common.errors import LockHeld

_POLL_SECONDS = 0.1
_MOST_BYTES = 65536


@contextmanager
def hold(path: Path, remove: bool = False, text: str = "") -> Iterator[int]:
    """Hold the lock ``path``; yields its file descriptor, which children may inherit to hold it too.

    Args:
        remove: remove the file at the end (if it marks its holder rather than being a fixed meeting point).
        text: what the file says after the line with the pid.

    Raises:
        LockHeld: another process has it; names its pid.
        OSError: the file can't be opened.
    """
    descriptor = _acquire(path)
    try:
        content = f"{os.getpid()}\n{text}".encode()
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
        yield descriptor
    finally:
        if remove:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def hold_patiently(
    stack: ExitStack,
    lock: Callable[[], AbstractContextManager[int]],
    seconds: float,
    worth_waiting: Callable[[LockHeld], bool],
) -> int:
    """Hold ``lock()`` until ``stack`` ends; wait up to ``seconds`` for another holder who is ``worth_waiting`` for.

    Raises:
        LockHeld: the other holder still has it.
        OSError: the file can't be opened.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return stack.enter_context(lock())
        except LockHeld as error:
            if time.monotonic() >= deadline or not worth_waiting(error):
                raise
        time.sleep(_POLL_SECONDS)


def remove_abandoned(path: Path) -> None:
    """Remove a file whose holder has died; its content is not touched, since other names may link to it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(path, descriptor):
            path.unlink()
    except OSError:
        pass  # it is in use, or not ours to remove
    finally:
        os.close(descriptor)


def held_by(path: Path) -> str | None:
    """The pid of the process that holds the lock ``path`` now, or None; takes no lock itself."""
    try:
        inode, pid = str(path.stat().st_ino), holder(path)
        # https://man7.org/linux/man-pages/man5/proc_locks.5.html
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    words = [line.split() for line in lines if "->" not in line]  # "->" marks those who wait
    return pid if ["FLOCK", pid, inode] in ([each[1], each[4], each[5].rpartition(":")[2]] for each in words) else None


def holder(path: Path) -> str:
    """Pid that the lock's last holder wrote, as text; ``unknown`` if it wrote none."""
    try:
        return read(path)[0] or "unknown"
    except (OSError, ValueError):
        return "unknown"


def read(path: Path) -> tuple[str, str]:
    """The pid of the lock's last holder, as text (empty if it wrote none), and the holder's own text.

    Raises:
        OSError, ValueError: the file can't be read, or is not text.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        content = os.pread(descriptor, _MOST_BYTES, 0).decode()
    finally:
        os.close(descriptor)
    pid, _, text = content.partition("\n")
    return pid.strip(), text


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise LockHeld(path=path, pid=holder(path)) from None
        except BaseException:
            os.close(descriptor)
            raise


def _is_still(path: Path, descriptor: int) -> bool:
    """False if the file was removed by its last holder between our open and our lock."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
