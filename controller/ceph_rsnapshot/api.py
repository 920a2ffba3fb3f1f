"""The Python API; the command line is a thin layer over it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ceph_rsnapshot.observer import Observer
from ceph_rsnapshot.report import RunReport
from ceph_rsnapshot_common.config import load
from ceph_rsnapshot_common.settings import Settings

if TYPE_CHECKING:
    from ceph_rsnapshot.backups import Backup
    from ceph_rsnapshot.verify import Verified, VerifyReport

Progress = Callable[[str, str, int, int], None]
"""Gets the name of what is worked on, the stage, and bytes done and in all (0 if the stage has no measure)."""


def _no_progress(_name: str, _stage: str, _done: int, _total: int) -> None:
    pass


def load_settings(path: str | Path | None = None, **options: Any) -> Settings:
    """Settings from a configuration file, with ``options`` (lower-case keys, such as ``image_re``) over them.

    Args:
        path: the file; None takes the first that exists of the usual places, or the defaults.

    Raises:
        ConfigError: with every problem of the file and the options at once.
    """
    return load(path, options).settings


def backup(
    settings: Settings | None = None,
    *,
    force: bool = False,
    full: bool = False,
    rotate_many_orphans: bool = False,
    observer: Observer | None = None,
) -> RunReport:
    """Back up the snapshot of the day of every image that the settings choose, and rotate orphans.

    Failures of single images, pools and orphans are in the report (`RunReport.exit_code`, `RunReport.errors`).

    Args:
        settings: as `load_settings` makes them; None loads the usual file.
        force: also back up a snapshot again that day 0 already holds.
        full: make full backups where increments would do.
        rotate_many_orphans: believe a listing that makes more than half of the known images orphans.
        observer: is told how the run goes.

    Raises:
        ConfigError, PathNotUsable: the settings can't be used; nothing was done.
        ToolMissing: a program is missing on either node; nothing was done.
        AgentUnreachable, VersionMismatch, ClusterUnreachable: nothing was done.
        LockHeld: another run works on this backup base.
    """
    # here, because importing the package should cost a script nothing that it does not use
    from ceph_rsnapshot.run import run
    from ceph_rsnapshot_common.snapshot_name import snapshot_name

    settings = settings or load_settings()
    return run(settings, snapshot_name(settings), force, full, rotate_many_orphans, observer or Observer())


def list_backups(settings: Settings | None = None, which: str | None = None) -> list[Backup]:
    """The backups that there are, by image, the newest first; only the backup node's disk is read.

    Args:
        which: ``POOL``, ``POOL/NAMESPACE`` or ``[POOL/[NAMESPACE/]]IMAGE``; ``@SNAPSHOT`` or ``@daily.N`` may follow.
            None means all.

    Raises:
        BackupNotFound: there is none of that name; says what comes near.
        PathNotUsable: BACKUP_BASE_PATH can't be read.
    """
    from ceph_rsnapshot.choose import chosen

    return chosen(settings or load_settings(), which)


def verify(
    settings: Settings | None = None,
    which: str | None = None,
    *,
    not_verified_for: timedelta | None = None,
    source: bool = False,
    progress: Progress = _no_progress,
    on_verified: Callable[[Verified], None] = lambda _: None,
) -> VerifyReport:
    """Verify finished backups: structure, and content against the digests that were made with them.

    What was found is noted beside the days, which themselves are never changed; a backup that failed is no base for an
    increment any more. Backups that roll off meanwhile are read to the end.

    Args:
        which: as for `list_backups`.
        not_verified_for: only those that were not found good within this time.
        source: also compare with the snapshot in Ceph, through the agent, if it still exists.
        on_verified: gets each result as it is there.

    Raises:
        BackupNotFound, PathNotUsable: as `list_backups`.
        ToolMissing, NbdBindingsMissing: a program is missing here.
        AgentUnreachable, VersionMismatch, ClusterUnreachable, ImageUnreadable: the source could not be asked.
    """
    from ceph_rsnapshot.choose import chosen
    from ceph_rsnapshot.verify import not_verified_since, verify_all

    settings = settings or load_settings()
    backups = chosen(settings, which)
    if not_verified_for is not None:
        backups = not_verified_since(backups, not_verified_for)
    return verify_all(settings, backups, source, progress, on_verified)
