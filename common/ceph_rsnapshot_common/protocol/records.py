"""Records that cross between agent and controller, as JSON text of these models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Optional

from pydantic import AfterValidator, Field

from ceph_rsnapshot_common.errors import ErrorRecord, bounded
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.manifest import Base, Layout, Manifest

PROTOCOL = 5
"""Raised with every change of the calls or records; both ends must have the same."""

MAX_SIZE = 2**63 - 512
"""Bytes of the largest image: what qemu and NBD can address, in sectors."""

Text = Annotated[str, Field(max_length=4096)]
"""Names and texts; RADOS takes names of objects of 2048 bytes at most (osd_max_object_name_len)."""

PathText = Annotated[str, Field(max_length=4096)]
"""Of a folder or socket on the other node."""

ToldError = Annotated[ErrorRecord, AfterValidator(bounded)]
"""An error that crosses; one that is too long is cut where it enters."""

Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]
SnapshotId = Annotated[int, Field(ge=0, lt=2**64)]
Seconds = Annotated[int, Field(ge=1, le=2**31)]


class Hello(Record):
    """The agent's first answer: its version, its protocol, and what is not installed there."""

    version: Text
    protocol: Annotated[int, Field(ge=0, le=2**31)]
    tools_missing: tuple[ToldError, ...] = ()


class Snapshot(Record):
    """A snapshot of the user namespace; ``size`` is the image's size in it, in bytes."""

    name: Text
    id: SnapshotId
    created: datetime
    size: Size


class Image(Record):
    """An image, whether it has the snapshot that was asked for, and the newest that it has.

    ``base`` is the snapshot that was backed up last through this agent, and so the base of the next increment: it must
    be kept (``base_exists``) until the next backup. ``error`` is set if the image could not be opened: then
    ``snapshot`` None means "unknown", not "has none".
    """

    name: Text
    id: Text
    size: Size = 0
    features: tuple[Text, ...] = ()
    snapshot: Optional[Snapshot] = None
    newest: Optional[Snapshot] = None
    base: Optional[Base] = None
    base_exists: bool = False
    error: Optional[ToldError] = None


class ListRequest(Record):
    """Which pool or namespace to list."""

    pool: Pool


class Names(Record):
    """The names of all images of a pool or namespace."""

    fsid: Text
    pool: Pool
    names: tuple[Text, ...]


class DescribeRequest(Record):
    """Images to look at, by name, and the snapshot to look for: which images count is for the asking node to say."""

    pool: Pool
    snapshot_name: str
    images: tuple[str, ...]


class Described(Record):
    """Each image that was asked for, or its name if it no longer exists."""

    fsid: Text
    pool: Pool
    snapshot_name: Text
    images: tuple[Image, ...]
    vanished: tuple[Text, ...] = ()


class Listing(Described):
    """What a pool or namespace holds: all names, and the images that were chosen of them in detail."""

    names: tuple[Text, ...]


class QcowOptions(Record):
    """How a new qcow2 is made; ``cluster_size`` in bytes."""

    cluster_size: int = 65536
    compression: Literal["none", "zlib", "zstd"] = "none"


class SnapshotRequest(Record):
    """One snapshot by identity; the names are for paths and messages.

    Attributes:
        fsid, size: of the cluster, and of the image in the snapshot (bytes), as far as they are known: then the answer
            must have them too.
    """

    fsid: str = ""
    pool: Pool
    image: str
    image_id: str
    snapshot: str
    snapshot_id: int
    size: Optional[int] = None


class ExportRequest(SnapshotRequest):
    """What to export: all of the snapshot, or what changed since ``base``.

    Attributes:
        fast_diff: let the object map choose the objects that the OSDs are asked about.
        bandwidth_limit: bytes a second, 0 for none.
        qcow: for staged exports.
    """

    base: Optional[Base] = None
    fast_diff: bool = False
    bandwidth_limit: int = 0
    qcow: QcowOptions = QcowOptions()


class Facts(Record):
    """What the manifest tells of the snapshot; ``size`` in bytes."""

    fsid: Text
    size: Size
    created: datetime
    layout: Layout
    ceph: Text


ByteRange = tuple[Size, Size]
"""Offset and length in bytes."""


class Exported(Record):
    """A finished export: the folder on the ceph node that holds exactly the qcow2 and its manifest.

    Both are None if nothing has changed since the base: then nothing was exported. ``allocated`` is what the snapshot
    holds, from a listing that is not the one the export was made by.
    """

    facts: Facts
    folder: Optional[PathText] = None
    manifest: Optional[Manifest] = None
    allocated: tuple[ByteRange, ...] = ()


class Opened(Record):
    """An NBD export at ``socket`` on the ceph node; without one, nothing has changed since the base.

    It is closed when it was not renewed for ``lease`` seconds.
    """

    facts: Facts
    export: Text = ""
    socket: Optional[PathText] = None
    lease: Seconds = 300


class ExportName(Record):
    """An open export, by the name that `Opened` or `RestoreOpened` gave it."""

    export: str


class Closed(Record):
    """The end of what nbdkit said."""

    log: Text = ""


class Nothing(Record):
    """The result of what has none."""


class Extents(Record):
    """What a snapshot holds; coarser than the truth if that is very fragmented."""

    fsid: Text
    allocated: tuple[ByteRange, ...]


_Group = Annotated[tuple[ByteRange, ...], Field(max_length=4096)]


class DigestRequest(Record):
    """Digests of a snapshot's content: one for each group of ranges."""

    snapshot: SnapshotRequest
    groups: Annotated[tuple[_Group, ...], Field(max_length=1024)]


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""XXH3 of 128 bits as hexadecimal digits."""


class Digests(Record):
    """One for each group of a `DigestRequest`."""

    digests: tuple[Digest, ...]


class LandedRequest(Record):
    """A snapshot that is safe on the backup node now."""

    fsid: str
    snapshot: SnapshotRequest


class RestoreRequest(Record):
    """An image to create, of ``size`` bytes; ``data_pool`` goes over that of the layout."""

    pool: Pool
    image: Annotated[str, Field(pattern=r"^[^/@]+$")]
    size: Annotated[int, Field(ge=0)]
    layout: Layout
    data_pool: Optional[str] = None


class RestoreOpened(Record):
    """A new image, to be written through NBD at ``socket`` on the ceph node; ``lease`` as in `Opened`."""

    export: Text
    image_id: Text
    socket: PathText
    lease: Seconds = 300


class BlockRequest(Record):
    """Blocks of a restored image, by number (see `ceph_rsnapshot_common.content.block_digests`)."""

    export: str
    first: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=0, le=65536)]


class BlockDigests(Record):
    """Numbers and digests of the blocks that don't read as zeros."""

    blocks: tuple[tuple[Size, Digest], ...]


class JobStatus(Record):
    """How far a job is; ``done`` and ``total`` in bytes (exports) or images (listings)."""

    state: Literal["running", "done", "failed"]
    stage: Text = ""
    done: Size = 0
    total: Size = 0
    error: Optional[ToldError] = None


class ImageName(Record):
    """An image, wherever only its name counts."""

    pool: Pool
    image: str


class PoolToCheck(Record):
    """A pool, and the images of it that are to be backed up."""

    pool: Pool
    images: tuple[str, ...] = ()


class CheckRequest(Record):
    """What to look at; ``staged``: whether QCOW_TEMP_PATH must have room."""

    pools: tuple[PoolToCheck, ...]
    snapshot_name: str
    staged: bool


class CheckItem(Record):
    """Something that was looked at; ``advice`` says what to do if it is not right."""

    name: Text
    ok: bool
    detail: Text
    advice: Text = ""


def good(name: str, detail: str) -> CheckItem:
    """What is as it should be."""
    return CheckItem(name=name, ok=True, detail=detail)


def bad(name: str, detail: str, advice: str) -> CheckItem:
    """What is not, and what to do."""
    return CheckItem(name=name, ok=False, detail=detail, advice=advice)


class Checks(Record):
    """What the agent found; ``time`` is its clock, in seconds since 1970."""

    items: tuple[CheckItem, ...]
    time: Annotated[float, Field(allow_inf_nan=False)]
