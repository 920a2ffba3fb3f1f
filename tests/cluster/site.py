"""One test's ceph node and backup node: folders, configuration, a real agent, and the commands run as a user would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import xxhash
import yaml

from demo import child
from demo.ssh_server import SshServer
from tests import SCRIPTS
from tests.cluster.ceph import TestPool

DAY = "2026-01-01"
Done = subprocess.CompletedProcess[str]


class Site:
    """Everything lies in a short folder of its own (paths of unix sockets are limited to 108 bytes)."""

    def __init__(self, pool: TestPool, below: Optional[Path] = None) -> None:
        self.pool = pool
        self.folder = Path(tempfile.mkdtemp(prefix="site-", dir=below))
        self.base = self.folder / "backups"
        self.temp = self.folder / "qcow"
        self.config_path = self.folder / "ceph_rsnapshot.yaml"
        self.agent: Optional[subprocess.Popen[bytes]] = None
        self.options: dict[str, Any] = {
            "CEPH_CONF": str(pool.cluster.conf),
            "POOL": str(pool),
            "QCOW_TEMP_PATH": str(self.temp),
            "AGENT_SOCKET": str(self.folder / "run" / "agent.sock"),
            "BACKUP_BASE_PATH": str(self.base),
            "LOG_BASE_PATH": str(self.folder / "log"),
            "TEMP_CONF_DIR_PREFIX": str(self.folder / "conf_"),
            "MIN_FREESPACE": "100M",
            "SNAP_DATE": DAY,
            "RETAIN_NUMBER": 3,
            "RADOS_TIMEOUT": 30,
        }
        self.configure()

    def close(self) -> None:
        self.stop_agent()
        shutil.rmtree(self.folder)

    def configure(self, **options: Any) -> None:
        """Change options of the configuration file; None takes one out."""
        self.options.update(options)
        kept = {key: value for key, value in self.options.items() if value is not None}
        self.config_path.write_text(yaml.safe_dump(kept))

    def over_ssh(self, server: SshServer) -> None:
        self.configure(CEPH_HOST=server.host, SSH_ARGS=" ".join(server.ssh_args))

    def start_agent(self, env: Optional[dict[str, str]] = None, config: Optional[Path] = None) -> None:
        """A real agent, ready when this returns."""
        argv = [str(SCRIPTS / "ceph_rsnapshot_agent"), "-c", str(config or self.config_path)]
        self.agent = child.start(argv, self.agent_log, env=self._env(env))
        child.wait_ready(self.agent, lambda: "listening on" in self.agent_log.read_text(), self.agent_log)

    @property
    def agent_log(self) -> Path:
        return self.folder / "agent.log"

    def stop_agent(self) -> None:
        if self.agent:
            child.stop(self.agent)
            self._agent_has_ended()

    def kill_agent(self) -> None:
        assert self.agent
        self.agent.kill()
        self.agent.wait()
        self._agent_has_ended()

    def _agent_has_ended(self) -> None:
        self.agent = None
        self.agent_log.rename(self.agent_log.with_suffix(".old"))

    def start(self, script: str, *arguments: str, env: Optional[dict[str, str]] = None) -> subprocess.Popen[str]:
        """A console script in the background."""
        argv = [str(SCRIPTS / script), "-c", str(self.config_path), *arguments]
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env(env), cwd=self.folder
        )

    def run(self, script: str, *arguments: str, env: Optional[dict[str, str]] = None, code: Optional[int] = 0) -> Done:
        """A console script to its end; ``code`` is the exit code it must have. No traceback is ever right."""
        with self.start(script, *arguments, env=env) as process:
            stdout, stderr = process.communicate(timeout=120)
        done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        assert "Traceback" not in stderr, stderr
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{stdout}\n{stderr}"
        return done

    def backup(self, *arguments: str, code: Optional[int] = 0, env: Optional[dict[str, str]] = None) -> dict[str, Any]:
        """`ceph_rsnapshot --json`; returns the report with images by name, and standard error under ``stderr``."""
        done = self.run("ceph_rsnapshot", "--json", *arguments, code=code, env=env)
        report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"images": []}
        report["by_name"] = {image["image"]: image for image in report["images"]}
        report["stderr"] = done.stderr
        return report

    def night(self, day: str, images: list[str], *arguments: str, code: int = 0) -> dict[str, Any]:
        """Write to the images, snapshot them and back up; the report as that of `backup`."""
        for image in images:
            self.pool.write(image, seed=int(day[-1]) * 100 + len(image))
            self.pool.snap(image, day)
        return self.backup("--snap-date", day, *arguments, code=code)

    def next_day(self, day: str, *arguments: str, env: Optional[dict[str, str]] = None) -> dict[str, Any]:
        """Back up ``a@day``: as Ceph has it and as its manifest says; day 0 becomes day 1 untouched."""
        newest, older = (self.root("a") / f"daily.{number}" for number in (0, 1))
        before = contents(newest)
        report: dict[str, Any] = self.backup("--snap-date", day, *arguments, env=env)["by_name"]["a"]
        assert report["result"] == "done"
        assert not before or contents(older) == before
        assert self.same(newest / "a.qcow2", "a", day)
        manifest = json.loads((newest / "a.json").read_text())
        assert (manifest["kind"], manifest["full_because"]) == (report["kind"], report["full_because"])
        assert self.leftovers() == []
        return report

    def verify(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """What `verify --json` found, by backup."""
        done = self.run("ceph_rsnapshot", "verify", "--json", *arguments, code=code)
        backups: list[dict[str, Any]] = json.loads(done.stdout)["backups"]
        return backups

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """What `list --json` tells."""
        found: list[dict[str, Any]] = json.loads(self.run("ceph_rsnapshot", "list", "--json", *arguments).stdout)
        return found

    def root(self, image: str, pool: Optional[TestPool] = None) -> Path:
        return self.base / str(pool or self.pool) / image

    def days(self, image: str) -> list[str]:
        """Names of the image's rotation folders."""
        root = self.root(image)
        return sorted(path.name for path in root.iterdir() if path.name.startswith("daily.")) if root.exists() else []

    def same(self, qcow: Path, image: str, snapshot: str = DAY, pool: Optional[TestPool] = None) -> bool:
        """Whether the qcow2 holds what Ceph holds, judged by `qemu-img compare` against `rbd export`."""
        raw = (pool or self.pool).export(image, snapshot, self.folder / "export.raw")
        return same_content(qcow, raw)

    def leftovers(self) -> list[str]:
        """Temporary files that should not be there when nothing runs."""
        # os.walk, unlike Path.rglob, takes it that a folder goes while it is looked at
        below = [Path(at, name) for at, folders, names in os.walk(self.temp) for name in (*folders, *names)]
        temporary = [path for path in below if path.name != ".claims"]
        confs = list(self.folder.glob("conf_*"))
        names = [".rotating", ".rsnapshot.pid", ".incoming", ".sync", ".dropped.*", ".*.making", ".*.released"]
        # a link in the place of .incoming is the administrator's
        syncs = [path for name in names for path in self.base.rglob(name) if not path.is_symlink()]
        return sorted(str(path) for path in [*temporary, *confs, *syncs])

    def _env(self, more: Optional[dict[str, str]]) -> dict[str, str]:
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {**os.environ, "TMPDIR": str(temporary), **(more or {})}

    def temporary_folders(self) -> list[str]:
        """What is in the folder for temporary files of the commands and the agent."""
        return sorted(path.name for path in (self.folder / "tmp").iterdir())


def same_content(file: Path, raw: Path, file_format: str = "qcow2") -> bool:
    """qemu-img's judgement, with the metadata of a qcow2 checked too."""
    if file_format == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(file)], check=True)
    argv = ["qemu-img", "compare", "-f", file_format, "-F", "raw", str(file), str(raw)]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def size_of(path: Path) -> int:
    """Bytes of a file that may come and go; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below ``folder`` with its inode and digest: equal before and after means untouched."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, xxhash.xxh3_128_hexdigest(path.read_bytes()))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)


@contextmanager
def stopped(process: subprocess.Popen[Any]) -> Iterator[None]:
    """A process that hangs (SIGSTOP) while the block runs."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
