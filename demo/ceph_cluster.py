"""A one-node Ceph cluster on 127.0.0.1: one monitor, one OSD, pools of size 1.

``python -m demo.ceph_cluster`` runs one until Ctrl-C. Everything is in a folder of its own; /etc is neither read nor
changed, and ports are free ones, so that several can run side by side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from demo import child

_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port},v1:127.0.0.1:{port1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/$name.keyring
admin socket = {folder}/$name.$pid.asok
pid file = {folder}/$name.pid
run dir = {folder}
log file = {folder}/$name.log
crash dir = {folder}/crash
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 1
mon max pg per osd = 2000
mon osd min down reporters = 1
[mon]
paxos propose interval = 0.02
paxos min wait = 0.01
mon osd prime pg temp = false
mon data = {folder}/mon
mon cluster log file = {folder}/cluster.log
[osd]
osd data = {folder}/osd
osd objectstore = {objectstore}
osd memory target = 1073741824
bluestore block size = {osd_size}
bluestore fsck on mount = false
# an image can be removed so long after its reader was killed; a client says more often that it lives
osd client watch timeout = 5
memstore device bytes = {osd_size}
[client]
objecter tick interval = 1
rbd default features = 61
"""


class CephCluster:
    """A running cluster, as a context manager; a pool ``rbd`` exists when it is entered.

    Attributes:
        conf: path of its ceph.conf (client.admin's keyring is named in it).
        fsid: the cluster's id.
        mon, osd: the daemons' handles, for tests that stop or kill them.
    """

    def __init__(
        self, folder: Path | None = None, objectstore: str = "bluestore", osd_size: int = 64 * 1024**3
    ) -> None:
        """``osd_size`` in bytes; the file behind it is sparse (memstore: it is memory)."""
        self._wanted = folder
        self._objectstore = objectstore
        self._osd_size = osd_size
        self._stack = ExitStack()
        self._uuid = str(uuid.uuid4())
        self.fsid = str(uuid.uuid4())
        self.mon: subprocess.Popen[bytes]
        self.osd: subprocess.Popen[bytes]

    def __enter__(self) -> CephCluster:
        with ExitStack() as stack:
            self.folder = stack.enter_context(child.own_folder(self._wanted, "ceph-"))
            self.conf = self.folder / "ceph.conf"
            self._start_mon(stack)
            self._start_osd(stack)
            self.create_pool("rbd")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def ceph(self, *arguments: str) -> str:
        """Standard output of ``ceph``; CalledProcessError if it fails."""
        return self._tool("ceph", "-c", str(self.conf), *arguments)

    def rbd(self, *arguments: str) -> str:
        """Standard output of ``rbd``; CalledProcessError if it fails."""
        return self._tool("rbd", "-c", str(self.conf), *arguments)

    def create_pool(self, name: str) -> None:
        """A pool of 8 placement groups for RBD."""
        self.ceph("osd", "pool", "create", name, "8")
        self.ceph("osd", "pool", "application", "enable", name, "rbd")

    def restart_osd(self) -> None:
        """Start the OSD again after it was killed, and wait until it is up."""
        self.osd.wait()
        self.ceph("osd", "down", "0")
        self._run_osd()

    def _start_mon(self, stack: ExitStack) -> None:
        with child.free_ports(2) as (port, port1):
            values = {"fsid": self.fsid, "port": port, "port1": port1, "folder": self.folder}
            text = _CONF.format(**values, objectstore=self._objectstore, osd_size=self._osd_size)
            self.conf.write_text(text)
            address = f"[v2:127.0.0.1:{port},v1:127.0.0.1:{port1}]"
        admin, mon = self.folder / "client.admin.keyring", self.folder / "mon.keyring"
        caps = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
        self._tool("ceph-authtool", "-C", str(admin), "-g", "-n", "client.admin", *caps)
        self._tool("ceph-authtool", "-C", str(mon), "-g", "-n", "mon.", "--cap", "mon", "allow *")
        self._tool("ceph-authtool", str(mon), "--import-keyring", str(admin))
        monmap = str(self.folder / "monmap")
        self._tool("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, monmap)
        common = ["ceph-mon", "-c", str(self.conf), "-i", "a"]
        self._tool(*common, "--mkfs", "--monmap", monmap, "--keyring", str(mon))
        log = self.folder / "mon.out"
        self.mon = child.start([*common, "-f"], log)
        stack.callback(child.stop, self.mon)
        child.wait_ready(self.mon, lambda: child.port_answers(port), log)

    def _start_osd(self, stack: ExitStack) -> None:
        keyring = self.folder / "osd.0.keyring"
        secret = self._tool("ceph-authtool", "--gen-print-key").strip()
        (self.folder / "secret.json").write_text(json.dumps({"cephx_secret": secret}))
        self.ceph("osd", "new", self._uuid, "-i", str(self.folder / "secret.json"))
        self._tool("ceph-authtool", "-C", str(keyring), "-n", "osd.0", "-a", secret)
        (self.folder / "osd").mkdir()
        self._tool("ceph-osd", "-c", str(self.conf), "-i", "0", "--mkfs", "--osd-uuid", self._uuid)
        stack.callback(lambda: child.stop(self.osd))
        self._run_osd()
        self.ceph("osd", "set-require-min-compat-client", "mimic")

    def _run_osd(self) -> None:
        log = self.folder / "osd.out"
        self.osd = child.start(["ceph-osd", "-c", str(self.conf), "-i", "0", "-f"], log)
        child.wait_ready(self.osd, self._osd_is_up, log)

    def _osd_is_up(self) -> bool:
        state: Any = json.loads(self.ceph("osd", "stat", "-f", "json"))
        return bool(state["num_up_osds"] == 1)

    def _tool(self, *argv: str) -> str:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout


def main() -> None:
    """Run a cluster until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with CephCluster() as cluster:
        print(f"Ceph is up after {time.monotonic() - started:.1f} s. In another shell:", flush=True)
        print(f"  export CEPH_CONF={cluster.conf}\n  rbd ls\nCtrl-C ends it and removes everything.", flush=True)
        try:
            cluster.mon.wait()
        except KeyboardInterrupt:
            print("ending", file=sys.stderr)


if __name__ == "__main__":
    os.umask(0o077)
    main()
