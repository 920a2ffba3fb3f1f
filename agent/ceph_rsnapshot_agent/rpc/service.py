"""The RPyC service: a handful of named calls that take and give text, and nothing else.

Every answer is JSON: ``{"result": ...}`` or ``{"error": {code, message, data}}``.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Callable

import rpyc
from pydantic import BaseModel, ValidationError

from ceph_rsnapshot_agent.rpc.jobs import to_record
from ceph_rsnapshot_agent.rpc.session import Session
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import BadRequest, one_line
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.protocol.records import (
    BlockRequest,
    CheckRequest,
    DigestRequest,
    ExportName,
    ExportRequest,
    ImageName,
    LandedRequest,
    ListRequest,
    RestoreRequest,
    SnapshotRequest,
)


class Sessions:
    """The sessions that are open now, so that the end of the agent can end them all."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._open: set[Session] = set()

    def start(self) -> Session:
        session = Session(self._settings)
        with self._lock:
            self._open.add(session)
        return session

    def end(self, session: Session) -> None:
        session.close()
        with self._lock:
            self._open.discard(session)

    def end_all(self) -> None:
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            self.end(session)


class AgentService(rpyc.Service):  # type: ignore[misc]
    """One instance a connection; `_rpyc_getattr` is the whole of what the other side can reach."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._session = sessions.start()

    def on_disconnect(self, conn: Any) -> None:
        self._sessions.end(self._session)

    def _rpyc_getattr(self, name: str) -> Callable[..., str]:
        if name not in CALLS:
            raise AttributeError(f"no call {name!r}")
        session, call = self._session, CALLS[name]
        return lambda *arguments: _answer(call, session, arguments)


def _answer(call: Callable[..., object], session: Session, arguments: tuple[object, ...]) -> str:
    try:
        result = call(session, *arguments)
    except Exception as error:
        return json.dumps({"error": to_record(error).model_dump()})
    return json.dumps({"result": result.model_dump(mode="json") if isinstance(result, BaseModel) else result})


def _hello(session: Session) -> object:
    return session.hello()


def _start_list(session: Session, request: object) -> object:
    return session.start_list(_read(ListRequest, request))


def _start_export(session: Session, request: object) -> object:
    return session.start_export(_read(ExportRequest, request))


def _start_open(session: Session, request: object) -> object:
    return session.start_open(_read(ExportRequest, request))


def _renew(session: Session, request: object) -> object:
    session.renew(_read(ExportName, request).export)
    return None


def _start_close(session: Session, request: object) -> object:
    return session.start_close(_read(ExportName, request).export)


def _start_extents(session: Session, request: object) -> object:
    return session.start_extents(_read(SnapshotRequest, request))


def _start_digests(session: Session, request: object) -> object:
    return session.start_digests(_read(DigestRequest, request))


def _start_check(session: Session, request: object) -> object:
    return session.start_check(_read(CheckRequest, request))


def _start_restore(session: Session, request: object) -> object:
    return session.restores.start(_read(RestoreRequest, request))


def _start_written(session: Session, request: object) -> object:
    return session.restores.start_written(_read(ExportName, request).export)


def _start_block_digests(session: Session, request: object) -> object:
    return session.restores.start_digests(_read(BlockRequest, request))


def _start_finish(session: Session, request: object) -> object:
    return session.restores.start_finish(_read(ExportName, request).export)


def _start_abort(session: Session, request: object) -> object:
    return session.restores.start_abort(_read(ExportName, request).export)


def _landed(session: Session, request: object) -> object:
    session.landed(_read(LandedRequest, request))
    return None


def _remove_qcow(session: Session, request: object) -> object:
    name = _read(ImageName, request)
    return session.remove_qcow(name.pool, name.image)


def _poll(session: Session, job: object) -> object:
    """The status as soon as the job has ended, or else after a moment; a failed one is then forgotten."""
    status = session.jobs.get(str(job)).wait()
    if status.state == "failed":
        session.jobs.forget(str(job))
    return status


def _result(session: Session, job: object) -> object:
    """Result of a job that is done; it is handed out once."""
    result = session.jobs.get(str(job)).result
    session.jobs.forget(str(job))
    return result


def _cancel(session: Session, job: object) -> object:
    session.jobs.get(str(job)).cancel()
    return None


CALLS: dict[str, Callable[..., object]] = {
    "hello": _hello,
    "start_list": _start_list,
    "start_export": _start_export,
    "start_open": _start_open,
    "renew": _renew,
    "start_close": _start_close,
    "start_extents": _start_extents,
    "start_digests": _start_digests,
    "start_check": _start_check,
    "start_restore": _start_restore,
    "start_written": _start_written,
    "start_block_digests": _start_block_digests,
    "start_finish": _start_finish,
    "start_abort": _start_abort,
    "landed": _landed,
    "poll": _poll,
    "result": _result,
    "cancel": _cancel,
    "remove_qcow": _remove_qcow,
}


def _read(model: type[Record], text: object) -> Any:
    if not isinstance(text, str):
        raise BadRequest(reason="a call takes one JSON text")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise BadRequest(reason=one_line(str(error))) from None
