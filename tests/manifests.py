"""A manifest to make others of."""

from __future__ import annotations

from datetime import datetime, timezone

from ceph_rsnapshot_common.protocol.manifest import ContentDigests, Layout, Manifest, Versions

MANIFEST = Manifest(
    fsid="6b7c6f4e-0000-4000-8000-000000000000",
    pool="rbd",
    image="vm-1",
    image_id="10a1f2b3c4d5",
    snapshot="2026-01-01",
    snapshot_id=4,
    snapshot_created=datetime(2026, 1, 1, 1, tzinfo=timezone.utc),
    size=8 * 1024**2,
    qcow2_bytes=196608,
    qcow2_file_size=327680,
    qcow2_mtime_ns=1_767_229_200_000_000_000,
    digests=ContentDigests(root="01" * 16, header="23" * 16),
    started=datetime(2026, 1, 1, 2, tzinfo=timezone.utc),
    ended=datetime(2026, 1, 1, 2, 1, tzinfo=timezone.utc),
    layout=Layout(features=("layering",), object_size=4194304, stripe_unit=4194304, stripe_count=1),
    versions=Versions(ceph_rsnapshot="1.0.0", ceph="16.2.15", qemu="7.2.22"),
)
