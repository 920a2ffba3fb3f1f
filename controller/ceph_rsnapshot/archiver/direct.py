"""Direct mode: the agent lends an NBD export, and the qcow2 is made here, out of the last one where possible."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from ceph_rsnapshot.archiver.commit import describe, land
from ceph_rsnapshot.archiver.plan import Plan, relied_on
from ceph_rsnapshot.archiver.task import Work
from ceph_rsnapshot.archiver.unchanged import land_unchanged
from ceph_rsnapshot.archiver.verification import examine_increment, examine_whole, sampling
from ceph_rsnapshot.content.source_check import SourceCheck
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.nbd.copier import Copied, copy
from ceph_rsnapshot.remote.client import AgentClient, Pending
from ceph_rsnapshot.remote.link import forwarded
from ceph_rsnapshot.repository.incoming import Incoming, incoming
from ceph_rsnapshot.repository.reflinks import clone
from ceph_rsnapshot_common.errors import BaseUnusable, Cancelled, CephRsnapshotError, NbdFailed
from ceph_rsnapshot_common.files import folders, space
from ceph_rsnapshot_common.process import commands, qemu_img, servers
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import Closed, Facts, Opened

_RENEW_SECONDS = 30.0


def back_up(work: Work, plan: Plan) -> Manifest:
    """The manifest of the new day 0.

    Raises:
        BaseUnusable, ContentDiffers: nothing was rotated; a full backup may do better.
        CephRsnapshotError: nothing was rotated.
    """
    started = datetime.now(timezone.utc)
    client = work.context.agent.client()
    opened = client.open_export(work.export_request(plan.base_snapshot), work.show_status)
    if opened.socket is None:
        return land_unchanged(work, plan, opened.facts)
    name = work.listing.pool, work.image.name
    with incoming(work.settings.backup_base_path, *name) as files, sampling(work, plan) as sampled:
        copied, closing = _copied(work, plan, client, opened, Path(opened.socket), files)
        if not plan.base and work.settings.qcow_compression != "none":
            _compress(work, files)
        with relied_on(plan):
            qemu_img.finish(files.partial, files.qcow, "backup")
        manifest = describe(work, plan, opened.facts, files.qcow, started).model_copy(
            update={
                "kind": "increment" if plan.base else "full",
                "allocated_bytes": None if plan.base else copied.data,
                "changed_bytes": copied.data + copied.zeroed,
                "transferred_bytes": copied.data,
            }
        )

        examine = partial(_examined, work, plan, files, copied, sampled, closing)
        return land(work, plan, files, files.digests, manifest, examine)


def _examined(
    work: Work, plan: Plan, files: Incoming, copied: Copied, sampled: SourceCheck | None, closing: Pending[Closed]
) -> dict[str, object]:
    """The manifest's fields about the content; the file is on the disk when this returns."""
    try:
        with folders.syncing([files.qcow]):  # the disk writes while the contents are verified
            if plan.base:
                return examine_increment(work, plan, files.qcow, files.digests, copied.ranges, sampled)
            return examine_whole(work, plan, files.qcow, files.digests, copied.ranges)
    finally:
        # what was copied counts only if its snapshots were there to the end; if not, that explains any difference
        closing.result()


def _copied(
    work: Work, plan: Plan, client: AgentClient, opened: Opened, socket: Path, files: Incoming
) -> tuple[Copied, Pending[Closed]]:
    """Fill the partial file; the export is given back, whatever happens."""
    try:
        ticks = _Ticks(work, client, opened.export)
        with relied_on(plan):
            _prepare(work, plan, files, opened.facts, ticks)
        copied = _fetch(work, plan, client, socket, files, ticks)
    except NbdFailed as error:
        raise _explained(error, client.close_export(opened.export).result().log, work, plan) from None
    except BaseException:
        with contextlib.suppress(CephRsnapshotError):
            client.close_export(opened.export).result()
        raise
    return copied, client.close_export(opened.export)


def _prepare(work: Work, plan: Plan, files: Incoming, facts: Facts, ticks: _Ticks) -> None:
    """The file to write into: an empty one, or a clone of the base."""
    minimum = work.settings.min_freespace
    space.check(files.folder, 0, minimum)
    if plan.base:
        clone(work.place.qcow(work.place.day(0)), files.partial, minimum, partial(ticks, "cloning"))
        return
    uncompressed = work.qcow_options.model_copy(update={"compression": "none"})
    options = ["-q", "-f", "qcow2", *qemu_img.create_options(uncompressed)]
    commands.run([commands.find_tool("qemu-img", "backup"), "create", *options, str(files.partial), str(facts.size)])


def _fetch(work: Work, plan: Plan, client: AgentClient, socket: Path, files: Incoming, ticks: _Ticks) -> Copied:
    """Copy from the export into the partial file."""
    folder = work.context.folder
    with ExitStack() as stack:
        source = stack.enter_context(forwarded(client.link, socket, folder / "nbd.sock"))
        with relied_on(plan):
            target = stack.enter_context(qemu_nbd.serve(files.partial, folder, writable=True))
        watch = stack.enter_context(space.watched(files.folder, work.settings.min_freespace, threading.Event()))
        stack.enter_context(folders.written_back(files.folder))

        def progress(done: int, total: int) -> None:
            if watch.error:
                raise watch.error
            ticks("copying", done, total)

        return copy(source, target, plan.base is None, progress)


def _explained(error: NbdFailed, nbdkit_said: str, work: Work, plan: Plan) -> CephRsnapshotError:
    """nbdkit knows why a read failed, qemu-nbd why a write did; a clone that can't be written has a rotten base."""
    said = [nbdkit_said, servers.tail(work.context.folder / qemu_nbd.LOG)]
    reason = "; ".join(filter(None, [str(error.data["reason"]), *said]))
    full_disk = error.data.get("errno") == str(errno.ENOSPC)
    if plan.base and error.data.get("side") == "target" and not full_disk:
        return BaseUnusable(reason=f"a copy of the newest backup can't be written: {reason}")
    return NbdFailed(**{**error.data, "reason": reason})


class _Ticks:
    """Called while the export is in use: shows the progress and renews the loan."""

    def __init__(self, work: Work, client: AgentClient, export: str) -> None:
        self._work, self._client, self._export = work, client, export
        self._renewed = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._work.show(stage, done, total)
        if time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._client.renew(self._export)
            self._renewed = time.monotonic()


def _compress(work: Work, files: Incoming) -> None:
    """qemu-nbd can't write compressed clusters in any order, so that a second pass makes them, on this machine."""
    work.show("compressing")
    plain = files.partial.with_name(f"{files.partial.name}.plain")
    files.partial.rename(plain)
    how = ["-c", "-m", "8", "-f", "qcow2", "-O", "qcow2", *qemu_img.create_options(work.qcow_options)]
    argv = [commands.find_tool("qemu-img", "backup"), "convert", *how, str(plain), str(files.partial)]
    with space.watched(files.folder, work.settings.min_freespace, threading.Event()) as watch:
        try:
            commands.run(commands.dying_with_parent(argv, "backup"), cancelled=watch.stop)
        except Cancelled as cancelled:
            raise (watch.error or cancelled) from None
    plain.unlink()
