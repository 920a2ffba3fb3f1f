"""The RPyC service: the calls of `ceph_rsnapshot_common.protocol.calls`, which take and give text, and nothing else.

Every answer is JSON: ``{"result": ...}`` or ``{"error": {code, message, data}}``.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import Any, Callable, TypeVar, cast

import rpyc
from pydantic import BaseModel, ValidationError

from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_agent.rpc.jobs import to_record
from ceph_rsnapshot_agent.rpc.limits import Limit, Limits
from ceph_rsnapshot_agent.rpc.restores import Restores
from ceph_rsnapshot_agent.rpc.session import Session
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import BadRequest, one_line
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.calls import Call, Job
from ceph_rsnapshot_common.protocol.records import JobStatus, Nothing
from ceph_rsnapshot_common.protocol.wire import ServedConnection

_SHOWN = 1000
_Takes = TypeVar("_Takes")
_Gives = TypeVar("_Gives")
_Request = TypeVar("_Request", bound=Record)
_Result = TypeVar("_Result", bound=Record)
_Owner = TypeVar("_Owner")
_Work = Callable[[_Owner, _Request, Progress, threading.Event], _Result]

Answer = Callable[[Session, tuple[object, ...]], object]
"""Reads the arguments of a call, and does it."""


class Sessions:
    """The sessions that are open now, so that the end of the agent can end them all."""

    def __init__(self, settings: Settings, readers: Readers) -> None:
        self._settings, self._readers = settings, readers
        self._limits = Limits.of_agent(settings)
        self._connections = Limit("connection", "MAX_CONNECTIONS", settings.max_connections)
        self._lock = threading.Lock()
        self._open: set[Session] = set()

    def start(self) -> Session:
        """A new session, for a connection that has just been made; one too many does nothing but refuse."""
        session = Session(self._settings, self._limits.of_connection(self._settings), self._readers)
        session.admit(self._connections)
        with self._lock:
            self._open.add(session)
        return session

    def end(self, session: Session) -> None:
        """End what is under way in it."""
        session.close()
        with self._lock:
            self._open.discard(session)

    def end_all(self) -> None:
        """The agent ends."""
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            self.end(session)


class AgentService(rpyc.Service):  # type: ignore[misc]
    """One instance a connection; `_rpyc_getattr` is the whole of what the other side can reach."""

    _protocol = ServedConnection

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._session = session = sessions.start()
        # made once: a client that asks for them again and again gets the same ones
        self._calls = {name: partial(_answered, answer, session) for name, answer in _ANSWERS.items()}

    @property
    def greeted(self) -> bool:
        """Whether the other side has said hello, and was let in."""
        return self._session.greeted

    def on_disconnect(self, conn: Any) -> None:
        """RPyC's hook."""
        self._sessions.end(self._session)

    def _rpyc_getattr(self, name: str) -> Callable[..., str]:
        if name not in self._calls:
            raise AttributeError
        return self._calls[name]


def _answered(answer: Answer, session: Session, *arguments: object) -> str:
    try:
        session.check_admitted()
        result = answer(session, arguments)
    except Exception as error:
        return json.dumps({"error": to_record(error).model_dump()})
    return json.dumps({"result": result.model_dump(mode="json") if isinstance(result, BaseModel) else result})


def _call(call: Call[_Takes, _Gives], do: Callable[[Session, _Takes], _Gives | None]) -> tuple[str, Answer]:
    return call.name, lambda session, arguments: do(session, _read(call.takes, arguments))


def _job(job: Job[_Request, _Result], work: _Work[Session, _Request, _Result]) -> tuple[str, Answer]:
    return job.name, lambda session, given: session.jobs.start(partial(work, session, _read(job.takes, given)))


def _restore(job: Job[_Request, _Result], work: _Work[Restores, _Request, _Result]) -> tuple[str, Answer]:
    return job.name, lambda session, given: session.jobs.start(partial(work, session.restores, _read(job.takes, given)))


def _poll(session: Session, job: str) -> JobStatus:
    """The status as soon as the job has ended, or else after a moment; a failed one is then forgotten."""
    status = session.jobs.get(job).wait()
    if status.state == "failed":
        session.jobs.forget(job)
    return status


def _result(session: Session, job: str) -> Any:
    """Result of a job that is done; it is handed out once."""
    result = session.jobs.get(job).result
    session.jobs.forget(job)
    return result


_ANSWERS: dict[str, Answer] = dict(
    [
        _call(calls.HELLO, lambda session, _: session.hello()),
        _call(calls.RENEW, lambda session, request: session.renew(request.export)),
        _call(calls.LANDED, lambda session, request: session.landed(request)),
        _call(calls.REMOVE_QCOW, lambda session, request: session.remove_qcow(request.pool, request.image)),
        _call(calls.POLL, _poll),
        _call(calls.RESULT, _result),
        _call(calls.CANCEL, lambda session, job: session.jobs.get(job).cancel()),
        _job(calls.LIST, Session.list_pool),
        _job(calls.DESCRIBE, Session.describe),
        _job(calls.EXPORT, Session.export_qcow),
        _job(calls.OPEN, Session.open_export),
        _job(calls.CLOSE, Session.close_export),
        _job(calls.EXTENTS, Session.extents),
        _job(calls.DIGESTS, Session.digests),
        _job(calls.CHECK, Session.check),
        _restore(calls.RESTORE, Restores.create),
        _restore(calls.WRITTEN, Restores.written),
        _restore(calls.BLOCK_DIGESTS, Restores.digests),
        _restore(calls.FINISH, Restores.finish),
        _restore(calls.ABORT, Restores.abort),
    ]
)


def _read(takes: type[_Takes], arguments: tuple[object, ...]) -> _Takes:
    """What a call takes: nothing, the name of a job, or a record as JSON text."""
    if takes is Nothing:
        return takes()
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise BadRequest(reason="a call takes one text")
    if not issubclass(takes, Record):
        return cast(_Takes, arguments[0])
    try:
        return takes.model_validate_json(arguments[0])
    except ValidationError as error:
        raise BadRequest(reason=one_line(str(error))[:_SHOWN]) from None
