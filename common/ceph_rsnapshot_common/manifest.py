"""The manifest: what a backup is. It lies beside the qcow2 as ``<image>.json``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Optional

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST_VERSION = 1


class Identity(NamedTuple):
    """What makes two snapshots the same one; a name alone never does."""

    fsid: str
    pool: str
    namespace: str
    image_id: str
    snapshot_id: int


class Base(BaseModel):
    """The snapshot that an increment was made from; of the same image, so that its id is all that counts."""

    model_config = ConfigDict(frozen=True)

    snapshot: str
    snapshot_id: int


class Versions(BaseModel):
    model_config = ConfigDict(frozen=True)

    ceph_rsnapshot: str
    ceph: str
    qemu: str


class Layout(BaseModel):
    """What is needed to make an image like the original; sizes in bytes."""

    model_config = ConfigDict(frozen=True)

    features: tuple[str, ...]
    object_size: int
    stripe_unit: int
    stripe_count: int
    data_pool: Optional[str] = None


class Manifest(BaseModel):
    """One backup.

    Attributes:
        size: bytes of the image in the snapshot.
        allocated_bytes: bytes of it that Ceph holds data for (parents included); None if they were not counted.
        qcow2_bytes: bytes that the qcow2 takes on disk (shared ones included).
        qcow2_file_size: length of the qcow2 file in bytes.
        qcow2_mtime_ns: its time of modification: a file that was changed since is no base. None: not known.
        kind: ``full``; ``increment`` (changes since ``base``, written into a clone of its backup); ``unchanged``
            (nothing had changed since ``base``: the qcow2 is the same file as in its backup).
        full_because: why it is a full one.
        changed_bytes: bytes that were written, those that became zero included.
        transferred_bytes: bytes of content that crossed between the nodes.
        verified: what was compared with the snapshot: ``changed`` ranges and a sample, all of it, or nothing.
        backups_since_full_check: counts up to VERIFY_FULL_EVERY.
    """

    model_config = ConfigDict(frozen=True)

    manifest_version: Literal[1] = 1
    fsid: str
    pool: str
    namespace: str = ""
    image: str
    image_id: str
    snapshot: str
    snapshot_id: int
    snapshot_created: datetime
    size: int
    allocated_bytes: Optional[int] = None
    qcow2_bytes: int
    qcow2_file_size: int
    qcow2_mtime_ns: Optional[int] = None
    transfer_mode: Literal["staged", "direct"] = "staged"
    kind: Literal["full", "increment", "unchanged"] = "full"
    base: Optional[Base] = None
    full_because: Optional[str] = None
    changed_bytes: Optional[int] = None
    transferred_bytes: Optional[int] = None
    verified: Literal["none", "changed", "full"] = "none"
    backups_since_full_check: int = 0
    started: datetime
    ended: datetime
    layout: Layout
    versions: Versions

    @property
    def identity(self) -> Identity:
        return Identity(self.fsid, self.pool, self.namespace, self.image_id, self.snapshot_id)


class ManifestUnreadable(ValueError):
    """There is a manifest, but it says nothing that can be relied on."""


def read_manifest(path: Path) -> Manifest:
    """The manifest in file ``path``.

    Raises:
        FileNotFoundError: there is none.
        ManifestUnreadable: it can't be read, is damaged, or of a version that this program doesn't know.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValidationError) as error:
        raise ManifestUnreadable(f"{path}: {error}") from None
