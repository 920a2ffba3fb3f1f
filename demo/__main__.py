"""``make demo``: real images of a real Ceph cluster become qcow2 files, and each is proved identical.

A cluster, an sshd, the agent and the controller run on loopback in a temporary folder, and are stopped at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.tree import Tree

from demo import child
from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer

_SCRIPTS = Path(sys.executable).parent
_IMAGES = ("vm-system", "vm-data", "vm-clone")
_console = Console()


class Demo:
    """The steps of the demo in their order; ``folder`` holds everything."""

    def __init__(self, folder: Path, cluster: CephCluster, server: SshServer) -> None:
        self._folder = folder
        self._cluster = cluster
        self._server = server
        self._today = date.today().isoformat()
        self._tomorrow = (date.today() + timedelta(days=1)).isoformat()
        self._base = folder / "backups"
        self._config = folder / "ceph_rsnapshot.yaml"

    def make_images(self) -> None:
        """An ext4 file system with files, a sparse data disk, and a clone of the first with changes of its own."""
        rbd = self._cluster.rbd
        _step("three images that look like real ones, with a snapshot of today")
        rbd("import", "--no-progress", str(self._file_system("system", {"etc/hostname": "vm-system\n"})), "vm-system")
        rbd("create", "--size", "8G", "vm-data")
        rbd("bench", "--io-type", "write", "--io-size", "64K", "--io-total", "32M", "--io-pattern", "rand", "vm-data")
        rbd("snap", "create", "--no-progress", "vm-system@base")
        rbd("snap", "protect", "vm-system@base")
        rbd("clone", "vm-system@base", "vm-clone")
        rbd("bench", "--io-type", "write", "--io-size", "4K", "--io-total", "1M", "--io-pattern", "rand", "vm-clone")
        for image in _IMAGES:
            rbd("snap", "create", "--no-progress", f"{image}@{self._today}")
        _console.print(rbd("ls", "-l"), markup=False, highlight=False)

    def configure(self) -> None:
        """One file for both nodes; the backup node reaches the ceph node by ssh."""
        self._config.write_text(
            f"CEPH_HOST: {self._server.host}\n"
            f"SSH_ARGS: {' '.join(self._server.ssh_args)}\n"
            f"CEPH_CONF: {self._cluster.conf}\n"
            f"AGENT_SOCKET: {self._folder}/run/agent.sock\n"
            f"QCOW_TEMP_PATH: {self._folder}/qcow\n"
            f"BACKUP_BASE_PATH: {self._base}\n"
            f"LOG_BASE_PATH: {self._folder}/log\n"
            "MIN_FREESPACE: 100M\n"
            "ALLOW_RESTORE: true\n"
        )

    def start_agent(self, stack: ExitStack) -> None:
        _step("the agent on the ceph node")
        log = self._folder / "agent.log"
        agent = child.start([str(_SCRIPTS / "ceph_rsnapshot_agent"), "-c", str(self._config)], log)
        stack.callback(child.stop, agent)
        child.wait_ready(agent, lambda: "listening on" in log.read_text(), log)
        _console.print(log.read_text().strip(), markup=False, highlight=False)

    def back_up(self, *arguments: str) -> None:
        _step("the nightly run on the backup node")
        self._run(*arguments)

    def _run(self, *arguments: str) -> None:
        command = ["ceph_rsnapshot", "-c", str(self._config), *arguments]
        _console.print(f"$ {' '.join(command)}", markup=False, highlight=False)
        subprocess.run([str(_SCRIPTS / command[0]), *command[1:]], check=True)

    def next_day(self) -> None:
        """A day passes: two disks are written to, the third stays as it is."""
        rbd = self._cluster.rbd
        _step("a day later: 4 MiB written to vm-data, a little to vm-clone, nothing to vm-system")
        rbd("bench", "--io-type", "write", "--io-size", "64K", "--io-total", "4M", "--io-pattern", "seq", "vm-data")
        rbd("bench", "--io-type", "write", "--io-size", "4K", "--io-total", "64K", "--io-pattern", "rand", "vm-clone")
        for image in _IMAGES:
            rbd("snap", "create", "--no-progress", f"{image}@{self._tomorrow}")

    def show_second_day(self) -> None:
        """What the manifests of the new day say: how much changed, how much crossed, how long it took."""
        _step("what the second day was")
        for image in _IMAGES:
            manifest = json.loads((self._base / "rbd" / image / "daily.0" / f"{image}.json").read_text())
            seconds = (_moment(manifest["ended"]) - _moment(manifest["started"])).total_seconds()
            _console.print(
                f"{image}: {manifest['kind']} since {manifest['base']['snapshot']}: {manifest['changed_bytes']:,} of "
                f"{manifest['size']:,} bytes changed, {manifest['transferred_bytes']:,} crossed, {seconds:.1f} s; "
                f"verified: {manifest['verified']}",
                highlight=False,
            )

    def show_tree(self) -> None:
        _step("what is on the backup node now")
        tree = Tree(str(self._base))
        branches = {self._base: tree}
        for path in sorted(self._base.rglob("[!.]*")):
            size = f"  {path.stat().st_blocks // 2:,} KiB on disk" if path.is_file() else ""
            branches[path] = branches[path.parent].add(f"{path.name}{size}")
        _console.print(tree)

    def prove(self) -> None:
        """Compare every qcow2 with what Ceph itself exports, and look for a file in one of them."""
        _step("the proof: each day of each image, qemu-img compare against rbd export")
        for image in _IMAGES:
            self._compare(image, self._tomorrow, "daily.0")
            self._compare(image, self._today, "daily.1")
        qcow = self._base / "rbd" / "vm-system" / "daily.0" / "vm-system.qcow2"
        raw = self._folder / "restored.raw"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(qcow), str(raw)], check=True)
        _console.print(f"/etc/hostname in the restored vm-system: {_file_in(raw, '/etc/hostname')}")
        raw.unlink()

    def look(self) -> None:
        """What an administrator asks: what is there, is it good, and is tonight going to work?"""
        _step("which days there are, and whether they are good")
        self._run("list", "--calendar")
        self._run("list", "rbd/vm-data")
        self._run("verify", "--all", "--source")

    def disaster(self) -> None:
        """An image is deleted with its snapshots, and comes back under its name, with the file in it."""
        _step("a disaster: somebody deletes vm-system and all its snapshots")
        rbd = self._cluster.rbd
        rbd("flatten", "--no-progress", "vm-clone")  # what protects its parent
        rbd("snap", "unprotect", "vm-system@base")
        rbd("snap", "purge", "--no-progress", "vm-system")
        rbd("rm", "--no-progress", "vm-system")
        _console.print(rbd("ls"), markup=False, highlight=False)
        _step("the restore")
        self._run("restore", "rbd/vm-system", "--to", "rbd/vm-system")
        raw = self._folder / "restored.raw"
        rbd("export", "--no-progress", "vm-system", str(raw))
        _console.print(f"/etc/hostname in the restored image: {_file_in(raw, '/etc/hostname')}")
        raw.unlink()

    def _compare(self, image: str, snapshot: str, day: str) -> None:
        raw = self._folder / "export.raw"
        self._cluster.rbd("export", "--no-progress", f"{image}@{snapshot}", str(raw))
        qcow = self._base / "rbd" / image / day / f"{image}.qcow2"
        argv = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(qcow), str(raw)]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        _console.print(f"{image} {day} and {image}@{snapshot}: {said}", highlight=False)
        raw.unlink()

    def _file_system(self, name: str, files: dict[str, str]) -> Path:
        """A raw ext4 file system with ``files`` and a copy of this project's sources in it."""
        content, raw = self._folder / name, self._folder / f"{name}.raw"
        for path, text in files.items():
            (content / path).parent.mkdir(parents=True, exist_ok=True)
            (content / path).write_text(text)
        shutil.copytree(Path(__file__).parents[1] / "agent", content / "srv")
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(content), str(raw), "256M"], check=True)
        return raw


def _file_in(raw: Path, path: str) -> str:
    """The text of a file in an ext4 file system."""
    argv = ["debugfs", "-R", f"cat {path}", str(raw)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _step(text: str) -> None:
    _console.rule(f"[bold]{text}", align="left")


def main() -> None:
    """Run all steps; an error or Ctrl-C stops and removes everything too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o077)
    started = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(child.own_folder(None, "demo-"))
        _step("a Ceph cluster and an sshd of their own, on loopback")
        cluster = stack.enter_context(CephCluster())
        server = stack.enter_context(SshServer())
        _console.print(f"up after {time.monotonic() - started:.1f} s", highlight=False)
        demo = Demo(folder, cluster, server)
        demo.make_images()
        demo.configure()
        demo.start_agent(stack)
        demo.back_up("--transfer-mode", "staged")
        demo.show_tree()
        demo.next_day()
        demo.back_up("--transfer-mode", "direct", "--snap-date", "tomorrow")
        demo.show_second_day()
        demo.prove()
        demo.look()
        demo.disaster()
        _step("stopping everything")
    _console.print(f"done in {time.monotonic() - started:.0f} s; nothing was left behind", highlight=False)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
