"""Long work as start, poll, result, cancel: an RPyC call's time limit ends only the caller's wait."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import ExitStack
from typing import Callable

from pydantic import BaseModel

from ceph_rsnapshot_agent.rpc.limits import Limit
from ceph_rsnapshot_common.errors import Cancelled, CephRsnapshotError, ErrorRecord, JobUnknown, LimitReached
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import JobStatus

Work = Callable[[Progress, threading.Event], BaseModel]
"""Does a job, tells how far it is, and ends soon after the event is set."""

_POLL_SECONDS = 0.25
_MOST_UNFETCHED = 50
_logger = logging.getLogger(__name__)


class Job:
    """Work in a thread of its own, which goes on when the connection's thread is busy or gone.

    Args:
        place: is given back when the work has ended.
    """

    def __init__(self, work: Work, place: ExitStack) -> None:
        self._status = JobStatus(state="running")
        self._cancelled = threading.Event()
        self._result: BaseModel | None = None
        self._thread = threading.Thread(target=self._run, args=(work, place))

    def start(self) -> None:
        """Raises: RuntimeError, if there can't be another thread."""
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it is done or has failed."""
        return self._status.state != "running"

    def wait(self) -> JobStatus:
        """The status when it has ended, or after a moment: who asks hears of the end at once."""
        self._thread.join(_POLL_SECONDS)
        return self._status

    @property
    def result(self) -> BaseModel | None:
        """What the work returned; None until it is done."""
        return self._result

    def cancel(self) -> None:
        """Ask the work to end; does not wait for that."""
        self._cancelled.set()

    def join(self) -> None:
        """Wait until the work has ended and cleaned up."""
        self._thread.join()

    def _tell(self, stage: str, done: int = 0, total: int = 0) -> None:
        self._status = JobStatus(state="running", stage=stage, done=done, total=total)

    def _run(self, work: Work, place: ExitStack) -> None:
        try:
            with place:
                self._result = work(self._tell, self._cancelled)
            self._status = self._status.model_copy(update={"state": "done"})
        except Exception as error:
            self._status = JobStatus(state="failed", stage=self._status.stage, error=to_record(error))


class Jobs:
    """The jobs of one connection, by a name that is not to be guessed."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._closed = False

    def start(self, work: Work) -> str:
        """The name of a new job.

        Raises:
            Cancelled: the session ends.
            LimitReached: too many are under way.
        """
        name = secrets.token_hex(8)
        with self._lock:
            if self._closed:
                raise Cancelled(what="the session")
            self._jobs[name] = self._started(work)
            self._forget_unfetched()
        return name

    def _started(self, work: Work) -> Job:
        place = ExitStack()
        place.enter_context(self._limit.taken())
        try:
            job = Job(work, place)
            job.start()
        except RuntimeError:
            place.close()
            raise LimitReached(what="thread", setting="TasksMax of its unit", most="reached") from None
        return job

    def _forget_unfetched(self) -> None:
        """Of those that have ended, keep only the last ones: results take memory, and nobody may ever ask for them."""
        for name in [name for name, job in self._jobs.items() if job.ended][:-_MOST_UNFETCHED]:
            del self._jobs[name]

    def get(self, name: str) -> Job:
        """Raises: JobUnknown."""
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise JobUnknown(job=name)
        return job

    def forget(self, name: str) -> None:
        """Of one that has ended; safe to call twice."""
        with self._lock:
            self._jobs.pop(name, None)

    def close(self) -> None:
        """Cancel all that runs and wait until it has cleaned up; no job can be started any more."""
        with self._lock:
            self._closed, jobs = True, list(self._jobs.values())
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.join()


def to_record(error: Exception) -> ErrorRecord:
    """The error for the wire; an unexpected one is logged here with its traceback, and named there."""
    if isinstance(error, CephRsnapshotError):
        return error.record()
    _logger.error("unexpected error", exc_info=error)
    return ErrorRecord(code="internal", message=f"unexpected error in the agent, see its log: {type(error).__name__}")
