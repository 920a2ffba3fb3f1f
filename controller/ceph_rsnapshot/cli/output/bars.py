"""Progress of one thing after the other: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, TextIO

from rich.console import Console
from rich.markup import escape

Show = Callable[[str, str, int, int], None]
"""Gets a name, a stage, and bytes done and in all."""


@contextmanager
def bar(stream: TextIO) -> Iterator[Show]:
    """What to call; the bar goes when the block ends."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield lambda _name, _stage, _done, _total: None
        return
    from ceph_rsnapshot.cli.output.screen import bytes_progress

    with bytes_progress(console) as progress:
        task = progress.add_task("", total=None)

        def show(name: str, stage: str, done: int, total: int) -> None:
            progress.update(task, description=f"{escape(name)}: {stage}", completed=done, total=total or None)

        yield show
