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
from itertools import takewhile
from pathlib import Path

from ceph_rsnapshot_common.errors import LockHeld, PathNotUsable
from ceph_rsnapshot_common.files import locks, ownership

_OWNER = "owner.lock"
_WRITE_BACK_SECONDS = 0.3


def make_private(path: Path, key: str) -> Path:
    """Make the folder ``path`` with mode 0700 if it is not there, and see that it is ours alone.

    What lies in it is believed, removed, or run as this user (rsnapshot's configuration may name commands): so nobody
    else may have put it there or be able to change it. Links are not followed, neither at its end nor where it is made.

    Raises:
        PathNotUsable: names the configuration key ``key``, the path, and the reason with what to do.
    """
    reason = _made(path) or ownership.not_ours(path) or _not_writable(path)
    if reason:
        raise PathNotUsable(key=key, path=path, reason=reason)
    return path


def make_shared(path: Path, key: str) -> Path:
    """Make the folder ``path`` if it is not there; temporary folders of ours may be made in it.

    Others may have files there too, as in /tmp, but must not be able to rename or remove ours.

    Raises:
        PathNotUsable: as `make_private`.
    """
    reason = _made(path) or ownership.not_safe_to_share(path) or _not_writable(path)
    if reason:
        raise PathNotUsable(key=key, path=path, reason=reason)
    return path


def _made(path: Path) -> str:
    """Make it with the folders above it that are missing; why that failed, or nothing."""
    missing = list(takewhile(lambda each: not os.path.lexists(each), (path, *path.parents)))
    try:
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):  # somebody was faster: it is looked at like any other
                each.mkdir(0o700)
            if reason := ownership.not_ours(each):
                return f"{each}: {reason}"
    except OSError as error:
        return str(error.strerror)
    return ""


def _not_writable(path: Path) -> str:
    return "" if os.access(path, os.R_OK | os.W_OK | os.X_OK) else "not writable for this user"


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
    """Remove the `temporary` folders that killed processes of this user left.

    Those in use stay, and so does all that another user may have made under such a name.
    """
    parent, name = parent_and_beginning(prefix)
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            if folder.name.startswith(name):
                _sweep_one(folder)


def _sweep_one(folder: Path) -> None:
    owner = folder / _OWNER
    with contextlib.suppress(LockHeld, OSError):
        if folder.lstat().st_uid == os.geteuid() and not ownership.not_ours(folder) and ownership.is_own_file(owner):
            with locks.hold(owner):
                shutil.rmtree(folder, ignore_errors=True)


def parent_and_beginning(prefix: str) -> tuple[Path, str]:
    """The folder and the beginning of the name that ``prefix`` means."""
    path = Path(tempfile.gettempdir(), prefix)
    return path.parent, path.name
