"""Whether the processes of a session do anything: one that stands still neither computes nor reads nor writes.

See https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html and proc_pid_io.5.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_SESSION, _USER_TIME, _SYSTEM_TIME = 3, 11, 12  # fields 6, 14 and 15 of stat, counted from the one after the name


def of_session(session: int) -> int:
    """A number that grows while any process of ``session`` (the pid of its first one) does something."""
    return sum(_of_process(path) for path in _processes(session))


def _processes(session: int) -> Iterator[Path]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _stat(path)) and int(fields[_SESSION]) == session:
            yield path


def _of_process(path: Path) -> int:
    fields = _stat(path)
    if not fields:
        return 1  # one that has ended just now
    return int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME]) + _bytes(path)


def _stat(path: Path) -> list[str]:
    try:
        return (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _bytes(path: Path) -> int:
    """All that it has read and written; nothing if we may not know."""
    try:
        lines = (path / "io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines)
