"""The agent as seen from here: typed calls, errors as classes, long work polled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import rpyc
from rpyc.core.consts import HANDLE_CALLATTR
from rpyc.utils.factory import unix_connect

from ceph_rsnapshot.remote import answers
from ceph_rsnapshot.remote.link import Link
from ceph_rsnapshot_common.errors import AgentUnreachable, CephRsnapshotError, VersionMismatch, from_record
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.progress import Progress, unwatched
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.calls import Call, Job
from ceph_rsnapshot_common.protocol.records import (
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
    ImageName,
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

_POLL_SECONDS = 0.02
_SECONDS_AFTER_AN_INTERRUPT = 5

_Takes = TypeVar("_Takes")
_Gives = TypeVar("_Gives")
_Request = TypeVar("_Request", bound=Record)
_Result = TypeVar("_Result", bound=Record)


class Pending(Generic[_Result]):
    """A job that the agent has begun."""

    def __init__(self, client: AgentClient, gives: type[_Result], call: str, job: str) -> None:
        self._client, self._gives, self._call, self._job = client, gives, call, job

    def result(self, progress: Progress = unwatched) -> _Result:
        """Wait for it; once only."""
        return answers.typed(self._gives, self._call, self._client.result_of(self._job, progress))

    def cancel(self) -> None:
        """Nobody waits for it any more: the agent need not go on."""
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
        self._patience = CALL_SECONDS
        self._connection: Any = None
        self.version = ""

    def __enter__(self) -> AgentClient:
        self._connection = self._connect()
        try:
            hello = self._call(calls.HELLO, Nothing())
            self.version = answers.greeting(hello, self._link.where, self._whatever_is_missing).version
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def link(self) -> Link:
        """The way that the connection goes."""
        return self._link

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._connection is not None and not self._connection.closed

    def close(self) -> None:
        """End the connection; the agent then ends what is under way in it."""
        with contextlib.suppress(EOFError, OSError):  # the other side was faster
            self._connection.close()

    @contextmanager
    def cleaning_up(self, error: BaseException) -> Iterator[None]:
        """For calls that clean up after ``error``, which they never hide.

        After an interrupt somebody waits, so that each call gets little time: if it fails, the agent cleans up by
        itself when the connection is closed.
        """
        if isinstance(error, KeyboardInterrupt):
            self._patience = _SECONDS_AFTER_AN_INTERRUPT
        with contextlib.suppress(CephRsnapshotError):
            yield

    def list_images(self, request: ListRequest, progress: Progress) -> Listing:
        """What a pool holds; the amounts of ``progress`` are images."""
        return self._start(calls.LIST, request).result(progress)

    def export(self, request: ExportRequest, fsid: str, progress: Progress) -> Exported:
        """Let the agent make a qcow2 of a snapshot of cluster ``fsid`` in its temporary folder."""
        return answers.exported(request, fsid, self._start(calls.EXPORT, request).result(progress))

    def open_export(self, request: ExportRequest, progress: Progress) -> Opened:
        """Let the agent lend an NBD export of a snapshot, or of what changed in it."""
        return self._start(calls.OPEN, request).result(progress)

    def renew(self, export: str) -> None:
        """An export is still needed."""
        self._call(calls.RENEW, ExportName(export=export))

    def close_export(self, export: str) -> Pending[Closed]:
        """Let the agent close it, and see that its snapshots still exist.

        What was read counts only when the result is there.
        """
        return self._start(calls.CLOSE, ExportName(export=export))

    def open_restore(self, request: RestoreRequest, progress: Progress) -> RestoreOpened:
        """Let the agent create an image and lend an NBD export to write to it."""
        return self._start(calls.RESTORE, request).result(progress)

    def written(self, export: str) -> Closed:
        """Close an export that was written to."""
        return self._start(calls.WRITTEN, ExportName(export=export)).result()

    def block_digests(self, request: BlockRequest) -> Pending[BlockDigests]:
        """Digests of blocks of a restored image."""
        return self._start(calls.BLOCK_DIGESTS, request)

    def finish_restore(self, export: str) -> None:
        """The image gets its true name, and stays."""
        self._start(calls.FINISH, ExportName(export=export)).result()

    def abort_restore(self, export: str) -> None:
        """The image is removed."""
        self._start(calls.ABORT, ExportName(export=export)).result()

    def extents(self, request: SnapshotRequest, progress: Progress) -> Extents:
        """What a snapshot holds."""
        return self._start(calls.EXTENTS, request).result(progress)

    def digests(self, request: DigestRequest) -> Pending[Digests]:
        """Digests of groups of ranges of a snapshot."""
        return self._start(calls.DIGESTS, request)

    def check(self, request: CheckRequest) -> Checks:
        """What `ceph_rsnapshot check` wants to know of the ceph node."""
        return self._start(calls.CHECK, request).result()

    def landed(self, fsid: str, snapshot: SnapshotRequest) -> None:
        """Tell the agent that a snapshot is safe here now."""
        self._call(calls.LANDED, LandedRequest(fsid=fsid, snapshot=snapshot))

    def remove_qcow(self, pool: Pool, image: str) -> bool:
        """Remove a staged export; whether there was one."""
        return self._call(calls.REMOVE_QCOW, ImageName(pool=pool, image=image))

    def result_of(self, job: str, progress: Progress) -> object:
        """For `Pending`: wait until the job ends; its result is not judged yet."""
        try:
            self._follow(job, progress)
        except CephRsnapshotError:
            raise
        except BaseException as error:
            with self.cleaning_up(error):
                self._call(calls.CANCEL, job)
            raise
        return self._exchange(calls.RESULT.name, job)

    def cancel(self, job: str) -> None:
        """The agent need not go on; whether it hears of it does not matter."""
        with contextlib.suppress(CephRsnapshotError):
            self._call(calls.CANCEL, job)

    def _follow(self, job: str, progress: Progress) -> None:
        while True:
            asked = time.monotonic()
            status = self._call(calls.POLL, job)
            progress(status.stage, status.done, status.total)
            if status.error:
                raise from_record(status.error)
            if status.state == "done":
                return
            # the agent answers when the job ends, or after a moment; one that answers at once is not asked in a frenzy
            time.sleep(max(0.0, asked + _POLL_SECONDS - time.monotonic()))

    def _start(self, job: Job[_Request, _Result], request: _Request) -> Pending[_Result]:
        name = answers.typed(str, job.name, self._exchange(job.name, request.model_dump_json()))
        return Pending(self, job.gives, job.name, name)

    def _call(self, call: Call[_Takes, _Gives], request: _Takes) -> _Gives:
        arguments = () if isinstance(request, Nothing) else (_text(request),)
        result = self._exchange(call.name, *arguments)
        return answers.typed(call.gives, call.name, {} if result is None and call.gives is Nothing else result)

    def _exchange(self, name: str, *arguments: str) -> object:
        """Call, and open the answer. As RPyC's own sync_request, but with a time limit of our own."""
        connection = self._connection
        try:
            asked = connection.async_request(HANDLE_CALLATTR, connection.root, name, arguments, timeout=self._patience)
            answer = asked.value
        except TimeoutError:
            raise self._broken(f"no answer to {name} within {self._patience} s") from None
        except (EOFError, OSError) as error:
            raise self._broken(f"the connection broke in {name}: {error or 'closed by the other side'}") from None
        except ValueError as error:
            # RPyC 5 and 6 can't read each other's messages ("invalid message type")
            reason = f"it does not speak RPyC 6, which this one needs ({error}); install the same version on both"
            raise VersionMismatch(where=self._link.where, reason=reason) from None
        except AttributeError:
            raise VersionMismatch(where=self._link.where, reason=f"it has no call {name}") from None
        return answers.opened(name, answer)

    def _connect(self) -> Any:
        address = str(self._link.address)
        try:
            return unix_connect(address, service=rpyc.VoidService, config=PROTOCOL_CONFIG)
        except OSError as error:
            reason = f"{error.strerror}; is the agent running there? (systemctl status ceph-rsnapshot-agent)"
            raise self._link.explain(reason) from None

    def _broken(self, reason: str) -> AgentUnreachable:
        self.close()
        return self._link.explain(reason)


def _text(request: object) -> str:
    return request.model_dump_json() if isinstance(request, Record) else str(request)
