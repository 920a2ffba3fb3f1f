"""The work on one image: export, rsnapshot's configuration, sync, rotation, clean-up."""

from __future__ import annotations

import logging
import time

from ceph_rsnapshot import rotation
from ceph_rsnapshot.context import Context
from ceph_rsnapshot.layout import Place, place
from ceph_rsnapshot.observer import Observer
from ceph_rsnapshot.orphans import unmark
from ceph_rsnapshot.report import ImageReport, error_record
from ceph_rsnapshot.rsnapshot import Source, configured
from ceph_rsnapshot_common.errors import CephRsnapshotError, TransferFailed
from ceph_rsnapshot_common.manifest import Identity, Manifest
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.records import Exported, ExportRequest, Image, Listing, Snapshot

_logger = logging.getLogger(__name__)


def backup_image(context: Context, listing: Listing, image: Image, force: bool, observer: Observer) -> ImageReport:
    """Back up one image of the listing; whatever goes wrong is in the report, and its older days are as before."""
    started = time.monotonic()
    report = initial_report(listing, image)
    if image.snapshot is None:
        return report
    where = place(context.settings.backup_base_path, listing.pool, image.name, context.settings.retain_interval)
    observer.image_begins(listing.pool, image.name)
    try:
        manifest = _backed_up(context, listing, image, image.snapshot, where, force, observer)
        result = {"result": "done" if manifest else "skipped", "transferred": manifest.qcow2_bytes if manifest else 0}
        report = report.model_copy(update={**result, "path": str(where.qcow(where.day(0)))})
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


def identity(listing: Listing, image: Image, snapshot: Snapshot) -> Identity:
    return Identity(listing.fsid, listing.pool.pool, listing.pool.namespace, image.id, snapshot.id)


def _backed_up(
    context: Context, listing: Listing, image: Image, snapshot: Snapshot, where: Place, force: bool, observer: Observer
) -> Manifest | None:
    """The manifest of the new day 0; None if day 0 was this snapshot already."""
    wanted = identity(listing, image, snapshot)
    if where.root.is_dir():
        rotation.finish_rotation(where, context.settings.retain_number)
        if not force and where.has_newest(wanted):
            return None
    request = ExportRequest(
        pool=listing.pool, image=image.name, image_id=image.id, snapshot=snapshot.name, snapshot_id=snapshot.id
    )
    client = context.agent.client()
    exported = client.export(request, lambda status: observer.image_progress(status.stage, status.done, status.total))
    try:
        _check_is_wanted(exported, wanted)
        observer.image_progress("rsnapshot", 0, 0)
        _land(context, where, exported)
    finally:
        _remove_exported(context, listing.pool, image.name)
    return exported.manifest


def _check_is_wanted(exported: Exported, wanted: Identity) -> None:
    if exported.manifest.identity != wanted or not exported.folder.startswith("/") or not exported.folder.isprintable():
        raise TransferFailed(path=exported.folder, reason="the agent exported something else than it was asked for")


def _land(context: Context, where: Place, exported: Exported) -> None:
    where.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = context.agent.client().link
    source = Source(exported.folder, link.host, link.ssh_args)
    with configured(context.settings, where, source, context.conf_folder, context.lock) as rsnapshot:
        rotation.land(rsnapshot, exported.manifest)
    unmark(where)


def _remove_exported(context: Context, pool: Pool, image: str) -> None:
    """If the connection is gone, so is the file: an agent removes what a lost connection exported."""
    client = context.agent.alive
    try:
        if client:
            client.remove_qcow(pool, image)
    except CephRsnapshotError as error:  # the cause of a failure before this one must stay the one that is seen
        _logger.warning("the temporary qcow2 of %s/%s is left to the agent to remove: %s", pool, image, error)
