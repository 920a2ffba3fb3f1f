"""Errors as classes with data: callers branch on the class (or its ``code``), never on the text.

An error crosses RPyC as an :class:`ErrorRecord` (code, message, data) and is made again on the other side. The tree,
with the exit code of a command that ends with the error, and the error's data (as text; sizes and offsets in bytes):

    CephRsnapshotError        1  reason
      ConfigError             2  path, problems
        UsageError            2  path, problems
      PathNotUsable           2  key, path, reason
      AgentUnreachable        3  where, reason
      VersionMismatch         3  where, reason
      ClusterUnreachable      3  user, conf, reason
      LockHeld                4  pid, path
      BindingsMissing         1  module, reason
      NbdBindingsMissing      1  reason
      GuestfsMissing          1  reason
      ToolMissing             1  tool, node, package
      CommandFailed           1  command, outcome, output
        Qcow2Refused          1  path, reason
      PoolNotFound            1  pool
      PoolUnreadable          1  pool, reason
      NothingToBackUp         1  reason
      ImageMissing            1  image, pool, hint
      ImageGone               1  image, image_id, pool
      SnapshotGone            1  snapshot, snapshot_id, image, pool
      SnapshotMissing         1  image, pool, snapshot, newest
      ImageUnreadable         1  image, pool, reason
      NbdFailed               1  what, reason (of a copy also side, errno)
      NotEnoughSpace          1  path, need, free, minimum
      BaseUnusable            1  reason
      ContentDiffers          1  image, pool, snapshot, length, offset
      ExportUnknown           1  export
      ExportInUse             1  image, pool, path
      ExportFailed            1  image, pool, reason
      Cancelled               1  what
      JobUnknown              1  job
      LimitReached            3  what, setting, most
      BadRequest              1  reason
      CommandRefused          2  reason
      RsnapshotFailed         1  action, root, exit_code, reason
      BadAnswer               1  call, reason
      AgentLied               1  call, asked, came
      NoProgress              1  what, seconds
      TransferFailed          1  path, reason
      DateNotForward          1  image, pool, snapshot, reason
      OrphansSuspicious       1  pool, new, known, names
      BackupNotFound          1  what, hint
      BackupGone              1  what
      BackupDamaged           1  what, reason
      HoldExists              1  what
      GuestFilesFailed        1  what, reason
      TargetExists            1  target
      RestoreNotAllowed       1
      RestoreFailed           1  target, reason
"""

from __future__ import annotations

from typing import ClassVar

from ceph_rsnapshot_common.model import Record

_MAX_TEXT = 4096
_MAX_DATA = 16


class ErrorRecord(Record):
    """An error as it crosses the wire and as it stands in reports."""

    code: str
    message: str
    data: dict[str, str] = {}


class CephRsnapshotError(Exception):
    """Base of all errors of this program.

    Attributes:
        code: stable name of the kind of error, for scripts and for the wire.
        exit_code: what a command that ends with this error exits with.
        data: what the error is about (pool, image, path, ...), as text.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    template: ClassVar[str] = "{reason}"

    def __init_subclass__(cls, code: str = "", exit_code: int | None = None) -> None:
        """What a class does not say is as in the class above it."""
        cls.code = code or cls.code
        cls.exit_code = cls.exit_code if exit_code is None else exit_code

    def __init__(self, **data: object) -> None:
        self.data = {key: str(value) for key, value in data.items()}
        super().__init__(self.template.format_map(self.data))

    def record(self) -> ErrorRecord:
        """The error for the wire or a report."""
        return ErrorRecord(code=self.code, message=str(self), data=self.data)


class ConfigError(CephRsnapshotError, code="config", exit_code=2):
    """The configuration can't be used; nothing was touched. ``path``: the file, or the key."""

    template = "{path}: {problems}"


class UsageError(ConfigError):
    """The command line, or a call of the Python API, can't be used. ``path``: the command, flag or argument."""


class PathNotUsable(CephRsnapshotError, code="path-not-usable", exit_code=2):
    """A folder of the configuration can't be created, read or written."""

    template = "{key}: {path}: {reason}"


class AgentUnreachable(CephRsnapshotError, code="agent-unreachable", exit_code=3):
    """No connection to the agent: ssh failed, the agent doesn't run, or the connection broke."""

    template = "the agent can't be reached ({where}): {reason}"


class VersionMismatch(CephRsnapshotError, code="version-mismatch", exit_code=3):
    """Both ends run, but don't speak the same protocol."""

    template = "the agent ({where}) and this controller don't go together: {reason}"


class ClusterUnreachable(CephRsnapshotError, code="cluster-unreachable", exit_code=3):
    """Ceph doesn't answer, or refuses the cephx user."""

    template = "Ceph can't be reached as client.{user} with {conf}: {reason}"


class LockHeld(CephRsnapshotError, code="lock-held", exit_code=4):
    """Another run works on the same backup folder."""

    template = "another run (pid {pid}) holds {path}: nothing was done; try again when it has ended"


class BindingsMissing(CephRsnapshotError, code="bindings-missing"):
    """The Python bindings of Ceph are not importable; they are not on PyPI."""

    template = (
        "can't import {module} ({reason}): install python3-rados and python3-rbd (Debian, Ubuntu: apt install "
        "python3-rados python3-rbd); create the environment with --system-site-packages from the "
        "distribution's own python3"
    )


class NbdBindingsMissing(CephRsnapshotError, code="nbd-bindings-missing"):
    """The Python bindings of libnbd are not importable; they are not on PyPI."""

    template = (
        "can't import nbd ({reason}): install python3-libnbd on the backup node and create the environment with "
        "--system-site-packages"
    )


class GuestfsMissing(CephRsnapshotError, code="guestfs-missing"):
    """The Python bindings of libguestfs are not importable; they are not on PyPI."""

    template = (
        "can't import guestfs ({reason}): install python3-guestfs on the backup node (RHEL: python3-libguestfs) and "
        "create the environment with --system-site-packages; or serve the backup, and use guestfish"
    )


class ToolMissing(CephRsnapshotError, code="tool-missing"):
    """A program that this one runs is not installed."""

    template = "{tool} is missing on the {node} node: install the package {package}"


class CommandFailed(CephRsnapshotError, code="command-failed"):
    """An external command failed, or took too long."""

    template = "{command} {outcome}: {output}"


class Qcow2Refused(CommandFailed, code="qcow2-refused"):
    """A program of qemu was not run: the qcow2 can't be read, or would lead it to something else than itself."""

    template = "{path} is not opened: {reason}"


class PoolNotFound(CephRsnapshotError, code="pool-not-found"):
    """The cluster has no such pool, or the pool no such namespace."""

    template = "pool {pool} does not exist in this Ceph cluster"


class PoolUnreadable(CephRsnapshotError, code="pool-unreadable"):
    """The pool could not be listed: which images it holds is unknown."""

    template = "pool {pool} can't be listed: {reason}"


class NothingToBackUp(CephRsnapshotError, code="nothing-to-back-up"):
    """Not one image could be chosen: an error, because a silent empty night is a lost one."""

    template = "{reason}"


class ImageMissing(CephRsnapshotError, code="image-missing"):
    """There never was such an image as far as this run knows; ``hint`` names similar ones."""

    template = "there is no image {image} in pool {pool}{hint}"


class ImageGone(CephRsnapshotError, code="image-gone"):
    """The image was deleted, or another one has its name now."""

    template = "image {image} (id {image_id}) no longer exists in pool {pool}"


class SnapshotGone(CephRsnapshotError, code="snapshot-gone"):
    """The snapshot was deleted while it was needed."""

    template = "snapshot {snapshot} (id {snapshot_id}) of image {image} no longer exists in pool {pool}"


class SnapshotMissing(CephRsnapshotError, code="snapshot-missing"):
    """The image exists and has no snapshot of that name."""

    template = "image {image} in pool {pool} has no snapshot {snapshot}; the newest that it has is {newest}"


class ImageUnreadable(CephRsnapshotError, code="image-unreadable"):
    """The image exists, but what it holds could not be found out."""

    template = "image {image} in pool {pool} can't be read: {reason}"


class NbdFailed(CephRsnapshotError, code="nbd-failed"):
    """A transfer between NBD servers failed; ``reason`` is what libnbd or the kernel said.

    Of a copy, ``side`` is ``source`` or ``target``, and ``errno`` the error number if there is one.
    """

    template = "NBD {what}: {reason}"

    @property
    def side(self) -> str:
        """``source``, ``target``, or empty if it was no copy."""
        return self.data.get("side", "")

    @property
    def errno(self) -> int | None:
        """The error number, if there is one."""
        return int(self.data["errno"]) if "errno" in self.data else None


class NotEnoughSpace(CephRsnapshotError, code="not-enough-space"):
    """Sizes in bytes."""

    template = "{path}: not enough free space: {need} bytes needed, {free} free, of which {minimum} must stay free"


class BaseUnusable(CephRsnapshotError, code="base-unusable"):
    """No increment can be made from this base; a full backup can."""

    template = "{reason}"


class ContentDiffers(CephRsnapshotError, code="content-differs"):
    """A backup does not hold what the snapshot holds; offset and length in bytes."""

    template = (
        "{image} in pool {pool}: the backup differs from the snapshot {snapshot} within {length} bytes at {offset}"
    )


class ExportUnknown(CephRsnapshotError, code="export-unknown"):
    """The export was closed, has expired, or belongs to another connection."""

    template = "there is no open export {export} on this connection (one that is not renewed is closed)"


class ExportInUse(CephRsnapshotError, code="export-in-use"):
    """Another process makes or removes the temporary files of this image."""

    template = "image {image} in pool {pool} is being exported by another process (see {path})"


class ExportFailed(CephRsnapshotError, code="export-failed"):
    """The snapshot could not be made into a qcow2; ``reason`` has what the tool said."""

    template = "export of {image} in pool {pool} failed: {reason}"


class Cancelled(CephRsnapshotError, code="cancelled"):
    """The caller gave up, or the agent is ending."""

    template = "{what} was cancelled"


class JobUnknown(CephRsnapshotError, code="job-unknown"):
    """The job was closed, or belongs to another connection."""

    template = "there is no job {job} on this connection"


class LimitReached(CephRsnapshotError, code="limit-reached", exit_code=3):
    """The agent has as many of something as its configuration allows; later it may have room again."""

    template = "the agent has no room for another {what}: {setting} is {most}"


class BadRequest(CephRsnapshotError, code="bad-request"):
    """A call that the other side could not read."""

    template = "bad request: {reason}"


class CommandRefused(CephRsnapshotError, code="command-refused", exit_code=2):
    """The backup node's ssh key may not run this on the ceph node."""

    template = "refused: {reason}"


class RsnapshotFailed(CephRsnapshotError, code="rsnapshot-failed"):
    """rsnapshot exited with something else than 0; ``reason`` is what rsync and ssh said."""

    template = "rsnapshot {action} of {root} failed with exit code {exit_code}: {reason}"


class BadAnswer(CephRsnapshotError, code="bad-answer"):
    """The agent's answer to a call can't be what it should be."""

    template = "the agent's answer to {call} is not what it should be: {reason}"


class AgentLied(CephRsnapshotError, code="agent-lied"):
    """The agent's answer contradicts what it was asked: nothing of it is believed, and nothing was rotated for it."""

    template = "the agent's answer to {call} is not believed: it was asked for {asked}, and answered {came}"


class NoProgress(CephRsnapshotError, code="no-progress"):
    """Something was waited for, and nothing moved for IDLE_TIMEOUT."""

    template = "{what}: nothing moved for {seconds} s (IDLE_TIMEOUT)"


class TransferFailed(CephRsnapshotError, code="transfer-failed"):
    """What arrived on the backup node is not what was exported; nothing was rotated."""

    template = "{path}: {reason}; nothing was rotated"


class DateNotForward(CephRsnapshotError, code="date-not-forward"):
    """The days of an image go forward by date; this one would lie on top of newer ones."""

    template = "{image} in pool {pool}: {snapshot} is not backed up: {reason}"


class OrphansSuspicious(CephRsnapshotError, code="orphans-suspicious"):
    """The listing would make so many images orphans that it is not believed."""

    template = (
        "pool {pool}: {new} of {known} known images are no longer there ({names}); that looks wrong, so no "
        "orphan was rotated. If they are really deleted, run again with --rotate-many-orphans"
    )


class BackupNotFound(CephRsnapshotError, code="backup-not-found"):
    """There is no such backup on the backup node; ``hint`` names similar ones."""

    template = "there is no backup of {what}{hint}"


class BackupGone(CephRsnapshotError, code="backup-gone"):
    """It was there when the backups were listed, and has rolled off since: no fault of anybody."""

    template = "{what} has rolled off since the backups were listed"


class BackupDamaged(CephRsnapshotError, code="backup-damaged"):
    """A backup is not as it was made: nothing is restored from it unless that is asked for."""

    template = "{what}: {reason}"


class HoldExists(CephRsnapshotError, code="hold-exists"):
    """A day of this snapshot is held already."""

    template = "{what} is there already: the day is held; release it first if it is to be another one"


class GuestFilesFailed(CephRsnapshotError, code="guest-files-failed"):
    """The files in a backup can't be read, or not this one."""

    template = "files of {what}: {reason}"


class TargetExists(CephRsnapshotError, code="target-exists"):
    """Nothing is ever overwritten."""

    template = "{target} exists already, and is not overwritten: choose another name, or rename or remove it yourself"


class RestoreNotAllowed(CephRsnapshotError, code="restore-not-allowed"):
    """ALLOW_RESTORE is off on the ceph node."""

    template = "the agent's configuration does not allow it to create images: set ALLOW_RESTORE: true on the ceph node"


class RestoreFailed(CephRsnapshotError, code="restore-failed"):
    """What had been created for it was removed again, unless ``reason`` says otherwise."""

    template = "restoring {target} failed: {reason}"


def _all_kinds(base: type[CephRsnapshotError]) -> dict[str, type[CephRsnapshotError]]:
    """Of two classes with one code, the one above stands for both."""
    below = {code: kind for each in base.__subclasses__() for code, kind in _all_kinds(each).items()}
    return {**below, base.code: base}


def from_record(record: ErrorRecord) -> CephRsnapshotError:
    """The error that ``record`` describes; of the base class if this version doesn't know its code."""
    kind = _all_kinds(CephRsnapshotError).get(record.code, CephRsnapshotError)
    error = kind.__new__(kind)
    error.data = dict(record.data)
    Exception.__init__(error, record.message)
    return error


def bounded(record: ErrorRecord) -> ErrorRecord:
    """``record`` with texts of a bounded length, as it is believed of another node."""
    data = {key[:_MAX_TEXT]: value[:_MAX_TEXT] for key, value in list(record.data.items())[:_MAX_DATA]}
    return ErrorRecord(code=record.code[:_MAX_TEXT], message=record.message[:_MAX_TEXT], data=data)


def one_line(text: str) -> str:
    """Text of a tool as one line, for messages."""
    return " ".join(text.split())
