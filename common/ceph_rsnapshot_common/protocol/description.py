"""Where manifests are made: on the ceph node for a staged export, on the backup node for everything else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, Optional

from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.protocol.manifest import Base, Manifest, Versions
from ceph_rsnapshot_common.protocol.records import Facts, SnapshotRequest
from ceph_rsnapshot_common.sizes import disk_bytes


@dataclass(frozen=True)
class Transfer:
    """How a file was made; see `Manifest` for the fields. Amounts in bytes."""

    mode: Literal["staged", "direct"]
    kind: Literal["full", "increment", "unchanged"]
    base: Optional[Base] = None
    full_because: Optional[str] = None
    allocated_bytes: Optional[int] = None
    changed_bytes: Optional[int] = None
    transferred_bytes: Optional[int] = None


def describe(
    snapshot: SnapshotRequest, facts: Facts, qcow: Path, transfer: Transfer, started: datetime, qemu: str
) -> Manifest:
    """The manifest of the finished file ``qcow``, whose content has not been examined yet."""
    status = qcow.stat()
    return Manifest(
        fsid=facts.fsid,
        pool=snapshot.pool.pool,
        namespace=snapshot.pool.namespace,
        image=snapshot.image,
        image_id=snapshot.image_id,
        snapshot=snapshot.snapshot,
        snapshot_id=snapshot.snapshot_id,
        snapshot_created=facts.created,
        size=facts.size,
        allocated_bytes=transfer.allocated_bytes,
        qcow2_bytes=disk_bytes(status),
        qcow2_file_size=status.st_size,
        qcow2_mtime_ns=status.st_mtime_ns,
        transfer_mode=transfer.mode,
        kind=transfer.kind,
        base=transfer.base,
        full_because=transfer.full_because,
        changed_bytes=transfer.changed_bytes,
        transferred_bytes=transfer.transferred_bytes,
        started=started,
        ended=datetime.now(timezone.utc),
        layout=facts.layout,
        versions=Versions(ceph_rsnapshot=__version__, ceph=facts.ceph, qemu=qemu),
    )
