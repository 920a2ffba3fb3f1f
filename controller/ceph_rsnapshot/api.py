"""The Python API; the command line is a thin layer over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ceph_rsnapshot.observer import Observer
from ceph_rsnapshot.report import RunReport
from ceph_rsnapshot_common.config import load
from ceph_rsnapshot_common.settings import Settings


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
