"""How an image is backed up now: in full, or as an increment of the newest backup; if not, why not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Union

from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.repository import verdicts
from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot_common.errors import BaseUnusable, CommandFailed, NbdFailed
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import qemu_img
from ceph_rsnapshot_common.protocol.manifest import Base, Manifest, ManifestUnreadable, read_manifest


@dataclass(frozen=True)
class Full:
    """All that the snapshot holds.

    Attributes:
        because: why no increment.
        full_check_in: how many backups until one must be compared in full; 0 means this one.
    """

    because: str
    full_check_in: int


@dataclass(frozen=True)
class Increment:
    """What changed since ``base``, which is the manifest of day 0. ``full_check_in`` as in `Full`."""

    base: Manifest
    full_check_in: int

    @property
    def snapshot(self) -> Base:
        """The base as the agent knows it."""
        return Base(snapshot=self.base.snapshot, snapshot_id=self.base.snapshot_id)

    def given_up(self, because: str) -> Full:
        """A full backup instead."""
        return Full(because, self.full_check_in)


Plan = Union[Full, Increment]


def make_plan(task: Task) -> Plan:
    """Decide by day 0's manifest and file, and by what the cluster lists now; in any doubt it is a full backup."""
    try:
        newest = _newest(task.folder)
    except BaseUnusable as error:
        return Full(str(error), _full_check_in(task, None))
    check_in = _full_check_in(task, newest)
    because = "--full was given" if task.context.options.full else _difference(task, newest) or _damage(task, newest)
    return Full(because, check_in) if because else Increment(newest, check_in)


@contextmanager
def relied_on(plan: Plan) -> Iterator[None]:
    """What fails within the block fails because of the base, if there is one: a full backup can do without it.

    Raises:
        BaseUnusable
    """
    try:
        yield
    except (CommandFailed, NbdFailed) as error:
        if isinstance(plan, Full):
            raise
        raise BaseUnusable(reason=f"the newest backup can't be used: {error}") from error


def _full_check_in(task: Task, newest: Manifest | None) -> int:
    every = task.settings.verify_full_every
    if not every:
        return 1
    # the first count of an image is any of 0 .. every - 1, so that full checks spread over the nights
    since = newest.backups_since_full_check if newest else zlib.crc32(task.name.encode()) % every
    return max(0, every - since - 1)


def _newest(folder: ImageFolder) -> Manifest:
    """The manifest of day 0. Raises: BaseUnusable."""
    if not folder.day(0).folder.is_dir():
        raise BaseUnusable(reason="there is no backup yet")
    try:
        return read_manifest(folder.day(0).manifest)
    except FileNotFoundError:
        raise BaseUnusable(reason="the newest backup has no manifest") from None
    except ManifestUnreadable:
        raise BaseUnusable(reason="the manifest of the newest backup can't be read") from None


def _difference(task: Task, newest: Manifest) -> str | None:
    """What differs between the image of the newest backup and that of now."""
    was, now = newest.identity, task.identity
    if was.image_id != now.image_id:
        return f"the image was re-created (its id was {was.image_id} and is {now.image_id})"
    if was[:3] != now[:3]:
        return "the newest backup is from another cluster, pool or namespace"
    if newest.size != task.snapshot.size:
        return f"the image's size changed from {newest.size} to {task.snapshot.size} bytes"
    if newest.snapshot_id >= task.snapshot.id:
        return f"the newest backup is of {newest.snapshot}, which is no older snapshot"
    return None


def _damage(task: Task, newest: Manifest) -> str | None:
    """What is wrong with the file of the newest backup, as far as can be told without reading all of it."""
    path = task.folder.day(0).qcow
    try:
        status = path.stat()
    except FileNotFoundError:
        return "the newest backup has no qcow2"
    except OSError as error:
        return f"the qcow2 of the newest backup can't be read: {error.strerror}"
    if status.st_size != newest.qcow2_file_size or newest.qcow2_mtime_ns not in (None, status.st_mtime_ns):
        return "the qcow2 of the newest backup is not as it was made (its size or time differs)"
    try:
        qemu_img.check(path, Node.BACKUP, newest.size, task.settings.idle_timeout)
    except CommandFailed as error:
        return f"the newest backup failed its check: {error}"
    return _distrust(task.folder, newest)


def _distrust(folder: ImageFolder, newest: Manifest) -> str | None:
    """What speaks against the content of the newest backup, and against its digests, which the next ones start from."""
    try:
        verdict = verdicts.read(folder).get(verdicts.key(newest))
    except verdicts.VerdictsUnreadable:
        return "what verifications found can't be read"
    if verdict and not verdict.ok:
        return f"the newest backup failed its verification: {verdict.problems[0]}"
    if newest.digests is None:
        return "the newest backup was made before there were digests of content"
    try:
        with folder.day(0).digests.open("rb") as file:
            right = digest_file.root(file.fileno()) == newest.digests.root
    except OSError as error:
        return f"the digests of the newest backup can't be read: {error.strerror}"
    return None if right else "the digests of the newest backup are damaged"
