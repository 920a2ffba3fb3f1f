"""Direct mode: the agent lends an NBD export, and the qcow2 is made here, out of the last one where possible."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

from ceph_rsnapshot.archiver import unchanged
from ceph_rsnapshot.archiver.new_day import NewDay
from ceph_rsnapshot.archiver.plan import Full, Increment, Plan, relied_on
from ceph_rsnapshot.archiver.task import Task
from ceph_rsnapshot.archiver.verification import sampling
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.nbd.copier import Copied, copy
from ceph_rsnapshot.remote.lease import Lease, lent
from ceph_rsnapshot.remote.link import forwarded
from ceph_rsnapshot.repository.incoming import incoming
from ceph_rsnapshot.repository.reflinks import clone
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.errors import BadAnswer, BaseUnusable, Cancelled, CephRsnapshotError, NbdFailed
from ceph_rsnapshot_common.files import folders, space
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, image_file, qemu_img, servers
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.description import Transfer, describe
from ceph_rsnapshot_common.protocol.manifest import Manifest, render
from ceph_rsnapshot_common.protocol.records import Facts


@contextmanager
def transferred(task: Task, plan: Plan) -> Iterator[NewDay]:
    """A file in the incoming folder that is ready for rsnapshot; it goes when the block ends.

    Raises:
        BaseUnusable: a full backup can do without the base.
        CephRsnapshotError: the data could not be had, or not be written.
    """
    started = datetime.now(timezone.utc)
    request = task.export_request(plan.snapshot if isinstance(plan, Increment) else None)
    opened = task.client.run(calls.OPEN, request, task.show)
    if opened.socket is None:
        if not isinstance(plan, Increment):
            raise BadAnswer(call="start_open", reason="neither an export nor a base since which nothing has changed")
        with unchanged.transferred(task, plan, opened.facts, started) as new:
            yield new
        return
    base_path, name = task.settings.backup_base_path, (task.listing.pool, task.image.name)
    with incoming(base_path, *name) as files, sampling(task, plan) as sample:
        with lent(task.client, opened.export, opened.lease) as lease:
            copied = _copied(task, plan, opened.facts, Path(opened.socket), files.making, lease)
        ready = _finished(task, plan, files.making, files.ready)
        manifest = _manifest(task, plan, opened.facts, ready.qcow, copied, started)
        folders.write_durably(ready.manifest, render(manifest))
        source = Source(str(ready.folder), linked_into=task.folder.sync.folder)
        digests = files.making.digests
        yield NewDay(plan, manifest, source, ready.qcow, digests, copied.ranges, sample, lease.closing)


def _copied(task: Task, plan: Plan, facts: Facts, socket: Path, files: ImageFiles, lease: Lease) -> Copied:
    """Make the partial file, and copy from the export into it."""
    try:
        with relied_on(plan):
            _make_partial(task, plan, files, facts, lease)
        return _fetch(task, plan, facts, socket, files, lease)
    except NbdFailed as error:
        raise _explained(error, lease.log_at_end(), task, plan) from None


def _make_partial(task: Task, plan: Plan, files: ImageFiles, facts: Facts, lease: Lease) -> None:
    """The file to write into: an empty one, or a clone of the base."""
    minimum = task.settings.min_freespace
    space.check(files.folder, 0, minimum)
    if isinstance(plan, Increment):
        clone(task.folder.day(0).qcow, files.partial, minimum, lease.kept(task.show))
        return
    uncompressed = task.qcow_options.model_copy(update={"compression": "none"})
    options = ["-q", "-f", "qcow2", *qemu_img.create_options(uncompressed)]
    commands.run([commands.find_tool("qemu-img", Node.BACKUP), "create", *options, str(files.partial), str(facts.size)])


def _fetch(task: Task, plan: Plan, facts: Facts, socket: Path, files: ImageFiles, lease: Lease) -> Copied:
    folder = task.context.folder
    with ExitStack() as stack:
        source = stack.enter_context(forwarded(task.client.link, socket, folder / "nbd.sock"))
        with relied_on(plan):
            target = stack.enter_context(
                qemu_nbd.serve(files.partial, folder, task.settings.idle_timeout, writable=True)
            )
        watch = stack.enter_context(space.watched(files.folder, task.settings.min_freespace, threading.Event()))
        stack.enter_context(folders.written_back(files.folder))
        progress, idle = watch.stopping(lease.kept(task.show)), task.settings.idle_timeout
        return copy(source, target, facts.size, isinstance(plan, Full), progress, idle)


def _explained(error: NbdFailed, nbdkit_said: str, task: Task, plan: Plan) -> CephRsnapshotError:
    """nbdkit knows why a read failed, qemu-nbd why a write did; a clone that can't be written has a rotten base."""
    said = [nbdkit_said, servers.tail(task.context.folder / qemu_nbd.LOG)]
    reason = "; ".join(filter(None, [error.data["reason"], *said]))
    if isinstance(plan, Increment) and error.side == "target" and error.errno != errno.ENOSPC:
        return BaseUnusable(reason=f"a copy of the newest backup can't be written: {reason}")
    return NbdFailed(**{**error.data, "reason": reason})


def _finished(task: Task, plan: Plan, making: ImageFiles, ready: ImageFiles) -> ImageFiles:
    """The checked file under its final name."""
    if isinstance(plan, Full) and task.settings.qcow_compression != "none":
        _compress(task, making)
    with relied_on(plan):
        making.partial.chmod(0o600)
        qemu_img.finish(making.partial, ready.qcow, Node.BACKUP, task.settings.idle_timeout)
    return ready


def _compress(task: Task, files: ImageFiles) -> None:
    """qemu-nbd can't write compressed clusters in any order, so that a second pass makes them, on this machine."""
    task.show("compressing")
    plain = files.partial.with_name(f"{files.partial.name}.plain")
    files.partial.rename(plain)
    how = ["-c", "-m", "8", "-O", "qcow2", *qemu_img.create_options(task.qcow_options)]
    with ExitStack() as stack:
        source = stack.enter_context(image_file.opened(plain))
        argv = [commands.find_tool("qemu-img", Node.BACKUP), "convert", *how, source.name, str(files.partial)]
        watch = stack.enter_context(space.watched(files.folder, task.settings.min_freespace, threading.Event()))
        try:
            argv, idle = commands.dying_with_parent(argv, Node.BACKUP), task.settings.idle_timeout
            commands.run(argv, pass_fds=source.pass_fds, cancelled=watch.stop, idle=idle)
        except Cancelled as cancelled:
            raise (watch.error or cancelled) from None
    plain.unlink()


def _manifest(task: Task, plan: Plan, facts: Facts, qcow: Path, copied: Copied, started: datetime) -> Manifest:
    increment = isinstance(plan, Increment)
    transfer = Transfer(
        mode="direct",
        kind="increment" if increment else "full",
        base=plan.snapshot if isinstance(plan, Increment) else None,
        full_because=plan.because if isinstance(plan, Full) else None,
        allocated_bytes=None if increment else copied.data,
        changed_bytes=copied.data + copied.zeroed,
        transferred_bytes=copied.data,
    )
    return describe(task.request, facts, qcow, transfer, started, qemu_img.qemu_version(Node.BACKUP))
