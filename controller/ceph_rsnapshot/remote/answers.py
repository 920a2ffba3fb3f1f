"""The border: everything that an agent answers is judged here against what was asked, before anything else sees it.

Behind it the program has only typed values that are known to fit the question.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.errors import (
    BadAnswer,
    ErrorRecord,
    TransferFailed,
    VersionMismatch,
    from_record,
    one_line,
)
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.calls import Call, Job
from ceph_rsnapshot_common.protocol.manifest import Identity
from ceph_rsnapshot_common.protocol.records import PROTOCOL, Exported, ExportRequest, Hello, Nothing

_Gives = TypeVar("_Gives")


class _Envelope(Record):
    """Every answer: a result or an error."""

    result: Any = None
    error: Optional[ErrorRecord] = None


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
        raise BadAnswer(call=call, reason=one_line(str(error))) from None
    if envelope.error:
        raise from_record(envelope.error)
    return envelope.result


def judged(call: Call[Any, _Gives] | Job[Any, Any], asked: object, result: object) -> _Gives:
    """The result of ``call`` as what it must be, and as fits what was ``asked``.

    Raises:
        BadAnswer, TransferFailed: it does not.
    """
    found = _typed(call.gives, call.name, {} if result is None and call.gives is Nothing else result)
    judge = _JUDGES.get(call.name)
    if judge:
        judge(asked, found)
    return cast(_Gives, found)


def job_name(job: Job[Any, Any], result: object) -> str:
    """The name of a job that the agent has begun. Raises: BadAnswer."""
    return str(_typed(str, job.name, result))


def _typed(gives: type[Any], call: str, result: object) -> object:
    try:
        return gives.model_validate(result) if issubclass(gives, Record) else TypeAdapter(gives).validate_python(result)
    except ValidationError as error:
        raise BadAnswer(call=call, reason=one_line(str(error))) from None


def greeting(hello: Hello, where: str, whatever_is_missing: bool) -> Hello:
    """A greeting of an agent that this controller goes together with.

    Raises:
        VersionMismatch: it speaks another protocol.
        ToolMissing: it lacks a tool for its work.
    """
    if hello.protocol != PROTOCOL:
        versions = f"it is version {hello.version} (protocol {hello.protocol}), this one {__version__} ({PROTOCOL})"
        raise VersionMismatch(where=where, reason=f"{versions}; install the same version on both")
    for missing in () if whatever_is_missing else hello.tools_missing:
        raise from_record(missing)
    return hello


def _exported(asked: ExportRequest, answer: Exported) -> None:
    """A staged export is of what was asked for, and in a folder that rsync can be told."""
    if answer.manifest is None or answer.folder is None:
        return
    identity = Identity(asked.fsid, asked.pool.pool, asked.pool.namespace, asked.image_id, asked.snapshot_id)
    if answer.manifest.identity != identity or not answer.folder.startswith("/") or not answer.folder.isprintable():
        raise TransferFailed(path=answer.folder, reason="the agent exported something else than it was asked for")


_JUDGES: dict[str, Callable[[Any, Any], None]] = {calls.EXPORT.name: _exported}
