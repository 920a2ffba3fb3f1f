"""One snapshot becomes a finished qcow2 with its manifest, or nothing is left of the attempt."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

from ceph_rsnapshot_agent.ceph import snapshot
from ceph_rsnapshot_agent.ceph.cluster import Cluster
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.staging.claims import Files
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.ranges import clipped
from ceph_rsnapshot_common.errors import Cancelled, CommandFailed, ExportFailed
from ceph_rsnapshot_common.files import folders, space
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import qemu_img
from ceph_rsnapshot_common.process.servers import tail
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.description import Transfer, describe
from ceph_rsnapshot_common.protocol.manifest import render
from ceph_rsnapshot_common.protocol.records import Exported, ExportRequest
from ceph_rsnapshot_common.sizes import disk_bytes


def export(
    cluster: Cluster,
    settings: Settings,
    request: ExportRequest,
    files: Files,
    progress: Progress,
    cancelled: threading.Event,
) -> Exported:
    """Make ``files.qcow`` and ``files.manifest``; on failure neither they nor a partial file stay.

    With a base since which nothing has changed, nothing is made.

    Raises:
        BaseUnusable: there is no such base.
        SnapshotGone, ImageGone, PoolNotFound: the source does not exist, or no longer does.
        NotEnoughSpace: before or while it was written.
        ExportFailed: with the cause as the tools tell it.
        Cancelled: ``cancelled`` was set.
    """
    try:
        files.remove()
        started = datetime.now(timezone.utc)
        facts, request = snapshot.read_facts(cluster, request), snapshot.with_valid_maps(cluster, request)
        with snapshot.explained(cluster, request):
            if request.base and snapshot.first_change(cluster, request, progress, cancelled) is None:
                snapshot.check_still_there(cluster, request)
                return Exported(facts=facts)
        full = request.model_copy(update={"base": None})
        allocated = snapshot.read_extents(cluster, full, progress, cancelled)
        files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(settings, full, files, allocated.bytes, progress, cancelled)
        snapshot.check_still_there(cluster, full)
        progress("checking", allocated.bytes, allocated.bytes)
        qemu_img.finish(files.partial, files.qcow, Node.CEPH, settings.idle_timeout)
        on_disk = disk_bytes(files.qcow.stat())
        transfer = Transfer("staged", "full", allocated_bytes=allocated.bytes, transferred_bytes=on_disk)
        manifest = describe(full, facts, files.qcow, transfer, started, qemu_img.qemu_version(Node.CEPH))
        folders.write_durably(files.manifest, render(manifest))
        ranges = tuple(clipped(allocated, facts.size))
        return Exported(facts=facts, folder=str(files.folder), manifest=manifest, allocated=ranges)
    except BaseException as error:
        files.remove()
        if isinstance(error, (CommandFailed, OSError)):
            raise ExportFailed(pool=request.pool, image=request.image, reason=error) from error
        raise


def _copy(
    settings: Settings,
    request: ExportRequest,
    files: Files,
    allocated: int,
    progress: Progress,
    cancelled: threading.Event,
) -> None:
    options = ["-f", "raw", "-O", "qcow2", *qemu_img.create_options(request.qcow)]
    compressed = [] if request.qcow.compression == "none" else ["-c"]
    # BANDWIDTH_LIMIT is rsync's, which carries the qcow2 to the other node
    with nbdkit.serve(settings, request.model_copy(update={"bandwidth_limit": 0})) as served:
        try:
            need = qemu_img.measure(served.uri, options, Node.CEPH, cancelled, settings.idle_timeout)
            space.check(files.folder, need, settings.min_freespace)
            with space.watched(files.folder, settings.min_freespace, cancelled) as watch:
                try:
                    qemu_img.convert(
                        served.uri,
                        str(files.partial),
                        [*compressed, *options],
                        Node.CEPH,
                        progress=progress,
                        stage="exporting",
                        total=allocated,
                        idle=settings.idle_timeout,
                        cancelled=watch.stop,
                    )
                except Cancelled:
                    raise (watch.error or Cancelled(what=f"the export of {request.image}")) from None
        except CommandFailed as error:
            # qemu-img says "Input/output error"; why is in nbdkit's log
            reason = "; nbdkit: ".join(filter(None, [str(error), tail(served.log)]))
            raise ExportFailed(pool=request.pool, image=request.image, reason=reason) from None
