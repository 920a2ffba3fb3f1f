"""What a restored backup must hold: the digests that were made when it was backed up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from ceph_rsnapshot import digest_file, qemu_nbd
from ceph_rsnapshot.backups import Backup
from ceph_rsnapshot.contents import write_digests
from ceph_rsnapshot.held import Held
from ceph_rsnapshot_common.errors import BackupDamaged
from ceph_rsnapshot_common.manifest import Manifest

_ACCEPT = "to restore what there is, accept the damage (--accept-damage)"


def usable(backup: Backup, accept_damage: bool) -> Manifest:
    """The manifest of a backup that may be restored from.

    Raises:
        BackupDamaged: it is not as it was made, or is known to be bad.
    """
    if backup.manifest is None:
        raise BackupDamaged(
            what=backup.name, reason=f"{backup.problem}; the qcow2 can still be converted by hand: qemu-img convert"
        )
    if not accept_damage:
        if backup.problem:
            raise BackupDamaged(what=backup.name, reason=f"{backup.problem}; {_ACCEPT}")
        if backup.verdict and not backup.verdict.ok:
            reason = f"its verification failed: {backup.verdict.problems[0]}; take another day, or, {_ACCEPT}"
            raise BackupDamaged(what=backup.name, reason=reason)
    return backup.manifest


@contextmanager
def expected_digests(
    held: Held,
    manifest: Manifest,
    folder: Path,
    accept_damage: bool,
    progress: Callable[[str, str, int, int], None],
) -> Iterator[int]:
    """An open file of the digests that a restored image must have.

    They are those that were made with the backup; if it has none, or its damage is accepted, those of the qcow2 as it
    is now.

    Raises:
        BackupDamaged: the file of digests is damaged.
    """
    if manifest.digests and not accept_damage:
        if held.digests is None or digest_file.root(held.digests) != manifest.digests.root:
            raise BackupDamaged(what=held.backup.name, reason=f"its file of digests is damaged; {_ACCEPT}")
        yield held.digests
        return
    path = folder / "expected.digests"
    with qemu_nbd.opened(held.qcow, folder, "reading the backup", name="expected", pass_fds=held.pass_fds) as handle:
        write_digests(
            handle, manifest.size, path, lambda done, total: progress(held.backup.name, "reading", done, total)
        )
    with path.open("rb") as file:
        yield file.fileno()
