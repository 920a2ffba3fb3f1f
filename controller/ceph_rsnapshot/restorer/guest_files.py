"""Single files out of a backup through libguestfs: a small virtual machine reads the guest's file system.

What comes out is foreign: names are bytes, and only folders and regular files are made, by us, with modes of ours.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Callable, Optional

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.open_backup import hold
from ceph_rsnapshot.requirements import guestfs_bindings
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import GuestFilesFailed, NotEnoughSpace, TargetExists
from ceph_rsnapshot_common.files import space

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class GuestFiles:
    """The files in one backup. Made by `ceph_rsnapshot.files`; every method raises GuestFilesFailed if it can't."""

    def __init__(self, guest: Any, backup: Backup, folder: Path, minimum: int) -> None:
        self._guest, self._folder, self._minimum = guest, folder, minimum
        self._what = backup.name

    def ls(self, path: str) -> list[bytes]:
        """The names in a folder, sorted; of a file its own name."""
        if not self.ask("is_dir", path, followsymlinks=True):
            self.ask("lstatns", path)
            return [os.fsencode(posixpath.basename(path))]
        listed = self._folder / "names"
        self.ask("ls0", path, str(listed))
        return sorted(filter(None, listed.read_bytes().split(b"\0")))

    def cat(self, path: str, to: IO[bytes]) -> None:
        """Write the content of a file."""
        self._file(path)
        with self._piped("download", path) as content:
            shutil.copyfileobj(content, to)

    def get(self, path: str, target: Path) -> list[str]:
        """Copy a file to ``target``, or a folder with all that is in it; what ``target`` is must not exist.

        Files get mode 0600 and folders 0700, of whoever runs this. Returns what was left out, links and devices.

        Raises:
            TargetExists: nothing is overwritten.
            NotEnoughSpace: MIN_FREESPACE would not stay free.
        """
        if os.path.lexists(target):
            raise TargetExists(target=target)
        if self.ask("is_dir", path, followsymlinks=True):
            target.mkdir(mode=0o700)
            with self._piped("tar_out", path) as content, tarfile.open(fileobj=content, mode="r|") as tar:
                return _unpacked(tar, target, self._room)
        self._file(path)
        self._room(target, int(self.ask("filesize", path)))
        with self._piped("download", path) as content, _new_file(target) as to:
            shutil.copyfileobj(content, to)
        return []

    def _file(self, path: str) -> None:
        if not self.ask("is_file", path, followsymlinks=True):  # a device or pipe of the guest is never read
            raise GuestFilesFailed(what=self._what, reason=f"{path} is no regular file there")

    def _room(self, target: Path, size: int) -> None:
        free = space.free_bytes(target.parent)
        if free - size < self._minimum:
            raise NotEnoughSpace(path=target, need=size, free=free, minimum=self._minimum)

    def ask(self, call: str, *arguments: Any, **options: Any) -> Any:
        """What libguestfs answers."""
        try:
            return getattr(self._guest, call)(*arguments, **options)
        except UnicodeEncodeError:
            reason = "libguestfs takes no name that is not UTF-8; get the folder that it is in"
            raise GuestFilesFailed(what=self._what, reason=reason) from None
        except RuntimeError as error:
            raise GuestFilesFailed(what=self._what, reason=error) from None

    @contextmanager
    def _piped(self, call: str, path: str) -> Iterator[IO[bytes]]:
        """What libguestfs writes, to be read meanwhile."""
        reading, writing = os.pipe()
        errors: list[Exception] = []

        def write() -> None:
            try:
                self.ask(call, path, f"/dev/fd/{writing}")
            except Exception as error:
                errors.append(error)
            finally:
                os.close(writing)

        thread = threading.Thread(target=write)
        with os.fdopen(reading, "rb") as content:
            thread.start()
            try:
                yield content
                while content.read(1 << 20):  # the end of a tar is padded
                    pass
            except tarfile.TarError as error:  # what broke it off says more
                errors.append(GuestFilesFailed(what=self._what, reason=error))
            finally:
                content.close()
                thread.join()
            if errors:
                raise errors[0]


@contextmanager
def opened(backup: Backup, file_system: Optional[str], settings: Settings) -> Iterator[GuestFiles]:
    """The files of ``backup``; see `ceph_rsnapshot.files`."""
    guestfs = guestfs_bindings()
    with ExitStack() as stack:
        folder, held = stack.enter_context(run_folder.made()), stack.enter_context(hold(backup))
        address = stack.enter_context(qemu_nbd.serve(held.qcow, folder, settings.idle_timeout))
        guest = stack.enter_context(closing(guestfs.GuestFS(python_return_dict=True)))
        files = GuestFiles(guest, backup, folder, settings.min_freespace)
        where = {"protocol": "nbd", "server": [f"unix:{address}"]}
        files.ask("add_drive_opts", "", readonly=True, format="raw", **where)
        files.ask("launch")
        _mount(files.ask, backup.name, file_system)
        yield files


def _mount(ask: Callable[..., Any], what: str, wanted: Optional[str]) -> None:
    """The wanted file system, or those of the only operating system, or the only one that there is."""
    found = [name for name, kind in ask("list_filesystems").items() if kind not in ("", "swap", "unknown")]
    roots = [] if wanted else ask("inspect_os")
    if len(roots) == 1:
        points: dict[str, str] = ask("inspect_get_mountpoints", roots[0])
        for point in sorted(points, key=len):
            # what fstab names need not be there
            with suppress(*(() if point == "/" else (GuestFilesFailed,))):
                ask("mount_ro", points[point], point)
        return
    chosen = [name for name in found if wanted in (None, name)]
    if len(chosen) != 1:
        raise GuestFilesFailed(
            what=what, reason=f"choose one with --file-system: {', '.join(found) or 'there is none'}"
        )
    ask("mount_ro", chosen[0], "/")


def _unpacked(tar: tarfile.TarFile, target: Path, room: Callable[[Path, int], None]) -> list[str]:
    """Folders and regular files of ``tar``, new, below ``target``; returns the names of all that is something else."""
    left_out = []
    for member in tar:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        path = target.joinpath(*parts)
        # only folders that this made can be on the way: no link is ever made here
        if ".." in parts or not (member.isdir() or member.isfile()) or (parts and os.path.lexists(path)):
            left_out.append(member.name)
            continue
        _make_folders(path if member.isdir() else path.parent, target)
        if member.isfile():
            room(path, member.size)
            content = tar.extractfile(member)
            assert content
            with _new_file(path) as to:
                shutil.copyfileobj(content, to)
    return left_out


def _make_folders(path: Path, target: Path) -> None:
    if path != target:
        _make_folders(path.parent, target)
        path.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that goes again if it does not become whole."""
    try:
        file = os.fdopen(os.open(path, _NEW, 0o600), "wb")
    except FileExistsError:
        raise TargetExists(target=path) from None
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
