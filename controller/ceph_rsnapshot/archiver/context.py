"""What the parts of one run share: settings, the lock, folders, and the connection to the agent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from ceph_rsnapshot.nbd.handle import nbd_bindings
from ceph_rsnapshot.remote.link import Link, connecting
from ceph_rsnapshot.repository import incoming
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import LockHeld, PathNotUsable
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.process.commands import find_tool

if TYPE_CHECKING:
    from ceph_rsnapshot.remote.client import AgentClient

RUN_FOLDER_PREFIX = "ceph_rsnapshot_run_"
_LOCK = ".ceph_rsnapshot.lock"
_WAIT_FOR_CHILDREN = 60.0


class AgentConnection:
    """A client that is opened at first use, and again after it broke. Close it through the context manager."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._stack = ExitStack()
        self._link: Callable[[], Link] | None = None
        self._client: AgentClient | None = None

    def __enter__(self) -> AgentConnection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def alive(self) -> AgentClient | None:
        """The client if its connection is open now; opens none."""
        return self._client if self._client and self._client.alive else None

    def begin(self) -> None:
        """Let ssh connect while something else is done."""
        self._link = self._stack.enter_context(connecting(self._settings, self._folder))

    def client(self) -> AgentClient:
        """Raises: AgentUnreachable, VersionMismatch, ToolMissing (on the ceph node)."""
        from ceph_rsnapshot.remote.client import AgentClient  # while ssh connects

        if self.alive:
            return self.alive
        if self._link is None:
            self._stack.close()
            self.begin()
        assert self._link
        link, self._link, self._client = self._link, None, None
        self._client = self._stack.enter_context(AgentClient(link()))
        return self._client


@dataclass(frozen=True)
class Context:
    settings: Settings
    snapshot: str
    agent: AgentConnection
    folder: Path
    conf_folder: Path
    lock: int


@contextmanager
def opened(settings: Settings, snapshot: str) -> Iterator[Context]:
    """Take the lock of the backup base and make the folders of a run; all but kept configurations go at the end.

    Raises:
        LockHeld: another run works on this base.
        PathNotUsable: a folder of the configuration can't be used.
        ToolMissing, NbdBindingsMissing: a program is not installed here.
    """
    _check_tools(settings)
    base = folders.make_private(settings.backup_base_path, "BACKUP_BASE_PATH")
    with ExitStack() as stack:
        lock = _take_lock(stack, base / _LOCK)
        folders.sweep(RUN_FOLDER_PREFIX)
        incoming.sweep(base)
        folder = stack.enter_context(folders.temporary(RUN_FOLDER_PREFIX))
        conf_folder = stack.enter_context(_conf_folder(settings))
        agent = stack.enter_context(AgentConnection(settings, folder))
        agent.begin()
        yield Context(settings, snapshot, agent, folder, conf_folder, lock)


def tools_needed(settings: Settings) -> list[str]:
    """The programs that a run needs on this node."""
    remote = ["ssh"] if settings.ceph_host != "localhost" else []
    return ["rsnapshot", "rsync", "setpriv", *remote, "qemu-img", "qemu-nbd"]


def lock_holder(base: Path) -> str | None:
    """The pid of the run that is under way, or None."""
    return locks.held_by(base / _LOCK)


def _check_tools(settings: Settings) -> None:
    nbd_bindings()
    for tool in tools_needed(settings):
        find_tool(tool, "backup")


def _take_lock(stack: ExitStack, path: Path) -> int:
    """Hold the lock until ``stack`` ends; if its holder was killed, its rsnapshot may still end: wait for that."""
    try:
        return locks.hold_patiently(stack, lambda: locks.hold(path), _WAIT_FOR_CHILDREN, _is_dead)
    except OSError as error:
        raise PathNotUsable(key="BACKUP_BASE_PATH", path=path, reason=error.strerror) from None


def _is_dead(held: LockHeld) -> bool:
    pid = held.data["pid"]
    return pid.isdigit() and not Path("/proc", pid).exists()


@contextmanager
def _conf_folder(settings: Settings) -> Iterator[Path]:
    """Where rsnapshot's configurations go: the named folder, or a new one that goes at the end unless KEEPCONF."""
    if settings.temp_conf_dir:
        yield folders.make_private(settings.temp_conf_dir, "TEMP_CONF_DIR")
    elif settings.keeps_conf:
        parent, name = folders.place(settings.temp_conf_dir_prefix)
        yield Path(tempfile.mkdtemp(prefix=name, dir=folders.make_private(parent, "TEMP_CONF_DIR_PREFIX")))
    else:
        folders.make_private(folders.place(settings.temp_conf_dir_prefix)[0], "TEMP_CONF_DIR_PREFIX")
        folders.sweep(settings.temp_conf_dir_prefix)
        with folders.temporary(settings.temp_conf_dir_prefix) as folder:
            yield folder
