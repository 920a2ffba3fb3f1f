"""Who watches a run: called with what begins, goes on and ends. The base class watches nothing."""

from __future__ import annotations

from ceph_rsnapshot.archiver.report import ImageReport
from ceph_rsnapshot_common.names import Pool


class Observer:
    """Derive from it and pass it to `ceph_rsnapshot.backup` to follow a run."""

    def listing(self, pool: Pool, done: int, total: int) -> None:
        """``done`` of ``total`` images of the pool were looked at."""

    def run_begins(self, images: int) -> None:
        """So many images have the snapshot."""

    def image_begins(self, pool: Pool, image: str) -> None:
        """The work on an image begins."""

    def image_progress(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of the image that is worked on; both 0 if the stage has no measure."""

    def image_ends(self, report: ImageReport) -> None:
        """The work on an image has ended, well or not."""

    def run_ends(self) -> None:
        """Nothing more will come."""
