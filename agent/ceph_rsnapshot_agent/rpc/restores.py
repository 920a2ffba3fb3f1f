"""The restores of one connection: each goes with it, unless it is finished."""

from __future__ import annotations

import contextlib
import secrets
import threading

from ceph_rsnapshot_agent.restore.new_image import Restore, sweep
from ceph_rsnapshot_agent.restore.read_back import block_digests
from ceph_rsnapshot_agent.rpc.jobs import Jobs, Report
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import ExportUnknown, RestoreFailed
from ceph_rsnapshot_common.protocol.records import (
    BlockDigests,
    BlockRequest,
    Closed,
    Nothing,
    RestoreOpened,
    RestoreRequest,
)


class Restores:
    """Each is known by the name of its export; see `ceph_rsnapshot_agent.restore.new_image`."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self._settings = settings
        self._jobs = jobs
        self._lock = threading.Lock()
        self._open: dict[str, Restore] = {}

    def start(self, request: RestoreRequest) -> str:
        """Create an image and open an export to write to."""

        def work(report: Report, _cancelled: threading.Event) -> RestoreOpened:
            report("creating the image", 0, 0)
            sweep(self._settings)
            restore, name = Restore(self._settings, request), secrets.token_hex(8)
            with self._lock:
                self._open[name] = restore
            try:
                return RestoreOpened(export=name, image_id=restore.image_id, socket=restore.open())
            except BaseException:
                with contextlib.suppress(RestoreFailed):
                    self.abort(name)
                raise

        return self._jobs.start(work)

    def start_written(self, name: str) -> str:
        """Close the export: all has been written."""
        restore = self._get(name)
        return self._jobs.start(lambda _report, _cancelled: Closed(log=restore.written()))

    def start_digests(self, request: BlockRequest) -> str:
        """Read back what was written."""
        restore = self._get(request.export)

        def work(_report: Report, cancelled: threading.Event) -> BlockDigests:
            return block_digests(restore, request, cancelled)

        return self._jobs.start(work)

    def start_finish(self, name: str) -> str:
        """Give the image its true name; from now on it stays."""
        restore = self._get(name)

        def work(_report: Report, _cancelled: threading.Event) -> Nothing:
            restore.finish()
            with self._lock:
                self._open.pop(name, None)
            return Nothing()

        return self._jobs.start(work)

    def start_abort(self, name: str) -> str:
        """Remove the image."""
        self._get(name)

        def work(_report: Report, _cancelled: threading.Event) -> Nothing:
            self.abort(name)
            return Nothing()

        return self._jobs.start(work)

    def renew(self, name: str) -> bool:
        """Whether it is one of these, and still open to be written."""
        with self._lock:
            restore = self._open.get(name)
        return restore is not None and restore.renew()

    def abort(self, name: str) -> None:
        with self._lock:
            restore = self._open.pop(name, None)
        if restore:
            restore.abort()

    def close(self) -> None:
        """Remove the images of all that are not finished."""
        with self._lock:
            names = list(self._open)
        for name in names:
            with contextlib.suppress(RestoreFailed):  # the log has it
                self.abort(name)

    def _get(self, name: str) -> Restore:
        with self._lock:
            restore = self._open.get(name)
        if restore is None:
            raise ExportUnknown(export=name)
        return restore
