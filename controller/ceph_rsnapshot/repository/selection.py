"""Which backups somebody means by ``POOL/IMAGE@SNAPSHOT``, and what they may have meant if there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ceph_rsnapshot.repository import holds
from ceph_rsnapshot.repository.catalog import Backup, all_backups
from ceph_rsnapshot.repository.open_backup import where
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import BackupDamaged, BackupGone, BackupNotFound, HoldExists
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.names import did_you_mean

_SHOWN = 3


def chosen(settings: Settings, wanted: str | None) -> list[Backup]:
    """The backups that ``wanted`` names: a pool, a namespace, an image, or one day of it; None: all.

    Args:
        wanted: ``POOL``, ``POOL/NAMESPACE`` or ``[POOL/[NAMESPACE/]]IMAGE``; ``@SNAPSHOT`` or ``@daily.N`` may follow.

    Raises:
        BackupNotFound: there is none; with what comes near.
        PathNotUsable: BACKUP_BASE_PATH can't be read.
    """
    backups = list(all_backups(settings))
    if wanted is None:
        return backups
    name, at, day = wanted.partition("@")
    of_name = [backup for backup in backups if _is_meant(backup, name)]
    if not of_name:
        hint = did_you_mean(name, _names(backups)) or (" (there are no backups at all)" if not backups else "")
        raise BackupNotFound(what=name, hint=hint)
    if not at:
        return of_name
    found = [backup for backup in of_name if day in (backup.day, _snapshot(backup))]
    if not found:
        days = [text for backup in of_name for text in (_snapshot(backup), backup.day) if text]
        newest = f" (the newest is {of_name[0].name}, {of_name[0].day})"
        raise BackupNotFound(what=wanted, hint=did_you_mean(day, days) or newest)
    return found


def one(settings: Settings, wanted: str) -> Backup:
    """The backup that ``wanted`` names; without ``@``, the newest of the image.

    Raises:
        BackupNotFound: there is none, or several images are meant.
        PathNotUsable: BACKUP_BASE_PATH can't be read.
    """
    found = chosen(settings, wanted)
    images = sorted({f"{backup.pool}/{backup.image}" for backup in found})
    if len(images) > 1:
        # an image rather than a namespace or pool of the same name
        exact = [backup for backup in found if f"{backup.pool}/{backup.image}" == wanted.partition("@")[0]]
        if not exact:
            raise BackupNotFound(what=f"one image called {wanted}", hint=f" (there are {_some(images)})")
        found = exact
    return _newest(found)


def held(settings: Settings, backup: Backup, reason: str) -> Backup:
    """Hold ``backup``; returns the held copy. See `ceph_rsnapshot.hold`."""
    if backup.problem or backup.manifest is None:
        raise BackupDamaged(what=backup.name, reason=str(backup.problem))
    if backup.hold:
        raise HoldExists(what=backup.folder)
    day = ImageFiles(where(backup), backup.files.stem)
    folder = holds.make(backup.image_folder, day, backup.manifest.snapshot, reason)
    (copy,) = (each for each in chosen(settings, f"{backup.pool}/{backup.image}") if each.folder == folder)
    if copy.manifest != backup.manifest:
        holds.release(folder, settings.backup_base_path)
        raise BackupGone(what=backup.name)
    return copy


def released(settings: Settings, wanted: str) -> Backup:
    """Release the held day that ``wanted`` names; returns what it was. See `ceph_rsnapshot.release`."""
    found = [backup for backup in chosen(settings, wanted) if backup.hold]
    if len(found) != 1:
        names = _some([f"{each.pool}/{each.image}@{each.day}" for each in found])
        hint = f" (there are {names}: name one)" if found else " (see ceph_rsnapshot list)"
        raise BackupNotFound(what=f"one held day called {wanted}", hint=hint)
    holds.release(found[0].folder, settings.backup_base_path)
    return found[0]


def _newest(backups: Sequence[Backup]) -> Backup:
    """By the time of the snapshots: after RETAIN_INTERVAL was renamed there are two days of number 0.

    One whose manifest can't be read may be the newest: so it is taken where there is no other of its number.
    """
    rotating = [backup for backup in backups if not backup.hold] or list(backups)
    lowest = {backup.interval: backup for backup in reversed(rotating)}
    if len(lowest) == 1 and not rotating[0].hold:
        return rotating[0]
    dated = [(backup.taken, backup) for backup in rotating if backup.taken]
    return max(dated, key=lambda each: each[0])[1] if dated else rotating[0]


def _is_meant(backup: Backup, name: str) -> bool:
    whole = f"{backup.pool}/{backup.image}"
    return name in (whole, backup.pool, backup.pool.partition("/")[0], backup.image)


def _snapshot(backup: Backup) -> str | None:
    return backup.manifest.snapshot if backup.manifest else None


def _names(backups: Iterable[Backup]) -> list[str]:
    return sorted({text for each in backups for text in (f"{each.pool}/{each.image}", each.pool, each.image)})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
