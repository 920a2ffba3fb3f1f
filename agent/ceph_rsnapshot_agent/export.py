"""One snapshot becomes a finished qcow2 with its manifest, or nothing is left of the attempt."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable

from ceph_rsnapshot_agent import nbd, space
from ceph_rsnapshot_agent.claims import Files
from ceph_rsnapshot_agent.cluster import Cluster, bindings
from ceph_rsnapshot_agent.listing import feature_names, snapshot_created
from ceph_rsnapshot_common import __version__, commands, folders
from ceph_rsnapshot_common.errors import Cancelled, CommandFailed, ExportFailed, ImageUnreadable
from ceph_rsnapshot_common.manifest import Layout, Manifest, Versions
from ceph_rsnapshot_common.records import Exported, ExportRequest
from ceph_rsnapshot_common.servers import tail
from ceph_rsnapshot_common.settings import Settings

Progress = Callable[[str, int, int], None]
"""Gets the stage, the bytes done and the bytes in all."""

_PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")
_COROUTINES = "16"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """What is known of the snapshot before it is copied; sizes in bytes."""

    size: int
    allocated: int
    created: datetime
    layout: Layout


def export(
    cluster: Cluster,
    settings: Settings,
    request: ExportRequest,
    files: Files,
    progress: Progress,
    cancelled: threading.Event,
) -> Exported:
    """Make ``files.qcow`` and ``files.manifest``; on failure neither they nor a partial file stay.

    Raises:
        SnapshotGone, ImageGone, PoolNotFound: the source does not exist, or no longer does.
        NotEnoughSpace: before or while it was written.
        ExportFailed: with the cause as the tools tell it.
        Cancelled: ``cancelled`` was set.
    """
    try:
        files.remove()
        files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        started = datetime.now(timezone.utc)
        progress("reading extents", 0, 0)
        source = _inspect(cluster, request)
        _copy(settings, request, files, source, progress, cancelled)
        # a read-only open is not told when its snapshot is deleted, and then reads what comes after it: so the copy
        # counts only if the snapshot still exists now
        with cluster.snapshot(request):
            pass
        progress("checking", source.allocated, source.allocated)
        _finish(files)
        manifest = _manifest(cluster, request, files, source, started)
        folders.write_durably(files.manifest, manifest.model_dump_json(indent=2) + "\n")
        return Exported(folder=str(files.folder), manifest=manifest)
    except BaseException as error:
        files.remove()
        if isinstance(error, (CommandFailed, OSError)):
            raise ExportFailed(pool=request.pool, image=request.image, reason=error) from error
        raise


def _inspect(cluster: Cluster, request: ExportRequest) -> _Source:
    rbd = bindings("rbd")
    allocated = 0

    def found(_offset: int, length: int, exists: bool) -> None:
        nonlocal allocated
        allocated += length if exists else 0

    with cluster.snapshot(request) as image:
        size = image.size()
        try:
            image.diff_iterate(0, size, None, found, include_parent=True, whole_object=False)
        except rbd.Error as error:
            raise ImageUnreadable(pool=request.pool, image=request.image, reason=error) from None
        created = snapshot_created(image, request.snapshot_id)
        return _Source(size, allocated, created, _layout(cluster, rbd, image))


def _layout(cluster: Cluster, rbd: Any, image: Any) -> Layout:
    features = image.features()
    data_pool = None
    if features & rbd.RBD_FEATURE_DATA_POOL:
        data_pool = cluster.rados.pool_reverse_lookup(image.data_pool_id())
    return Layout(
        features=feature_names(rbd, features),
        object_size=image.stat()["obj_size"],
        stripe_unit=image.stripe_unit(),
        stripe_count=image.stripe_count(),
        data_pool=data_pool,
    )


def _copy(
    settings: Settings,
    request: ExportRequest,
    files: Files,
    source: _Source,
    progress: Progress,
    cancelled: threading.Event,
) -> None:
    qemu_img = commands.find_tool("qemu-img", "ceph")
    with nbd.serve(settings, request) as served:
        try:
            need = _measure(qemu_img, served.uri, cancelled)
            space.check(files.folder, need, settings.min_freespace)
            with space.watched(files.folder, settings.min_freespace, cancelled) as watch:
                try:
                    _convert(qemu_img, served.uri, files, source.allocated, progress, watch.stop)
                except Cancelled:
                    raise (watch.error or Cancelled(what=f"the export of {request.image}")) from None
        except CommandFailed as error:
            # qemu-img says "Input/output error"; why is in nbdkit's log
            reason = "; nbdkit: ".join(filter(None, [str(error), tail(served.log)]))
            raise ExportFailed(pool=request.pool, image=request.image, reason=reason) from None


def _measure(qemu_img: str, uri: str, cancelled: threading.Event) -> int:
    """Bytes that the qcow2 will need at most."""
    argv = [qemu_img, "measure", "--output=json", "-f", "raw", "-O", "qcow2", uri]
    answer = commands.run(commands.dying_with_parent(argv, "ceph"), cancelled=cancelled)
    return int(json.loads(answer.stdout)["required"])


def _convert(
    qemu_img: str, uri: str, files: Files, allocated: int, progress: Progress, cancelled: threading.Event
) -> None:
    def read_progress(text: str) -> None:
        percents = _PERCENT.findall(text)
        if percents:
            progress("exporting", int(allocated * float(percents[-1]) / 100), allocated)

    progress("exporting", 0, allocated)
    options = ["-p", "-W", "-m", _COROUTINES, "-f", "raw", "-O", "qcow2"]
    argv = [qemu_img, "convert", *options, uri, str(files.partial)]
    commands.run(commands.dying_with_parent(argv, "ceph"), cancelled=cancelled, on_stdout=read_progress)


def _finish(files: Files) -> None:
    """Only a checked file that is safe on the disk gets the final name."""
    folders.sync_file(files.partial)
    qemu_img = commands.find_tool("qemu-img", "ceph")
    commands.run([qemu_img, "check", "-q", "-f", "qcow2", str(files.partial)])
    # rsync takes files of equal size and time for equal: no two exports may share a time
    now = time.time_ns()
    os.utime(files.partial, ns=(now, now))
    files.partial.rename(files.qcow)
    folders.sync_folder(files.folder)


def _manifest(cluster: Cluster, request: ExportRequest, files: Files, source: _Source, started: datetime) -> Manifest:
    status = files.qcow.stat()
    return Manifest(
        fsid=cluster.fsid,
        pool=request.pool.pool,
        namespace=request.pool.namespace,
        image=request.image,
        image_id=request.image_id,
        snapshot=request.snapshot,
        snapshot_id=request.snapshot_id,
        snapshot_created=source.created,
        size=source.size,
        allocated_bytes=source.allocated,
        qcow2_bytes=status.st_blocks * 512,
        qcow2_file_size=status.st_size,
        started=started,
        ended=datetime.now(timezone.utc),
        layout=source.layout,
        versions=Versions(ceph_rsnapshot=__version__, ceph=cluster.version, qemu=_qemu_version()),
    )


def _qemu_version() -> str:
    first_line = commands.run([commands.find_tool("qemu-img", "ceph"), "--version"]).stdout.split("\n")[0]
    match = re.search(r"version (\S+)", first_line)
    return match.group(1) if match else first_line
