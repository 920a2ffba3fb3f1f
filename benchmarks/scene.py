"""What is measured: a real cluster with one image, an sshd, an agent, and file systems for the backups."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rados
import rbd
import yaml

from benchmarks.watch import Peak, peak_memory
from demo import child
from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer

MIB, GIB = 1024**2, 1024**3
OBJECT = 4 * MIB
_SCRIPTS = Path(sys.executable).parent


def make_image(cluster: CephCluster, name: str, size: int, data: int) -> None:
    """An image with ``data`` bytes in whole objects all over it, and a snapshot d1."""
    randomly = random.Random(1)
    with _ioctx(cluster) as ioctx:
        rbd.RBD().create(ioctx, name, size, old_format=False)
        with rbd.Image(ioctx, name) as image:
            for number in _objects(size, data):
                image.write(randomly.randbytes(OBJECT), number * OBJECT)
            image.create_snap("d1")


def change_image(cluster: CephCluster, name: str, size: int, data: int, pieces: int) -> None:
    """Overwrite ``pieces`` of 64 KiB of the data, and take snapshots d2 and (of the same content) d3."""
    randomly = random.Random(2)
    objects = _objects(size, data)
    with _ioctx(cluster) as ioctx, rbd.Image(ioctx, name) as image:
        for piece in randomly.sample(range(data // 65536), pieces):
            offset = objects[piece * 65536 // OBJECT] * OBJECT + piece * 65536 % OBJECT
            image.write(randomly.randbytes(65536), offset)
        image.create_snap("d2")
        image.create_snap("d3")


def _objects(size: int, data: int) -> list[int]:
    return sorted(random.Random(3).sample(range(size // OBJECT), data // OBJECT))


def _ioctx(cluster: CephCluster) -> Any:
    connection = rados.Rados(conffile=str(cluster.conf))
    connection.connect(timeout=30)
    return connection.open_ioctx("rbd")


@dataclass
class Scene:
    """Both nodes on this machine; ``base`` is where backups go."""

    folder: Path
    cluster: CephCluster
    server: SshServer
    base: Path
    agent: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "ceph_rsnapshot.yaml"

    def configure(self, image: str, ssh_args: list[str] | None = None, **options: Any) -> None:
        self.config.write_text(
            yaml.safe_dump(
                {
                    "CEPH_HOST": self.server.host,
                    "SSH_ARGS": " ".join(ssh_args or self.server.ssh_args),
                    "CEPH_CONF": str(self.cluster.conf),
                    "AGENT_SOCKET": f"{self.folder}/run/agent.sock",
                    "QCOW_TEMP_PATH": f"{self.folder}/qcow",
                    "BACKUP_BASE_PATH": str(self.base),
                    "LOG_BASE_PATH": f"{self.folder}/log",
                    "MIN_FREESPACE": "100M",
                    "IMAGE_RE": f"{image}$",
                    "RETAIN_NUMBER": 3,
                    "SNAP_NAMING_DATE_FORMAT": "d1",
                    **options,
                }
            )
        )

    def start_agent(self, stack: ExitStack) -> None:
        log = self.folder / "agent.log"
        self.agent = child.start([str(_SCRIPTS / "ceph_rsnapshot_agent"), "-c", str(self.config)], log)
        stack.callback(child.stop, self.agent)
        child.wait_ready(self.agent, lambda: "listening on" in log.read_text(), log)

    def program(self, *arguments: str) -> list[str]:
        return [str(_SCRIPTS / "ceph_rsnapshot"), "-c", str(self.config), *arguments]

    def command(self, *arguments: str) -> list[str]:
        """What answers with JSON."""
        return self.program("--json", *arguments)

    def backup(self, *arguments: str) -> dict[str, Any]:
        """The report of the one image."""
        done = subprocess.run(self.command(*arguments), check=True, capture_output=True, text=True)
        report: dict[str, Any] = json.loads(done.stdout)["images"][0]
        return report

    def peak_of_a_backup(self) -> Peak:
        """Memory of agent, nbdkit, controller and qemu-nbd together."""
        assert self.agent
        controller = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL)
        with peak_memory([self.agent.pid, controller.pid]) as peak:
            code = controller.wait()
        assert code == 0
        return peak


@contextmanager
def opened() -> Iterator[Scene]:
    """A cluster, an sshd and an agent, which end with the block."""
    os.umask(0o077)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        cluster = stack.enter_context(CephCluster(osd_size=12 * GIB))
        server = stack.enter_context(SshServer())
        scene = Scene(folder, cluster, server, folder / "backups")
        scene.configure("vm", ALLOW_RESTORE=True)  # what the agent reads, once
        scene.start_agent(stack)
        yield scene


def empty(folder: Path) -> Path:
    """``folder``, new."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.sync()
    return folder
