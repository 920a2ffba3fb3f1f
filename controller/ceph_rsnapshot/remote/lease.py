"""An export that the agent has lent: it must be kept by renewals, and is given back whatever happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ceph_rsnapshot.remote.client import AgentClient, Pending
from ceph_rsnapshot_common.errors import NoProgress
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.records import Closed, ExportName


class Lease:
    """The right to use an export for ``seconds`` from the last renewal on. Make it by `lent`, or `kept` only."""

    def __init__(self, client: AgentClient, export: str, seconds: float) -> None:
        self._client, self._export = client, export
        self._often = seconds / 10
        self._renewed = time.monotonic()
        self.closing: Pending[ExportName, Closed] | None = None

    def renew(self) -> None:
        """Call it as often as you like while the export is in use.

        Raises:
            ExportUnknown: it was not renewed in time.
            AgentUnreachable: the connection broke.
        """
        if time.monotonic() - self._renewed > self._often:
            self._client.ask(calls.RENEW, ExportName(export=self._export))
            self._renewed = time.monotonic()

    def kept(self, progress: Progress) -> Progress:
        """``progress``, which also renews the lease."""

        def tick(stage: str, done: int = 0, total: int = 0) -> None:
            progress(stage, done, total)
            self.renew()

        return tick

    def close(self) -> Pending[ExportName, Closed]:
        """Give it back, once; what was read counts only when the result is there."""
        self.closing = self.closing or self._client.begin(calls.CLOSE, ExportName(export=self._export))
        return self.closing

    def log_at_end(self) -> str:
        """Give it back, and what nbdkit said to explain a failure; nothing if even that takes too long.

        Raises:
            SnapshotGone, ImageGone, BaseUnusable: that explains it.
        """
        try:
            return self.close().result().log
        except NoProgress:
            return ""


@contextmanager
def lent(client: AgentClient, export: str, seconds: float) -> Iterator[Lease]:
    """The lease of ``export``, given back at the end of the block: `Lease.closing` then tells whether it was good."""
    lease = Lease(client, export, seconds)
    try:
        yield lease
    except BaseException as error:
        if lease.closing is None:
            with client.cleaning_up(error):
                lease.close().result()
        raise
    lease.close()
