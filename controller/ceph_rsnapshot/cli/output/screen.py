"""What a person sees of a run on a terminal: progress bars, and the table."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.report import ImageReport, OrphanReport, RunReport
from ceph_rsnapshot.cli.output.bars import shown
from ceph_rsnapshot.cli.output.lines import counts, until
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.sizes import format_size

_STYLES = {
    "done": "green",
    "failed": "bold red",
    "not-reached": "bold red",
    "no-snapshot": "yellow",
    "skipped": "dim",
    "kept": "dim",
    "already-rotated": "dim",
}


def print_report(report: RunReport, console: Console | None = None) -> None:
    """The table of images, the orphans and the counts, on standard output."""
    console = console or Console()
    if report.images:
        console.print(_table(report))
    for orphan in report.orphans:
        console.print(_orphan_line(orphan))
    for name in report.vanished:
        console.print(f"deleted while the pool was listed: {shown(name)}")
    if report.conf_folder:
        console.print(f"rsnapshot's configurations are kept in {shown(report.conf_folder)}", soft_wrap=True)
    console.print(shown(counts(report)), soft_wrap=True)


def _table(report: RunReport) -> Table:
    table = Table(header_style="bold")
    table.add_column("image", overflow="fold")
    table.add_column("snapshot", overflow="fold")
    for name in ("size", "transferred", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for image in report.images:
        table.add_row(*_row(image))
    return table


def _row(image: ImageReport) -> tuple[str, ...]:
    result = image.result.replace("-", " ")
    if image.result == "no-snapshot":
        result += f" (newest: {image.newest_snapshot or 'none'})"
    if image.kind:
        result = image.kind
        result += {"changed": ", verified", "full": ", verified in full"}.get(image.verified or "", "")
        result += "; a first attempt differed" if image.mismatch else ""
        result += f"; in place of {image.replaced}" if image.replaced else ""
        result += f"; {image.too_young} more kept by RETAIN_MIN_AGE" if image.too_young else ""
    return (
        shown(f"{image.pool}/{image.image}"),
        shown(image.snapshot),
        format_size(image.size),
        format_size(image.transferred) if image.transferred else "-",
        f"{image.seconds:.1f} s" if image.seconds else "-",
        f"[{_STYLES.get(image.result, 'default')}]{shown(result)}[/]",
    )


def _orphan_line(orphan: OrphanReport) -> str:
    text = f"{orphan.pool}/{orphan.image} was deleted in Ceph: {orphan.result.replace('-', ' ')}"
    text += f": {orphan.error.message}" if orphan.error else until(orphan)
    return f"[{_STYLES.get(orphan.result, 'default')}]{shown(text)}[/]"


def bytes_progress(console: Console) -> Progress:
    """Bars with amounts and remaining time; they disappear at their end."""
    columns = (TextColumn("{task.description}"), BarColumn(), _Amount(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


class Bars(Observer):
    """A bar for the run, and one for the image with bytes, rate and remaining time."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = bytes_progress(Console(file=stream))
        self._run = self._progress.add_task("connecting", total=None, unit="images")
        self._image = self._progress.add_task("", visible=False, unit="bytes")
        self._name = ""
        self._progress.start()

    def listing(self, pool: Pool, done: int, total: int) -> None:
        """See `Observer`."""
        self._progress.update(self._run, description=f"listing {shown(str(pool))}", completed=done, total=total or None)

    def run_begins(self, images: int) -> None:
        """See `Observer`."""
        self._progress.reset(self._run, description="backing up", completed=0, total=images)

    def image_begins(self, pool: Pool, image: str) -> None:
        """See `Observer`."""
        self._name = shown(f"{pool}/{image}")
        self._progress.remove_task(self._image)
        self._image = self._progress.add_task(self._name, total=None, unit="bytes")

    def image_progress(self, stage: str, done: int, total: int) -> None:
        """See `Observer`."""
        text = f"{self._name}: {shown(stage)}"
        self._progress.update(self._image, description=text, completed=done, total=total or None)

    def image_ends(self, report: ImageReport) -> None:
        """See `Observer`."""
        self._progress.advance(self._run)

    def run_ends(self) -> None:
        """See `Observer`."""
        self._progress.stop()


class _Amount(ProgressColumn):
    """How much of how much: images, or bytes with their rate."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        if task.fields.get("unit") == "images":
            return Text(f"{task.completed:.0f}/{task.total:.0f} images")
        rate = f" {format_size(task.speed)}/s" if task.speed else ""
        return Text(f"{format_size(task.completed)}/{format_size(task.total)}{rate}")
