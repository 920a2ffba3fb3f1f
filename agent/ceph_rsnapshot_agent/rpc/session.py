"""What one controller does over one connection; all of it ends with the connection."""

from __future__ import annotations

import secrets
import threading
from contextlib import ExitStack

from ceph_rsnapshot_agent import preflight
from ceph_rsnapshot_agent.ceph import base_notes, snapshot
from ceph_rsnapshot_agent.ceph.cluster import Cluster, connect
from ceph_rsnapshot_agent.ceph.digests import read_digests
from ceph_rsnapshot_agent.ceph.listing import describe, list_names
from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.nbd.loan import Loan
from ceph_rsnapshot_agent.rpc.jobs import Jobs
from ceph_rsnapshot_agent.rpc.limits import Limit, Limits
from ceph_rsnapshot_agent.rpc.owned import Owned
from ceph_rsnapshot_agent.rpc.restores import Restores
from ceph_rsnapshot_agent.staging.claims import claim
from ceph_rsnapshot_agent.staging.export import export
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.ranges import clipped
from ceph_rsnapshot_common.errors import ExportUnknown, LimitReached
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import (
    PROTOCOL,
    CheckRequest,
    Checks,
    Closed,
    Described,
    DescribeRequest,
    DigestRequest,
    Digests,
    Exported,
    ExportName,
    ExportRequest,
    Extents,
    Hello,
    LandedRequest,
    ListRequest,
    Names,
    Opened,
    SnapshotRequest,
)

_PATIENCE_SECONDS = 60.0


class Session:
    """What one controller does over one connection; what takes a `Progress` is the work of a job.

    It owns all that is under way, and `close` ends it in this order, in which nothing is used by what ends later:

    1. the jobs: they are cancelled and waited for, so that nobody opens anything more;
    2. staged exports: their files are removed, then their claims are given back;
    3. exports that are lent: their nbdkit ends;
    4. restores: their nbdkit ends, then their images are removed, unless they are finished;
    5. the connection to Ceph.

    The connection's thread closes it when the controller is gone, and the agent's main thread at its end: whoever
    comes second waits for the first. Single things end earlier when the controller says so, each by `Owned.end`; a lent
    export whose lease has run out has ended by itself (see `Loan`), and is only forgotten here.
    """

    def __init__(self, settings: Settings, limits: Limits, readers: Readers) -> None:
        self._settings, self._exports, self._readers = settings, limits.exports, readers
        self._closing, self._connecting = threading.Lock(), threading.Lock()
        self._connection = ExitStack()
        self._refusal: LimitReached | None = None
        self._cluster: Cluster | None = None
        self._staged: Owned[tuple[Pool, str], ExitStack] = Owned(ExitStack.close)
        self._lent: Owned[str, tuple[Loan, ExportRequest, ExitStack]] = Owned(lambda lent: lent[2].close())
        self.jobs = Jobs(limits.jobs)
        self.restores = Restores(settings, limits.exports, readers)
        self.greeted = False

    def admit(self, connections: Limit) -> None:
        """Take a place among the connections, until it is closed."""
        try:
            self._connection.enter_context(connections.taken())
        except LimitReached as error:
            self._refusal = error

    def check_admitted(self) -> None:
        """Raises: LimitReached, to every call, if there was no place."""
        if self._refusal:
            raise self._refusal

    def hello(self) -> Hello:
        """Who is here; asks nothing of Ceph."""
        self.greeted = True
        return Hello(version=__version__, protocol=PROTOCOL, tools_missing=preflight.missing_tools())

    def renew(self, name: str) -> None:
        """Lend an export for another EXPORT_LEASE seconds. Raises: ExportUnknown."""
        loan = self.restores.loan(name) or self._lent.get(name)[0]
        if not loan.renew():
            raise ExportUnknown(export=name)

    def landed(self, request: LandedRequest) -> None:
        """Note the base of the next increment."""
        base_notes.write(self._settings, request)

    def remove_qcow(self, pool: Pool, image: str) -> bool:
        """Remove the temporary qcow2 of ``image``, also one that nobody claims; tells whether there was one."""
        return self._staged.end((pool, image)) or remove_unclaimed(self._settings, pool, image)

    def close(self) -> None:
        """End and undo all that is under way; safe to call twice and from any thread, each call waits for the end."""
        with self._closing:
            for owner in (self.jobs, self._staged, self._lent, self.restores):
                owner.close()
            with self._connecting:
                self._cluster = None
                self._connection.close()

    def list_pool(self, request: ListRequest, _progress: Progress, _cancelled: threading.Event) -> Names:
        """The names of a pool's images."""
        return list_names(self._connected(), request)

    def describe(self, request: DescribeRequest, progress: Progress, cancelled: threading.Event) -> Described:
        """Images of a pool in detail."""
        return describe(self._connected(), self._settings, request, progress, cancelled)

    def export_qcow(self, request: ExportRequest, progress: Progress, cancelled: threading.Event) -> Exported:
        """Make a qcow2 on this node, for rsync to fetch; it is there until `remove_qcow`."""
        cluster, base = self._connected(), self._settings.qcow_temp_path
        with ExitStack() as stack:
            stack.enter_context(self._exports.taken())
            # a session that has just lost its controller may still be cleaning up the same image
            files = stack.enter_context(claim(base, request.pool, request.image, _PATIENCE_SECONDS, cancelled))
            stack.callback(files.remove)
            exported = export(cluster, self._settings, request, files, progress, cancelled)
            if exported.manifest:
                self._staged.add((request.pool, request.image), stack.pop_all())
        return exported

    def open_export(self, request: ExportRequest, progress: Progress, cancelled: threading.Event) -> Opened:
        """Open an NBD export of what changed since the base of ``request``, or of all; nothing if nothing changed."""
        cluster, lease = self._connected(), self._settings.export_lease
        facts, request = snapshot.read_facts(cluster, request), snapshot.with_valid_maps(cluster, request)
        with snapshot.explained(cluster, request):
            begin = snapshot.first_change(cluster, request, progress, cancelled) if request.base else 0
            if begin is None:
                snapshot.check_still_there(cluster, request)
                return Opened(facts=facts)
            with ExitStack() as stack:
                stack.enter_context(self._exports.taken())
                served = nbdkit.serve(self._settings, request, nbdkit.lent_prefix(self._settings), begin)
                loan, name = Loan.started(served, lease), secrets.token_hex(8)
                stack.callback(loan.close)
                self._lent.add(name, (loan, request, stack.pop_all()))
        return Opened(facts=facts, export=name, socket=loan.socket, lease=lease)

    def close_export(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Closed:
        """Close an NBD export; it was good only if it was open until now and its snapshots still exist."""
        loan, exported, _ = self._lent.get(request.export)
        if not loan.open:
            raise ExportUnknown(export=request.export)
        log = loan.close()
        self._lent.end(request.export)
        snapshot.check_still_there(self._connected(), exported)
        return Closed(log=log)

    def extents(self, request: SnapshotRequest, progress: Progress, cancelled: threading.Event) -> Extents:
        """What a snapshot holds."""
        cluster = self._connected()
        size = snapshot.read_facts(cluster, request).size
        allocated = clipped(snapshot.read_extents(cluster, request, progress, cancelled), size)
        return Extents(fsid=cluster.fsid, allocated=tuple(allocated))

    def digests(self, request: DigestRequest, progress: Progress, cancelled: threading.Event) -> Digests:
        """Digests of ranges of a snapshot."""
        return read_digests(self._connected(), request, progress, cancelled)

    def check(self, request: CheckRequest, progress: Progress, cancelled: threading.Event) -> Checks:
        """Whether this node is fit for a backup."""
        return preflight.check(self._settings, request, self._readers, progress, cancelled)

    def _connected(self) -> Cluster:
        with self._connecting:
            if self._cluster is None:
                self._cluster = self._connection.enter_context(connect(self._settings, self._readers))
            return self._cluster


def remove_unclaimed(settings: Settings, pool: Pool, image: str) -> bool:
    """Remove an image's temporary files that no running export owns; tells whether there was a qcow2."""
    with claim(settings.qcow_temp_path, pool, image) as files:
        return files.remove()
