"""One image's backup of one snapshot: what every step of it needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.remote.client import AgentClient
from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.protocol.manifest import Base, Identity
from ceph_rsnapshot_common.protocol.records import (
    ExportRequest,
    Image,
    Listing,
    QcowOptions,
    Snapshot,
    SnapshotRequest,
)


@dataclass(frozen=True)
class Task:
    """The work on one image of a listing."""

    context: Context
    listing: Listing
    image: Image
    snapshot: Snapshot
    folder: ImageFolder
    observer: Observer

    @property
    def settings(self) -> Settings:
        """Those of the run."""
        return self.context.settings

    @property
    def name(self) -> str:
        """As messages name the image."""
        return f"{self.listing.pool}/{self.image.name}"

    @property
    def identity(self) -> Identity:
        """Of the snapshot that is to be backed up."""
        return identity(self.listing, self.image, self.snapshot)

    @property
    def client(self) -> AgentClient:
        """The agent, connected; raises as `AgentConnection.client`."""
        return self.context.agent.client()

    @property
    def request(self) -> SnapshotRequest:
        """The snapshot as the agent is asked for it."""
        return SnapshotRequest(
            fsid=self.listing.fsid,
            pool=self.listing.pool,
            image=self.image.name,
            image_id=self.image.id,
            snapshot=self.snapshot.name,
            snapshot_id=self.snapshot.id,
            size=self.snapshot.size,
        )

    @property
    def qcow_options(self) -> QcowOptions:
        """How new files are made."""
        settings = self.settings
        return QcowOptions(cluster_size=settings.qcow_cluster_size, compression=settings.qcow_compression)

    def export_request(self, base: Base | None) -> ExportRequest:
        """What the agent is to export: all, or what changed since ``base``."""
        return ExportRequest(
            **self.request.model_dump(),
            base=base,
            fast_diff=self.settings.fast_diff,
            bandwidth_limit=self.settings.bandwidth_limit,
            qcow=self.qcow_options,
        )

    def show(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell the observer: a `Progress`."""
        self.observer.image_progress(stage, done, total)


def identity(listing: Listing, image: Image, snapshot: Snapshot) -> Identity:
    """What makes a snapshot of a listed image the same one as another."""
    return Identity(listing.fsid, listing.pool.pool, listing.pool.namespace, image.id, snapshot.id)
