"""Folders and files that must last, and temporary folders that must not."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ceph_rsnapshot_common.errors import LockHeld, PathNotUsable
from ceph_rsnapshot_common.files import locks

_OWNER = "owner.lock"
_WRITE_BACK_SECONDS = 0.3


def make_private(path: Path, key: str) -> Path:
    """Make folder ``path`` with mode 0700 if it is not there, and see that it can be written.

    Raises:
        PathNotUsable: names the configuration key ``key``, the path and the reason.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PathNotUsable(key=key, path=path, reason=error.strerror) from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PathNotUsable(key=key, path=path, reason="not writable for this user")
    return path


def sync_folder(path: Path) -> None:
    """fsync a folder, so that files created, renamed or removed in it stay so."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """fsync a file, so that its content lasts."""
    _fsync(path, os.O_RDONLY)


@contextmanager
def syncing(paths: Sequence[Path]) -> Iterator[None]:
    """fsync files that exist while the block does something else; they last when it has ended without an error."""
    with ThreadPoolExecutor(1) as threads:
        synced = [threads.submit(sync_file, path) for path in paths]
        yield
        for each in synced:
            each.result()


@contextmanager
def written_back(folder: Path) -> Iterator[None]:
    """Keep writing the files of ``folder`` to disk while the block runs.

    By itself the kernel begins when 30 seconds have passed or a tenth of the memory is full, and the fsync at the end
    would wait for all of it: https://docs.kernel.org/admin-guide/sysctl/vm.html (dirty_expire_centisecs and its kin).

    Raises:
        OSError: the disk failed; a file opened and synced later would not report it again:
            https://man7.org/linux/man-pages/man2/fsync.2.html
    """
    ended = threading.Event()

    def write_back() -> None:
        while not ended.wait(_WRITE_BACK_SECONDS):
            for path in folder.iterdir() if folder.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):
                    sync_file(path)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write_back)
        try:
            yield
        finally:
            ended.set()
        writing.result()


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name, fsync, rename, fsync the folder: it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    sync_file(partial)
    partial.rename(path)
    sync_folder(path.parent)


def remove_empty(path: Path, up_to: Path) -> None:
    """Remove ``path`` and its parents below ``up_to``, as far as they are empty."""
    while path != up_to and up_to in path.parents:
        try:
            path.rmdir()
        except OSError:
            return
        path = path.parent


@contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """A temporary folder of mode 0700 that is removed at the end; `sweep` knows it by its lock if we are killed.

    Args:
        prefix: how its name begins; in the system's folder for temporary files unless it is an absolute path.
    """
    parent, name = parent_and_beginning(prefix)
    folder = Path(tempfile.mkdtemp(prefix=name, dir=parent))
    try:
        with locks.hold(folder / _OWNER):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(prefix: str) -> None:
    """Remove the `temporary` folders that killed processes of this user left; those in use stay."""
    parent, name = parent_and_beginning(prefix)
    for folder in parent.glob(f"{name}*"):
        owner = folder / _OWNER
        if folder.is_symlink() or not owner.is_file() or owner.stat().st_uid != os.geteuid():
            continue
        try:
            with locks.hold(owner):
                shutil.rmtree(folder, ignore_errors=True)
        except (LockHeld, OSError):
            continue


def parent_and_beginning(prefix: str) -> tuple[Path, str]:
    """The folder and the beginning of the name that ``prefix`` means."""
    path = Path(tempfile.gettempdir(), prefix)
    return path.parent, path.name
