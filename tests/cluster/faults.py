"""What makes things go wrong."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

_CLONE_NEWNS = 0x20000
"""unshare(2), sched.h."""


def children(process: subprocess.Popen[str] | subprocess.Popen[bytes], name: str) -> list[int]:
    """Processes called ``name`` that descend from ``process``."""
    done = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in done.stdout.splitlines()]
    known = {process.pid}
    for _ in rows:
        known |= {int(pid) for pid, parent, _name in rows if int(parent) in known}
    return [int(pid) for pid, _parent, command in rows if int(pid) in known and command.startswith(name)]


def kill(pids: Iterable[int]) -> None:
    """Kill processes, of which one may end because of another."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def instead_of(folder: Path, tool: str, script: str) -> dict[str, str]:
    """An environment in which ``script`` of bash is run instead of ``tool``, which it knows as ``$real``."""
    wrapper = folder / "bin" / tool
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/bash\nreal={shutil.which(tool)}\n{script}\n")
    wrapper.chmod(0o755)
    return {"PATH": f"{wrapper.parent}:{os.environ['PATH']}"}


def own_mounts() -> None:
    """Mounts from now on are seen by this process and its children alone, and go with them, however they end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):  # os.unshare is there from Python 3.12 on
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
