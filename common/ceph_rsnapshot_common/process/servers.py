"""Servers that this program starts for itself: ready or dead is noticed at once, and they end by their own handle."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Callable
from urllib.parse import quote

from ceph_rsnapshot_common.errors import CommandFailed, one_line
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import interrupts
from ceph_rsnapshot_common.process.commands import dying_with_parent, log_end
from ceph_rsnapshot_common.process.stopping import stop

_POLL_SECONDS = 0.005
# By default glibc gives the memory of each large request back to the kernel and gets it again page by page, which was
# more than half of qemu-nbd's processor time (docs/performance.md); what was used stays for the next one.
# https://man7.org/linux/man-pages/man3/mallopt.3.html
_KEEP_BUFFERS = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2), "MALLOC_TRIM_THRESHOLD_": str(128 * 1024**2)}
_SHOWN_LOG = 1000
_READ_LOG = 1024**2  # of what may be much: ssh passes on what the other side says
# nbdkit puts one space before the last line, which names the error
_TRACEBACK = re.compile(r"(?:nbdkit: .* error: )?Traceback \(most recent call last\):\n(?:[ \t]{2,}.*\n)+")
# __SO_ACCEPTCON, in the column Flags of /proc/net/unix: https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/net.h
_LISTENING = "00010000"


@dataclass(frozen=True)
class Server:
    """One that has been started; ``log`` is the file that gets its output."""

    process: subprocess.Popen[bytes]
    name: str
    log: Path

    def wait(self, ready: Callable[[], bool], timeout: float) -> None:
        """Until it can be used, as ``ready`` tells, or for ``timeout`` seconds.

        Raises:
            CommandFailed: it ended or was not ready in time; has the end of its output.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if self.process.poll() is not None:
                raise self._failure(f"ended with exit code {self.process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def _failure(self, outcome: str) -> CommandFailed:
        return CommandFailed(command=self.name, outcome=outcome, output=tail(self.log) or "(no output)")


@contextmanager
def started(
    argv: Sequence[str],
    *,
    node: Node,
    log: Path,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """Start ``argv``, and end it when the block ends; `Server.wait` tells when it can be used.

    It must be used from a thread that outlives the block: the server dies with that thread.

    Args:
        log: file that gets its output.
        pass_fds: open files that it gets too.
        env: what is different in its environment.
    """
    begin = time.monotonic()
    with ExitStack() as stack:
        with interrupts.deferred(), log.open("ab") as output:
            process = subprocess.Popen(
                dying_with_parent(argv, node),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
                env={**os.environ, **_KEEP_BUFFERS, **env},
            )
            stack.callback(lambda: log_end(argv, process.returncode, time.monotonic() - begin, tail(log)))
            stack.callback(stop, process)
        yield Server(process, Path(argv[0]).name, log)


def nbd_uri(address: Path) -> str:
    """The NBD server at a unix socket, as qemu and other clients name it."""
    return f"nbd+unix:///?socket={quote(str(address))}"


def greets(address: Path) -> bool:
    """Whether an NBD server has accepted a connection: nbdkit listens earlier than it has opened what it serves.

    See https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle negotiation)
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(address))
            greeted = probe.recv(18, socket.MSG_WAITALL).startswith(b"NBDMAGIC")
            # to leave without NBD_OPT_ABORT would put an error into the server's log
            probe.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", 2, 0))
            probe.recv(20, socket.MSG_WAITALL)
            return greeted
        except OSError:
            return False


def listens(address: Path) -> bool:
    """Whether somebody listens on a unix socket; its file is there a moment earlier. Makes no connection."""
    lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return any(line.endswith(f" {address}") and line.split()[3] == _LISTENING for line in lines)


def tail(log: Path) -> str:
    """The end of a server's output, as one line; of Python's tracebacks only what they end with."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _READ_LOG))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    # many threads fail for one reason
    lines = dict.fromkeys(_TRACEBACK.sub("", text).splitlines())
    return one_line("\n".join(lines)[-_SHOWN_LOG:])
