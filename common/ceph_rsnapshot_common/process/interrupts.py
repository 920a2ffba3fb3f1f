"""Signals that must wait a moment: who is interrupted while it starts a process does not know that there is one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end a command."""


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Signals that come while the block runs (a short one) are raised when it has ended, whichever way; it may look at
    those that have come.

    They are not blocked for that, because a child would inherit it. Only the main thread is interrupted
    (https://docs.python.org/3/library/signal.html#signals-and-threads), and only by handlers that are functions.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    with _blocked():
        before = {each: handler for each in SIGNALS if callable(handler := signal.getsignal(each))}
        for each in before:
            signal.signal(each, lambda signum, _frame: caught.append(signum))
    try:
        yield caught
    finally:
        with _blocked():
            for each, handler in before.items():
                signal.signal(each, handler)
        _raise_all(caught)


@contextmanager
def _blocked() -> Iterator[None]:
    """No handler is called in the block, so that all are set, or none."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise_all(signums: list[int]) -> None:
    """Also if the handler of one raises."""
    if signums:
        try:
            signal.raise_signal(signums[0])
        finally:
            _raise_all(signums[1:])
