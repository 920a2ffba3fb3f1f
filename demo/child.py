"""Daemons that the demo and the tests start: they end by their own handle, and with us if we are killed."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable

_STOP_SECONDS = 20


class NotReady(RuntimeError):
    """A daemon died or did not get ready in time; has the end of its log."""


def start(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground, with its output in ``log``; it dies with the thread that starts it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
        )


def wait_ready(child: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    """Wait until ``ready()``.

    Raises:
        NotReady: the child ended, or ``seconds`` are over.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            state = "is not ready" if child.returncode is None else f"ended with {child.returncode}"
            raise NotReady(f"{child.args!r} {state}: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child: ask, wait, kill."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def own_folder(folder: Path | None, prefix: str) -> Iterator[Path]:
    """``folder``, made if it is missing; or a temporary one that is removed at the end."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    made = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Free TCP ports on loopback, held until the block ends so that two callers get different ones.

    They lie below those that the kernel gives to connections, which would take one in the moment after the block.
    """
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port, held = random.randrange(10_000, 32_000), stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                held.bind(("127.0.0.1", port))
                ports.append(port)
        yield ports


def port_answers(port: int) -> bool:
    """Whether something listens on the loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
