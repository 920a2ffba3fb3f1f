"""Long work as start, poll, result, cancel: an RPyC call's time limit ends only the caller's wait."""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Callable

from pydantic import BaseModel

from ceph_rsnapshot_common.errors import Cancelled, CephRsnapshotError, ErrorRecord, JobUnknown
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import JobStatus

Work = Callable[[Progress, threading.Event], BaseModel]
"""Does a job, tells how far it is, and ends soon after the event is set."""

_POLL_SECONDS = 0.25
_logger = logging.getLogger(__name__)


class Job:
    """Work in a thread of its own, which goes on when the connection's thread is busy or gone."""

    def __init__(self, work: Work) -> None:
        self._status = JobStatus(state="running")
        self._cancelled = threading.Event()
        self._result: BaseModel | None = None
        self._thread = threading.Thread(target=self._run, args=(work,))

    @classmethod
    def started(cls, work: Work) -> Job:
        """A job that runs."""
        job = cls(work)
        job._thread.start()
        return job

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

    def _run(self, work: Work) -> None:
        try:
            self._result = work(self._tell, self._cancelled)
            self._status = self._status.model_copy(update={"state": "done"})
        except Exception as error:
            self._status = JobStatus(state="failed", stage=self._status.stage, error=to_record(error))


class Jobs:
    """The jobs of one connection, by a name that is not to be guessed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._closed = False

    def start(self, work: Work) -> str:
        """The name of a new job. Raises: Cancelled, if the session ends."""
        with self._lock:
            if self._closed:
                raise Cancelled(what="the session")
            name = secrets.token_hex(8)
            self._jobs[name] = Job.started(work)
        return name

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
