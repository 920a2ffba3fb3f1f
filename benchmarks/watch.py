"""Instruments: seconds of commands, bytes through an ssh connection, memory of process trees."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MIB = 1024**2


def timed(*commands: list[str]) -> float:
    """Seconds that the commands take, one after the other; a failure ends the program."""
    started = time.monotonic()
    for argv in commands:
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - started


class Counter:
    """A TCP relay to ``port`` on loopback that counts what goes through, both ways."""

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            there = socket.create_connection(("127.0.0.1", self._to))
            for from_, to in ((here, there), (there, here)):
                threading.Thread(target=self._relay, args=(from_, to), daemon=True).start()

    def _relay(self, from_: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := from_.recv(65536):
                self.bytes += len(data)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


class Peak:
    """The most memory that trees of processes had together, in MiB, and how it was divided then."""

    def __init__(self) -> None:
        self.mib = 0.0
        self.parts: dict[str, float] = {}

    def __str__(self) -> str:
        return f"{self.mib:.0f} MiB ({', '.join(f'{name} {mib:.0f}' for name, mib in sorted(self.parts.items()))})"


@contextmanager
def peak_memory(roots: list[int]) -> Iterator[Peak]:
    """Watch the resident memory (shared pages counted once, by their share) of ``roots`` and all below them."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            parts: dict[str, float] = {}
            for pid in _trees(roots):
                name, mib = _memory(pid)
                parts[name] = round(parts.get(name, 0) + mib, 1)
            parts.pop("", None)  # one that had just ended
            if sum(parts.values()) > peak.mib:
                peak.mib, peak.parts = sum(parts.values()), parts

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _trees(roots: list[int]) -> set[int]:
    found, new = set(roots), list(roots)
    while new:
        pid = new.pop()
        for children in Path("/proc", str(pid), "task").glob("*/children"):
            with contextlib.suppress(OSError):
                below = {int(word) for word in children.read_text().split()} - found
                found |= below
                new += below
    return found


def _memory(pid: int) -> tuple[str, float]:
    try:
        name = Path("/proc", str(pid), "comm").read_text().strip()
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
        return name, sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, IndexError):
        return "", 0.0
