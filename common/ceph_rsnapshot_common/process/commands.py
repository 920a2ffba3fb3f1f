"""The one place that runs external commands: argv lists, no shell, pipes drained, a time limit, bounded output."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Callable

from ceph_rsnapshot_common.errors import Cancelled, CommandFailed, ToolMissing, one_line
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import interrupts

PACKAGES = {
    "nbdkit": "nbdkit with nbdkit-plugin-python (nbdkit-python-plugin on RHEL)",
    "qemu-img": "qemu-utils (qemu-img on RHEL)",
    "qemu-nbd": "qemu-utils (qemu-img on RHEL)",
    "cp": "coreutils",
    "rsnapshot": "rsnapshot",
    "rsync": "rsync",
    "ssh": "openssh-client (openssh-clients on RHEL)",
    "setpriv": "util-linux",
    "date": "coreutils",
}
"""The package that brings each tool."""

_KEPT_OUTPUT = 1024 * 1024
_SHOWN_OUTPUT = 1000
_STOP_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.3
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str


@dataclass
class Command:
    """One that runs, or has run: then ``result`` is there."""

    process: subprocess.Popen[bytes]
    outcome: str = ""
    result: Result = field(init=False)

    def judge(self, argv: Sequence[str], accepted: Sequence[int], stdout: str, stderr: str) -> None:
        """After its end. Raises: Cancelled, CommandFailed."""
        code = self.process.returncode
        if self.outcome == "cancelled":
            raise Cancelled(what=argv[0])
        if self.outcome or code not in accepted:
            raise _failure(argv, self.outcome or _describe(code), stderr.strip() or stdout)
        self.result = Result(code, stdout, stderr)


def find_tool(tool: str, node: Node) -> str:
    """Absolute path of ``tool``, which runs on the ``ceph`` or the ``backup`` node.

    Raises:
        ToolMissing: with the package that brings it.
    """
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(tool, path=places)
    if not found:
        raise ToolMissing(tool=tool, node=node, package=PACKAGES[tool])
    return found


def dying_with_parent(argv: Sequence[str], node: Node) -> list[str]:
    """``argv`` so that the kernel kills it when the thread that started it ends, however that happens."""
    return [find_tool("setpriv", node), "--pdeathsig", "KILL", "--", *argv]


def run(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    accepted: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cancelled: threading.Event | None = None,
    on_stdout: Callable[[str], None] = lambda text: None,
    waiting: Callable[[], None] | None = None,
    finish: bool = False,
) -> Result:
    """Run ``argv`` to its end and return its exit code and output.

    Args:
        timeout: seconds after which it is stopped.
        accepted: exit codes that are no failure.
        cancelled: when set from another thread, the command is stopped.
        on_stdout: gets standard output as it comes.
        waiting: called about ten times a second until it ends.
        finish: let the command come to its end even when this thread is interrupted (then the interrupt goes on).

    Raises:
        CommandFailed: it could not be started, took too long, or exited with a code that is not accepted.
        Cancelled: it was stopped because ``cancelled`` was set.
    """
    with _ended(argv, env, pass_fds, accepted, finish, on_stdout) as command:
        command.outcome = _wait(command.process, timeout, cancelled, waiting)
    return command.result


@contextmanager
def beside(argv: Sequence[str], *, accepted: Sequence[int] = (0,), pass_fds: Sequence[int] = ()) -> Iterator[Command]:
    """Run ``argv`` while the block goes on, and wait for its end after that; the result is there then.

    If the block fails, the command is stopped.

    Raises:
        CommandFailed: as `run`.
    """
    with _ended(argv, None, pass_fds, accepted) as command:
        yield command
        command.process.wait()


@contextmanager
def _ended(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    accepted: Sequence[int],
    finish: bool = False,
    on_stdout: Callable[[str], None] = lambda text: None,
) -> Iterator[Command]:
    """Whatever becomes of the block, the process has ended after it; the result is judged if the block did not fail."""
    process: subprocess.Popen[bytes] | None = None
    started = time.monotonic()
    drains: list[_Drain] = []
    texts: list[str] = []
    try:
        with interrupts.deferred():  # from here on this knows of the process
            process = _start(argv, env, pass_fds)
            drains += [_Drain(process.stdout, on_stdout), _Drain(process.stderr)]
        command = Command(process)
        yield command
    except BaseException:
        if finish and process:
            process.wait()
        raise
    finally:
        if process:
            stop(process)
            texts = [drain.text() for drain in drains]
            log_end(argv, process.returncode, time.monotonic() - started, "".join(texts))
    command.judge(argv, accepted, *texts)


def log_end(argv: Sequence[str], code: int, seconds: float, output: str) -> None:
    """What SH_LOGGING shows of a command or server."""
    _logger.info("%s: exit %s after %.2f s\n%s", shlex.join(argv), code, seconds, output)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that this program started, with its whole process group: ask, wait a bounded time, kill.

    It is asked again and again: ssh 9.2 was seen to go on for 10 seconds after one SIGTERM.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        _signal_group(process, signal.SIGTERM)
        _ends_within(process, _ASK_AGAIN_SECONDS)
    if process.poll() is None:
        _signal_group(process, signal.SIGKILL)
    process.wait()


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for its end. `Popen.wait` with a time limit looks only every 50 ms; a pidfd is ready at once."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signum)


def _start(argv: Sequence[str], env: Mapping[str, str] | None, pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {}), "LC_ALL": "C.UTF-8"},
            pass_fds=pass_fds,
            start_new_session=True,  # a terminal's Ctrl-C reaches this program only, which then ends its children
        )
    except OSError as error:
        raise _failure(argv, "could not be started", str(error)) from None


def _wait(
    process: subprocess.Popen[bytes],
    timeout: float | None,
    cancelled: threading.Event | None,
    waiting: Callable[[], None] | None,
) -> str:
    deadline = None if timeout is None else time.monotonic() + timeout
    while (deadline or cancelled or waiting) and not _ends_within(process, 0.1):
        if waiting is not None:
            waiting()
        if cancelled is not None and cancelled.is_set():
            return "cancelled"
        if deadline is not None and time.monotonic() > deadline:
            return f"did not end within {timeout:g} s"
    process.wait()
    return ""


class _Drain:
    """Reads a pipe in a thread, so that a full pipe never blocks the command; keeps a bounded tail."""

    def __init__(self, pipe: IO[bytes] | None, on_text: Callable[[str], None] = lambda text: None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._on_text = on_text
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 65536):
                self._kept += chunk
                del self._kept[:-_KEPT_OUTPUT]
                self._on_text(chunk.decode("utf-8", "replace"))

    def text(self) -> str:
        # a grandchild may keep the pipe open: what has come by now is enough
        self._thread.join(timeout=2)
        return self._kept.decode("utf-8", "replace")


def _describe(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"


def _failure(argv: Sequence[str], outcome: str, output: str) -> CommandFailed:
    name = Path(argv[argv.index("--") + 1] if "--pdeathsig" in argv else argv[0]).name
    return CommandFailed(command=name, outcome=outcome, output=one_line(output[-_SHOWN_OUTPUT:]) or "(no output)")
