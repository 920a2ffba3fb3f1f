"""Progress of one thing after another: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.markup import escape

from ceph_rsnapshot_common.printable import printable
from ceph_rsnapshot_common.progress import ProgressByName, unwatched


def shown(text: str) -> str:
    """Text of others for rich: neither markup nor anything that is not printable acts."""
    return escape(printable(text))


@contextmanager
def bar(stream: TextIO) -> Iterator[ProgressByName]:
    """Yields the function to call; the bar disappears when the block ends."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield unwatched
        return
    from ceph_rsnapshot.cli.output.screen import bytes_progress

    with bytes_progress(console) as progress:
        task = progress.add_task("", total=None)

        def show(name: str, stage: str, done: int, total: int) -> None:
            progress.update(task, description=f"{shown(name)}: {shown(stage)}", completed=done, total=total or None)

        yield show
