"""What has arrived in ``.sync`` is made a complete day: its digests, and a manifest that says what was verified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ceph_rsnapshot.archiver.context import Context
from ceph_rsnapshot.archiver.new_day import NewDay
from ceph_rsnapshot.archiver.plan import Full
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.repository import rotation
from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot.repository.reflinks import disk_bytes, link
from ceph_rsnapshot.repository.rsnapshot import Rsnapshot, Source, configured
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.protocol.manifest import ContentResult, Manifest, render


@contextmanager
def prepared(context: Context, folder: ImageFolder, source: Source, retain: int) -> Iterator[Rsnapshot]:
    """rsnapshot, configured to take ``source`` into an empty ``.sync`` of ``folder``, and to count ``retain`` days."""
    settings = context.settings
    rsnapshot = configured(settings, folder, source, context.conf_folder, context.lock, retain)
    with rotation.landing(folder, settings.backup_base_path), rsnapshot as ready:
        yield ready


def complete(task: Task, new: NewDay, content: ContentResult) -> Manifest:
    """Put the digests and the final manifest into ``.sync``; both last when this returns.

    Raises:
        OSError: they can't be written.
    """
    sync = task.folder.sync
    if new.digests != sync.digests:
        link(new.digests, sync.digests, task.settings.min_freespace)
    folders.sync_file(sync.digests)
    # after the examination: what a file takes of the disk settles when it is written back
    because = new.plan.because if isinstance(new.plan, Full) else None
    manifest = new.manifest.completed(content, because, disk_bytes(new.qcow), task.context.night.at)
    folders.write_durably(sync.manifest, render(manifest))
    sync.manifest.chmod(0o600)
    task.show("rsnapshot")
    return manifest
