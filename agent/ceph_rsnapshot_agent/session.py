"""What one controller does over one connection; all of it ends with the connection."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from ceph_rsnapshot_agent.claims import claim
from ceph_rsnapshot_agent.cluster import Cluster, connect
from ceph_rsnapshot_agent.export import export
from ceph_rsnapshot_agent.jobs import Jobs, Report
from ceph_rsnapshot_agent.listing import list_images
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.commands import find_tool
from ceph_rsnapshot_common.errors import ErrorRecord, ToolMissing
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.records import PROTOCOL, Exported, ExportRequest, Hello, Listing, ListRequest
from ceph_rsnapshot_common.settings import Settings

_PATIENCE_SECONDS = 60.0
_TOOLS = ("nbdkit", "qemu-img", "rsync", "setpriv")


class Session:
    """The exports of a session are its own: they are claimed until they are removed or the session ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs = Jobs()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._cluster: Cluster | None = None
        self._exports: dict[tuple[Pool, str], ExitStack] = {}

    @property
    def jobs(self) -> Jobs:
        return self._jobs

    def hello(self) -> Hello:
        return Hello(version=__version__, protocol=PROTOCOL, tools_missing=_tools_missing())

    def start_list(self, request: ListRequest) -> str:
        def work(report: Report, cancelled: threading.Event) -> Listing:
            report("listing", 0, 0)
            return list_images(
                self._connected(), request, lambda done, total: report("listing", done, total), cancelled
            )

        return self._jobs.start(work)

    def start_export(self, request: ExportRequest) -> str:
        def work(report: Report, cancelled: threading.Event) -> Exported:
            cluster = self._connected()
            with ExitStack() as stack:
                # a session that has just lost its controller may still be cleaning up the same image
                base = self._settings.qcow_temp_path
                files = stack.enter_context(claim(base, request.pool, request.image, _PATIENCE_SECONDS, cancelled))
                stack.callback(files.remove)
                exported = export(cluster, self._settings, request, files, report, cancelled)
                with self._lock:
                    self._exports[request.pool, request.image] = stack.pop_all()
            return exported

        return self._jobs.start(work)

    def remove_qcow(self, pool: Pool, image: str) -> bool:
        """Remove the temporary qcow2 of ``image``, also one that nobody claims; tells whether there was one."""
        with self._lock:
            stack = self._exports.pop((pool, image), None)
        if stack:
            stack.close()
            return True
        return remove_unclaimed(self._settings, pool, image)

    def close(self) -> None:
        """End and undo all that is under way; safe to call twice and from any thread."""
        self._jobs.close()
        with self._lock:
            stacks = list(self._exports.values())
            self._exports.clear()
        for stack in stacks:
            stack.close()
        with self._lock:
            self._cluster = None
            self._stack.close()

    def _connected(self) -> Cluster:
        with self._lock:
            if self._cluster is None:
                self._cluster = self._stack.enter_context(connect(self._settings))
            return self._cluster


def remove_unclaimed(settings: Settings, pool: Pool, image: str) -> bool:
    """Remove an image's temporary files that no running export owns; tells whether there was a qcow2."""
    with claim(settings.qcow_temp_path, pool, image) as files:
        return files.remove()


def _tools_missing() -> tuple[ErrorRecord, ...]:
    missing = []
    for tool in _TOOLS:
        try:
            find_tool(tool, "ceph")
        except ToolMissing as error:
            missing.append(error.record())
    return tuple(missing)
