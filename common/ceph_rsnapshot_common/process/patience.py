"""Every wait ends: something moves, or IDLE_TIMEOUT says that nothing will."""

from __future__ import annotations

import time

from ceph_rsnapshot_common.errors import NoProgress

_MOST_STAGES = 64


class Patience:
    """A wait that goes on as long as something moves at least every ``seconds``."""

    def __init__(self, what: str, seconds: float) -> None:
        """``what`` is waited for: messages begin with it."""
        self._what, self._seconds = what, seconds
        self._since = time.monotonic()
        self._stages: dict[str, int] = {}

    @property
    def ended(self) -> bool:
        """Whether nothing has moved for too long."""
        return time.monotonic() - self._since > self._seconds

    def moved(self) -> None:
        """Something has."""
        self._since = time.monotonic()

    def saw(self, stage: str, done: int) -> None:
        """A stage that is new, or further than it ever was, counts as movement; to and fro does not."""
        known = self._stages.get(stage, -1)
        if done > known and (stage in self._stages or len(self._stages) < _MOST_STAGES):
            self._stages[stage] = done
            self.moved()

    def check(self) -> None:
        """Raises: NoProgress."""
        if self.ended:
            raise NoProgress(what=self._what, seconds=f"{self._seconds:g}")
