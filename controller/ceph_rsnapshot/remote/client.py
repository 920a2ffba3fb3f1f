"""A connection to the agent: the calls of `protocol.calls`, each answer judged by `answers`; long work is polled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from rpyc.core.consts import HANDLE_CALLATTR

from ceph_rsnapshot.remote import answers
from ceph_rsnapshot.remote.link import Link
from ceph_rsnapshot_common.errors import AgentUnreachable, BadAnswer, CephRsnapshotError, NoProgress, VersionMismatch
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.process.patience import Patience
from ceph_rsnapshot_common.progress import Progress, unwatched
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.calls import Call, Job
from ceph_rsnapshot_common.protocol.records import Nothing
from ceph_rsnapshot_common.protocol.wire import CALL_SECONDS, RaisedThere, connected

_POLL_SECONDS = 0.02
_SECONDS_AFTER_AN_INTERRUPT = 2

_Takes = TypeVar("_Takes")
_Gives = TypeVar("_Gives")
_Request = TypeVar("_Request", bound=Record)
_Result = TypeVar("_Result", bound=Record)


class Pending(Generic[_Request, _Result]):
    """A job that the agent has begun."""

    def __init__(self, client: AgentClient, job: Job[_Request, _Result], request: _Request, name: str) -> None:
        self._client, self._job, self._request, self._name = client, job, request, name

    def result(self, progress: Progress = unwatched) -> _Result:
        """Wait for it; once only."""
        return answers.judged(self._job, self._request, self._client.result_of(self._job.name, self._name, progress))

    def cancel(self) -> None:
        """Nobody waits for it any more: the agent need not go on."""
        self._client.cancel(self._name)


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
        self._patience: float = min(CALL_SECONDS, link.idle)
        self._connection: Any = None
        self.version = ""

    def __enter__(self) -> AgentClient:
        self._connection = self._connect()
        try:
            hello = self.ask(calls.HELLO, Nothing())
            self.version = answers.greeting(hello, self._link.where, self._whatever_is_missing).version
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._patience = _SECONDS_AFTER_AN_INTERRUPT
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
        self._end(self._patience)

    def _end(self, seconds: float) -> None:
        with contextlib.suppress(EOFError, OSError):  # the other side was faster
            self._connection.end(seconds)

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

    def ask(self, call: Call[_Takes, _Gives], request: _Takes) -> _Gives:
        """What the agent answers at once."""
        arguments = () if isinstance(request, Nothing) else (_text(request),)
        return answers.judged(call, request, self._exchange(call.name, *arguments))

    def begin(self, job: Job[_Request, _Result], request: _Request) -> Pending[_Request, _Result]:
        """Let the agent begin long work."""
        return Pending(self, job, request, answers.job_name(job, self._exchange(job.name, request.model_dump_json())))

    def run(self, job: Job[_Request, _Result], request: _Request, progress: Progress = unwatched) -> _Result:
        """Let the agent do long work, and wait for it."""
        return self.begin(job, request).result(progress)

    def result_of(self, what: str, job: str, progress: Progress) -> object:
        """For `Pending`: wait until the job ends; its result is not judged yet.

        Raises:
            NoProgress: nothing moves in it.
        """
        try:
            self._follow(what, job, progress)
        except NoProgress:
            self.cancel(job)
            raise
        except CephRsnapshotError:
            raise
        except BaseException as error:
            with self.cleaning_up(error):
                self.ask(calls.CANCEL, job)
            raise
        return self._exchange(calls.RESULT.name, job)

    def cancel(self, job: str) -> None:
        """The agent need not go on; whether it hears of it does not matter."""
        with contextlib.suppress(CephRsnapshotError):
            self.ask(calls.CANCEL, job)

    def _follow(self, what: str, job: str, progress: Progress) -> None:
        patience = Patience(f"the agent's work on {what}", self._link.idle)
        while True:
            asked = time.monotonic()
            status = self.ask(calls.POLL, job)
            if status.error:
                raise answers.told(status.error)
            progress(status.stage, status.done, status.total)
            if status.state == "done":
                return
            patience.saw(status.stage, status.done)
            patience.check()
            # the agent answers when the job ends, or after a moment; one that answers at once is not asked in a frenzy
            time.sleep(max(0.0, asked + _POLL_SECONDS - time.monotonic()))

    def _exchange(self, name: str, *arguments: str) -> object:
        """Call, and open the answer. As RPyC's own sync_request, but with a time limit of our own."""
        connection = self._connection
        try:
            asked = connection.async_request(HANDLE_CALLATTR, connection.root, name, arguments, timeout=self._patience)
            answer = asked.value
        except TimeoutError:
            raise self._broken(f"no answer to {name} within {self._patience:g} s") from None
        except (EOFError, OSError) as error:
            raise self._broken(f"the connection broke in {name}: {error or 'closed by the other side'}") from None
        except RaisedThere as error:
            raise self._raised(name, error.kind) from None
        except Exception as error:  # whatever RPyC makes of bytes that are no message of its own
            raise self._unreadable(name, error) from None
        return answers.opened(name, answer)

    def _raised(self, name: str, kind: str) -> CephRsnapshotError:
        """An error of RPyC at the other side: an agent of ours puts its errors into its answers."""
        if kind == AttributeError.__name__:
            return VersionMismatch(where=self._link.where, reason=f"it has no call {name}")
        return BadAnswer(call=name, reason=f"it raised {kind}")

    def _unreadable(self, name: str, error: Exception) -> CephRsnapshotError:
        self._end(0)
        if "invalid message type" in str(error):  # RPyC 5 and 6 can't read each other's messages
            reason = "it does not speak RPyC 6, which this one needs; install the same version on both"
            return VersionMismatch(where=self._link.where, reason=reason)
        return BadAnswer(call=name, reason=f"it can't be read ({type(error).__name__})")

    def _connect(self) -> Any:
        try:
            return connected(str(self._link.address), self._patience)
        except OSError as error:
            reason = f"{error.strerror or error}; is the agent running there? (systemctl status ceph-rsnapshot-agent)"
            raise self._link.explain(reason) from None

    def _broken(self, reason: str) -> AgentUnreachable:
        self._end(0)
        return self._link.explain(reason)


def _text(request: object) -> str:
    return request.model_dump_json() if isinstance(request, Record) else str(request)
