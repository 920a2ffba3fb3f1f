"""What makes things go wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path


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


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
