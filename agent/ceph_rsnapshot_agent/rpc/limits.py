"""How many of something there may be at once: who asks for one too many is told so, and everybody else goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import LimitReached

_JOB, _EXPORT = "job", "export"


class Limit:
    """Safe to use from any thread.

    Args:
        what: one of what is counted, for the message.
        setting: the key in the configuration that says how many.
        within: what is counted here counts there too.
    """

    def __init__(self, what: str, setting: str, most: int, within: Limit | None = None) -> None:
        self._what, self._setting, self._most, self._within = what, setting, most, within
        self._lock = threading.Lock()
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have one until the block ends. Raises: LimitReached."""
        with self._within.taken() if self._within else nullcontext():
            self._take()
            try:
                yield
            finally:
                with self._lock:
                    self._taken -= 1

    def _take(self) -> None:
        with self._lock:
            if self._taken >= self._most:
                raise LimitReached(what=self._what, setting=self._setting, most=self._most)
            self._taken += 1


@dataclass(frozen=True)
class Limits:
    """What may be under way at once: in the whole agent, or on one connection."""

    jobs: Limit
    exports: Limit

    @classmethod
    def of_agent(cls, settings: Settings) -> Limits:
        """For all connections together."""
        return cls(
            Limit(_JOB, "MAX_JOBS", settings.max_jobs),
            Limit(_EXPORT, "MAX_EXPORTS", settings.max_exports),
        )

    def of_connection(self, settings: Settings) -> Limits:
        """For a new one."""
        return Limits(
            Limit(_JOB, "MAX_CONNECTION_JOBS", settings.max_connection_jobs, self.jobs),
            Limit(_EXPORT, "MAX_CONNECTION_EXPORTS", settings.max_connection_exports, self.exports),
        )
