"""How processes that this program started end: asked, waited for with a bound, killed; the whole group at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time

_STOP_SECONDS = 4.0  # all of them must have ended within ten seconds of a SIGTERM
_ASK_AGAIN_SECONDS = 0.3


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process with its whole group: ask, wait a bounded time, kill. It may have ended by itself already.

    It is asked again and again: ssh 9.2 was seen to go on for 10 seconds after one SIGTERM.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        _signal_group(process, signal.SIGTERM)
        ends_within(process, _ASK_AGAIN_SECONDS)
    if process.poll() is None:
        _signal_group(process, signal.SIGKILL)
    process.wait()


def ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for its end: `Popen.wait` with a time limit looks only every 50 ms, a pidfd is ready at once.

    See https://man7.org/linux/man-pages/man2/pidfd_open.2.html
    """
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
