"""Signals that must wait a moment: who is interrupted while it starts a process does not know that there is one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end a command."""


@contextmanager
def deferred() -> Iterator[None]:
    """Signals that come while the block runs (a short one) are raised when it has ended, whichever way.

    They are not blocked, because a child would inherit that. Only the main thread is ever interrupted (signal(7) in
    Python's words), and only by handlers that are functions.
    """
    before, caught = {}, []
    if threading.current_thread() is threading.main_thread():
        before = {each: handler for each in SIGNALS if callable(handler := signal.getsignal(each))}
    try:
        for each in before:
            signal.signal(each, lambda signum, _frame: caught.append(signum))
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for signum in caught:
            signal.raise_signal(signum)
