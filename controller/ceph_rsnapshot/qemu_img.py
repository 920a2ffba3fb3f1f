"""`qemu-img convert` with its progress, from a backup to wherever it is restored to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common import commands, qcow

_COROUTINES = "16"


def convert(
    source: Path,
    target: str,
    how: Sequence[str],
    progress: Callable[[float], None],
    *,
    pass_fds: Sequence[int],
    waiting: Callable[[], None] | None = None,
) -> None:
    """Write the content of ``source`` to ``target``; zeros are not written where they need not be.

    Args:
        how: formats and whatever else the target needs.
        progress: gets the share that is done, from 0 to 1.
        pass_fds: open files that qemu-img gets, if ``source`` is one of them (/proc/self/fd).
        waiting: called about ten times a second until it ends.

    Raises:
        CommandFailed: reading or writing failed.
    """
    tool = commands.find_tool("qemu-img", "backup")
    argv = [tool, "convert", "-p", "-W", "-m", _COROUTINES, *how, str(source), target]
    on_stdout = qcow.reading_progress(progress)
    commands.run(commands.dying_with_parent(argv, "backup"), on_stdout=on_stdout, pass_fds=pass_fds, waiting=waiting)
