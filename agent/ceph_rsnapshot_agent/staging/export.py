"""One snapshot becomes a finished qcow2 with its manifest, or nothing is left of the attempt."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timezone

from ceph_rsnapshot_agent.ceph import snapshot
from ceph_rsnapshot_agent.ceph.cluster import Cluster
from ceph_rsnapshot_agent.ceph.snapshot import Progress
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.staging.claims import Files
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.ranges import Ranges, clipped
from ceph_rsnapshot_common.errors import Cancelled, CommandFailed, ExportFailed
from ceph_rsnapshot_common.files import folders, space
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, qemu_img
from ceph_rsnapshot_common.process.servers import tail
from ceph_rsnapshot_common.protocol.manifest import Manifest, Versions, render
from ceph_rsnapshot_common.protocol.records import Exported, ExportRequest, Facts, QcowOptions


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
        qemu_img.finish(files.partial, files.qcow, Node.CEPH)
        manifest = _manifest(full, files, facts, allocated, started)
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
    # BANDWIDTH_LIMIT is rsync's, which carries the qcow2 to the other node
    with nbdkit.serve(settings, request.model_copy(update={"bandwidth_limit": 0})) as served:
        try:
            need = _measure(served.uri, request.qcow, cancelled)
            space.check(files.folder, need, settings.min_freespace)
            with space.watched(files.folder, settings.min_freespace, cancelled) as watch:
                try:
                    _convert(served.uri, files, request.qcow, allocated, progress, watch.stop)
                except Cancelled:
                    raise (watch.error or Cancelled(what=f"the export of {request.image}")) from None
        except CommandFailed as error:
            # qemu-img says "Input/output error"; why is in nbdkit's log
            reason = "; nbdkit: ".join(filter(None, [str(error), tail(served.log)]))
            raise ExportFailed(pool=request.pool, image=request.image, reason=reason) from None


def _measure(uri: str, options: QcowOptions, cancelled: threading.Event) -> int:
    """Bytes that the qcow2 will need at most."""
    how = ["--output=json", "-f", "raw", "-O", "qcow2", *qemu_img.create_options(options)]
    argv = [commands.find_tool("qemu-img", Node.CEPH), "measure", *how, uri]
    answer = commands.run(commands.dying_with_parent(argv, Node.CEPH), cancelled=cancelled)
    return int(json.loads(answer.stdout)["required"])


def _convert(
    uri: str,
    files: Files,
    options: QcowOptions,
    allocated: int,
    progress: Progress,
    cancelled: threading.Event,
) -> None:
    def show(share: float) -> None:
        progress("exporting", int(allocated * share), allocated)

    show(0)
    compressed = [] if options.compression == "none" else ["-c"]
    how = [*compressed, "-f", "raw", "-O", "qcow2", *qemu_img.create_options(options)]
    qemu_img.convert(uri, str(files.partial), how, Node.CEPH, show, cancelled=cancelled)


def _manifest(request: ExportRequest, files: Files, facts: Facts, allocated: Ranges, started: datetime) -> Manifest:
    status = files.qcow.stat()
    return Manifest(
        fsid=facts.fsid,
        pool=request.pool.pool,
        namespace=request.pool.namespace,
        image=request.image,
        image_id=request.image_id,
        snapshot=request.snapshot,
        snapshot_id=request.snapshot_id,
        snapshot_created=facts.created,
        size=facts.size,
        allocated_bytes=allocated.bytes,
        qcow2_bytes=status.st_blocks * 512,
        qcow2_file_size=status.st_size,
        qcow2_mtime_ns=status.st_mtime_ns,
        transferred_bytes=status.st_blocks * 512,
        started=started,
        ended=datetime.now(timezone.utc),
        layout=facts.layout,
        versions=Versions(ceph_rsnapshot=__version__, ceph=facts.ceph, qemu=qemu_img.qemu_version(Node.CEPH)),
    )
