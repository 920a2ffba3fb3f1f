"""What a session has open: each thing has one owner, and is ended once."""

from __future__ import annotations

import logging
import threading
from typing import Callable, Generic, TypeVar

from ceph_rsnapshot_common.errors import ExportUnknown

_Name = TypeVar("_Name")
_Thing = TypeVar("_Thing")
_logger = logging.getLogger(__name__)


class Owned(Generic[_Name, _Thing]):
    """Open things of one kind by name; safe to use from the threads of jobs, of the connection and of the agent's end.

    Args:
        end: ends a thing; it is never called twice for one.
    """

    def __init__(self, end: Callable[[_Thing], object]) -> None:
        self._end = end
        self._things: dict[_Name, _Thing] = {}
        self._lock = threading.Lock()
        self._ending = threading.RLock()

    def add(self, name: _Name, thing: _Thing) -> None:
        """From now on it is ended by `end` or `close`, and by nobody else."""
        with self._lock:
            self._things[name] = thing

    def find(self, name: _Name) -> _Thing | None:
        """The one of this name, if it is open."""
        with self._lock:
            return self._things.get(name)

    def get(self, name: _Name) -> _Thing:
        """Raises: ExportUnknown."""
        thing = self.find(name)
        if thing is None:
            raise ExportUnknown(export=name)
        return thing

    def end(self, name: _Name) -> bool:
        """End it, or wait until who does so has ended it; tells whether it was still there. Raises what `end` does."""
        with self._ending:
            with self._lock:
                thing = self._things.pop(name, None)
            if thing is not None:
                self._end(thing)
            return thing is not None

    def close(self) -> None:
        """End all, and wait for those that another thread is ending; one that fails is logged."""
        with self._ending:
            with self._lock:
                names = list(self._things)
            for name in names:
                try:
                    self.end(name)
                except Exception as error:
                    _logger.error("%s: %s", name, error)
