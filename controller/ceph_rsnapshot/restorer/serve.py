"""One day of an image as a read-only NBD export, for instant access to what is in it."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.open_backup import Held, hold
from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import image_file, servers
from ceph_rsnapshot_common.process.commands import find_tool

_READY_SECONDS = 60.0
_LONGEST_SOCKET = 107  # https://man7.org/linux/man-pages/man7/unix.7.html


@dataclass(frozen=True)
class Served:
    """A backup that is being served.

    Attributes:
        uri: of the NBD export, for any client.
        commands: pairs of a purpose and the command for it.
    """

    backup: Backup
    uri: str
    commands: tuple[tuple[str, str], ...]


@contextmanager
def served(backup: Backup, address: Path | None, port: int | None) -> Iterator[Served]:
    """Serve ``backup`` while the block runs; see `ceph_rsnapshot.serve`."""
    with run_folder.made() as folder, hold(backup) as held:
        if port is None:
            path = address or folder / "nbd.sock"
            _must_be_free(path)
            uri = servers.nbd_uri(path)
            try:
                with _running(held, folder, [f"--socket={path}"], lambda: servers.greets(path)):
                    yield Served(backup, uri, _commands(uri, f"-unix {shlex.quote(str(path))}"))
            finally:
                path.unlink(missing_ok=True)
        else:
            _port_must_be_free(port)
            uri = f"nbd://127.0.0.1:{port}"
            with _running(held, folder, ["--bind=127.0.0.1", f"--port={port}"], lambda: _answers(port)):
                yield Served(backup, uri, _commands(uri, f"127.0.0.1 {port}"))


@contextmanager
def _running(held: Held, folder: Path, where: Sequence[str], ready: Callable[[], bool]) -> Iterator[None]:
    options = ["--read-only", "--persistent", "--shared=0", *where]
    with image_file.opened(held.qcow) as file:
        argv = [find_tool("qemu-nbd", Node.BACKUP), *options, "--", file.name]
        with servers.started(argv, node=Node.BACKUP, log=folder / "qemu-nbd.log", pass_fds=file.pass_fds) as server:
            server.wait(ready, _READY_SECONDS)
            yield


def _must_be_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise PathNotUsable(key="--socket", path=path, reason="it exists already")
    if not path.parent.is_dir():
        raise PathNotUsable(key="--socket", path=path, reason="its folder does not exist")
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise PathNotUsable(key="--socket", path=path, reason=f"longer than {_LONGEST_SOCKET} bytes")


def _port_must_be_free(port: int) -> None:
    if not 0 < port < 65536:
        raise PathNotUsable(key="--port", path=port, reason="no port: choose one from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PathNotUsable(key="--port", path=port, reason=error.strerror) from None


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _commands(uri: str, nbd_client: str) -> tuple[tuple[str, str], ...]:
    fish = f"nbd://?socket={uri.partition('socket=')[2]}" if "socket=" in uri else uri
    # a snapshot of a running machine has a journal that was not clean, and nothing can be written here (norecovery in
    # https://man7.org/linux/man-pages/man5/ext4.5.html)
    # what is on it is foreign: https://man7.org/linux/man-pages/man8/mount.8.html (nosuid, nodev, noexec)
    closed = "ro,nosuid,nodev,noexec,norecovery"
    mount = f"sleep 1; mount -o {closed},loop /tmp/disk/disk.raw /mnt"
    mount_partition = f"mount -o {closed} /dev/nbd0p1 /mnt"
    return (
        ("copy single files out", f"guestfish --ro --format=raw -a {shlex.quote(fish)} -i copy-out /etc/hostname /tmp"),
        (
            "mount a file system (ext4 or XFS; btrfs: rescue=nologreplay instead of norecovery)",
            f"mkdir /tmp/disk; nbdfuse -r /tmp/disk/disk.raw {shlex.quote(uri)} & {mount}",
        ),
        ("mount a partition", f"nbd-client {nbd_client} /dev/nbd0 -readonly -persist; {mount_partition}"),
    )
