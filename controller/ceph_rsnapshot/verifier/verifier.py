"""Verify finished backups: structure, content by its digests, and against the snapshot while Ceph has it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Callable, Optional

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.content.digests import write_digests
from ceph_rsnapshot.content.source_check import begun
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.nbd.handle import Connection, data_extents
from ceph_rsnapshot.remote.client import AgentClient
from ceph_rsnapshot.remote.connection import AgentConnection
from ceph_rsnapshot.repository import verdicts
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.open_backup import Held, hold
from ceph_rsnapshot.repository.verdicts import Verdict
from ceph_rsnapshot.verifier.report import Verified, VerifyReport
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.ranges import union
from ceph_rsnapshot_common.errors import (
    BackupDamaged,
    BackupGone,
    CommandFailed,
    ContentDiffers,
    ImageGone,
    ImageUnreadable,
    LockHeld,
    NbdFailed,
    PoolNotFound,
    PoolUnreadable,
    SnapshotGone,
)
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import qemu_img
from ceph_rsnapshot_common.progress import Progress, ProgressByName, named
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import SnapshotRequest


@dataclass
class _Findings:
    """Of one backup, while it is verified."""

    problems: list[str]
    notes: list[str] = field(default_factory=list)
    compared: bool = False
    undecided: bool = False


class Verifier:
    """Verifies one backup after the other; a file that several days share (hard links) is read once."""

    def __init__(
        self, settings: Settings, folder: Path, agent: AgentConnection | None, progress: ProgressByName
    ) -> None:
        """``agent`` None: without the source."""
        self._settings, self._folder, self._agent, self._progress = settings, folder, agent, progress
        self._known: dict[tuple[object, ...], list[str]] = {}

    def verify(self, backup: Backup) -> Verified:
        """Raises: AgentUnreachable, ClusterUnreachable, VersionMismatch, if the source is to be compared."""
        started = datetime.now(timezone.utc)
        found = _Findings([_part(backup.problem)] if backup.problem else [])
        try:
            self._examine(backup, found)
        except BackupGone as error:
            return Verified(backup=backup, gone=True, notes=(str(error),))
        ended = datetime.now(timezone.utc)
        problems = tuple(found.problems)
        verdict = Verdict(at=ended, ok=not problems, against_source=found.compared, problems=problems)
        return Verified(
            backup=backup,
            problems=problems,
            notes=(*found.notes, *_noted(backup, verdict)),
            against_source=found.compared,
            undecided=found.undecided,
            seconds=round((ended - started).total_seconds(), 3),
        )

    def _examine(self, backup: Backup, found: _Findings) -> None:
        try:
            with hold(backup) as held:
                found.problems += self._check_files(held)
                if backup.manifest and backup.manifest.digests is None:
                    found.notes.append("it has no digests: only its structure was checked")
                if backup.manifest and self._agent and not found.problems:
                    self._compare_source(held, backup.manifest, self._agent.client(), found)
        except BackupDamaged as error:
            found.problems = found.problems or [error.data["reason"]]

    def _check_files(self, held: Held) -> list[str]:
        """Problems of the files themselves."""
        status = os.fstat(held.descriptor)
        root = held.backup.manifest.digests.root if held.backup.manifest and held.backup.manifest.digests else None
        key = (status.st_dev, status.st_ino, root)
        if key not in self._known:
            self._known[key] = self._structure(held) or self._content(held)
        elif root and (bad := _digests_problem(held, root)):
            return [bad]
        return self._known[key]

    def _structure(self, held: Held) -> list[str]:
        self._progress_of(held)("checking")
        digests = held.backup.manifest.digests if held.backup.manifest else None
        if digests and digest_file.of_header(held.descriptor) != digests.header:
            return ["header: how the qcow2 begins is not as it was made"]
        try:
            qemu_img.check(held.qcow, Node.BACKUP, idle=self._settings.idle_timeout)
        except CommandFailed as error:
            return [f"qcow2: qemu-img check: {error}"]
        return []

    def _content(self, held: Held) -> list[str]:
        manifest = held.backup.manifest
        if manifest is None or manifest.digests is None:
            return []
        bad = _digests_problem(held, manifest.digests.root)
        if bad:
            return [bad]
        assert held.digests is not None
        try:
            with folders.temporary(f"{self._folder}/content_") as folder:
                found = folder / "digests"
                with self._opened(held) as handle:
                    write_digests(handle, manifest.size, found, self._progress_of(held), "reading")
                with found.open("rb") as ours:
                    blocks = list(digest_file.differences(held.digests, ours.fileno()))
        except (CommandFailed, NbdFailed) as error:
            return [f"qcow2: it can't be read: {error}"]
        return [digest_file.described(blocks)] if blocks else []

    def _compare_source(self, held: Held, manifest: Manifest, client: AgentClient, found: _Findings) -> None:
        request = _request(manifest)
        stage, show = "comparing with Ceph", self._progress_of(held)
        try:
            extents = client.run(calls.EXTENTS, request, lambda _stage, done=0, total=0: show(stage, done, total))
            if extents.fsid != manifest.fsid:
                found.notes.append(f"not compared with Ceph: it is of another cluster ({manifest.fsid})")
                return
            with self._opened(held) as handle:
                ranges = union(extents.allocated, data_extents(handle, 0, manifest.size))
                with begun(client, request, manifest.size, ranges) as check:
                    check.compare(handle, show, stage)
            found.compared = True
        except (SnapshotGone, ImageGone, PoolNotFound) as error:
            found.notes.append(f"not compared with Ceph: {error}")
        except (PoolUnreadable, ImageUnreadable) as error:
            found.undecided = True
            found.notes.append(f"could not be compared with Ceph: {error}")
        except (CommandFailed, NbdFailed) as error:
            found.problems.append(f"qcow2: it can't be read: {error}")
        except ContentDiffers as error:
            found.compared = True
            found.problems.append(f"source: {error}")

    def _opened(self, held: Held) -> AbstractContextManager[Connection]:
        return qemu_nbd.opened(held.qcow, self._folder, "reading the backup", self._settings.idle_timeout)

    def _progress_of(self, held: Held) -> Progress:
        return named(self._progress, held.backup.name)


def verify_all(
    settings: Settings,
    backups: Iterable[Backup],
    source: bool,
    progress: ProgressByName,
    on_verified: Callable[[Verified], None],
) -> VerifyReport:
    """Verify ``backups``; see `ceph_rsnapshot.verify`."""
    done = []
    with ExitStack() as stack:
        folder = stack.enter_context(run_folder.made())
        agent = stack.enter_context(AgentConnection(settings, folder)) if source else None
        verifier = Verifier(settings, folder, agent, progress)
        for backup in backups:
            done.append(verifier.verify(backup))
            on_verified(done[-1])
    return VerifyReport(backups=tuple(done))


def not_verified_since(backups: Iterable[Backup], age: timedelta) -> list[Backup]:
    """Those whose last good verification is older than ``age``, or that have none."""
    limit = datetime.now(timezone.utc) - age
    return [each for each in backups if not each.verdict or not each.verdict.ok or each.verdict.at < limit]


def _noted(backup: Backup, verdict: Verdict) -> list[str]:
    """Record the verdict beside the days; returns why that failed (a disk mounted read-only, say)."""
    if backup.manifest is None:
        return []
    try:
        verdicts.write(backup.image_folder, {verdicts.key(backup.manifest, held=backup.hold is not None): verdict})
    except (OSError, LockHeld) as error:
        return [f"the result could not be noted: {error}"]
    return []


def _part(problem: str) -> str:
    return f"{'manifest' if 'manifest' in problem else 'qcow2'}: {problem}"


def _digests_problem(held: Held, root: str) -> Optional[str]:
    if held.digests is None:
        return "digests: the file is missing"
    return None if digest_file.root(held.digests) == root else "digests: the file is not as it was made"


def _request(manifest: Manifest) -> SnapshotRequest:
    return SnapshotRequest(
        pool=Pool(pool=manifest.pool, namespace=manifest.namespace),
        image=manifest.image,
        image_id=manifest.image_id,
        snapshot=manifest.snapshot,
        snapshot_id=manifest.snapshot_id,
        size=manifest.size,
    )
