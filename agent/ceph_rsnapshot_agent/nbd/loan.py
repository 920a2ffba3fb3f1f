"""An NBD export that is lent to a controller: it has an owner and an expiry, and goes when either says so."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager

from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_common.process.servers import tail


class Loan:
    """An export in a thread of its own, until `close`, or until it was not renewed for ``lease`` seconds.

    nbdkit dies with the thread that started it: https://man7.org/linux/man-pages/man2/prctl.2.html, PR_SET_PDEATHSIG.
    """

    def __init__(self, export: AbstractContextManager[nbdkit.Export], lease: float) -> None:
        self._export = export
        self._lease = lease
        self._ready, self._ended = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._log = ""
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._serve)
        self.socket = ""

    @classmethod
    def started(cls, export: AbstractContextManager[nbdkit.Export], lease: float) -> Loan:
        """Enter ``export``, and return as soon as nbdkit serves it at ``socket``.

        Raises:
            CommandFailed, ToolMissing: nbdkit did not start.
        """
        loan = cls(export, lease)
        loan._thread.start()
        loan._ready.wait()
        if loan._error:
            raise loan._error
        return loan

    @property
    def open(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def renew(self) -> bool:
        """Lend it for another ``lease`` seconds; tells whether it is still open."""
        self._renewed = time.monotonic()
        return self.open

    def close(self) -> str:
        """End it, and return the end of what nbdkit said; safe to call twice."""
        self._ended.set()
        self._thread.join()
        return self._log

    def _serve(self) -> None:
        try:
            with self._export as export:
                self.socket = str(export.socket)
                self._ready.set()
                self._wait()
                self._log = tail(export.log)
        except Exception as error:
            self._error = error
        finally:
            self._ready.set()

    def _wait(self) -> None:
        while not self._ended.is_set():
            left = self._renewed + self._lease - time.monotonic()
            if left <= 0:
                return
            self._ended.wait(left)
