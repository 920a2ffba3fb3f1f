"""Whether the newest backup can be the base of an increment, or else why not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Optional

from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.repository import verdicts
from ceph_rsnapshot.repository.layout import Place
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import BaseUnusable, CommandFailed, NbdFailed
from ceph_rsnapshot_common.process import qemu_img
from ceph_rsnapshot_common.protocol.manifest import Base, Manifest, ManifestUnreadable, read_manifest


@dataclass(frozen=True)
class Plan:
    """How an image is backed up now.

    Attributes:
        base: the manifest of day 0, if an increment can be made from it.
        because: why not, and the backup is a full one.
        full_check_in: how many backups until one must be compared in full; 0 means this one.
    """

    base: Optional[Manifest]
    because: Optional[str]
    full_check_in: int

    @property
    def base_snapshot(self) -> Base | None:
        return Base(snapshot=self.base.snapshot, snapshot_id=self.base.snapshot_id) if self.base else None

    def instead(self, because: str) -> Plan:
        """A full one."""
        return replace(self, base=None, because=because)


def make_plan(work: Work, full: bool) -> Plan:
    """Decide by day 0's manifest and file, and by what the cluster lists now; in any doubt it is a full backup."""
    newest, because = _newest(work.place)
    check_in = _full_check_in(work, newest)
    if newest and not because:
        because = "--full was given" if full else _difference(work, newest) or _damage(work.place, newest)
    return Plan(None if because else newest, because, check_in)


@contextmanager
def relied_on(plan: Plan) -> Iterator[None]:
    """What fails within the block fails because of the base, if there is one: a full backup can do without it.

    Raises:
        BaseUnusable
    """
    try:
        yield
    except (CommandFailed, NbdFailed) as error:
        if plan.base is None:
            raise
        raise BaseUnusable(reason=f"the newest backup can't be used: {error}") from error


def backups_since_full_check(settings: Settings, plan: Plan, verified: str) -> int:
    """For the manifest of the backup that ``plan`` made."""
    if verified == "full" or not settings.verify_full_every:
        return 0
    return settings.verify_full_every - plan.full_check_in


def _full_check_in(work: Work, newest: Manifest | None) -> int:
    every = work.settings.verify_full_every
    if not every:
        return 1
    # the first count of an image is any of 0 .. every - 1, so that full checks spread over the nights
    since = newest.backups_since_full_check if newest else zlib.crc32(work.name.encode()) % every
    return max(0, every - since - 1)


def _newest(place: Place) -> tuple[Manifest | None, str | None]:
    """The manifest of day 0, or why there is none."""
    if not place.day(0).is_dir():
        return None, "there is no backup yet"
    try:
        return read_manifest(place.manifest(place.day(0))), None
    except FileNotFoundError:
        return None, "the newest backup has no manifest"
    except ManifestUnreadable:
        return None, "the manifest of the newest backup can't be read"


def _difference(work: Work, newest: Manifest) -> str | None:
    """What differs between the image of the newest backup and that of now."""
    was, now = newest.identity, work.identity
    if was.image_id != now.image_id:
        return f"the image was re-created (its id was {was.image_id} and is {now.image_id})"
    if was[:3] != now[:3]:
        return "the newest backup is from another cluster, pool or namespace"
    if newest.size != work.snapshot.size:
        return f"the image's size changed from {newest.size} to {work.snapshot.size} bytes"
    if newest.snapshot_id >= work.snapshot.id:
        return f"the newest backup is of {newest.snapshot}, which is no older snapshot"
    return None


def _damage(place: Place, newest: Manifest) -> str | None:
    """What is wrong with the file of the newest backup, as far as can be told without reading all of it."""
    path = place.qcow(place.day(0))
    try:
        status = path.stat()
    except FileNotFoundError:
        return "the newest backup has no qcow2"
    except OSError as error:
        return f"the qcow2 of the newest backup can't be read: {error.strerror}"
    if status.st_size != newest.qcow2_file_size or newest.qcow2_mtime_ns not in (None, status.st_mtime_ns):
        return "the qcow2 of the newest backup is not as it was made (its size or time differs)"
    try:
        qemu_img.check(path, "backup")
    except CommandFailed as error:
        return f"the newest backup failed its check: {error}"
    return _distrust(place, newest)


def _distrust(place: Place, newest: Manifest) -> str | None:
    """What speaks against the content of the newest backup, and against its digests, which the next ones start from."""
    try:
        verdict = verdicts.read(place).get(verdicts.key(newest))
    except verdicts.VerdictsUnreadable:
        return "what verifications found can't be read"
    if verdict and not verdict.ok:
        return f"the newest backup failed its verification: {verdict.problems[0]}"
    if newest.digests is None:
        return "the newest backup was made before there were digests of content"
    try:
        with place.digests(place.day(0)).open("rb") as file:
            right = digest_file.root(file.fileno()) == newest.digests.root
    except OSError as error:
        return f"the digests of the newest backup can't be read: {error.strerror}"
    return None if right else "the digests of the newest backup are damaged"
