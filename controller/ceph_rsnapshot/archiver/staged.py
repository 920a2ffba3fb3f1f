"""Staged mode: the agent makes a qcow2 in its temporary folder, and rsnapshot pulls it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from ceph_rsnapshot.archiver import unchanged
from ceph_rsnapshot.archiver.new_day import NewDay
from ceph_rsnapshot.archiver.plan import Increment, Plan
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.errors import BadAnswer, CephRsnapshotError
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
        link, sync = task.client.link, task.folder.sync
        limit, sparse = task.settings.bandwidth_limit, _has_holes(exported.manifest)
        source = Source(exported.folder, link.host, link.ssh_args, bandwidth_limit=limit, sparse=sparse)
        made = plan.given_up(_ALWAYS_FULL) if isinstance(plan, Increment) else plan
        yield NewDay(made, exported.manifest, source, sync.qcow, sync.digests, exported.allocated)
    finally:
        _remove_exported(task)


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
