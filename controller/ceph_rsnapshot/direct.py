"""Direct mode: the agent lends an NBD export, and the qcow2 is made here, out of the last one where possible."""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from ceph_rsnapshot import qemu_nbd
from ceph_rsnapshot.base import Plan
from ceph_rsnapshot.client import AgentClient
from ceph_rsnapshot.connection import forwarded
from ceph_rsnapshot.copying import Copied, copy
from ceph_rsnapshot.examine import examine_increment, examine_whole
from ceph_rsnapshot.incoming import Incoming, clone, incoming
from ceph_rsnapshot.landing import describe, land, land_unchanged
from ceph_rsnapshot.work import Work
from ceph_rsnapshot_common import commands, folders, qcow, servers, space
from ceph_rsnapshot_common.errors import Cancelled, CephRsnapshotError, NbdFailed
from ceph_rsnapshot_common.manifest import Manifest
from ceph_rsnapshot_common.records import Facts

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
    with incoming(work.settings.backup_base_path, work.listing.pool, work.image.name) as files:
        _prepare(work, plan, files, opened.facts)
        copied = _fetch(work, plan, client, opened.export, Path(opened.socket), files)
        closed = client.close_export(opened.export)
        if not plan.base and work.settings.qcow_compression != "none":
            _compress(work, files)
        qcow.finish(files.partial, files.qcow, "backup")
        closed()  # what was copied counts only if its snapshots were there to the end
        with folders.syncing([files.qcow]):  # the disk writes while the contents are verified
            examine = examine_increment if plan.base else examine_whole
            examined = examine(work, plan, files.qcow, files.digests, copied.ranges)
        manifest = describe(work, plan, opened.facts, files.qcow, started).model_copy(
            update={
                "kind": "increment" if plan.base else "full",
                "allocated_bytes": None if plan.base else copied.data,
                "changed_bytes": copied.data + copied.zeroed,
                "transferred_bytes": copied.data,
                **examined,
            }
        )
        return land(work, files, manifest)


def _prepare(work: Work, plan: Plan, files: Incoming, facts: Facts) -> None:
    """The file to write into: an empty one, or a clone of the base."""
    minimum = work.settings.min_freespace
    space.check(files.folder, 0, minimum)
    if plan.base:
        work.show("cloning")
        clone(work.place.qcow(work.place.day(0)), files.partial, minimum)
        return
    uncompressed = work.qcow_options.model_copy(update={"compression": "none"})
    options = ["-q", "-f", "qcow2", *qcow.create_options(uncompressed)]
    commands.run([commands.find_tool("qemu-img", "backup"), "create", *options, str(files.partial), str(facts.size)])


def _fetch(work: Work, plan: Plan, client: AgentClient, export: str, socket: Path, files: Incoming) -> Copied:
    """Copy from the export into the partial file; an export that failed is given back."""
    folder = work.context.folder
    try:
        with ExitStack() as stack:
            source = stack.enter_context(forwarded(client.link, socket, folder / "nbd.sock"))
            target = stack.enter_context(qemu_nbd.serve(files.partial, folder, writable=True))
            minimum = work.settings.min_freespace
            watch = stack.enter_context(space.watched(files.folder, minimum, threading.Event()))
            copied = copy(source, target, plan.base is None, _Ticks(work, client, export, watch))
    except NbdFailed as error:
        # nbdkit knows why a read failed, qemu-nbd why a write did; and if the agent is gone, that is what is said
        said = [client.close_export(export)().log, servers.tail(folder / qemu_nbd.LOG)]
        reason = "; ".join(filter(None, [str(error.data["reason"]), *said]))
        raise NbdFailed(what=error.data["what"], reason=reason) from None
    except BaseException:
        with contextlib.suppress(CephRsnapshotError):
            client.close_export(export)()
        raise
    return copied


class _Ticks:
    """Called while data flow: shows the progress, renews the export, and stops if the disk fills."""

    def __init__(self, work: Work, client: AgentClient, export: str, watch: space.Watch) -> None:
        self._work, self._client, self._export, self._watch = work, client, export, watch
        self._renewed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self._work.show("copying", done, total)
        if self._watch.error:
            raise self._watch.error
        if time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._client.renew(self._export)
            self._renewed = time.monotonic()


def _compress(work: Work, files: Incoming) -> None:
    """qemu-nbd can't write compressed clusters in any order, so that a second pass makes them, on this machine."""
    work.show("compressing")
    plain = files.partial.with_name(f"{files.partial.name}.plain")
    files.partial.rename(plain)
    how = ["-c", "-m", "8", "-f", "qcow2", "-O", "qcow2", *qcow.create_options(work.qcow_options)]
    argv = [commands.find_tool("qemu-img", "backup"), "convert", *how, str(plain), str(files.partial)]
    with space.watched(files.folder, work.settings.min_freespace, threading.Event()) as watch:
        try:
            commands.run(commands.dying_with_parent(argv, "backup"), cancelled=watch.stop)
        except Cancelled as cancelled:
            raise (watch.error or cancelled) from None
    plain.unlink()
