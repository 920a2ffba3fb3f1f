"""A day that is ready in the incoming folder becomes day 0."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

from ceph_rsnapshot import rotation
from ceph_rsnapshot.base import Plan
from ceph_rsnapshot.examine import examine_unchanged
from ceph_rsnapshot.incoming import Incoming, clone, incoming
from ceph_rsnapshot.rsnapshot import Source, configured
from ceph_rsnapshot.work import Work
from ceph_rsnapshot_common import __version__, folders, qcow
from ceph_rsnapshot_common.manifest import Manifest, Versions, render
from ceph_rsnapshot_common.records import Facts

Examine = Callable[[], dict[str, object]]
"""Compares the file with its snapshot, and returns what the manifest says of that."""


def land(work: Work, files: Incoming, manifest: Manifest, examine: Examine) -> Manifest:
    """Let rsnapshot hard-link the file into a new day 0, which only a file becomes that ``examine`` has found good.

    Raises:
        RsnapshotFailed, TransferFailed: nothing was rotated.
        BaseUnusable, ContentDiffers: of ``examine``; nothing was rotated.
    """
    place, context, final = work.place, work.context, manifest
    folders.write_durably(files.manifest, render(manifest))
    place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # rsync links only where there is nothing yet; a failed night may have left something
    shutil.rmtree(place.sync, ignore_errors=True)

    def meanwhile() -> None:
        nonlocal final
        final = manifest.model_copy(update={**examine(), "ended": datetime.now(timezone.utc)})
        work.show("rsnapshot")

    def complete() -> None:
        _link(files.digests, place.digests(place.sync), work.settings.min_freespace)
        folders.write_durably(place.manifest(place.sync), render(final))

    # an unchanged file is linked to day 0 by rsnapshot's own --link-dest
    source = Source(str(files.ready), linked_into=None if manifest.kind == "unchanged" else place.sync)
    with configured(work.settings, place, source, context.conf_folder, context.lock) as rsnapshot:
        rotation.land(rsnapshot, manifest, complete, meanwhile)
    return final


def land_unchanged(work: Work, plan: Plan, facts: Facts) -> Manifest:
    """Nothing has changed since the base: the new day is the same file, and costs nothing.

    Raises:
        ContentDiffers: the sample says otherwise, or a full comparison was due and found a difference.
        BaseUnusable: the file of the base can't be read.
    """
    assert plan.base
    started = datetime.now(timezone.utc)
    with incoming(work.settings.backup_base_path, work.listing.pool, work.image.name) as files:
        base, minimum = work.place.day(0), work.settings.min_freespace
        _link(work.place.qcow(base), files.qcow, minimum)
        _link(work.place.digests(base), files.digests, minimum)
        manifest = describe(work, plan, facts, files.qcow, started).model_copy(
            update={
                "kind": "unchanged",
                "allocated_bytes": plan.base.allocated_bytes,
                "changed_bytes": 0,
                "transferred_bytes": 0,
            }
        )
        return land(work, files, manifest, lambda: examine_unchanged(work, plan, files.qcow))


def describe(work: Work, plan: Plan, facts: Facts, path: Path, started: datetime) -> Manifest:
    """The manifest of the finished file ``path``; how it was made is added by who made it."""
    status = path.stat()
    return Manifest(
        fsid=facts.fsid,
        pool=work.listing.pool.pool,
        namespace=work.listing.pool.namespace,
        image=work.image.name,
        image_id=work.image.id,
        snapshot=work.snapshot.name,
        snapshot_id=work.snapshot.id,
        snapshot_created=facts.created,
        size=facts.size,
        qcow2_bytes=status.st_blocks * 512,
        qcow2_file_size=status.st_size,
        qcow2_mtime_ns=status.st_mtime_ns,
        transfer_mode=work.settings.transfer_mode,
        base=plan.base_snapshot,
        full_because=plan.because,
        started=started,
        ended=datetime.now(timezone.utc),
        layout=facts.layout,
        versions=Versions(ceph_rsnapshot=__version__, ceph=facts.ceph, qemu=qcow.qemu_version("backup")),
    )


def _link(source: Path, target: Path, minimum: int) -> None:
    """Hard-link, or across file systems clone with the same time, by which rsync sees that it is the same file."""
    try:
        os.link(source, target)
    except OSError:
        clone(source, target, minimum)
        status = source.stat()
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
