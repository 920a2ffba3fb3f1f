"""A backup becomes a file; no cluster is needed."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.content.digests import write_digests
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.open_backup import Held, hold
from ceph_rsnapshot.restorer.result import Restored
from ceph_rsnapshot.restorer.source import expected_digests, usable
from ceph_rsnapshot_common import sizes
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.block_digests import BLOCK
from ceph_rsnapshot_common.errors import CommandFailed, RestoreFailed, TargetExists
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import image_file, qemu_img
from ceph_rsnapshot_common.progress import Progress, ProgressByName, named

Format = Literal["raw", "qcow2"]


def restore_file(
    settings: Settings, backup: Backup, path: Path, file_format: Format, accept_damage: bool, progress: ProgressByName
) -> Restored:
    """Make the file ``path``; see `ceph_rsnapshot.restore`."""
    started, idle = time.monotonic(), settings.idle_timeout
    manifest = usable(backup, accept_damage)
    path = path.absolute()  # qemu-img would take a name with a colon for a protocol
    if path.exists() or path.is_symlink():
        raise TargetExists(target=path)
    with ExitStack() as stack:
        folder = stack.enter_context(run_folder.made())
        held = stack.enter_context(hold(backup))
        reading, comparing = named(progress, backup.name), named(progress, str(path))
        expected = stack.enter_context(expected_digests(held, manifest, folder, accept_damage, reading, idle))
        try:
            partial = stack.enter_context(_partial(path))
            _convert(held, partial, file_format, manifest.size, reading, idle)
            _compare(partial, file_format, manifest.size, expected.descriptor, folder, str(path), comparing, idle)
            folders.sync_file(partial)
            _give_name(partial, path)
        except (CommandFailed, OSError) as error:
            raise RestoreFailed(target=path, reason=error) from None
        written = sizes.disk_bytes(path.stat())
    seconds = round(time.monotonic() - started, 3)
    return Restored(
        backup=backup,
        target=str(path),
        size=manifest.size,
        written=written,
        damage=expected.damage,
        seconds=seconds,
    )


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A private file beside ``path`` that is removed at the end; those left by killed restores are removed now."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*.partial"):
        locks.remove_abandoned(other)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with locks.hold(partial):  # made with mode 0600
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def _convert(held: Held, partial: Path, file_format: str, size: int, progress: Progress, idle: float) -> None:
    with image_file.opened(held.qcow) as qcow:
        qemu_img.convert(
            qcow.name,
            str(partial),
            ["-O", file_format],
            Node.BACKUP,
            progress=progress,
            stage="converting",
            total=size,
            pass_fds=qcow.pass_fds,
            idle=idle,
        )
    if file_format == "raw":
        os.truncate(partial, size)  # a qcow2 counts in sectors, an image in bytes


def _compare(
    partial: Path,
    file_format: str,
    size: int,
    expected: int,
    folder: Path,
    target: str,
    progress: Progress,
    idle: float,
) -> None:
    found = folder / "restored.digests"
    with qemu_nbd.opened(partial, folder, "reading back", idle, file_format=file_format) as handle:
        write_digests(handle, size, found, progress, "comparing")
    with found.open("rb") as file:
        block = next(digest_file.differences(expected, file.fileno()), None)
    if block is not None:
        reason = f"the {BLOCK} bytes at {block} are not what was backed up; verify the backup (ceph_rsnapshot verify)"
        raise RestoreFailed(target=target, reason=reason)


def _give_name(partial: Path, path: Path) -> None:
    """Like a rename that never overwrites."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise TargetExists(target=path) from None
    except OSError:
        _take_name(partial, path)
    folders.sync_folder(path.parent)


def _take_name(partial: Path, path: Path) -> None:
    """Without hard links (FAT, some network file systems): create the name first, which fails if it exists."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise TargetExists(target=path) from None
    partial.rename(path)
