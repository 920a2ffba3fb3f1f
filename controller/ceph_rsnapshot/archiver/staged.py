"""Staged mode: the agent makes a qcow2 in its temporary folder, and rsnapshot pulls it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

from ceph_rsnapshot.archiver import unchanged
from ceph_rsnapshot.archiver.new_day import NewDay
from ceph_rsnapshot.archiver.plan import Increment, Plan
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.repository.rotation import LONGEST_MANIFEST
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.content.qcow2_header import longest_file
from ceph_rsnapshot_common.errors import BadAnswer, CephRsnapshotError, TransferFailed
from ceph_rsnapshot_common.files import space
from ceph_rsnapshot_common.names import image_folder
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import ImageName

_FEW_HOLES = 0.95
_ALWAYS_FULL = "something has changed, and in staged mode each backup of a changed image is a full one"
_logger = logging.getLogger(__name__)


@contextmanager
def transferred(task: Task, plan: Plan) -> Iterator[NewDay]:
    """A file on the ceph node that is ready to be pulled; it goes when the block ends.

    Raises:
        BaseUnusable: a full backup can do without the base.
        CephRsnapshotError: the agent could not make it.
    """
    started = datetime.now(timezone.utc)
    request = task.export_request(plan.snapshot if isinstance(plan, Increment) else None)
    exported = task.client.run(calls.EXPORT, request, task.show)
    if exported.manifest is None or exported.folder is None:
        if not isinstance(plan, Increment):
            raise BadAnswer(call="start_export", reason="neither a file nor a base since which nothing has changed")
        with unchanged.transferred(task, plan, exported.facts, started) as new:
            yield new
        return
    try:
        sync, source = task.folder.sync, _source(task, exported.folder, exported.manifest)
        made = plan.given_up(_ALWAYS_FULL) if isinstance(plan, Increment) else plan
        yield NewDay(made, exported.manifest, source, sync.qcow, sync.digests, exported.allocated)
    finally:
        _remove_exported(task)


def _source(task: Task, folder: str, manifest: Manifest) -> Source:
    """Where rsync pulls from, if what the agent said of it can be, and there is room.

    Raises:
        TransferFailed, NotEnoughSpace
    """
    settings, link = task.settings, task.client.link
    temp = settings.qcow_temp_path if link.host is None else None
    check_folder(folder, temp, image_folder(task.listing.pool, task.image.name))
    longest = longest_file(task.snapshot.size, settings.qcow_cluster_size)
    if manifest.size != task.snapshot.size or not 0 < manifest.qcow2_file_size <= longest:
        said = f"a qcow2 of {manifest.qcow2_file_size} bytes for an image of {manifest.size}"
        reason = f"the agent tells of {said}; the snapshot has {task.snapshot.size}, which need {longest} at most"
        raise TransferFailed(path=folder, reason=reason)
    space.check(settings.backup_base_path, min(manifest.qcow2_bytes, manifest.qcow2_file_size), settings.min_freespace)
    return Source(
        folder,
        link.host,
        link.ssh_args,
        bandwidth_limit=settings.bandwidth_limit,
        sparse=_has_holes(manifest),
        longest=max(manifest.qcow2_file_size, LONGEST_MANIFEST),
    )


def check_folder(folder: str, temp: Path | None, image: PurePosixPath) -> None:
    """See that ``folder`` is that of the image: an agent elsewhere chooses its QCOW_TEMP_PATH and nothing else.

    Args:
        temp: QCOW_TEMP_PATH, if the agent is on this machine.
        image: the image's part of the path.

    Raises:
        TransferFailed
    """
    path = Path(folder)
    right = path == temp / image if temp else path.parts[-len(image.parts) :] == image.parts
    plain = str(path) == folder and folder.isprintable() and "/.." not in folder and "../" not in folder
    if not right or not plain or path.anchor != "/":
        wanted = temp / image if temp else f"the folder {image} of its QCOW_TEMP_PATH"
        raise TransferFailed(path=ascii(folder), reason=f"the agent names this folder and not {wanted}")


def _has_holes(manifest: Manifest) -> bool:
    """Whether so much of the qcow2 takes no disk that it is worth while to keep it so."""
    return manifest.qcow2_bytes < _FEW_HOLES * manifest.qcow2_file_size


def _remove_exported(task: Task) -> None:
    """If the connection is gone, so is the file: an agent removes what a lost connection exported."""
    client = task.context.agent.alive
    try:
        if client:
            client.ask(calls.REMOVE_QCOW, ImageName(pool=task.listing.pool, image=task.image.name))
    except CephRsnapshotError as error:  # the cause of a failure before this one must stay the one that is seen
        _logger.warning("the temporary qcow2 of %s is left to the agent to remove: %s", task.name, error)
