"""The border: everything that an agent answers is judged here against what was asked, before anything else sees it.

Behind it the program has only typed values that are known to fit the question. What has the wrong form is a
`BadAnswer`; what contradicts the question is `AgentLied`. Types, lengths and ranges are in the records themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any, Optional, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from ceph_rsnapshot_common import __version__, errors
from ceph_rsnapshot_common.errors import AgentLied, BadAnswer, CephRsnapshotError, ErrorRecord, VersionMismatch
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import image_folder
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.calls import Call, Job
from ceph_rsnapshot_common.protocol.manifest import Layout, Manifest
from ceph_rsnapshot_common.protocol.records import (
    MAX_SIZE,
    PROTOCOL,
    BlockDigests,
    BlockRequest,
    ByteRange,
    Described,
    DescribeRequest,
    DigestRequest,
    Digests,
    Exported,
    ExportRequest,
    Extents,
    Facts,
    Hello,
    Image,
    ListRequest,
    Names,
    Nothing,
    Opened,
    RestoreOpened,
    RestoreRequest,
    Snapshot,
    SnapshotRequest,
    Text,
    ToldError,
)

_Gives = TypeVar("_Gives")
_Judge = Callable[[Any, Any], None]

_FSID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IMAGE_ID = re.compile(r"[0-9A-Za-z]{0,64}")  # none for images of the old format 1
# utime_t counts seconds in 32 bits: https://github.com/ceph/ceph/blob/main/src/include/utime.h
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=timezone.utc), datetime(2106, 2, 8, tzinfo=timezone.utc)
_LONGEST_SOCKET = 107  # https://man7.org/linux/man-pages/man7/unix.7.html
_MOST_RANGES = 2 * 65536
_SHOWN = 200
# what only this node finds out; an agent that claims one of these is not believed in that
_NOT_TOLD = (
    errors.AgentLied,
    errors.AgentUnreachable,
    errors.BackupDamaged,
    errors.BackupGone,
    errors.BackupNotFound,
    errors.BadAnswer,
    errors.ConfigError,
    errors.ContentDiffers,
    errors.LockHeld,
    errors.NbdBindingsMissing,
    errors.NbdFailed,
    errors.NoProgress,
    errors.OrphansSuspicious,
    errors.RsnapshotFailed,
    errors.TransferFailed,
    errors.VersionMismatch,
)


class _Envelope(Record):
    """Every answer: a result or an error."""

    result: Any = None
    error: Optional[ToldError] = None


def opened(call: str, answer: object) -> Any:
    """What the answer to ``call`` holds, still without a type.

    Raises:
        BadAnswer: it is no answer.
        CephRsnapshotError: the error that it tells.
    """
    if type(answer) is not str:
        raise BadAnswer(call=call, reason=f"{type(answer).__name__} instead of text")
    try:
        envelope = _Envelope.model_validate_json(answer)
    except ValidationError as error:
        raise BadAnswer(call=call, reason=_reasons(error)) from None
    if envelope.error:
        raise told(envelope.error)
    return envelope.result


def told(record: ErrorRecord) -> CephRsnapshotError:
    """The error that the agent tells; of the base class if it is none that an agent can know of."""
    error = errors.from_record(record)
    if isinstance(error, _NOT_TOLD):
        return errors.from_record(record.model_copy(update={"code": CephRsnapshotError.code}))
    return error


def judged(call: Call[Any, _Gives] | Job[Any, Any], asked: object, result: object) -> _Gives:
    """The result of ``call`` as what it must be, and as fits what was ``asked``.

    Raises:
        BadAnswer: it has another form.
        AgentLied: it contradicts the question.
    """
    found = _typed(call.gives, call.name, {} if result is None and call.gives is Nothing else result)
    judge = _JUDGES.get(call.name)
    if judge:
        judge(asked, found)
    return cast(_Gives, found)


def job_name(job: Job[Any, Any], result: object) -> str:
    """The name of a job that the agent has begun. Raises: BadAnswer."""
    return str(_typed(Text, job.name, result))


def _typed(gives: Any, call: str, result: object) -> object:
    try:
        if isinstance(gives, type) and issubclass(gives, Record):
            return gives.model_validate(result)
        return TypeAdapter(gives).validate_python(result)
    except ValidationError as error:
        raise BadAnswer(call=call, reason=_reasons(error)) from None


def _reasons(error: ValidationError) -> str:
    """What is wrong with an answer, without the answer itself, which may be long."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))[:_SHOWN]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg'][:_SHOWN]}{more}" if where else f"{first['msg'][:_SHOWN]}{more}"


def greeting(hello: Hello, where: str, whatever_is_missing: bool) -> Hello:
    """A greeting of an agent that this controller goes together with.

    Raises:
        VersionMismatch: it speaks another protocol.
        ToolMissing: it lacks a tool for its work.
    """
    if hello.protocol != PROTOCOL:
        version = hello.version[:_SHOWN]
        versions = f"it is version {version} (protocol {hello.protocol}), this one {__version__} ({PROTOCOL})"
        raise VersionMismatch(where=where, reason=f"{versions}; install the same version on both")
    for missing in () if whatever_is_missing else hello.tools_missing:
        raise told(missing)
    return hello


class _Question:
    """The call whose answer is judged; each method raises AgentLied unless what came is right."""

    def __init__(self, job: Job[Any, Any]) -> None:
        self._call = job.name

    def lied(self, asked: object, came: object) -> AgentLied:
        """The error."""
        return AgentLied(call=self._call, asked=str(asked)[:_SHOWN], came=str(came)[:_SHOWN])

    def holds(self, right: bool, asked: object, came: object) -> None:
        """``right``: whether ``came`` is as was ``asked``."""
        if not right:
            raise self.lied(asked, came)

    def same(self, what: str, asked: object, came: object) -> None:
        """They are equal."""
        self.holds(asked == came, f"{what} {asked}", came if came != "" else "nothing")

    def fsid(self, asked: str, came: str) -> None:
        """An fsid, and the one that is known, if it is."""
        self.holds(_FSID.fullmatch(came) is not None, "an fsid", came)
        if asked:
            self.same("fsid", asked, came)

    def once(self, what: str, values: Iterable[object]) -> None:
        """No value comes twice."""
        seen = set()
        for value in values:
            self.holds(value not in seen, f"each {what} once", f"{value} twice")
            seen.add(value)

    def time(self, what: str, came: datetime) -> None:
        """A time that Ceph can know."""
        self.holds(came.tzinfo is not None and _FIRST <= came < _LAST, f"a time {what}", came)

    def facts(self, asked: SnapshotRequest, came: Facts) -> None:
        """Facts of the snapshot that was listed."""
        self.fsid(asked.fsid, came.fsid)
        if asked.size is not None:
            self.same("a snapshot of bytes", asked.size, came.size)
        self.time("of creation", came.created)
        self.layout(came.layout)

    def layout(self, came: Layout) -> None:
        """One of sane numbers and names."""
        numbers = (came.object_size, came.stripe_unit, came.stripe_count)
        names = (*came.features, came.data_pool or "")
        right = all(0 <= each <= 2**40 for each in numbers) and came.object_size > 0
        self.holds(right and len(names) < 100 and all(len(each) <= _SHOWN for each in names), "a layout", came)

    def ranges(self, came: Iterable[ByteRange], size: int) -> None:
        """Ascending ranges within ``size`` bytes that don't overlap."""
        end = 0
        for number, (offset, length) in enumerate(came):
            right = end <= offset and length > 0 and offset + length <= size and number < _MOST_RANGES
            self.holds(right, f"ascending ranges within {size} bytes", f"{length} bytes at {offset}")
            end = offset + length

    def path(self, what: str, came: str) -> None:
        """An absolute path, in its plain form."""
        plain = came.startswith("/") and came.isprintable() and str(PurePosixPath(came)) == came
        self.holds(plain and ".." not in PurePosixPath(came).parts, f"the path of {what}", came)

    def socket(self, came: str) -> None:
        """The path of a unix socket."""
        self.path("a socket", came)
        self.holds(len(came.encode()) <= _LONGEST_SOCKET, "the path of a socket", came)


def _names(asked: ListRequest, came: Names) -> None:
    question = _Question(calls.LIST)
    question.same("pool", asked.pool, came.pool)
    question.fsid("", came.fsid)
    question.once("name", came.names)
    for name in came.names:
        question.holds(name != "" and "\0" not in name, "names of images", repr(name))


def _described(asked: DescribeRequest, came: Described) -> None:
    """Each image that was asked for is there or has vanished, and no other one."""
    question = _Question(calls.DESCRIBE)
    question.same("pool", asked.pool, came.pool)
    question.same("snapshot", asked.snapshot_name, came.snapshot_name)
    question.fsid("", came.fsid)
    names = [*(image.name for image in came.images), *came.vanished]
    question.once("image", names)
    wanted = frozenset(asked.images)
    for name in names:
        question.holds(name in wanted, "certain images", f"also {name}")
    missing = wanted - frozenset(names)
    question.holds(not missing, f"{len(wanted)} images", f"nothing of {min(missing, default='')}")
    question.once("id", (image.id for image in came.images if image.id))
    for image in came.images:
        _image(question, asked.snapshot_name, image)


def _image(question: _Question, snapshot_name: str, image: Image) -> None:
    question.holds(_IMAGE_ID.fullmatch(image.id) is not None, f"the id of {image.name}", image.id)
    found, newest = image.snapshot, image.newest
    for snapshot in filter(None, (found, newest)):
        question.time(f"of {image.name}@{snapshot.name}", snapshot.created)
    if found:
        question.same(f"snapshot of {image.name}:", snapshot_name, found.name)
        question.holds(image.error is None, f"{image.name}", "a snapshot and an error")
        question.holds(_follows(newest, found), f"the newest snapshot of {image.name}", newest)


def _follows(newest: Snapshot | None, found: Snapshot) -> bool:
    return newest is not None and (newest.id > found.id or newest == found)


def _exported(asked: ExportRequest, came: Exported) -> None:
    """A staged export is of what was asked for, and in a folder of its own that rsync can be told."""
    question = _Question(calls.EXPORT)
    question.facts(asked, came.facts)
    question.ranges(came.allocated, came.facts.size)
    if came.manifest is None or came.folder is None:
        return
    question.path("a folder", came.folder)
    own = image_folder(asked.pool, asked.image).parts
    question.holds(PurePosixPath(came.folder).parts[-len(own) :] == own, "the folder of the image", came.folder)
    _manifest(question, asked, came.facts, came.manifest)


def _manifest(question: _Question, asked: ExportRequest, facts: Facts, came: Manifest) -> None:
    """Every field; what only this node may say (that it was verified, say) is not said."""
    expected: Mapping[str, object] = {
        "manifest_version": 2,
        "fsid": facts.fsid,
        "pool": asked.pool.pool,
        "namespace": asked.pool.namespace,
        "image": asked.image,
        "image_id": asked.image_id,
        "snapshot": asked.snapshot,
        "snapshot_id": asked.snapshot_id,
        "snapshot_created": facts.created,
        "size": facts.size,
        "transfer_mode": "staged",
        "kind": "full",
        "base": None,
        "full_because": None,
        "changed_bytes": None,
        "verified": "none",
        "backups_since_full_check": 0,
        "compared_bytes": None,
        "comparisons": None,
        "night": None,
        "landed": None,
        "digests": None,
        "layout": facts.layout,
    }
    for field, value in expected.items():
        question.same(f"a manifest with {field}", value, getattr(came, field))
    files = (came.qcow2_bytes, came.qcow2_file_size, came.qcow2_mtime_ns)
    for amount in (*files, came.allocated_bytes, came.transferred_bytes):
        question.holds(amount is None or 0 <= amount <= MAX_SIZE, "a manifest with sane amounts", amount)
    question.time("of the beginning", came.started)
    question.time("of the end", came.ended)
    versions = (came.versions.ceph_rsnapshot, came.versions.ceph, came.versions.qemu)
    question.holds(all(len(each) <= _SHOWN for each in versions), "a manifest with versions", came.versions)


def _opened(asked: ExportRequest, came: Opened) -> None:
    question = _Question(calls.OPEN)
    question.facts(asked, came.facts)
    if came.socket is not None:
        question.socket(came.socket)


def _restore_opened(_asked: RestoreRequest, came: RestoreOpened) -> None:
    question = _Question(calls.RESTORE)
    question.socket(came.socket)
    question.holds(_IMAGE_ID.fullmatch(came.image_id) is not None, "the id of the new image", came.image_id)


def _extents(asked: SnapshotRequest, came: Extents) -> None:
    question = _Question(calls.EXTENTS)
    question.fsid(asked.fsid, came.fsid)
    question.ranges(came.allocated, MAX_SIZE if asked.size is None else asked.size)


def _digests(asked: DigestRequest, came: Digests) -> None:
    question = _Question(calls.DIGESTS)
    question.holds(len(came.digests) == len(asked.groups), f"{len(asked.groups)} digests", f"{len(came.digests)}")


def _block_digests(asked: BlockRequest, came: BlockDigests) -> None:
    question, numbers = _Question(calls.BLOCK_DIGESTS), [number for number, _ in came.blocks]
    question.once("block", numbers)
    for number in numbers:
        right = asked.first <= number < asked.first + asked.count
        question.holds(right, f"{asked.count} blocks from {asked.first} on", f"block {number}")


_JUDGES: dict[str, _Judge] = {
    calls.LIST.name: _names,
    calls.DESCRIBE.name: _described,
    calls.EXPORT.name: _exported,
    calls.OPEN.name: _opened,
    calls.RESTORE.name: _restore_opened,
    calls.EXTENTS.name: _extents,
    calls.DIGESTS.name: _digests,
    calls.BLOCK_DIGESTS.name: _block_digests,
}
