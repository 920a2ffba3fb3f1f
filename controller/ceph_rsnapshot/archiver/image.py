"""One image's night: a plan, the transfer, verification and rotation; once more in full if an increment won't do."""

from __future__ import annotations

import contextlib
import logging
import time

from ceph_rsnapshot.archiver import commit, direct, staged
from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.orphans import unmark
from ceph_rsnapshot.archiver.plan import Full, Plan, make_plan
from ceph_rsnapshot.archiver.report import ImageReport, error_record
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.archiver.verification import examine, is_brief
from ceph_rsnapshot.repository import rotation
from ceph_rsnapshot.repository.layout import folder_of
from ceph_rsnapshot.repository.nights import InPlaceOf, Kept, OnTop, Standing, standing
from ceph_rsnapshot.repository.retention import Retention, retention
from ceph_rsnapshot_common.errors import BaseUnusable, CephRsnapshotError, ContentDiffers
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import Image, LandedRequest, Listing

_logger = logging.getLogger(__name__)


def backup_image(context: Context, listing: Listing, image: Image, observer: Observer) -> ImageReport:
    """Back up one image of the listing; whatever goes wrong is in the report, and its older days are as before."""
    started = time.monotonic()
    report = initial_report(listing, image)
    if image.snapshot is None:
        return report
    folder = folder_of(context.settings, listing.pool, image.name)
    task = Task(context, listing, image, image.snapshot, folder, observer)
    observer.image_begins(listing.pool, image.name)
    try:
        report = _backed_up(task, report)
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


def _backed_up(task: Task, report: ImageReport) -> ImageReport:
    """The report of an image that is safe now; a day that is this snapshot already is left as it is."""
    place: Standing = OnTop()
    if task.folder.path.is_dir():
        rotation.finish_rotation(task.folder)
        place = standing(task.folder, task.identity, task.context.night, task.image.name)
    if isinstance(place, Kept):
        if not task.context.options.force:
            return _skipped(task, report, place.number)
        place = InPlaceOf(place.number)
    rules = retention(task.folder, task.settings)
    manifest, mismatch = _at_most_twice(task, place, rules)
    unmark(task.folder)
    _tell_base(task)
    number = place.number if isinstance(place, InPlaceOf) else 0
    return report.model_copy(
        update={
            "result": "done",
            "path": str(task.folder.day(number).qcow),
            "transfer_mode": manifest.transfer_mode,
            "kind": manifest.kind,
            "full_because": manifest.full_because,
            "base": manifest.base.snapshot if manifest.base else None,
            "next_base": manifest.snapshot,
            "changed": manifest.changed_bytes,
            "transferred": manifest.transferred_bytes or 0,
            "verified": manifest.verified,
            "mismatch": mismatch,
            "replaced": task.folder.day(number).folder.name if isinstance(place, InPlaceOf) else None,
            "too_young": len(rules.too_young),
        }
    )


def _skipped(task: Task, report: ImageReport, number: int) -> ImageReport:
    if number == 0 and (task.image.base is None or task.image.base.snapshot_id != task.snapshot.id):
        _tell_base(task)  # a run that was killed after its rotation has not
    path = str(task.folder.day(number).qcow)
    return report.model_copy(update={"result": "skipped", "path": path, "next_base": task.snapshot.name})


def _at_most_twice(task: Task, place: OnTop | InPlaceOf, rules: Retention) -> tuple[Manifest, str | None]:
    """The manifest of the new day, and what was found to differ in a first attempt that was thrown away."""
    plan = make_plan(task)
    try:
        return _new_day(task, plan, place, rules), None
    except BaseUnusable as error:
        if isinstance(plan, Full):
            raise
        _logger.info("%s: a full backup, because %s", task.name, error)
        return _new_day(task, plan.given_up(str(error)), place, rules), None
    except ContentDiffers as error:
        _logger.error("%s; it was thrown away, and a full backup is made", error)
        because = f"a first attempt differed from the snapshot: {error}"
        return _new_day(task, Full(because, plan.full_check_in), place, rules), str(error)


def _new_day(task: Task, plan: Plan, place: OnTop | InPlaceOf, rules: Retention) -> Manifest:
    """The steps to a new day, in their order; no older day is touched before the last one.

    Raises:
        BaseUnusable, ContentDiffers: nothing was rotated; a full backup may do better.
        CephRsnapshotError: nothing was rotated.
    """
    mode = direct if task.settings.transfer_mode == "direct" else staged
    content = None
    with (
        mode.transferred(task, plan) as new,
        commit.prepared(task.context, task.folder, new.source, rules.retain) as rsnapshot,
    ):
        task.show("rsnapshot")
        with rsnapshot.syncing():
            if is_brief(task, new.plan):  # what takes hours need not begin before it is known that rsnapshot works
                content = examine(task, new)
        with rotation.arrived(task.folder, new.manifest):
            manifest = commit.complete(task, new, content or examine(task, new))
        if isinstance(place, InPlaceOf):
            rotation.replace(task.folder, place.number)
        else:
            rotation.rotate(rsnapshot, rules)
    return manifest


def _tell_base(task: Task) -> None:
    """Let the agent note it for people; the backup is safe, whether that succeeds or not."""
    client = task.context.agent.alive
    with contextlib.suppress(CephRsnapshotError):
        if client:
            client.ask(calls.LANDED, LandedRequest(fsid=task.listing.fsid, snapshot=task.request))
