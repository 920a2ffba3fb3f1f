"""A day that is ready in the incoming folder becomes day 0."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

from ceph_rsnapshot.archiver.plan import Plan
from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.archiver.verification import is_brief
from ceph_rsnapshot.repository import rotation
from ceph_rsnapshot.repository.incoming import Incoming
from ceph_rsnapshot.repository.layout import Place
from ceph_rsnapshot.repository.reflinks import disk_bytes, link
from ceph_rsnapshot.repository.rsnapshot import Source, configured
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.process import qemu_img
from ceph_rsnapshot_common.protocol.manifest import Manifest, Versions, render
from ceph_rsnapshot_common.protocol.records import Facts

Examine = Callable[[], dict[str, object]]
"""Compares the file with its snapshot, and returns what the manifest says of that."""


def land(work: Work, plan: Plan, files: Incoming, digests: Path, manifest: Manifest, examine: Examine) -> Manifest:
    """Let rsnapshot hard-link the file into a new day 0, which only a file becomes that ``examine`` has found good.

    Args:
        digests: the file of digests as it is after ``examine``.

    Raises:
        RsnapshotFailed, TransferFailed: nothing was rotated.
        BaseUnusable, ContentDiffers: of ``examine``; nothing was rotated.
    """
    place, context, final = work.place, work.context, manifest
    # what takes hours need not be begun before it is known that rsnapshot works
    brief = is_brief(work, plan)

    def judge() -> None:
        nonlocal final
        examined = examine()  # first: what a file takes of the disk settles when it is written back
        final = manifest.model_copy(
            update={**examined, "ended": datetime.now(timezone.utc), "qcow2_bytes": disk_bytes(files.qcow)}
        )
        work.show("rsnapshot")

    def complete() -> None:
        if not brief:
            judge()
        link(digests, place.digests(place.sync), work.settings.min_freespace)
        folders.sync_file(place.digests(place.sync))
        folders.write_durably(place.manifest(place.sync), render(final))

    folders.write_durably(files.manifest, render(manifest))
    # an unchanged file is linked to day 0 by rsnapshot's own --link-dest
    source = Source(str(files.ready), linked_into=None if manifest.kind == "unchanged" else place.sync)
    with (
        _synced_into(place, work),
        configured(work.settings, place, source, context.conf_folder, context.lock) as rsnapshot,
    ):
        rotation.land(rsnapshot, manifest, complete, judge if brief else lambda: None)
    return final


@contextmanager
def _synced_into(place: Place, work: Work) -> Iterator[None]:
    """An empty ``.sync``, because rsync links only where there is nothing yet; if the block fails, it goes."""
    place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(place.sync, ignore_errors=True)
    try:
        yield
    except BaseException:
        if not rotation.has_begun(place):
            shutil.rmtree(place.sync, ignore_errors=True)
            folders.remove_empty(place.root, work.settings.backup_base_path)
        raise


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
        qcow2_bytes=disk_bytes(path),
        qcow2_file_size=status.st_size,
        qcow2_mtime_ns=status.st_mtime_ns,
        transfer_mode=work.settings.transfer_mode,
        base=plan.base_snapshot,
        full_because=plan.because,
        started=started,
        ended=datetime.now(timezone.utc),
        layout=facts.layout,
        versions=Versions(ceph_rsnapshot=__version__, ceph=facts.ceph, qemu=qemu_img.qemu_version("backup")),
    )
