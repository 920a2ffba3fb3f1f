"""An NBD export that is lent to a controller: it has an owner and an expiry, and goes when either says so."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from typing import Callable

from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_common.process.servers import tail

LEASE_SECONDS = 300.0
"""An export that was not renewed for so long is closed: its controller hangs, or forgot it."""


class Loan:
    """Runs nbdkit in a thread of its own (nbdkit dies with the thread that started it) until `close`."""

    def __init__(self, serve: Callable[[], AbstractContextManager[nbdkit.Export]]) -> None:
        self._serve_export = serve
        self._ready, self._ended = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._socket = ""
        self._log = ""
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def socket(self) -> str:
        """Path of the socket, as soon as nbdkit serves it.

        Raises:
            CommandFailed, ToolMissing: nbdkit did not start.
        """
        self._ready.wait()
        if self._error:
            raise self._error
        return self._socket

    @property
    def open(self) -> bool:
        return self._thread.is_alive()

    def renew(self) -> None:
        self._renewed = time.monotonic()

    def close(self) -> str:
        """End it, and return the end of what nbdkit said."""
        self._ended.set()
        self._thread.join()
        return self._log

    def _serve(self) -> None:
        try:
            with self._serve_export() as export:
                self._socket = str(export.socket)
                self._ready.set()
                self._wait()
                self._log = tail(export.log)
        except Exception as error:
            self._error = error
        finally:
            self._ready.set()

    def _wait(self) -> None:
        while not self._ended.is_set():
            left = self._renewed + LEASE_SECONDS - time.monotonic()
            if left <= 0:
                return
            self._ended.wait(left)
