"""Where the backups of an image lie, and what is found there. Only reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.names import Pool, decode, encode, encode_inner, image_folder
from ceph_rsnapshot_common.protocol.manifest import Manifest, ManifestUnreadable, read_manifest

HELD = "held"
"""Name of the folder with the days of an image that are held."""


@dataclass(frozen=True)
class ImageFolder:
    """An image's folder: ``path`` is rsnapshot's snapshot_root, and its name that of the files in it."""

    path: Path
    interval: str

    def day(self, number: int) -> ImageFiles:
        """The files of a day; 0 is the newest."""
        return ImageFiles(self.path / f"{self.interval}.{number}", self.path.name)

    @property
    def sync(self) -> ImageFiles:
        """Where `rsnapshot sync` puts what the next rotation makes day 0."""
        return ImageFiles(self.path / ".sync", self.path.name)

    def held(self, snapshot: str) -> ImageFiles:
        """The files of a day that is held; see `ceph_rsnapshot.repository.holds`."""
        return ImageFiles(self.path / HELD / encode_inner(snapshot), self.path.name)

    def numbers(self) -> list[int]:
        """Numbers of the days that exist, ascending."""
        pattern = re.compile(re.escape(self.interval) + r"\.(\d+)")
        matches = (pattern.fullmatch(path.name) for path in self.path.iterdir() if path.is_dir())
        return sorted(int(match.group(1)) for match in matches if match)


def readable_manifest(files: ImageFiles) -> Manifest | None:
    """The manifest of a day, if there is one that can be read."""
    try:
        return read_manifest(files.manifest)
    except (FileNotFoundError, ManifestUnreadable):
        return None


def complete_manifest(files: ImageFiles) -> Manifest | None:
    """The manifest of a day if the qcow2 that it describes lies beside it in full length."""
    try:
        manifest = read_manifest(files.manifest)
        right_size = files.qcow.stat().st_size == manifest.qcow2_file_size
    except (FileNotFoundError, ManifestUnreadable):
        return None
    return manifest if right_size else None


def folder_of(settings: Settings, pool: Pool, image: str) -> ImageFolder:
    """The folder of an image's backups, whether it exists or not."""
    return ImageFolder(settings.backup_base_path / image_folder(pool, image), settings.retain_interval)


def known_images(settings: Settings, pool: Pool) -> dict[str, ImageFolder]:
    """Images of the pool that have rotation folders, by their true names."""
    folder = settings.backup_base_path / encode(pool.pool)
    if pool.namespace:
        folder /= encode(pool.namespace)
    if not folder.is_dir():
        return {}
    found = [ImageFolder(path, settings.retain_interval) for path in sorted(folder.iterdir()) if path.is_dir()]
    return {_true_name(each): each for each in found if each.numbers()}


def _true_name(folder: ImageFolder) -> str:
    """The manifest has it; a folder without a readable one is named as its path says."""
    manifests = (readable_manifest(folder.day(number)) for number in folder.numbers())
    return next((manifest.image for manifest in manifests if manifest), decode(folder.path.name))
