"""A run in plain lines: for logs and mails, and the end of the table."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TextIO

from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.report import ImageReport, OrphanReport, RunReport
from ceph_rsnapshot_common.printable import printable
from ceph_rsnapshot_common.sizes import format_size

_logger = logging.getLogger(__name__)


def log_report(report: RunReport) -> None:
    """Write the run into the log: what failed as errors (these go to the terminal too), the rest as information."""
    for image in report.images:
        text = f"{image.pool}/{image.image}@{image.snapshot}: {image.result}"
        if image.error:
            _logger.error("%s: %s", text, image.error.message)
        else:
            _logger.info("%s (%s in %.1f s)", text, format_size(image.transferred), image.seconds)
    for orphan in report.orphans:
        if orphan.error:
            _logger.error("orphan %s/%s: %s", orphan.pool, orphan.image, orphan.error.message)
        else:
            _logger.info("orphan %s/%s: %s%s", orphan.pool, orphan.image, orphan.result, until(orphan))
    for error in report.errors:
        _logger.error("%s", error.message)
    _logger.info("run ended: %s, exit code %d", counts(report), report.exit_code)


def until(orphan: OrphanReport) -> str:
    """When the last backup of an orphan will go, as people read it."""
    return f"; its last backup goes on {orphan.gone_on}" if orphan.gone_on else ""


def counts(report: RunReport) -> str:
    """One line: how many images of each result, the bytes, the orphans, the time."""
    by_result = Counter(image.result for image in report.images)
    parts = [f"{number} {result.replace('-', ' ')}" for result, number in sorted(by_result.items())]
    without = [f"{image.pool}/{image.image}" for image in report.images if image.result == "no-snapshot"]
    transferred = format_size(sum(image.transferred for image in report.images))
    seconds = (report.ended - report.started).total_seconds()
    line = f"{len(report.images)} images: {', '.join(parts) or 'none'}; {transferred} in {seconds:.1f} s"
    if report.orphans:
        line += f"; {len(report.orphans)} orphans"
    if without:
        line += f"; no snapshot {report.snapshot}: {', '.join(without)}"
    return line


class Lines(Observer):
    """A line when an image ends; for logs and mails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def run_begins(self, images: int) -> None:
        """See `Observer`."""
        self._print(f"{images} images to back up")

    def image_ends(self, report: ImageReport) -> None:
        """See `Observer`."""
        amount = f", {format_size(report.transferred)}" if report.transferred else ""
        self._print(f"{report.pool}/{report.image}@{report.snapshot}: {report.result}{amount}, {report.seconds:.1f} s")

    def _print(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)
