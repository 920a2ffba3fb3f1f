"""Whether both nodes are ready for tonight. Only looks: nothing of the backups is touched."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ceph_rsnapshot import last_run
from ceph_rsnapshot.context import RUN_FOLDER_PREFIX, AgentConnection, lock_holder, tools_needed
from ceph_rsnapshot.nbd_client import nbd_bindings
from ceph_rsnapshot_common import commands, folders
from ceph_rsnapshot_common.errors import CephRsnapshotError
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.records import CheckItem, CheckRequest, bad, good
from ceph_rsnapshot_common.settings import Settings
from ceph_rsnapshot_common.sizes import format_size

_FICLONE = 0x40049409  # linux/fs.h
_CLOCKS_SECONDS = 30.0
_GOOD_RUN_AGE = timedelta(hours=36)
_VERSION_FLAGS = {"rsnapshot": "version", "ssh": "-V"}


class CheckReport(Record):
    """The list of what was looked at, in the order in which a backup needs it."""

    items: tuple[CheckItem, ...]

    @property
    def ok(self) -> bool:
        return all(item.ok for item in self.items)


def check(settings: Settings, snapshot: str) -> CheckReport:
    """Look at everything; see `ceph_rsnapshot.check`."""
    here = [*_tools(settings), *_base(settings), _lock(settings), _last_good_run(settings)]
    return CheckReport(items=(*here, *_ceph_node(settings, snapshot)))


def _tools(settings: Settings) -> Iterator[CheckItem]:
    for tool in tools_needed(settings):
        name = f"backup node: {tool}"
        try:
            argv = [commands.find_tool(tool, "backup"), _VERSION_FLAGS.get(tool, "--version")]
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
    base, name = settings.backup_base_path, "BACKUP_BASE_PATH"
    if not base.is_dir():
        parent = next(path for path in base.parents if path.is_dir())
        if os.access(parent, os.W_OK | os.X_OK):
            yield good(name, f"{base} will be made by the first run")
        else:
            yield bad(name, f"{base} does not exist, and can't be made in {parent}", f"mkdir -m 0700 {base}")
        return
    mode = base.stat().st_mode & 0o777
    if not os.access(base, os.R_OK | os.W_OK | os.X_OK):
        yield bad(name, f"{base} can't be written by this user", "run as its owner, or change the owner")
        return
    if mode & 0o077:
        yield bad(name, f"{base} has mode {mode:04o}: others can get at the backups", f"chmod 0700 {base}")
    else:
        yield good(name, f"{base} is private")
    status = os.statvfs(base)
    free = status.f_bavail * status.f_frsize
    said = f"{format_size(free)} free, of which {format_size(settings.min_freespace)} must stay free"
    yield good("free space", said) if free > settings.min_freespace else bad("free space", said, "make room")
    if _reflinks(base):
        yield good("reflinks", "the file system has them: an increment takes only what changed")
    else:
        yield good("reflinks", "the file system has none: an increment costs a local copy (XFS and btrfs have them)")


def _reflinks(folder: Path) -> bool:
    """Tried with two files that have no name."""
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
            source.write(b"x")
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def _lock(settings: Settings) -> CheckItem:
    pid = lock_holder(settings.backup_base_path)
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
    request = CheckRequest(
        pools=settings.pool,
        snapshot_name=snapshot,
        image_re=settings.image_re,
        staged=settings.transfer_mode == "staged",
    )
    try:
        with folders.temporary(RUN_FOLDER_PREFIX) as folder, AgentConnection(settings, folder) as agent:
            client = agent.client()
            yield good("agent", f"{client.link.where} answers, version {client.version}")
            asked = time.time()
            checks = client.check(request)
            # the time is taken at the end of the agent's work
            apart = max(0.0, checks.time - time.time(), asked - checks.time)
            if apart > _CLOCKS_SECONDS:
                yield bad("clocks", f"the nodes' clocks are {apart:.0f} s apart", "set up NTP on both")
            else:
                yield good("clocks", "the nodes' clocks agree")
            yield from checks.items
    except CephRsnapshotError as error:
        yield bad("agent", str(error), "see CEPH_HOST, SSH_ARGS and AGENT_SOCKET; try the ssh command by hand")
