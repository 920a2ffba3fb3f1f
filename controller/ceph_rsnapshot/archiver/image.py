"""The work on one image: a plan, the transfer, and once more in full if what came is not what the snapshot holds."""

from __future__ import annotations

import contextlib
import logging
import time

from ceph_rsnapshot.archiver import direct, staged
from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.orphans import unmark
from ceph_rsnapshot.archiver.plan import make_plan
from ceph_rsnapshot.archiver.report import ImageReport, error_record
from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.repository import rotation
from ceph_rsnapshot.repository.layout import place
from ceph_rsnapshot_common.errors import BaseUnusable, CephRsnapshotError, ContentDiffers
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import Image, Listing

_logger = logging.getLogger(__name__)


def backup_image(
    context: Context, listing: Listing, image: Image, force: bool, full: bool, observer: Observer
) -> ImageReport:
    """Back up one image of the listing; whatever goes wrong is in the report, and its older days are as before."""
    started = time.monotonic()
    report = initial_report(listing, image)
    if image.snapshot is None:
        return report
    where = place(context.settings.backup_base_path, listing.pool, image.name, context.settings.retain_interval)
    work = Work(context, listing, image, image.snapshot, where, observer)
    observer.image_begins(listing.pool, image.name)
    try:
        report = _backed_up(work, report, force, full)
    except (CephRsnapshotError, OSError) as error:
        report = report.model_copy(update={"result": "failed", "error": error_record(error)})
    report = report.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    observer.image_ends(report)
    return report


def initial_report(listing: Listing, image: Image) -> ImageReport:
    """What the listing says of an image, before any work on it."""
    found = image.snapshot
    return ImageReport(
        pool=str(listing.pool),
        image=image.name,
        snapshot=listing.snapshot_name,
        result="failed" if image.error else "would-back-up" if found else "no-snapshot",
        size=found.size if found else image.size,
        newest_snapshot=image.newest.name if image.newest else None,
        error=image.error,
    )


def _backed_up(work: Work, report: ImageReport, force: bool, full: bool) -> ImageReport:
    """The report of an image that is safe now; a day 0 that was this snapshot already is left as it is."""
    if work.place.root.is_dir():
        rotation.finish_rotation(work.place, work.settings.retain_number)
        if not force and work.place.has_newest(work.identity):
            if work.image.base is None or work.image.base.snapshot_id != work.snapshot.id:
                _tell_base(work)  # a run that was killed after its rotation has not
            path = str(work.place.qcow(work.place.day(0)))
            return report.model_copy(update={"result": "skipped", "path": path, "next_base": work.snapshot.name})
    manifest, mismatch = _transfer(work, full)
    unmark(work.place)
    _tell_base(work)
    return report.model_copy(
        update={
            "result": "done",
            "path": str(work.place.qcow(work.place.day(0))),
            "transfer_mode": manifest.transfer_mode,
            "kind": manifest.kind,
            "full_because": manifest.full_because,
            "base": manifest.base.snapshot if manifest.base else None,
            "next_base": manifest.snapshot,
            "changed": manifest.changed_bytes,
            "transferred": manifest.transferred_bytes or 0,
            "verified": manifest.verified,
            "mismatch": mismatch,
        }
    )


def _transfer(work: Work, full: bool) -> tuple[Manifest, str | None]:
    """The manifest of the new day 0, and what was found to differ in a first attempt that was thrown away."""
    back_up = direct.back_up if work.settings.transfer_mode == "direct" else staged.back_up
    plan = make_plan(work, full)
    try:
        return back_up(work, plan), None
    except BaseUnusable as error:
        _logger.info("%s: a full backup, because %s", work.name, error)
        return back_up(work, plan.instead(str(error))), None
    except ContentDiffers as error:
        _logger.error("%s; it was thrown away, and a full backup is made", error)
        because = f"a first attempt differed from the snapshot: {error}"
        return back_up(work, plan.instead(because)), str(error)


def _tell_base(work: Work) -> None:
    """Let the agent note it for people; the backup is safe, whether that succeeds or not."""
    client = work.context.agent.alive
    with contextlib.suppress(CephRsnapshotError):
        if client:
            client.landed(work.listing.fsid, work.request)
