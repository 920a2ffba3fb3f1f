"""Errors as classes with data: callers branch on the class (or its ``code``), never on the text.

An error crosses RPyC as an :class:`ErrorRecord` (code, message, data) and is made again on the other side.
"""

from __future__ import annotations

from typing import ClassVar

from ceph_rsnapshot_common.model import Record


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

    def __init__(self, **data: object) -> None:
        self.data = {key: str(value) for key, value in data.items()}
        super().__init__(self.template.format_map(self.data))

    def record(self) -> ErrorRecord:
        return ErrorRecord(code=self.code, message=str(self), data=self.data)


class ConfigError(CephRsnapshotError):
    """The configuration or the command line can't be used; nothing was touched."""

    code = "config"
    exit_code = 2
    template = "{path}: {problems}"


class PathNotUsable(CephRsnapshotError):
    """A folder of the configuration can't be created, read or written."""

    code = "path-not-usable"
    exit_code = 2
    template = "{key}: {path}: {reason}"


class AgentUnreachable(CephRsnapshotError):
    """No connection to the agent: ssh failed, the agent doesn't run, or the connection broke."""

    code = "agent-unreachable"
    exit_code = 3
    template = "the agent can't be reached ({where}): {reason}"


class VersionMismatch(CephRsnapshotError):
    """Both ends run, but don't speak the same protocol."""

    code = "version-mismatch"
    exit_code = 3
    template = "the agent ({where}) and this controller don't go together: {reason}"


class ClusterUnreachable(CephRsnapshotError):
    """Ceph doesn't answer, or refuses the cephx user."""

    code = "cluster-unreachable"
    exit_code = 3
    template = "Ceph can't be reached as client.{user} with {conf}: {reason}"


class LockHeld(CephRsnapshotError):
    """Another run works on the same backup folder."""

    code = "lock-held"
    exit_code = 4
    template = "another run (pid {pid}) holds {path}: nothing was done; try again when it has ended"


class BindingsMissing(CephRsnapshotError):
    """The Python bindings of Ceph are not importable; they are not on PyPI."""

    code = "bindings-missing"
    template = (
        "can't import {module} ({reason}): install python3-rados and python3-rbd (Debian, Ubuntu: apt install "
        "python3-rados python3-rbd); create the environment with --system-site-packages from the "
        "distribution's own python3"
    )


class NbdBindingsMissing(CephRsnapshotError):
    """The Python bindings of libnbd are not importable; they are not on PyPI."""

    code = "nbd-bindings-missing"
    template = (
        "can't import nbd ({reason}): install python3-libnbd on the backup node and create the environment with "
        "--system-site-packages"
    )


class ToolMissing(CephRsnapshotError):
    """A program that this one runs is not installed."""

    code = "tool-missing"
    template = "{tool} is missing on the {node} node: install the package {package}"


class CommandFailed(CephRsnapshotError):
    """An external command failed, or took too long."""

    code = "command-failed"
    template = "{command} {outcome}: {output}"


class PoolNotFound(CephRsnapshotError):
    code = "pool-not-found"
    template = "pool {pool} does not exist in this Ceph cluster"


class PoolUnreadable(CephRsnapshotError):
    """The pool could not be listed: which images it holds is unknown."""

    code = "pool-unreadable"
    template = "pool {pool} can't be listed: {reason}"


class NothingToBackUp(CephRsnapshotError):
    """Not one image could be chosen: an error, because a silent empty night is a lost one."""

    code = "nothing-to-back-up"
    template = "{reason}"


class ImageMissing(CephRsnapshotError):
    """There never was such an image as far as this run knows; ``hint`` names similar ones."""

    code = "image-missing"
    template = "there is no image {image} in pool {pool}{hint}"


class ImageGone(CephRsnapshotError):
    code = "image-gone"
    template = "image {image} (id {image_id}) no longer exists in pool {pool}"


class SnapshotGone(CephRsnapshotError):
    code = "snapshot-gone"
    template = "snapshot {snapshot} (id {snapshot_id}) of image {image} no longer exists in pool {pool}"


class SnapshotMissing(CephRsnapshotError):
    """The image exists and has no snapshot of that name."""

    code = "snapshot-missing"
    template = "image {image} in pool {pool} has no snapshot {snapshot}; the newest that it has is {newest}"


class ImageUnreadable(CephRsnapshotError):
    """The image exists, but what it holds could not be found out."""

    code = "image-unreadable"
    template = "image {image} in pool {pool} can't be read: {reason}"


class NbdFailed(CephRsnapshotError):
    """A transfer between NBD servers failed; ``reason`` is what libnbd or the kernel said.

    Of a copy, ``side`` is ``source`` or ``target``, and ``errno`` the error number if there is one.
    """

    code = "nbd-failed"
    template = "NBD {what}: {reason}"

    @property
    def side(self) -> str:
        """``source``, ``target``, or empty if it was no copy."""
        return self.data.get("side", "")

    @property
    def errno(self) -> int | None:
        """The error number, if there is one."""
        return int(self.data["errno"]) if "errno" in self.data else None


class NotEnoughSpace(CephRsnapshotError):
    """Sizes in bytes."""

    code = "not-enough-space"
    template = "{path}: not enough free space: {need} bytes needed, {free} free, of which {minimum} must stay free"


class BaseUnusable(CephRsnapshotError):
    """No increment can be made from this base; a full backup can."""

    code = "base-unusable"
    template = "{reason}"


class ContentDiffers(CephRsnapshotError):
    """A backup does not hold what the snapshot holds; offset and length in bytes."""

    code = "content-differs"
    template = (
        "{image} in pool {pool}: the backup differs from the snapshot {snapshot} within {length} bytes at {offset}"
    )


class ExportUnknown(CephRsnapshotError):
    code = "export-unknown"
    template = "there is no open export {export} on this connection (one that is not renewed is closed)"


class ExportInUse(CephRsnapshotError):
    code = "export-in-use"
    template = "image {image} in pool {pool} is being exported by another process (see {path})"


class ExportFailed(CephRsnapshotError):
    code = "export-failed"
    template = "export of {image} in pool {pool} failed: {reason}"


class Cancelled(CephRsnapshotError):
    code = "cancelled"
    template = "{what} was cancelled"


class JobUnknown(CephRsnapshotError):
    code = "job-unknown"
    template = "there is no job {job} on this connection"


class BadRequest(CephRsnapshotError):
    """A call that the other side could not read."""

    code = "bad-request"
    template = "bad request: {reason}"


class RsnapshotFailed(CephRsnapshotError):
    """rsnapshot exited with something else than 0; ``reason`` is what rsync and ssh said."""

    code = "rsnapshot-failed"
    template = "rsnapshot {action} of {root} failed with exit code {exit_code}: {reason}"


class BadAnswer(CephRsnapshotError):
    """The agent's answer to a call can't be what it should be."""

    code = "bad-answer"
    template = "the agent's answer to {call} is not what it should be: {reason}"


class TransferFailed(CephRsnapshotError):
    """What arrived on the backup node is not what was exported; nothing was rotated."""

    code = "transfer-failed"
    template = "{path}: {reason}; nothing was rotated"


class OrphansSuspicious(CephRsnapshotError):
    """The listing would make so many images orphans that it is not believed."""

    code = "orphans-suspicious"
    template = (
        "pool {pool}: {new} of {known} known images are no longer there ({names}); that looks wrong, so no "
        "orphan was rotated. If they are really deleted, run again with --rotate-many-orphans"
    )


class BackupNotFound(CephRsnapshotError):
    """There is no such backup on the backup node; ``hint`` names similar ones."""

    code = "backup-not-found"
    template = "there is no backup of {what}{hint}"


class BackupGone(CephRsnapshotError):
    """It was there when the backups were listed, and has rolled off since: no fault of anybody."""

    code = "backup-gone"
    template = "{what} has rolled off since the backups were listed"


class BackupDamaged(CephRsnapshotError):
    """A backup is not as it was made: nothing is restored from it unless that is asked for."""

    code = "backup-damaged"
    template = "{what}: {reason}"


class TargetExists(CephRsnapshotError):
    """Nothing is ever overwritten."""

    code = "target-exists"
    template = "{target} exists already, and is not overwritten: choose another name, or rename or remove it yourself"


class RestoreNotAllowed(CephRsnapshotError):
    code = "restore-not-allowed"
    template = "the agent's configuration does not allow it to create images: set ALLOW_RESTORE: true on the ceph node"


class RestoreFailed(CephRsnapshotError):
    """What had been created for it was removed again, unless ``reason`` says otherwise."""

    code = "restore-failed"
    template = "restoring {target} failed: {reason}"


def _all_kinds(base: type[CephRsnapshotError]) -> dict[str, type[CephRsnapshotError]]:
    kinds = {base.code: base}
    for kind in base.__subclasses__():
        kinds.update(_all_kinds(kind))
    return kinds


def from_record(record: ErrorRecord) -> CephRsnapshotError:
    """The error that ``record`` describes; of the base class if this version doesn't know its code."""
    kind = _all_kinds(CephRsnapshotError).get(record.code, CephRsnapshotError)
    error = kind.__new__(kind)
    error.data = dict(record.data)
    Exception.__init__(error, record.message)
    return error


def one_line(text: str) -> str:
    """Text of a tool as one line, for messages."""
    return " ".join(text.split())
