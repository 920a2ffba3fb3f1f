"""The agent as seen from here: typed calls, errors as classes, long work polled."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, Callable, Generic, Optional, TypeVar

import rpyc
from pydantic import BaseModel, ValidationError
from rpyc.utils.factory import unix_connect

from ceph_rsnapshot.remote.link import Link
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.errors import (
    AgentUnreachable,
    BadAnswer,
    CephRsnapshotError,
    ErrorRecord,
    VersionMismatch,
    from_record,
    one_line,
)
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import (
    PROTOCOL,
    BlockDigests,
    BlockRequest,
    CheckRequest,
    Checks,
    Closed,
    DigestRequest,
    Digests,
    Exported,
    ExportName,
    ExportRequest,
    Extents,
    Hello,
    ImageName,
    JobStatus,
    LandedRequest,
    Listing,
    ListRequest,
    Nothing,
    Opened,
    RestoreOpened,
    RestoreRequest,
    SnapshotRequest,
)
from ceph_rsnapshot_common.protocol.wire import CALL_SECONDS, PROTOCOL_CONFIG

Progress = Callable[[JobStatus], None]
_POLL_SECONDS = 0.02
_SECONDS_AFTER_AN_INTERRUPT = 5


_Model = TypeVar("_Model", bound=BaseModel)


def _no_progress(_status: JobStatus) -> None:
    pass


class _Answer(Record):
    """Every answer of the agent: a result or an error."""

    result: Any = None
    error: Optional[ErrorRecord] = None


def _read(model: type[_Model], call: str, answer: object) -> _Model:
    try:
        return model.model_validate_json(answer) if type(answer) is str else model.model_validate(answer)
    except ValidationError as error:
        raise BadAnswer(call=call, reason=one_line(str(error))) from None


class Pending(Generic[_Model]):
    """A job that the agent has begun."""

    def __init__(self, client: AgentClient, model: type[_Model], call: str, job: str) -> None:
        self._client, self._model, self._call, self._job = client, model, call, job

    def result(self, progress: Progress = _no_progress) -> _Model:
        """Wait for it; once only."""
        return self._client.result_of(self._model, self._call, self._job, progress)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._client.cancel(self._job)


class AgentClient:
    """A connection to the agent; a context manager. What it exported is removed there when it closes.

    Args:
        whatever_is_missing: also where the agent lacks tools for its work.

    Raises:
        AgentUnreachable: from every call, if the connection is not there or breaks.
        VersionMismatch: on entering, if the agent does not speak this protocol.
        ToolMissing: on entering.
    """

    def __init__(self, link: Link, whatever_is_missing: bool = False) -> None:
        self._link = link
        self._whatever_is_missing = whatever_is_missing
        self._connection: Any = None
        self.version = ""

    def __enter__(self) -> AgentClient:
        self._connection = self._connect()
        try:
            self._greet()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def link(self) -> Link:
        return self._link

    @property
    def alive(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def close(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # the other side was faster
            self._connection.close()

    def list_images(self, request: ListRequest, progress: Progress) -> Listing:
        return self._job(Listing, "start_list", request, progress)

    def export(self, request: ExportRequest, progress: Progress) -> Exported:
        return self._job(Exported, "start_export", request, progress)

    def open_export(self, request: ExportRequest, progress: Progress) -> Opened:
        return self._job(Opened, "start_open", request, progress)

    def renew(self, export: str) -> None:
        self._call("renew", ExportName(export=export).model_dump_json())

    def close_export(self, export: str) -> Pending[Closed]:
        """Let the agent close it, and see that its snapshots still exist.

        What was read counts only when the result is there.
        """
        return self._start(Closed, "start_close", ExportName(export=export))

    def open_restore(self, request: RestoreRequest, progress: Progress) -> RestoreOpened:
        return self._job(RestoreOpened, "start_restore", request, progress)

    def written(self, export: str) -> Closed:
        """Close an export that was written to."""
        return self._job(Closed, "start_written", ExportName(export=export))

    def block_digests(self, request: BlockRequest) -> Pending[BlockDigests]:
        return self._start(BlockDigests, "start_block_digests", request)

    def finish_restore(self, export: str) -> None:
        """The image gets its true name, and stays."""
        self._job(Nothing, "start_finish", ExportName(export=export))

    def abort_restore(self, export: str) -> None:
        """The image is removed."""
        self._job(Nothing, "start_abort", ExportName(export=export))

    def extents(self, request: SnapshotRequest, progress: Progress) -> Extents:
        return self._job(Extents, "start_extents", request, progress)

    def digests(self, request: DigestRequest) -> Pending[Digests]:
        return self._start(Digests, "start_digests", request)

    def check(self, request: CheckRequest) -> Checks:
        return self._job(Checks, "start_check", request)

    def landed(self, fsid: str, snapshot: SnapshotRequest) -> None:
        self._call("landed", LandedRequest(fsid=fsid, snapshot=snapshot).model_dump_json())

    def remove_qcow(self, pool: Pool, image: str) -> bool:
        return bool(self._call("remove_qcow", ImageName(pool=pool, image=image).model_dump_json()))

    def _connect(self) -> Any:
        address = str(self._link.address)
        try:
            return unix_connect(address, service=rpyc.VoidService, config=PROTOCOL_CONFIG)
        except OSError as error:
            reason = f"{error.strerror}; is the agent running there? (systemctl status ceph-rsnapshot-agent)"
            raise self._link.explain(reason) from None

    def _greet(self) -> None:
        hello = _read(Hello, "hello", self._call("hello"))
        if hello.protocol != PROTOCOL:
            versions = f"it is version {hello.version} (protocol {hello.protocol}), this one {__version__} ({PROTOCOL})"
            raise VersionMismatch(where=self._link.where, reason=f"{versions}; install the same version on both")
        self.version = hello.version
        for missing in () if self._whatever_is_missing else hello.tools_missing:
            raise from_record(missing)

    def _start(self, model: type[_Model], call: str, request: Record) -> Pending[_Model]:
        return Pending(self, model, call, str(self._call(call, request.model_dump_json())))

    def _job(self, model: type[_Model], call: str, request: Record, progress: Progress = _no_progress) -> _Model:
        return self._start(model, call, request).result(progress)

    def result_of(self, model: type[_Model], call: str, job: str, progress: Progress) -> _Model:
        """For `Pending`: wait until the job ends."""
        try:
            self._follow(job, progress)
        except CephRsnapshotError:
            raise
        except BaseException:
            self.cancel(job)  # interrupted here: the agent need not go on
            raise
        return _read(model, call, self._call("result", job))

    def cancel(self, job: str) -> None:
        """The agent need not go on; never hides an error that is on its way."""
        with contextlib.suppress(CephRsnapshotError):
            self._call("cancel", job)

    def _follow(self, job: str, progress: Progress) -> None:
        while True:
            asked = time.monotonic()
            status = _read(JobStatus, "poll", self._call("poll", job))
            progress(status)
            if status.error:
                raise from_record(status.error)
            if status.state == "done":
                return
            # the agent answers when the job ends, or after a moment; one that answers at once is not asked in a frenzy
            time.sleep(max(0.0, asked + _POLL_SECONDS - time.monotonic()))

    def _call(self, name: str, *arguments: str) -> Any:
        answer = self._exchange(name, arguments)
        if type(answer) is not str:
            raise BadAnswer(call=name, reason=f"{type(answer).__name__} instead of text")
        envelope = _read(_Answer, name, answer)
        if envelope.error:
            raise from_record(envelope.error)
        return envelope.result

    def _exchange(self, name: str, arguments: tuple[str, ...]) -> object:
        # during the clean-up after Ctrl-C somebody waits; and if this connection is closed, the agent cleans up itself
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        patience = _SECONDS_AFTER_AN_INTERRUPT if interrupted else CALL_SECONDS
        self._connection._config["sync_request_timeout"] = patience  # there is no other way to say it
        try:
            return getattr(self._connection.root, name)(*arguments)
        except TimeoutError:
            raise self._broken(f"no answer to {name} within {patience} s") from None
        except (EOFError, OSError) as error:
            raise self._broken(f"the connection broke in {name}: {error or 'closed by the other side'}") from None
        except ValueError as error:
            # RPyC 5 and 6 can't read each other's messages ("invalid message type")
            reason = f"it does not speak RPyC 6, which this one needs ({error}); install the same version on both"
            raise VersionMismatch(where=self._link.where, reason=reason) from None
        except AttributeError:
            raise VersionMismatch(where=self._link.where, reason=f"it has no call {name}") from None

    def _broken(self, reason: str) -> AgentUnreachable:
        self.close()
        return self._link.explain(reason)
