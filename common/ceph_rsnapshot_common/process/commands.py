"""The one place that runs external commands: argv lists, no shell, pipes drained, a time limit, bounded output.

Who ends a command, and what comes of it:

    itself                        its exit code is judged: CommandFailed if it is not accepted
    ``timeout``                   it is stopped: CommandFailed
    ``idle``                      it is stopped because it does nothing: CommandFailed
    ``cancelled``                 it is stopped: Cancelled
    an error in `beside`'s block  it is stopped (with ``finish`` it may come to its end), and the error goes on
    or in ``waiting``
    SIGINT, SIGTERM, SIGHUP       as such an error, in the main thread only; one that comes while the command is being
                                  started waits until somebody knows of it (`interrupts.deferred`)
    Ctrl-C on a terminal          nobody: it reaches this program only, since each command has its own session
    the death of this program,    the kernel, if it was started by `dying_with_parent`; the others come to their end
    or of the starting thread

To stop is SIGTERM to its process group, some patience, SIGKILL (`stopping.stop`).
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common.errors import Cancelled, CommandFailed, ToolMissing, one_line
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import activity, interrupts
from ceph_rsnapshot_common.process.drain import Drain
from ceph_rsnapshot_common.process.patience import Patience
from ceph_rsnapshot_common.process.stopping import ends_within, stop

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

_SHOWN_OUTPUT = 1000
_CANCELLED = "was cancelled"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit code (negative: minus the signal that killed it), and the end of its output."""

    code: int
    stdout: str
    stderr: str


@dataclass
class Command:
    """One that runs, or has run: then ``result`` is there. ``outcome``: why it was stopped, if it was."""

    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    stdout: Drain
    stderr: Drain
    begun: float = field(default_factory=time.monotonic)
    outcome: str = ""
    result: Result = field(init=False)

    def end(self) -> None:
        """Stop it if it still runs; keep and log how it ended."""
        stop(self.process)
        self.result = done = Result(self.process.returncode, self.stdout.text(), self.stderr.text())
        log_end(self.argv, done.code, time.monotonic() - self.begun, done.stdout + done.stderr)

    def judge(self, accepted: Sequence[int]) -> None:
        """After its end. Raises: Cancelled, CommandFailed."""
        done = self.result
        if self.outcome == _CANCELLED:
            raise Cancelled(what=self.argv[0])
        if self.outcome or done.code not in accepted:
            raise _failure(self.argv, self.outcome or _described(done.code), done.stderr.strip() or done.stdout)


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
    """``argv`` so that the kernel kills it when the thread that started it ends, however that happens.

    See PR_SET_PDEATHSIG in https://man7.org/linux/man-pages/man2/prctl.2.html
    """
    return [find_tool("setpriv", node), "--pdeathsig", "KILL", "--", *argv]


def run(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    idle: float | None = None,
    accepted: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cancelled: threading.Event | None = None,
    on_stdout: Callable[[str], None] | None = None,
    waiting: Callable[[], None] | None = None,
    finish: bool = False,
) -> Result:
    """Run ``argv`` to its end and return its exit code and output.

    Args:
        timeout: seconds after which it is stopped.
        idle: it is stopped after so many seconds in which neither it nor a child of it does anything.
        accepted: exit codes that are no failure.
        cancelled: when set from another thread, the command is stopped.
        on_stdout: gets standard output as it comes, in another thread.
        waiting: called about ten times a second until it ends.
        finish: let the command come to its end even when this thread is interrupted (then the interrupt goes on);
            not together with ``timeout``, ``idle`` or ``cancelled``.

    Raises:
        CommandFailed: it could not be started, took too long, or exited with a code that is not accepted.
        Cancelled: it was stopped because ``cancelled`` was set.
    """
    with _ended(argv, env, pass_fds, accepted, finish, on_stdout) as command:
        command.outcome = _wait(command.process, timeout, idle, cancelled, waiting)
    return command.result


@contextmanager
def beside(
    argv: Sequence[str],
    *,
    idle: float | None = None,
    accepted: Sequence[int] = (0,),
    pass_fds: Sequence[int] = (),
    cancelled: threading.Event | None = None,
) -> Iterator[Command]:
    """Run ``argv`` while the block goes on, and wait for its end after that; the result is there then.

    If the block fails, the command is stopped. ``idle`` and ``cancelled`` are as for `run`, and count after the block.

    Raises:
        CommandFailed, Cancelled: as `run`.
    """
    with _ended(argv, None, pass_fds, accepted) as command:
        yield command
        command.outcome = _wait(command.process, None, idle, cancelled, None)


@contextmanager
def _ended(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    accepted: Sequence[int],
    finish: bool = False,
    on_stdout: Callable[[str], None] | None = None,
) -> Iterator[Command]:
    """Whatever becomes of the block, the process has ended after it; the result is judged if the block did not fail."""
    with ExitStack() as ending:
        with interrupts.deferred():  # until ``ending`` knows of the process
            process = _start(argv, env, pass_fds)
            ending.callback(stop, process)
            command = Command(argv, process, Drain(process.stdout, on_stdout), Drain(process.stderr))
            ending.callback(command.end)
            if finish:
                ending.callback(process.wait)
        yield command
    command.judge(accepted)


def log_end(argv: Sequence[str], code: int, seconds: float, output: str) -> None:
    """What SH_LOGGING shows of a command or server."""
    _logger.info("%s: exit %s after %.2f s\n%s", shlex.join(argv), code, seconds, output)


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
    idle: float | None,
    cancelled: threading.Event | None,
    waiting: Callable[[], None] | None,
) -> str:
    """Until it ends, or should be stopped: then why."""
    deadline = None if timeout is None else time.monotonic() + timeout
    still = None if idle is None else _Stillness(process.pid, idle)
    while (deadline or still or cancelled or waiting) and not ends_within(process, 0.1):
        if waiting is not None:
            waiting()
        if cancelled is not None and cancelled.is_set():
            return _CANCELLED
        if deadline is not None and time.monotonic() > deadline:
            return f"did not end within {timeout:g} s"
        if still is not None and still.lasts():
            return f"did nothing for {idle:g} s (IDLE_TIMEOUT)"
    process.wait()
    return ""


class _Stillness:
    """Looks now and then whether the processes of a session do anything."""

    def __init__(self, session: int, idle: float) -> None:
        self._session, self._patience = session, Patience("a command", idle)
        self._often = idle / 10
        self._looked, self._activity = time.monotonic(), -1

    def lasts(self) -> bool:
        """Whether they have done nothing for so long."""
        if time.monotonic() - self._looked < self._often:
            return False
        self._looked, before = time.monotonic(), self._activity
        self._activity = activity.of_session(self._session)
        if self._activity != before:
            self._patience.moved()
        return self._patience.ended


def _described(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"


def _failure(argv: Sequence[str], outcome: str, output: str) -> CommandFailed:
    name = Path(argv[argv.index("--") + 1] if "--pdeathsig" in argv else argv[0]).name
    return CommandFailed(command=name, outcome=outcome, output=one_line(output[-_SHOWN_OUTPUT:]) or "(no output)")
