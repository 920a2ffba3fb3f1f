"""Where the backups of an image lie, and what is found there. Only reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot_common.names import Pool, decode, encode, image_folder
from ceph_rsnapshot_common.protocol.manifest import Identity, Manifest, ManifestUnreadable, read_manifest


@dataclass(frozen=True)
class Place:
    """An image's folder: ``root`` is rsnapshot's snapshot_root, ``stem`` the name of the files without suffix."""

    root: Path
    stem: str
    interval: str

    def day(self, number: int) -> Path:
        return self.root / f"{self.interval}.{number}"

    @property
    def sync(self) -> Path:
        """Where `rsnapshot sync` puts what the next rotation makes day 0."""
        return self.root / ".sync"

    def qcow(self, folder: Path) -> Path:
        return folder / f"{self.stem}.qcow2"

    def manifest(self, folder: Path) -> Path:
        return folder / f"{self.stem}.json"

    def digests(self, folder: Path) -> Path:
        return folder / f"{self.stem}.digests"

    def days(self) -> list[int]:
        """Numbers of the rotation folders that exist, ascending."""
        pattern = re.compile(re.escape(self.interval) + r"\.(\d+)")
        matches = (pattern.fullmatch(path.name) for path in self.root.iterdir() if path.is_dir())
        return sorted(int(match.group(1)) for match in matches if match)

    def readable(self, folder: Path) -> Manifest | None:
        """The manifest in ``folder``, if there is one that can be read."""
        try:
            return read_manifest(self.manifest(folder))
        except (FileNotFoundError, ManifestUnreadable):
            return None

    def complete(self, folder: Path) -> Manifest | None:
        """The manifest in ``folder`` if the qcow2 that it describes lies beside it in full length."""
        try:
            manifest = read_manifest(self.manifest(folder))
            right_size = self.qcow(folder).stat().st_size == manifest.qcow2_file_size
        except (FileNotFoundError, ManifestUnreadable):
            return None
        return manifest if right_size else None

    def has_newest(self, identity: Identity) -> bool:
        """Whether day 0 is this very snapshot, by identity and not by name."""
        manifest = self.complete(self.day(0))
        return manifest is not None and manifest.identity == identity


def place(base: Path, pool: Pool, image: str, interval: str) -> Place:
    """The place of an image's backups under ``base``, whether it exists or not."""
    relative = image_folder(pool, image)
    return Place(base / relative, relative.name, interval)


def known_images(base: Path, pool: Pool, interval: str) -> dict[str, Place]:
    """Images of the pool that have rotation folders, by their true names."""
    folder = base / encode(pool.pool)
    if pool.namespace:
        folder /= encode(pool.namespace)
    if not folder.is_dir():
        return {}
    places = [Place(path, path.name, interval) for path in sorted(folder.iterdir()) if path.is_dir()]
    return {_true_name(each): each for each in places if each.days()}


def _true_name(place: Place) -> str:
    """The manifest has it; a folder without a readable one is named as its path says."""
    for number in place.days():
        try:
            return read_manifest(place.manifest(place.day(number))).image
        except (FileNotFoundError, ManifestUnreadable):
            continue
    return decode(place.stem)
