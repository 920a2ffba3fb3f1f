"""The backups that there are, from the disk alone: no agent and no cluster is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, Optional

from pydantic import computed_field

from ceph_rsnapshot.repository import holds, reflinks, verdicts
from ceph_rsnapshot.repository.holds import Hold
from ceph_rsnapshot.repository.layout import HELD, ImageFolder
from ceph_rsnapshot.repository.verdicts import Verdict
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool, decode
from ceph_rsnapshot_common.protocol.manifest import Manifest, ManifestUnreadable, read_manifest

_ROTATION = re.compile(r"(\w+)\.(\d+)", re.ASCII)

_TRIES = 5

State = Literal["complete", "verified", "failed", "damaged"]


class Backup(Record):
    """One day of one image.

    Attributes:
        pool, image: true names; a namespace follows its pool after a slash.
        interval, number: of the rotation folder, as in ``daily.0``.
        folder: its path; a rotation moves it.
        manifest: what it is; None if it can't be read.
        problem: why it can't be used, as far as that shows without reading its content.
        alone_bytes: disk that this backup alone holds, and that would be free if it went.
        verdict: what the last verification found; None if there was none.
        hold: why it is kept beside the rotation; None of a day in it.
    """

    pool: str
    image: str
    interval: str
    number: int
    folder: Path
    manifest: Optional[Manifest] = None
    problem: Optional[str] = None
    alone_bytes: int = 0
    verdict: Optional[Verdict] = None
    hold: Optional[Hold] = None

    @property
    def image_folder(self) -> ImageFolder:
        """The folder of all days of the image."""
        return ImageFolder(self.folder.parents[1 if self.hold else 0], self.interval)

    @property
    def files(self) -> ImageFiles:
        """Its files, as long as no rotation has moved them."""
        return ImageFiles(self.folder, self.image_folder.path.name)

    @property
    def name(self) -> str:
        """``pool/image@snapshot``, or with the folder's name if the snapshot is not known."""
        return f"{self.pool}/{self.image}@{self.manifest.snapshot if self.manifest else self.day}"

    @property
    def day(self) -> str:
        """``daily.0``, or ``held/2026-01-31`` of a day that is held."""
        return f"{HELD}/{self.folder.name}" if self.hold else f"{self.interval}.{self.number}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def state(self) -> State:
        """``damaged`` (see ``problem``), ``failed`` (its verification), ``verified``, or just ``complete``."""
        if self.problem:
            return "damaged"
        if self.verdict is None:
            return "complete"
        return "verified" if self.verdict.ok else "failed"

    @property
    def taken(self) -> datetime | None:
        """When the snapshot was made."""
        return self.manifest.snapshot_created if self.manifest else None


def all_backups(settings: Settings) -> Iterator[Backup]:
    """Every backup under BACKUP_BASE_PATH, by pool and image, the newest first.

    Raises:
        PathNotUsable: the folder is not there, or can't be read.
    """
    base = settings.backup_base_path
    try:
        shares = reflinks.shares_extents(base)
        roots = sorted(_roots(base))
    except OSError as error:
        raise PathNotUsable(key="BACKUP_BASE_PATH", path=base, reason=error.strerror) from None
    for pool, root in roots:
        try:
            yield from _of_image(pool, root, shares)
        except OSError as error:
            raise PathNotUsable(key="BACKUP_BASE_PATH", path=root, reason=error.strerror) from None


def _roots(base: Path) -> Iterator[tuple[str, Path]]:
    """Pools (and namespaces) with the folders of their images."""
    for pool in _folders(base):
        for folder in _folders(pool):
            below = _folders(folder)
            if any(_ROTATION.fullmatch(each.name) for each in below) or _held(folder):
                yield decode(pool.name), folder
            namespace = str(Pool(pool=decode(pool.name), namespace=decode(folder.name)))
            for inner in below:
                if not _ROTATION.fullmatch(inner.name):
                    yield namespace, inner


def _folders(path: Path) -> list[Path]:
    return [path / name for name in _inodes(path)]


def _inodes(path: Path) -> dict[str, int]:
    """The folders in ``path``, with their inodes; none if it has gone."""
    try:
        with os.scandir(path) as entries:  # Path.iterdir would ask the disk once more for each
            return {each.name: each.inode() for each in entries if not each.name.startswith(".") and each.is_dir()}
    except FileNotFoundError:
        return {}


def _of_image(pool: str, root: Path, shares: bool) -> list[Backup]:
    """The days of one image, read again if they were rotated meanwhile: what is said of each must be of one day."""
    for _ in range(_TRIES):
        before = _inodes(root)
        try:
            found = list(_days_of_image(pool, root, before, shares))
        except FileNotFoundError:
            continue
        if _inodes(root) == before:
            return found
    raise PathNotUsable(key="BACKUP_BASE_PATH", path=root, reason="its days keep changing while they are read")


def _days_of_image(pool: str, root: Path, names: Iterable[str], shares: bool) -> Iterator[Backup]:
    days, held = sorted(filter(None, map(_ROTATION.fullmatch, names)), key=_order), _held(root)
    if not days and not held:
        return
    try:
        found = verdicts.read(ImageFolder(root, ""))
    except verdicts.VerdictsUnreadable:
        found = {}  # as if there had been no verification; a restore compares the content anyway
    image = decode(root.name)
    places = [(root / day[0], day[1], int(day[2]), None) for day in days]
    for folder, interval, number, hold in [*places, *held]:
        named = Backup(pool=pool, image=image, interval=interval, number=number, folder=folder, hold=hold)
        backup = _read(named, shares)
        if backup is None:
            continue
        image = backup.image
        if backup.manifest:
            verdict = found.get(verdicts.key(backup.manifest, held=hold is not None))
            backup = backup.model_copy(update={"verdict": verdict})
        yield backup


def _held(root: Path) -> list[tuple[Path, str, int, Hold | None]]:
    """Folders of days that are held, as places of backups; the newest first."""
    found = ((path, holds.read(path)) for path in sorted(_folders(root / HELD), reverse=True))
    return [(path, HELD, 0, hold) for path, hold in found if hold]


def _order(day: re.Match[str]) -> tuple[str, int]:
    return day[1], int(day[2])


def _read(backup: Backup, shares: bool) -> Backup | None:
    """With what lies in its folder; None if that is empty (an image that was deleted rolls off so)."""
    files, manifest, problem, alone = backup.files, None, None, 0
    try:
        manifest = read_manifest(files.manifest)
    except FileNotFoundError:
        problem = "the manifest is missing"
    except ManifestUnreadable as error:
        problem = f"the manifest can't be read ({str(error).splitlines()[0].partition(': ')[2]})"
    try:
        status = files.qcow.stat()
        alone = reflinks.alone(files.qcow, status, shares)
        if manifest and status.st_size != manifest.qcow2_file_size:
            problem = f"the qcow2 has {status.st_size} bytes instead of {manifest.qcow2_file_size}"
    except FileNotFoundError:
        if manifest is None and not any(backup.folder.iterdir()):
            return None
        problem = "the qcow2 is missing"
    image = manifest.image if manifest else backup.image  # a long name is cut in the path
    update = {"image": image, "manifest": manifest, "problem": problem, "alone_bytes": alone}
    return backup.model_copy(update=update)
