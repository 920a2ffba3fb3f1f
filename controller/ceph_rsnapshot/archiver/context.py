"""What the parts of one run share: settings, options, the lock, folders, and the connection to the agent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot import requirements, run_folder
from ceph_rsnapshot.remote.connection import AgentConnection
from ceph_rsnapshot.repository import incoming, lock
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.config.snapshot_name import Night
from ceph_rsnapshot_common.files import folders


@dataclass(frozen=True)
class RunOptions:
    """What is asked of one run only, and so is no setting.

    Attributes:
        force: also back up a snapshot again that a day already holds, and replace that day.
        full: make full backups where increments would do.
        rotate_many_orphans: believe a listing that makes more than half of the known images orphans.
    """

    force: bool = False
    full: bool = False
    rotate_many_orphans: bool = False


@dataclass(frozen=True)
class Context:
    """One run. ``lock`` is a descriptor for children to inherit."""

    settings: Settings
    options: RunOptions
    night: Night
    agent: AgentConnection
    folder: Path
    conf_folder: Path
    lock: int


@contextmanager
def opened(settings: Settings, options: RunOptions, night: Night) -> Iterator[Context]:
    """Take the lock of the backup base and make the folders of a run; all but kept configurations go at the end.

    Raises:
        LockHeld: another run works on this base.
        PathNotUsable: a folder of the configuration can't be used.
        ToolMissing, NbdBindingsMissing: a program is not installed here.
    """
    requirements.check(settings)
    base = folders.make_private(settings.backup_base_path, "BACKUP_BASE_PATH")
    with ExitStack() as stack:
        held = stack.enter_context(lock.held(base))
        run_folder.sweep()
        incoming.sweep(base)
        folder = stack.enter_context(run_folder.made())
        conf_folder = stack.enter_context(_conf_folder(settings))
        agent = stack.enter_context(AgentConnection(settings, folder))
        agent.begin()
        yield Context(settings, options, night, agent, folder, conf_folder, held)


@contextmanager
def _conf_folder(settings: Settings) -> Iterator[Path]:
    """Where rsnapshot's configurations go: the named folder, or a new one that goes at the end unless KEEPCONF."""
    if settings.temp_conf_dir:
        yield folders.make_private(settings.temp_conf_dir, "TEMP_CONF_DIR")
        return
    parent, name = folders.parent_and_beginning(settings.temp_conf_dir_prefix)
    folders.make_shared(parent, "TEMP_CONF_DIR_PREFIX")
    if settings.keeps_conf:
        yield Path(tempfile.mkdtemp(prefix=name, dir=parent))
        return
    folders.sweep(settings.temp_conf_dir_prefix)
    with folders.temporary(settings.temp_conf_dir_prefix) as folder:
        yield folder
