"""rsnapshot: its configuration for one image, `rsnapshot sync`, and the rotation."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot.repository.arrival import bounded
from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import RsnapshotFailed, one_line
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands
from ceph_rsnapshot_common.process.commands import find_tool

# --modify-window=-1 compares times to the nanosecond: by whole seconds two different images can look the same
_LONG_ARGS = (
    *("--delete", "--delete-excluded", "--relative", "--modify-window=-1"),
    # what arrives are two files that belong to whoever runs this, whatever the ceph node sends; with --perms instead of
    # --no-perms rsync would copy a file that it could link, if an older day has another mode
    *("--no-owner", "--no-group", "--no-perms", "--chmod=D0700,F0600", "--no-links", "--no-devices", "--no-specials"),
)
_LOGGED_COMMANDS = ("/", "echo ", "mkdir ", "touch ", "rm ", "mv ", "cd ", "Setting ")
_LINES_SHOWN = 6
_SHOWN_BYTES = 4096
_READ_LOG = 1024**2  # what rsync and ssh pass on of the other node may be much


@dataclass(frozen=True)
class Source:
    """What rsync pulls: a folder on this machine, or on ``host`` with these arguments for ssh.

    Attributes:
        bandwidth_limit: bytes a second, 0 for none.
        linked_into: take the files themselves (hard links) into this folder and not copies, where the file system
            allows it.
        sparse: look for holes; rsync then writes 1024 bytes at a time (SPARSE_WRITE_SIZE in its fileio.c).
        longest: bytes of the longest file that may come from ``folder``; None: what lies there is ours.
    """

    folder: str
    host: str | None = None
    ssh_args: tuple[str, ...] = ()
    bandwidth_limit: int = 0
    linked_into: Path | None = None
    sparse: bool = True
    longest: int | None = None

    @property
    def long_args(self) -> list[str]:
        """What rsync's long arguments depend on the source for."""
        kib = max(1, self.bandwidth_limit // 1024)  # rsync's unit
        limit = [f"--bwlimit={kib}"] if self.bandwidth_limit else []
        sparse = ["--sparse"] if self.sparse else []
        size = [] if self.longest is None else [f"--max-size={self.longest}"]
        linked = [f"--link-dest={self._link_dest(self.linked_into)}"] if self.linked_into else []
        return [*sparse, *limit, *size, *linked]

    def _link_dest(self, target: Path) -> str:
        """Relative to the target (rsync(1)): these parts are names of ours, while the rest of the path may hold quotes,
        which rsnapshot can't read in arguments.
        """
        return os.path.relpath(os.path.realpath(self.folder), os.path.realpath(target))


def render(settings: Settings, folder: ImageFolder, source: Source, log: Path, retain: int) -> str:
    """The text of rsnapshot.conf for one image; fields are separated by tabs."""
    path = f"{source.host}:{source.folder}" if source.host else source.folder
    timeout = f"--timeout={settings.idle_timeout}"
    extra = [f"--{argument}" for argument in settings.extra_long_args]
    long_args = [*_LONG_ARGS, timeout, *_only(folder.sync), *source.long_args, *extra]
    lines = [
        ("config_version", "1.2"),
        ("snapshot_root", f"{folder.path}/"),
        ("no_create_root", "1"),
        ("cmd_rsync", find_tool("rsync", Node.BACKUP)),
        *([("cmd_ssh", find_tool("ssh", Node.BACKUP))] if source.host else []),
        *([("ssh_args", quoted(source.ssh_args))] if source.ssh_args else []),
        ("retain", settings.retain_interval, str(retain)),
        ("verbose", "2"),
        ("loglevel", "3"),
        ("logfile", str(log)),
        ("lockfile", str(_lockfile(folder))),
        ("sync_first", "1"),
        ("link_dest", "1"),
        ("rsync_short_args", "-a"),
        ("rsync_long_args", quoted(long_args)),
        ("backup", f"{path}/./", "./"),
    ]
    return "".join("\t".join(line) + "\n" for line in lines)


def _only(files: ImageFiles) -> list[str]:
    """Nothing but the qcow2 and its manifest; rsync holds what a sender lists against its filters.

    Names of files are encoded: they hold no wildcards.
    """
    return [f"--include=/{files.qcow.name}", f"--include=/{files.manifest.name}", "--exclude=*"]


def quoted(arguments: Sequence[str]) -> str:
    """Arguments in one line as rsnapshot and rsync's --rsh read it: quotes without escapes, of one kind at a time."""

    def one(argument: str) -> str:
        if not any(character in argument for character in " '\""):
            return argument
        quote = "'" if '"' in argument else '"'
        return f"{quote}{argument}{quote}"

    return " ".join(one(argument) for argument in arguments)


@dataclass(frozen=True)
class Rsnapshot:
    """rsnapshot with one configuration.

    Attributes:
        lock: the run's lock, which its processes hold too while they live.
        longest: see `Source`.
        minimum: bytes that stay free while something comes from another node.
    """

    conf: Path
    log: Path
    folder: ImageFolder
    extra_args: tuple[str, ...]
    lock: int
    longest: int | None
    minimum: int
    idle: float

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Bring the source into ``.sync`` while the block goes on (rsync waits most of the time); days are not touched.

        Raises:
            RsnapshotFailed: it did not exit 0 (2 means warnings, among them files that vanished).
            NotEnoughSpace, TransferFailed: more came than there is room for, or than was said to come.
        """
        argv, logged = commands.dying_with_parent(self._command("sync"), Node.BACKUP), self._logged()
        with folders.written_back(self.folder.sync.folder):
            with self._running(argv) as command:
                yield
            self._check("sync", command.result, logged)

    def rotate(self) -> None:
        """Make ``.sync`` day 0 and the oldest day go; once begun it is not interrupted half-way."""
        action, logged = self.folder.interval, self._logged()
        done = commands.run(self._command(action), pass_fds=(self.lock,), accepted=range(256), finish=True)
        self._check(action, done, logged)

    @contextmanager
    def _running(self, argv: Sequence[str]) -> Iterator[commands.Command]:
        """rsnapshot beside the block; it is stopped if more comes from another node than may come."""
        with ExitStack() as stack:
            arrival = None
            if self.longest is not None:
                newest = self.folder.day(0).qcow
                basis = newest.stat().st_size if newest.exists() else 0
                arrival = stack.enter_context(bounded(self.folder.sync.folder, self.longest, basis, self.minimum))
            stop = arrival.stop if arrival else None
            running = commands.beside(argv, pass_fds=(self.lock,), accepted=range(256), idle=self.idle, cancelled=stop)
            command = stack.enter_context(running)
            if arrival:
                arrival.pid = command.process.pid
            yield command

    def _check(self, action: str, done: commands.Result, logged: int) -> None:
        if done.code:
            reason = one_line(self._said(logged) or done.stderr or done.stdout)[-_SHOWN_BYTES:]
            raise RsnapshotFailed(action=action, root=self.folder.path, exit_code=done.code, reason=reason)

    def _logged(self) -> int:
        """Bytes of the log."""
        return self.log.stat().st_size if self.log.exists() else 0

    def _said(self, start: int) -> str:
        """What rsync and ssh said, which rsnapshot writes into its log only, between the commands that it ran."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _READ_LOG))
            lines = file.read().decode("utf-8", "replace").splitlines()
        said = [line.partition("] ")[2] for line in lines]
        return "\n".join([line for line in said if line and not line.startswith(_LOGGED_COMMANDS)][-_LINES_SHOWN:])

    def _command(self, action: str) -> list[str]:
        # rsnapshot tests the pid in its own lock file with kill 0, so a reused pid would block it for ever;
        # this run's flock is held around it, so whatever is there is stale
        _lockfile(self.folder).unlink(missing_ok=True)
        return [find_tool("rsnapshot", Node.BACKUP), "-c", str(self.conf), *self.extra_args, action]


@contextmanager
def configured(
    settings: Settings, folder: ImageFolder, source: Source, conf_folder: Path, lock: int, retain: int
) -> Iterator[Rsnapshot]:
    """rsnapshot with a configuration that is removed at the end unless KEEPCONF is set."""
    relative = folder.path.relative_to(settings.backup_base_path)
    conf = conf_folder / f"{relative}.conf"
    log = settings.log_base_path / "rsnapshot" / f"{relative}.log"
    for path in (conf, log):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    conf.write_text(render(settings, folder, source, log, retain), encoding="utf-8")
    try:
        extra_args, minimum = tuple(shlex.split(settings.extra_args)), settings.min_freespace
        yield Rsnapshot(conf, log, folder, extra_args, lock, source.longest, minimum, settings.idle_timeout)
    finally:
        if not settings.keeps_conf:
            conf.unlink(missing_ok=True)


def _lockfile(folder: ImageFolder) -> Path:
    return folder.path / ".rsnapshot.pid"
