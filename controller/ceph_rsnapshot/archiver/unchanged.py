"""Nothing has changed since the base: the new day is the same file, and costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ceph_rsnapshot.archiver.new_day import NewDay
from ceph_rsnapshot.archiver.plan import Increment
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.repository.incoming import incoming
from ceph_rsnapshot.repository.reflinks import link
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import qemu_img
from ceph_rsnapshot_common.protocol.description import Transfer, describe
from ceph_rsnapshot_common.protocol.manifest import render
from ceph_rsnapshot_common.protocol.records import Facts


@contextmanager
def transferred(task: Task, plan: Increment, facts: Facts, started: datetime) -> Iterator[NewDay]:
    """The file of the base as a new day; rsnapshot links it by its own --link-dest."""
    base = task.folder.day(0)
    with incoming(task.settings.backup_base_path, task.listing.pool, task.image.name) as files:
        ready = files.ready
        link(base.qcow, ready.qcow, task.settings.min_freespace)
        transfer = Transfer(
            mode=task.settings.transfer_mode,
            kind="unchanged",
            base=plan.snapshot,
            allocated_bytes=plan.base.allocated_bytes,
            changed_bytes=0,
            transferred_bytes=0,
        )
        manifest = describe(task.request, facts, ready.qcow, transfer, started, qemu_img.qemu_version(Node.BACKUP))
        folders.write_durably(ready.manifest, render(manifest))
        yield NewDay(plan, manifest, Source(str(ready.folder)), ready.qcow, base.digests)
