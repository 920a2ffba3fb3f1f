"""Nothing has changed since the base: the new day is the same file."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial

from ceph_rsnapshot.archiver.commit import describe, land
from ceph_rsnapshot.archiver.plan import Plan
from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.archiver.verification import examine_unchanged
from ceph_rsnapshot.repository.incoming import incoming
from ceph_rsnapshot.repository.reflinks import link
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import Facts


def land_unchanged(work: Work, plan: Plan, facts: Facts) -> Manifest:
    """Nothing has changed since the base: the new day is the same file, and costs nothing.

    Raises:
        ContentDiffers: the sample says otherwise, or a full comparison was due and found a difference.
        BaseUnusable: the file of the base can't be read.
    """
    assert plan.base
    started = datetime.now(timezone.utc)
    with incoming(work.settings.backup_base_path, work.listing.pool, work.image.name) as files:
        base = work.place.day(0)
        link(work.place.qcow(base), files.qcow, work.settings.min_freespace)
        manifest = describe(work, plan, facts, files.qcow, started).model_copy(
            update={
                "kind": "unchanged",
                "allocated_bytes": plan.base.allocated_bytes,
                "changed_bytes": 0,
                "transferred_bytes": 0,
            }
        )
        examine = partial(examine_unchanged, work, plan, files.qcow)
        return land(work, plan, files, work.place.digests(base), manifest, examine)
