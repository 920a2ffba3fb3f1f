"""Staged mode: the agent makes a qcow2 in its temporary folder, and rsnapshot pulls it."""

from __future__ import annotations

import logging

from ceph_rsnapshot.archiver.plan import Plan
from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.archiver.unchanged import land_unchanged
from ceph_rsnapshot.archiver.verification import examine_whole
from ceph_rsnapshot.repository import rotation
from ceph_rsnapshot.repository.rsnapshot import Source, configured
from ceph_rsnapshot_common.errors import CephRsnapshotError, ContentDiffers, TransferFailed
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.protocol.manifest import Manifest, render
from ceph_rsnapshot_common.protocol.records import Exported

_FEW_HOLES = 0.95
_logger = logging.getLogger(__name__)


def back_up(work: Work, plan: Plan) -> Manifest:
    """The manifest of the new day 0.

    Raises:
        BaseUnusable, ContentDiffers: nothing was rotated; a full backup may do better.
        CephRsnapshotError: nothing was rotated.
    """
    exported = work.context.agent.client().export(work.export_request(plan.base_snapshot), work.show_status)
    if exported.manifest is None or exported.folder is None:
        return land_unchanged(work, plan, exported.facts)
    try:
        _check_is_wanted(exported.manifest, exported.folder, work)
        return _land(work, plan, exported, exported.folder, exported.manifest)
    finally:
        _remove_exported(work)


def _check_is_wanted(manifest: Manifest, folder: str, work: Work) -> None:
    if manifest.identity != work.identity or not folder.startswith("/") or not folder.isprintable():
        raise TransferFailed(path=folder, reason="the agent exported something else than it was asked for")


def _land(work: Work, plan: Plan, exported: Exported, folder: str, manifest: Manifest) -> Manifest:
    place, context = work.place, work.context
    place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = context.agent.client().link
    limit = work.settings.bandwidth_limit
    source = Source(folder, link.host, link.ssh_args, bandwidth_limit=limit, sparse=_has_holes(manifest))
    because = plan.because or "something has changed, and in staged mode each backup of a changed image is a full one"
    final = manifest.model_copy(update={"full_because": because})

    def verify_arrived() -> None:
        nonlocal final
        sync = place.sync
        try:
            examined = examine_whole(work, plan, place.qcow(sync), place.digests(sync), exported.allocated)
        except ContentDiffers:
            place.qcow(sync).unlink()
            raise
        final = final.model_copy(update=examined)
        folders.write_durably(place.manifest(place.sync), render(final))
        work.show("rsnapshot")

    work.show("rsnapshot")
    with configured(work.settings, place, source, context.conf_folder, context.lock) as rsnapshot:
        rotation.land(rsnapshot, manifest, verify_arrived)
    return final


def _has_holes(manifest: Manifest) -> bool:
    """Whether so much of the qcow2 takes no disk that it is worth while to keep it so."""
    return manifest.qcow2_bytes < _FEW_HOLES * manifest.qcow2_file_size


def _remove_exported(work: Work) -> None:
    """If the connection is gone, so is the file: an agent removes what a lost connection exported."""
    client = work.context.agent.alive
    try:
        if client:
            client.remove_qcow(work.listing.pool, work.image.name)
    except CephRsnapshotError as error:  # the cause of a failure before this one must stay the one that is seen
        _logger.warning("the temporary qcow2 of %s is left to the agent to remove: %s", work.name, error)
