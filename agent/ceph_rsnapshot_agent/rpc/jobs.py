"""Long work as start, poll, result, cancel: an RPyC call's time limit ends only the caller's wait."""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Callable

from pydantic import BaseModel

from ceph_rsnapshot_common.errors import CephRsnapshotError, ErrorRecord, JobUnknown, one_line
from ceph_rsnapshot_common.protocol.records import JobStatus

Report = Callable[[str, int, int], None]
Work = Callable[[Report, threading.Event], BaseModel]
"""Does the job; reports stage, done and total, and ends soon after the event is set."""

_POLL_SECONDS = 0.25
_logger = logging.getLogger(__name__)


class Job:
    """Work in a thread of its own, which goes on when the connection's thread is busy or gone."""

    def __init__(self, work: Work) -> None:
        self._status = JobStatus(state="running")
        self._cancelled = threading.Event()
        self._result: BaseModel | None = None
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()

    def wait(self) -> JobStatus:
        """The status when it has ended, or after a moment: who asks hears of the end at once."""
        self._thread.join(_POLL_SECONDS)
        return self._status

    @property
    def result(self) -> BaseModel | None:
        return self._result

    def cancel(self) -> None:
        self._cancelled.set()

    def join(self) -> None:
        self._thread.join()

    def _report(self, stage: str, done: int, total: int) -> None:
        self._status = JobStatus(state="running", stage=stage, done=done, total=total)

    def _run(self, work: Work) -> None:
        try:
            self._result = work(self._report, self._cancelled)
            self._status = self._status.model_copy(update={"state": "done"})
        except Exception as error:
            self._status = JobStatus(state="failed", stage=self._status.stage, error=to_record(error))


class Jobs:
    """The jobs of one connection."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def start(self, work: Work) -> str:
        name = secrets.token_hex(8)
        self._jobs[name] = Job(work)
        return name

    def get(self, name: str) -> Job:
        """Raises: JobUnknown."""
        try:
            return self._jobs[name]
        except KeyError:
            raise JobUnknown(job=name) from None

    def forget(self, name: str) -> None:
        self._jobs.pop(name, None)

    def close(self) -> None:
        """Cancel all that runs and wait until it has cleaned up."""
        for job in list(self._jobs.values()):
            job.cancel()
        for job in list(self._jobs.values()):
            job.join()


def to_record(error: Exception) -> ErrorRecord:
    """The error for the wire; an unexpected one is logged here with its traceback, and named there."""
    if isinstance(error, CephRsnapshotError):
        return error.record()
    _logger.error("unexpected error", exc_info=error)
    message = f"unexpected error in the agent, see its log: {type(error).__name__}: {one_line(str(error))}"
    return ErrorRecord(code="internal", message=message)
