"""One image's backup of one snapshot: what every step of it needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.repository.layout import Place
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.protocol.manifest import Base, Identity
from ceph_rsnapshot_common.protocol.records import (
    ExportRequest,
    Image,
    JobStatus,
    Listing,
    QcowOptions,
    Snapshot,
    SnapshotRequest,
)


@dataclass(frozen=True)
class Work:
    context: Context
    listing: Listing
    image: Image
    snapshot: Snapshot
    place: Place
    observer: Observer

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def name(self) -> str:
        return f"{self.listing.pool}/{self.image.name}"

    @property
    def identity(self) -> Identity:
        return identity(self.listing, self.image, self.snapshot)

    @property
    def request(self) -> SnapshotRequest:
        return SnapshotRequest(
            pool=self.listing.pool,
            image=self.image.name,
            image_id=self.image.id,
            snapshot=self.snapshot.name,
            snapshot_id=self.snapshot.id,
        )

    @property
    def qcow_options(self) -> QcowOptions:
        settings = self.settings
        return QcowOptions(cluster_size=settings.qcow_cluster_size, compression=settings.qcow_compression)

    def export_request(self, base: Base | None) -> ExportRequest:
        return ExportRequest(
            **self.request.model_dump(),
            base=base,
            fast_diff=self.settings.fast_diff,
            bandwidth_limit=self.settings.bandwidth_limit,
            qcow=self.qcow_options,
        )

    def show(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell the observer; amounts in bytes."""
        self.observer.image_progress(stage, done, total)

    def show_verifying(self, done: int, total: int) -> None:
        self.show("verifying", done, total)

    def show_status(self, status: JobStatus) -> None:
        self.show(status.stage, status.done, status.total)


def identity(listing: Listing, image: Image, snapshot: Snapshot) -> Identity:
    return Identity(listing.fsid, listing.pool.pool, listing.pool.namespace, image.id, snapshot.id)
