"""What a restored backup must hold: the digests that were made when it was backed up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.content.digests import write_digests
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.open_backup import Held
from ceph_rsnapshot_common.errors import BackupDamaged
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.manifest import Manifest

_ACCEPT = "to restore what there is, accept the damage (--accept-damage)"


def usable(backup: Backup, accept_damage: bool) -> Manifest:
    """The manifest of a backup that may be restored from.

    Raises:
        BackupDamaged: it is not as it was made, or is known to be bad.
    """
    if backup.manifest is None:
        by_hand = "; it can still be converted by hand: qemu-img convert" if _has_qcow(backup) else ""
        raise BackupDamaged(what=backup.name, reason=f"{backup.problem}{by_hand}")
    if not _has_qcow(backup):
        raise BackupDamaged(what=backup.name, reason=str(backup.problem))
    if not accept_damage:
        if backup.problem:
            raise BackupDamaged(what=backup.name, reason=f"{backup.problem}; {_ACCEPT}")
        if backup.verdict and not backup.verdict.ok:
            reason = f"its verification failed: {backup.verdict.problems[0]}; take another day, or, {_ACCEPT}"
            raise BackupDamaged(what=backup.name, reason=reason)
    return backup.manifest


@dataclass(frozen=True)
class Expected:
    """An open file of digests, and what is known to be damaged."""

    descriptor: int
    damage: tuple[str, ...] = ()


@contextmanager
def expected_digests(
    held: Held,
    manifest: Manifest,
    folder: Path,
    accept_damage: bool,
    progress: Progress,
    idle: float,
) -> Iterator[Expected]:
    """The digests that a restored image must have.

    They are those that were made with the backup; if it has none, or its damage is accepted, those of the qcow2 as it
    is now.

    Raises:
        BackupDamaged: the file of digests is damaged.
    """
    if manifest.digests and not accept_damage:
        if not _has_digests(held, manifest):
            raise BackupDamaged(what=held.backup.name, reason=f"its file of digests is damaged; {_ACCEPT}")
        assert held.digests is not None
        yield Expected(held.digests)
        return
    path = folder / "expected.digests"
    with qemu_nbd.opened(held.qcow, folder, "reading the backup", idle, name="expected") as handle:
        write_digests(handle, manifest.size, path, progress, "reading")
    with path.open("rb") as file:
        yield Expected(file.fileno(), tuple(_damage(held, manifest, file.fileno())))


def _damage(held: Held, manifest: Manifest, found: int) -> Iterator[str]:
    """What differs from what was backed up."""
    if held.backup.problem:
        yield held.backup.problem
    if not _has_digests(held, manifest):
        yield "it has no valid digests: whether its content is what was backed up is not known"
        return
    assert held.digests is not None
    blocks = list(digest_file.differences(held.digests, found))
    if blocks:
        yield digest_file.described(blocks)


def _has_qcow(backup: Backup) -> bool:
    return backup.files.qcow.exists()


def _has_digests(held: Held, manifest: Manifest) -> bool:
    """Whether the digests that were made with the backup are there, undamaged."""
    if held.digests is None or manifest.digests is None:
        return False
    return digest_file.root(held.digests) == manifest.digests.root
