"""qemu-nbd serving one qcow2 on a unix socket, for this program only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ceph_rsnapshot_common import servers
from ceph_rsnapshot_common.commands import find_tool

LOG = "qemu-nbd.log"
"""Its output, in the folder that `serve` is given."""

_READY_SECONDS = 60.0


@contextmanager
def serve(path: Path, folder: Path, *, writable: bool = False) -> Iterator[Path]:
    """The address of a server for ``path``, which ends with the block.

    Args:
        writable: what is written lasts only when the file has been synced after the end of the block.
        folder: a private one, for socket and output.

    Raises:
        CommandFailed: qemu-nbd did not start, for example because the file is damaged.
    """
    address, log = folder / "qcow.sock", folder / LOG
    for leftover in (address, log):
        leftover.unlink(missing_ok=True)
    # zeros are not stored; nothing is flushed here, because the caller makes the finished file last
    how = ["--discard=unmap", "--detect-zeroes=unmap", "--cache=unsafe"] if writable else ["--read-only"]
    options = [*how, "--persistent", "--format=qcow2", f"--socket={address}"]
    argv = [find_tool("qemu-nbd", "backup"), *options, "--", str(path)]
    with servers.running(argv, node="backup", log=log, ready=lambda: servers.greets(address), timeout=_READY_SECONDS):
        yield address
