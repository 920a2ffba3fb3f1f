"""The commands of docs/restore.md run as they stand there; only paths lead into the test's own folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.ceph_cluster import CephCluster
from tests import ROOT, SCRIPTS
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.damage import data_cluster, flip
from tests.cluster.site import Site, contents, same_content, size_of, wait_until

DOCS = ROOT / "docs" / "restore.md"
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
SIZE = 64 * MIB
_SAID = b"BOOTED FROM THE BACKUP"
# what the firmware starts: it writes _SAID to the serial port (lodsb; out dx, al; until a zero) and halts
_BOOT_SECTOR = b"\xfa\x31\xc0\x8e\xd8\xbe\x18\x7c\xba\xf8\x03\xac\x84\xc0\x74\x03\xee\xeb\xf8\xf4\xeb\xfd\0\0" + _SAID


class Documented:
    """A site for a reader of the document, who has backups of three days of rbd/vm-1."""

    def __init__(self, site: Site, cluster: CephCluster) -> None:
        self.site, self.cluster = site, cluster
        self._etc = site.folder / "etc"
        for folder in (self._etc, site.folder / "srv", site.folder / "t"):
            folder.mkdir()
        usual = f"{self._etc}/$cluster.$name.keyring"
        conf = cluster.conf.read_text().replace(f"{cluster.folder}/$name.keyring", usual)
        (self._etc / "ceph.conf").write_text(conf)
        shutil.copy(cluster.folder / "client.admin.keyring", self._etc / "ceph.client.admin.keyring")

    def path(self, name: str) -> Path:
        return Path(self._here(name))

    def commands(self, section: str) -> list[str]:
        """The indented blocks below a heading."""
        text = DOCS.read_text().partition(f"# {section}\n")[2].partition("\n## ")[0]
        blocks = re.findall(r"(?:^    .*\n)+", text + "\n", re.MULTILINE)
        return [self._here(re.sub(r"^    ", "", block, flags=re.MULTILINE)) for block in blocks]

    def run(self, script: str, seconds: float = 120) -> str:
        """Standard output of commands typed into a shell in a folder that has the configuration; mounts go with it."""
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-eux", "-c", script],
            capture_output=True, text=True, check=False, timeout=seconds, cwd=self.site.folder, env=self._env,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, script: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", f"exec {script}"], cwd=self.site.folder, env=self._env)

    @property
    def _env(self) -> dict[str, str]:
        path = f"{SCRIPTS}:/usr/sbin:/sbin:{os.environ['PATH']}"
        places = {"CEPH_CONF": f"{self._etc}/ceph.conf", "TMPDIR": self._here("/tmp/")}
        return {**os.environ, **places, "PATH": path}

    def _here(self, text: str) -> str:
        places = {
            "/backups/ceph_rsnapshot": str(self.site.base),
            "/etc/ceph/": f"{self._etc}/",
            "/srv/": f"{self.site.folder}/srv/",
            "/tmp/": f"{self.site.folder}/t/",
        }
        return re.sub("|".join(places), lambda found: places[found.group()], text)


@pytest.fixture
def documented(cluster: CephCluster, connection: Any, tmp_path: Path) -> Iterator[Documented]:
    pool = TestPool(cluster, connection, "rbd")
    site = Site(pool)
    made = Documented(site, cluster)
    try:
        site.configure(CEPH_CONF=str(made.path("/etc/ceph/ceph.conf")), TRANSFER_MODE="direct")
        site.start_agent()
        pool.create("vm-1", SIZE, seed=95)
        for day in DAYS:
            _write_disk(pool, tmp_path, day)
            pool.snap("vm-1", day)
            site.backup("--snap-date", day)
        yield made
    finally:
        site.close()
        for image in cluster.rbd("ls", "rbd").split():
            pool.remove(image)


def _write_disk(pool: TestPool, folder: Path, day: str) -> None:
    """A disk that boots, and holds an ext4 with a file that tells the day."""
    tree, raw = folder / "tree", folder / "disk.raw"
    (tree / "etc").mkdir(parents=True, exist_ok=True)
    (tree / "etc" / "hostname").write_text(f"vm-1 of {day}\n")
    raw.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(raw), "64M"], check=True)
    content = bytearray(raw.read_bytes())
    content[:512] = _BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa"
    with pool.image("vm-1") as image:
        for at in range(0, SIZE, 4 * MIB):
            image.write(bytes(content[at : at + 4 * MIB]), at)


def _same(documented: Documented, image: str, qcow: Path) -> bool:
    raw = documented.path("/tmp/image.raw")
    raw.unlink(missing_ok=True)
    documented.cluster.rbd("export", "--no-progress", f"rbd/{image}", str(raw))
    return same_content(qcow, raw)


def _day(documented: Documented, number: int) -> Path:
    return documented.site.root("vm-1") / f"daily.{number}" / "vm-1.qcow2"


def test_the_whole_image(documented: Documented) -> None:
    before = contents(documented.site.base)
    (find,) = documented.commands("Getting data back")
    assert all(day in documented.run(find) for day in DAYS)
    user, same_name, beside = documented.commands("A whole image, back into Ceph")
    documented.run(user)
    documented.site.stop_agent()
    documented.site.configure(ALLOW_RESTORE=True, CEPH_RESTORE_USER="restore")
    documented.site.start_agent()
    documented.site.pool.remove("vm-1")
    documented.run(same_name)
    assert _same(documented, "vm-1", _day(documented, 0))
    documented.run(beside)
    assert _same(documented, "vm-1", _day(documented, 2))
    assert _same(documented, "vm-1.before-restore", _day(documented, 0))
    after = contents(documented.site.base)
    assert {name: after[name] for name in before} == before


def test_files(documented: Documented, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBGUESTFS_BACKEND", "direct")
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
    (commands,) = documented.commands("Files")
    said = documented.run(commands, 400)
    assert said.splitlines()[:2] == ["hostname", f"vm-1 of {DAYS[0]}"]
    assert documented.path("/tmp/etc/hostname").read_text() == f"vm-1 of {DAYS[0]}\n"


def test_no_documented_mount_is_open(documented: Documented) -> None:
    text = DOCS.read_text() + (DOCS.parents[1] / "controller" / "ceph_rsnapshot" / "restorer" / "serve.py").read_text()
    options = re.findall(r"mount -o (\S+)|`(ro,\S+offset=)", text)
    assert len(options) >= 2
    assert all(
        {"ro", "nosuid", "nodev", "noexec"} <= set("".join(each).split(",")) or "{closed}" in each[0]
        for each in options
    )


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no FUSE here")
def test_a_single_file(documented: Documented) -> None:
    serve, copy = documented.commands("A single file")
    before = contents(documented.site.base)
    with documented.start(serve) as serving:
        try:
            address = documented.path("/tmp/vm-1.sock")
            wait_until(lambda: address.is_socket() or serving.poll() is not None, "the socket")
            documented.run(copy)
        finally:
            serving.send_signal(signal.SIGINT)
    assert documented.path("/tmp/hostname").read_text() == f"vm-1 of {DAYS[0]}\n"
    assert contents(documented.site.base) == before


def test_boot_it_elsewhere(documented: Documented) -> None:
    before = contents(documented.site.base)
    copied, overlay = documented.commands("Boot it elsewhere")
    restore, boot = copied.splitlines()
    documented.run(restore)
    _boots(documented, boot)
    documented.run(overlay)
    _boots(documented, boot.replace("vm-1.qcow2", "overlay.qcow2"))
    assert contents(documented.site.base) == before


def _boots(documented: Documented, boot: str) -> None:
    """Start the machine; what it says comes over its serial port."""
    said = documented.path("/tmp/serial")
    with documented.start(f"{boot} -display none -serial file:{said}") as machine:
        try:
            wait_until(lambda: size_of(said) >= len(_SAID) or machine.poll() is not None, "the boot", seconds=60)
            assert said.read_bytes() == _SAID, "it ended before"
        finally:
            machine.terminate()
    said.unlink()


def test_the_cluster_is_gone(documented: Documented) -> None:
    documented.site.stop_agent()
    by_restore, by_hand = documented.commands("The cluster is gone")
    raw = documented.path("/srv/vm-1.raw")
    assert DAYS[2] in documented.run(by_restore)
    assert same_content(_day(documented, 0), raw)
    raw.unlink()
    documented.run(by_hand)
    assert same_content(_day(documented, 0), raw)


def test_a_damaged_backup(documented: Documented) -> None:
    qcow = _day(documented, 2)
    flip(qcow, data_cluster(qcow))
    documented.site.stop_agent()
    documented.site.configure(ALLOW_RESTORE=True)
    documented.site.start_agent()
    rescue, salvage = documented.commands("A backup that is damaged")
    assert "DAMAGED" in documented.run(rescue)
    assert _same(documented, "vm-1-rescued", qcow)
    documented.run(salvage)
    assert same_content(qcow, documented.path("/srv/vm-1.raw"))
