"""qemu-nbd serving one qcow2 on a unix socket, for this program only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ceph_rsnapshot.nbd.handle import Connection, connect
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import image_file, servers
from ceph_rsnapshot_common.process.commands import find_tool

LOG = "qemu-nbd.log"
"""Its output, in the folder that `serve` is given."""

_READY_SECONDS = 60.0


@contextmanager
def serve(
    path: Path,
    folder: Path,
    idle: float,
    *,
    writable: bool = False,
    name: str = "qcow",
    file_format: str = "qcow2",
) -> Iterator[Path]:
    """The address of a server for ``path``, which ends with the block.

    Args:
        writable: what is written lasts only when the file has been synced after the end of the block.
        folder: a private one, for socket and output.
        idle: seconds in which it must be ready.
        name: of the socket; another one for each server that runs at the same time.

    Raises:
        CommandFailed: qemu-nbd did not start, for example because the file is damaged.
        Qcow2Refused: the file does not stand for itself.
    """
    address, log = folder / f"{name}.sock", folder / LOG
    for leftover in (address, log):
        leftover.unlink(missing_ok=True)
    # zeros are not stored; nothing is flushed here, because the caller makes the finished file last
    how = ["--discard=unmap", "--detect-zeroes=unmap", "--cache=unsafe"] if writable else ["--read-only"]
    options = [*how, "--persistent", f"--socket={address}"]
    with ExitStack() as stack:
        file = stack.enter_context(image_file.opened(path, file_format, writable=writable))
        argv = [find_tool("qemu-nbd", Node.BACKUP), *options, "--", file.name]
        running = servers.started(argv, node=Node.BACKUP, log=log, pass_fds=file.pass_fds)
        server = stack.enter_context(running)
        server.wait(lambda: servers.greets(address), min(_READY_SECONDS, idle))
        yield address


@contextmanager
def opened(
    path: Path,
    folder: Path,
    what: str,
    idle: float,
    *,
    name: str = "qcow",
    file_format: str = "qcow2",
) -> Iterator[Connection]:
    """A connection to the content of ``path``, read-only; see `serve` and `connect`.

    Raises:
        CommandFailed, NbdFailed
    """
    served = serve(path, folder, idle, name=name, file_format=file_format)
    with served as address, connect(address, what, idle) as connection:
        yield connection
