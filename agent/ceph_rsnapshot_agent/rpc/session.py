"""What one controller does over one connection; all of it ends with the connection."""

from __future__ import annotations

import secrets
import threading
from contextlib import ExitStack
from functools import partial

from ceph_rsnapshot_agent import preflight
from ceph_rsnapshot_agent.ceph import base_notes, snapshot
from ceph_rsnapshot_agent.ceph.cluster import Cluster, connect
from ceph_rsnapshot_agent.ceph.digests import read_digests
from ceph_rsnapshot_agent.ceph.listing import list_images
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.nbd.loan import Loan
from ceph_rsnapshot_agent.rpc.jobs import Jobs, Report
from ceph_rsnapshot_agent.rpc.restores import Restores
from ceph_rsnapshot_agent.staging.claims import claim
from ceph_rsnapshot_agent.staging.export import export
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.ranges import clipped
from ceph_rsnapshot_common.errors import ErrorRecord, ExportUnknown, ToolMissing
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process.commands import find_tool
from ceph_rsnapshot_common.protocol.records import (
    PROTOCOL,
    CheckRequest,
    Closed,
    DigestRequest,
    Digests,
    Exported,
    ExportRequest,
    Extents,
    Hello,
    LandedRequest,
    Listing,
    ListRequest,
    Opened,
    SnapshotRequest,
)

_PATIENCE_SECONDS = 60.0
_TOOLS = ("nbdkit", "qemu-img", "rsync", "setpriv")


class Session:
    """What a session exports is its own: files are claimed, NBD exports open, until it gives them back or ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs = Jobs()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._cluster: Cluster | None = None
        self._exports: dict[tuple[Pool, str], ExitStack] = {}
        self._loans: dict[str, tuple[Loan, ExportRequest]] = {}
        self.restores = Restores(settings, self._jobs)

    @property
    def jobs(self) -> Jobs:
        return self._jobs

    def hello(self) -> Hello:
        return Hello(version=__version__, protocol=PROTOCOL, tools_missing=_tools_missing())

    def start_list(self, request: ListRequest) -> str:
        def work(report: Report, cancelled: threading.Event) -> Listing:
            report("listing", 0, 0)
            progress = partial(report, "listing")
            return list_images(self._connected(), self._settings, request, progress, cancelled)

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
                if exported.manifest:
                    with self._lock:
                        self._exports[request.pool, request.image] = stack.pop_all()
            return exported

        return self._jobs.start(work)

    def start_open(self, request: ExportRequest) -> str:
        """Open an NBD export of what changed since the base of ``request``, or of all; nothing if nothing changed."""

        def work(report: Report, cancelled: threading.Event) -> Opened:
            cluster = self._connected()
            facts, wanted = snapshot.read_facts(cluster, request), snapshot.with_valid_maps(cluster, request)
            with snapshot.explained(cluster, wanted):
                begin = snapshot.first_change(cluster, wanted, report, cancelled) if wanted.base else 0
                if begin is None:
                    snapshot.check_still_there(cluster, wanted)
                    return Opened(facts=facts)
                name, address = self._lend(wanted, begin)
            return Opened(facts=facts, export=name, socket=address)

        return self._jobs.start(work)

    def _lend(self, request: ExportRequest, begin: int) -> tuple[str, str]:
        """Name and socket of a new export; nothing has changed below ``begin``."""
        beside = str(self._settings.agent_socket.parent / nbdkit.FOLDER_PREFIX)
        name, loan = secrets.token_hex(8), Loan(lambda: nbdkit.serve(self._settings, request, beside, begin))
        with self._lock:
            self._loans[name] = loan, request
        try:
            return name, loan.socket()
        except BaseException:
            with self._lock:
                self._loans.pop(name, None)
            raise

    def renew(self, name: str) -> None:
        """Raises: ExportUnknown."""
        if not self.restores.renew(name):
            self._loan(name)[0].renew()

    def start_close(self, name: str) -> str:
        """Close an NBD export; it was good only if its snapshots still exist."""
        loan, request = self._loan(name)

        def work(_report: Report, _cancelled: threading.Event) -> Closed:
            log = loan.close()
            with self._lock:
                self._loans.pop(name, None)
            snapshot.check_still_there(self._connected(), request)
            return Closed(log=log)

        return self._jobs.start(work)

    def start_extents(self, request: SnapshotRequest) -> str:
        def work(report: Report, cancelled: threading.Event) -> Extents:
            cluster = self._connected()
            size = snapshot.read_facts(cluster, request).size
            allocated = clipped(snapshot.read_extents(cluster, request, report, cancelled), size)
            return Extents(fsid=cluster.fsid, allocated=tuple(allocated))

        return self._jobs.start(work)

    def start_digests(self, request: DigestRequest) -> str:
        def work(_report: Report, cancelled: threading.Event) -> Digests:
            return read_digests(self._connected(), request, cancelled)

        return self._jobs.start(work)

    def start_check(self, request: CheckRequest) -> str:
        return self._jobs.start(lambda _report, cancelled: preflight.check(self._settings, request, cancelled))

    def landed(self, request: LandedRequest) -> None:
        base_notes.note(self._settings, request)

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
            stacks, loans = list(self._exports.values()), list(self._loans.values())
            self._exports.clear()
            self._loans.clear()
        for stack in stacks:
            stack.close()
        for loan, _ in loans:
            loan.close()
        self.restores.close()
        with self._lock:
            self._cluster = None
            self._stack.close()

    def _loan(self, name: str) -> tuple[Loan, ExportRequest]:
        with self._lock:
            found = self._loans.get(name)
        if found is None or not found[0].open:
            raise ExportUnknown(export=name)
        return found

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
            find_tool(tool, Node.CEPH)
        except ToolMissing as error:
            missing.append(error.record())
    return tuple(missing)
