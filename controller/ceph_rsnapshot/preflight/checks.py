"""Whether both nodes are ready for tonight. Only looks: nothing of the backups is touched."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Callable

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.preflight.report import CheckReport
from ceph_rsnapshot.remote.client import AgentClient
from ceph_rsnapshot.remote.link import connecting
from ceph_rsnapshot.remote.listing import chooser
from ceph_rsnapshot.repository import last_run, lock, reflinks
from ceph_rsnapshot.requirements import nbd_bindings, tools_needed
from ceph_rsnapshot_common.config.load import Loaded
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.config.snapshot_name import snapshot_name
from ceph_rsnapshot_common.errors import (
    AgentUnreachable,
    CephRsnapshotError,
    ClusterUnreachable,
    ConfigError,
    PoolNotFound,
    PoolUnreadable,
    VersionMismatch,
)
from ceph_rsnapshot_common.files import folders, ownership, space
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.records import CheckItem, CheckRequest, ListRequest, PoolToCheck, bad, good
from ceph_rsnapshot_common.sizes import format_size

_CLOCKS_SECONDS = 30.0
_GOOD_RUN_AGE = timedelta(hours=36)
_CONFIGURATION = "configuration"
_ADVICE = {
    AgentUnreachable: "see that the agent runs there (systemctl status ceph-rsnapshot-agent), and AGENT_SOCKET",
    VersionMismatch: "install the same version on both nodes, and restart the agent",
}
_OTHER_ADVICE = "see the agent's log: journalctl -u ceph-rsnapshot-agent"
_VERSION_FLAGS = {"rsnapshot": "version", "ssh": "-V"}


def check(get: Callable[[], Loaded]) -> CheckReport:
    """Look at everything; see `ceph_rsnapshot.check`. ``get`` brings the settings, or raises ConfigError."""
    try:
        loaded = get()
        settings, snapshot = loaded.settings, snapshot_name(loaded.settings)
    except ConfigError as error:
        advice = "see docs/configuration.md; then check again"
        return CheckReport(items=(bad(_CONFIGURATION, str(error), advice),))
    return CheckReport(
        items=(
            good(_CONFIGURATION, f"{loaded.path or 'no file'}; the snapshot is {snapshot}"),
            *_tools(settings),
            *_base(settings),
            *_other_folders(settings),
            _lock(settings),
            _last_good_run(settings),
            *_ceph_node(settings, snapshot),
        )
    )


def _tools(settings: Settings) -> Iterator[CheckItem]:
    for tool in tools_needed(settings):
        name = f"backup node: {tool}"
        try:
            argv = [commands.find_tool(tool, Node.BACKUP), _VERSION_FLAGS.get(tool, "--version")]
            done = commands.run(argv, timeout=30, accepted=range(256))
            yield good(name, (done.stdout.strip() or done.stderr.strip()).split("\n")[0])
        except CephRsnapshotError as error:
            yield bad(name, str(error), "install what is missing")
    try:
        nbd_bindings()
        yield good("backup node: python3-libnbd", "can be imported")
    except CephRsnapshotError as error:
        yield bad("backup node: python3-libnbd", str(error), "install it")


def _base(settings: Settings) -> Iterator[CheckItem]:
    base = settings.backup_base_path
    item = _folder("BACKUP_BASE_PATH", base)
    if item.ok and base.is_dir() and (mode := base.stat().st_mode & 0o777) & 0o077:
        said = f"{base} has mode {mode:04o}: others can get at the backups"
        item = bad("BACKUP_BASE_PATH", said, f"chmod 0700 {base}")
    yield item
    existing = _nearest(base)
    free = space.free_bytes(existing)
    said = f"{format_size(free)} free, of which {format_size(settings.min_freespace)} must stay free"
    yield good("free space", said) if free > settings.min_freespace else bad("free space", said, "make room")
    if reflinks.possible(existing):
        yield good("reflinks", "the file system has them: an increment takes only what changed")
    else:
        yield good("reflinks", "the file system has none: an increment costs a local copy (XFS and btrfs have them)")


def _other_folders(settings: Settings) -> Iterator[CheckItem]:
    yield _folder("LOG_BASE_PATH", settings.log_base_path)
    if settings.temp_conf_dir:
        yield _folder("TEMP_CONF_DIR", settings.temp_conf_dir)
    else:
        parent, _ = folders.parent_and_beginning(settings.temp_conf_dir_prefix)
        yield _folder("TEMP_CONF_DIR_PREFIX", parent, ownership.not_safe_to_share)


def _folder(key: str, path: Path, objection: Callable[[Path], str] = ownership.not_ours) -> CheckItem:
    """Whether a run can write there, or can make the folder."""
    advice = "make it, or change its owner or the key"
    nearest = _nearest(path)
    if path.exists() and nearest != path:
        return bad(key, f"{path} is no folder", advice)
    if path.exists() and (reason := objection(path)):
        return bad(key, f"{path}: {reason}", advice)
    try:
        # a folder's mode says little to root; a temporary file has no name, so nothing is left behind
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return bad(key, f"{path} can't be written: {nearest}: {error.strerror}", advice)
    return good(key, f"{path} can be written" if nearest == path else f"{path} will be made by the first run")


def _nearest(path: Path) -> Path:
    """``path``, or the folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _lock(settings: Settings) -> CheckItem:
    pid = lock.holder(settings.backup_base_path)
    if pid is None:
        return good("lock", "no other run is under way")
    return bad("lock", f"a run (pid {pid}) is under way", "wait for its end; `ps` tells what it is")


def _last_good_run(settings: Settings) -> CheckItem:
    found = last_run.read(settings.log_base_path)
    if found is None:
        return good("last good run", "none yet, as far as is known")
    age = datetime.now(timezone.utc) - found.ended
    said = f"{found.ended.astimezone():%Y-%m-%d %H:%M} ({found.snapshot}), {age.total_seconds() / 3600:.0f} hours ago"
    if age > _GOOD_RUN_AGE:
        return bad("last good run", said, "see the log and systemctl status ceph-rsnapshot.timer")
    return good("last good run", said)


def _ceph_node(settings: Settings, snapshot: str) -> Iterator[CheckItem]:
    with ExitStack() as stack:
        folder = stack.enter_context(run_folder.made())
        try:
            link = stack.enter_context(connecting(settings, folder))()
        except CephRsnapshotError as error:
            yield bad("ssh", str(error), "see CEPH_HOST and SSH_ARGS; try the ssh command by hand")
            return
        if link.host:
            yield good("ssh", f"{link.host} lets us in")
        try:
            yield from _agent(settings, stack.enter_context(AgentClient(link, whatever_is_missing=True)), snapshot)
        except CephRsnapshotError as error:
            yield bad("agent", str(error), _ADVICE.get(type(error), _OTHER_ADVICE))


def _pools(client: AgentClient, settings: Settings) -> Iterator[PoolToCheck]:
    """The pools with the images that IMAGE_RE chooses; why one can't be listed is for the agent's items to say."""
    chooses = chooser(settings.image_re)
    for pool in settings.pool:
        try:
            names = client.run(calls.LIST, ListRequest(pool=pool)).names
        except (PoolNotFound, PoolUnreadable, ClusterUnreachable):
            names = ()
        yield PoolToCheck(pool=pool, images=tuple(filter(chooses, names)))


def _agent(settings: Settings, client: AgentClient, snapshot: str) -> Iterator[CheckItem]:
    yield good("agent", f"{client.link.where} answers, version {client.version}")
    asked = time.time()
    checks = client.run(
        calls.CHECK,
        CheckRequest(
            pools=tuple(_pools(client, settings)),
            snapshot_name=snapshot,
            staged=settings.transfer_mode == "staged",
        ),
    )
    # the time is taken at the end of the agent's work
    apart = max(0.0, checks.time - time.time(), asked - checks.time)
    if apart > _CLOCKS_SECONDS:
        yield bad("clocks", f"the nodes' clocks are {apart:.0f} s apart", "set up NTP on both")
    else:
        yield good("clocks", "the nodes' clocks agree")
    yield from checks.items
