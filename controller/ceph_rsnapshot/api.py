"""The Python API; the command line is a thin layer over it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal

from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.report import RunReport
from ceph_rsnapshot_common.config.load import Loaded, load
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import UsageError
from ceph_rsnapshot_common.names import Pool, parse_image
from ceph_rsnapshot_common.progress import ProgressByName, unwatched

if TYPE_CHECKING:
    from ceph_rsnapshot.preflight.report import CheckReport
    from ceph_rsnapshot.repository.catalog import Backup
    from ceph_rsnapshot.restorer.guest_files import GuestFiles
    from ceph_rsnapshot.restorer.result import Restored
    from ceph_rsnapshot.restorer.serve import Served
    from ceph_rsnapshot.verifier.report import Verified, VerifyReport


def load_settings(path: str | Path | None = None, **options: Any) -> Settings:
    """Settings from a configuration file, with ``options`` (lower-case keys, such as ``image_re``) over them.

    Args:
        path: the file; None takes the first that exists of the usual places, or the defaults.

    Raises:
        ConfigError: with every problem of the file and the options at once.
    """
    return explain_settings(path, **options).settings


def explain_settings(path: str | Path | None = None, **options: Any) -> Loaded:
    """As `load_settings`, with where the settings come from.

    `Loaded.origins` has ``file`` or ``flag`` for each key that is not a default, `Loaded.path` the file that was read.

    Raises:
        ConfigError: with every problem of the file and the options at once.
    """
    return load(path, options)


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
        force: also back up a snapshot again that a day already holds, and replace that day.
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
    from ceph_rsnapshot.archiver.context import RunOptions, opened
    from ceph_rsnapshot_common.config.snapshot_name import night_of

    started = datetime.now(timezone.utc)
    settings, observer = settings or load_settings(), observer or Observer()
    options = RunOptions(force, full, rotate_many_orphans)
    night = night_of(settings)
    try:
        if settings.noop:
            from ceph_rsnapshot.archiver.run import look_only

            return look_only(settings, options, night, started, observer)
        with opened(settings, options, night) as context:
            from ceph_rsnapshot.archiver.run import run  # while ssh connects

            return run(context, started, observer)
    finally:
        observer.run_ends()


def list_backups(settings: Settings | None = None, which: str | None = None) -> list[Backup]:
    """All backups, by image, the newest first; only the backup node's disk is read.

    Args:
        which: ``POOL``, ``POOL/NAMESPACE`` or ``[POOL/[NAMESPACE/]]IMAGE``; ``@SNAPSHOT`` or ``@daily.N`` may follow.
            None means all.

    Raises:
        BackupNotFound: there is none of that name; suggests similar names.
        PathNotUsable: BACKUP_BASE_PATH can't be read.
    """
    from ceph_rsnapshot.repository.selection import chosen

    return chosen(settings or load_settings(), which)


def verify(
    settings: Settings | None = None,
    which: str | None = None,
    *,
    not_verified_for: timedelta | None = None,
    source: bool = False,
    progress: ProgressByName = unwatched,
    on_verified: Callable[[Verified], None] = lambda _: None,
) -> VerifyReport:
    """Verify finished backups: structure, and content against the digests that were made with them.

    What was found is noted beside the days, which themselves are never changed; a backup that failed is no base for an
    increment any more. Backups that roll off meanwhile are read to the end.

    Args:
        which: as for `list_backups`.
        not_verified_for: only those that were not found good within this time.
        source: also compare with the snapshot in Ceph, through the agent, if it still exists.
        progress: gets the backup's name, the stage, and bytes done and in all (0 if the stage has no measure).
        on_verified: gets each result as soon as it is there.

    Raises:
        BackupNotFound, PathNotUsable: as `list_backups`.
        ToolMissing, NbdBindingsMissing: a program is missing here.
        AgentUnreachable, VersionMismatch, ClusterUnreachable, ImageUnreadable: the source could not be asked.
    """
    from ceph_rsnapshot.repository.selection import chosen
    from ceph_rsnapshot.verifier.verifier import not_verified_since, verify_all

    settings = settings or load_settings()
    backups = chosen(settings, which)
    if not_verified_for is not None:
        backups = not_verified_since(backups, not_verified_for)
    return verify_all(settings, backups, source, progress, on_verified)


def restore(
    settings: Settings | None,
    which: str,
    *,
    to: str | None = None,
    to_file: str | Path | None = None,
    file_format: Literal["raw", "qcow2"] = "qcow2",
    data_pool: str | None = None,
    accept_damage: bool = False,
    progress: ProgressByName = unwatched,
) -> Restored:
    """Restore a backup to a new RBD image or a new file, and compare what was written with what was backed up.

    Nothing is ever overwritten. A restore that fails removes what it has made itself, and nothing else.

    Args:
        which: ``[POOL/[NAMESPACE/]]IMAGE``; ``@SNAPSHOT`` or ``@daily.N`` may follow, without it the newest is taken.
        to: the image to create, ``POOL[/NAMESPACE]/NAME``; with features and object size of the original.
        to_file: the file to create; needs no cluster. Exactly one of ``to`` and ``to_file`` must be given.
        data_pool: of the new image; None: that of the original.
        accept_damage: also from a backup that is not as it was made.
        progress: as for `verify`, with the target's name or the backup's.

    Raises:
        UsageError: ``to`` names no image, or not exactly one target was given.
        BackupNotFound, BackupDamaged: there is no such backup, or it is not as it was made.
        TargetExists, PoolNotFound, RestoreNotAllowed: nothing was made.
        RestoreFailed: what had been made was removed again.
        AgentUnreachable, VersionMismatch, ClusterUnreachable: if the connection is lost, the agent removes the image.
    """
    from ceph_rsnapshot.repository.selection import one
    from ceph_rsnapshot.restorer.file import restore_file
    from ceph_rsnapshot.restorer.image import restore_image

    settings = settings or load_settings()
    if (to is None) == (to_file is None):
        raise UsageError(path="restore", problems="give either an image (to) or a file (to_file) to restore to")
    if to_file is not None:
        return restore_file(settings, one(settings, which), Path(to_file), file_format, accept_damage, progress)
    pool, image = _target(str(to))
    return restore_image(settings, one(settings, which), pool, image, data_pool, accept_damage, progress)


def _target(text: str) -> tuple[Pool, str]:
    try:
        pool, image, _ = parse_image(text)
    except ValueError as error:
        raise UsageError(path="--to", problems=error) from None
    if not pool or "@" in text:
        raise UsageError(path="--to", problems=f"{text!r} is not POOL[/NAMESPACE]/NAME")
    return pool, image


def serve(
    settings: Settings | None, which: str, *, socket: str | Path | None = None, port: int | None = None
) -> AbstractContextManager[Served]:
    """A context manager: within its block, a backup is served read-only by NBD.

    The backup may roll off meanwhile: what is being read stays until the block ends.

    Args:
        which: as for `restore`.
        socket: unix socket to listen on; None: one in a private folder.
        port: TCP port on loopback, instead of a socket.

    Raises:
        BackupNotFound, BackupDamaged: there is no such backup, or its qcow2 is gone.
        PathNotUsable: socket or port is in use, or not possible.
        CommandFailed, ToolMissing: qemu-nbd does not start.
    """
    from ceph_rsnapshot.repository.selection import one
    from ceph_rsnapshot.restorer.serve import served

    return served(one(settings or load_settings(), which), Path(socket) if socket else None, port)


def hold(settings: Settings | None, which: str, *, reason: str = "") -> Backup:
    """Keep a day beside the rotation until it is released: no rotation, orphan rule or run removes it.

    It costs nothing as long as the day itself is kept (a reflink or a hard link). Returns the held copy.

    Args:
        which: as for `restore`.

    Raises:
        BackupNotFound, BackupDamaged: there is no such backup, or it is not whole.
        HoldExists: a day of this snapshot is held already.
    """
    from ceph_rsnapshot.repository.selection import held, one

    settings = settings or load_settings()
    return held(settings, one(settings, which), reason)


def release(settings: Settings | None, which: str) -> Backup:
    """Let a day go that was held; days in the rotation are not touched. Returns what it was.

    Raises:
        BackupNotFound: no such day is held, or several are meant.
    """
    from ceph_rsnapshot.repository.selection import released

    return released(settings or load_settings(), which)


def files(
    settings: Settings | None, which: str, *, file_system: str | None = None
) -> AbstractContextManager[GuestFiles]:
    """A context manager: within its block, the files in a backup can be listed and copied out.

    libguestfs reads the guest's file systems in a virtual machine of its own; nothing is mounted here.

    Args:
        which: as for `restore`.
        file_system: such as ``/dev/sda1``; None: those of the only operating system, or the only one on the disk.

    Raises:
        BackupNotFound, BackupDamaged: there is no such backup, or its qcow2 has gone.
        GuestfsMissing, GuestFilesFailed: libguestfs is not installed, or can't read it.
    """
    from ceph_rsnapshot.repository.selection import one
    from ceph_rsnapshot.restorer.guest_files import opened

    settings = settings or load_settings()
    return opened(one(settings, which), file_system, settings)


def check(settings: Settings | None = None, *, config: str | Path | None = None) -> CheckReport:
    """See whether both nodes are ready for the next run: a list of what was looked at, with advice.

    Nothing is changed on either node. What can't be found out is in the list too, and so is a configuration that
    can't be used.

    Args:
        settings: None loads ``config``.
        config: the configuration file; None takes the usual one.
    """
    from ceph_rsnapshot.preflight.checks import check as look

    return look(lambda: Loaded(settings, None, {}) if settings else explain_settings(config))
