"""Which backups somebody means by ``POOL/IMAGE@SNAPSHOT``, and what they may have meant if there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ceph_rsnapshot.repository.catalog import Backup, all_backups
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import BackupNotFound
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
    return found[0]


def _is_meant(backup: Backup, name: str) -> bool:
    whole = f"{backup.pool}/{backup.image}"
    return name in (whole, backup.pool, backup.pool.partition("/")[0], backup.image)


def _snapshot(backup: Backup) -> str | None:
    return backup.manifest.snapshot if backup.manifest else None


def _names(backups: Iterable[Backup]) -> list[str]:
    return sorted({text for each in backups for text in (f"{each.pool}/{each.image}", each.pool, each.image)})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
