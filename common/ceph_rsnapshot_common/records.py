"""Records that cross between agent and controller, as JSON text of these models."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Optional

from pydantic import BaseModel, ConfigDict

from ceph_rsnapshot_common.errors import ErrorRecord
from ceph_rsnapshot_common.manifest import Manifest
from ceph_rsnapshot_common.names import Pool

PROTOCOL = 1
"""Raised with every change of the calls or records; both ends must have the same."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Hello(Record):
    version: str
    protocol: int
    tools_missing: tuple[ErrorRecord, ...] = ()


class Snapshot(Record):
    """A snapshot of the user namespace; ``size`` is the image's size in it, in bytes."""

    name: str
    id: int
    created: datetime
    size: int


class Image(Record):
    """An image, whether it has the snapshot that was asked for, and the newest that it has.

    ``error`` is set if the image could not be opened: then ``snapshot`` None means "unknown", not "has none".
    """

    name: str
    id: str
    size: int = 0
    features: tuple[str, ...] = ()
    snapshot: Optional[Snapshot] = None
    newest: Optional[Snapshot] = None
    error: Optional[ErrorRecord] = None


class Listing(Record):
    """What a pool or namespace holds: all names, and the matching images in detail."""

    fsid: str
    pool: Pool
    snapshot_name: str
    names: tuple[str, ...]
    images: tuple[Image, ...]
    vanished: tuple[str, ...] = ()


class ListRequest(Record):
    pool: Pool
    snapshot_name: str
    image_re: str = ".*"


class ExportRequest(Record):
    """One snapshot by identity; the names are for paths and messages."""

    pool: Pool
    image: str
    image_id: str
    snapshot: str
    snapshot_id: int


class Exported(Record):
    """A finished export: the folder on the ceph node that holds exactly the qcow2 and its manifest."""

    folder: str
    manifest: Manifest


class JobStatus(Record):
    """How far a job is; ``done`` and ``total`` in bytes (exports) or images (listings)."""

    state: Literal["running", "done", "failed"]
    stage: str = ""
    done: int = 0
    total: int = 0
    error: Optional[ErrorRecord] = None


class ImageName(Record):
    pool: Pool
    image: str
