"""The manifest: what a backup is. It lies beside the qcow2 as ``<image>.json``."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, NamedTuple, Optional

from pydantic import ValidationError

from ceph_rsnapshot_common.content.block_digests import BLOCK, PIECE
from ceph_rsnapshot_common.content.digest import digest
from ceph_rsnapshot_common.model import Record

_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{32})"\n}\n\Z')
_NO_CHECKSUM = "0" * 32


class Identity(NamedTuple):
    """What makes two snapshots the same one; a name alone never does."""

    fsid: str
    pool: str
    namespace: str
    image_id: str
    snapshot_id: int


class Base(Record):
    """The snapshot that an increment was made from; of the same image, so that its id is all that counts."""

    snapshot: str
    snapshot_id: int


class Versions(Record):
    """Of this program and of what it used; of this program it is that of the node that made the file."""

    ceph_rsnapshot: str
    ceph: str
    qemu: str


class Layout(Record):
    """What is needed to make an image like the original; sizes in bytes."""

    features: tuple[str, ...]
    object_size: int
    stripe_unit: int
    stripe_count: int
    data_pool: Optional[str] = None


class ContentDigests(Record):
    """Digests of the content, for each block and piece (bytes); see `ceph_rsnapshot_common.content.block_digests`.

    Attributes:
        root: XXH3 digest (128 bits) of the file ``<image>.digests``, which holds them.
        header: the same of the first 64 KiB of the qcow2.
    """

    algorithm: Literal["xxh3-128-sum"] = "xxh3-128-sum"
    block: int = BLOCK
    piece: int = PIECE
    root: str
    header: str


class ContentResult(Record):
    """What an examination says of a backup's content; see `Manifest` for the fields."""

    verified: Literal["none", "changed", "full"]
    backups_since_full_check: int
    digests: Optional[ContentDigests]
    comparisons: int
    compared_bytes: int


class Manifest(Record):
    """One backup. Version 2 has a checksum of itself (see `sealed`), and digests of the content.

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
        comparisons: how many digests of both nodes were compared for ``verified``; None: not counted (older backups).
        compared_bytes: how much of the image they cover.
        night: the time that SNAP_DATE meant on the backup node: its days only go forward by it.
        landed: when the backup node has landed it, by its own clock.
        digests: of the content; None in version 1, and until the content has been examined (in ``.sync``).
    """

    manifest_version: Literal[1, 2] = 2
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
    comparisons: Optional[int] = None
    compared_bytes: Optional[int] = None
    digests: Optional[ContentDigests] = None
    started: datetime
    ended: datetime
    night: Optional[datetime] = None
    landed: Optional[datetime] = None
    layout: Layout
    versions: Versions

    @property
    def identity(self) -> Identity:
        """What makes its snapshot the same one as another."""
        return Identity(self.fsid, self.pool, self.namespace, self.image_id, self.snapshot_id)

    def completed(
        self, content: ContentResult, full_because: str | None, qcow2_bytes: int, night: datetime
    ) -> Manifest:
        """With what is known when the file has been examined, which is now, and with this node's own notes."""
        fields = {field: getattr(content, field) for field in ContentResult.model_fields}
        now = datetime.now(timezone.utc)
        return self.model_copy(
            update={
                **fields,
                "full_because": full_because,
                "qcow2_bytes": qcow2_bytes,
                "ended": now,
                "night": night,
                "landed": now,
            }
        )


class ManifestUnreadable(ValueError):
    """There is a manifest, but it says nothing that can be relied on."""


def render(manifest: Manifest) -> str:
    """The text of the file."""
    return sealed(manifest.model_dump_json(indent=2))


def sealed(text: str) -> str:
    """The JSON object ``text`` with its ``checksum`` at the end: XXH3 of the whole text with zeros in its place."""
    body = text.rstrip()[:-1].rstrip()
    open_text = f'{body},\n  "checksum": "{_NO_CHECKSUM}"\n}}\n'
    return open_text.replace(f'"{_NO_CHECKSUM}"', f'"{digest([open_text.encode()])}"')


def is_sealed(text: bytes) -> bool:
    """Whether ``text`` is as `sealed` has made it."""
    found = _CHECKSUM.search(text)
    if not found:
        return False
    unsealed = text[: found.start(1)] + _NO_CHECKSUM.encode() + text[found.end(1) :]
    return digest([unsealed]).encode() == found.group(1)


def read_manifest(path: Path) -> Manifest:
    """The manifest in file ``path``.

    Raises:
        FileNotFoundError: there is none.
        ManifestUnreadable: it can't be read, is damaged, or of a version that this program doesn't know.
    """
    try:
        return parse_manifest(path.read_bytes(), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ManifestUnreadable(f"{path}: {error}") from None


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest that ``text`` is, which was read from ``path``.

    Raises:
        ManifestUnreadable: it is damaged, or of a version that this program doesn't know.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ManifestUnreadable(f"{path}: {error}") from None
    if not is_sealed(text) and (manifest.manifest_version > 1 or b'"checksum"' in text):
        raise ManifestUnreadable(f"{path}: its checksum is wrong: it was changed since it was written")
    return manifest
