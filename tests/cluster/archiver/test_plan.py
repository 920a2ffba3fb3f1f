"""What is no base for an increment gets a full backup that says why; older days are as before."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ceph_rsnapshot_common.protocol.manifest import sealed
from demo.file_system import mounted
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.damage import data_cluster, flip, l2_table
from tests.cluster.faults import instead_of
from tests.cluster.site import DAY, Site, contents, wait_until

NEXT, THIRD = "2026-01-02", "2026-01-03"


@pytest.fixture
def based(site: Site) -> Iterator[Site]:
    """A direct backup of a 16 MiB image; at the end its files must be as the test left them, and a next day succeed."""
    site.pool.create("a", 16 * MIB)
    site.pool.snap("a", DAY)
    site.configure(TRANSFER_MODE="direct")
    site.start_agent()
    site.backup()
    yield site
    site.pool.write("a", seed=9)
    site.pool.snap("a", THIRD)
    assert _back_up(site, THIRD)["kind"] == "increment"
    assert site.leftovers() == []


def _back_up(site: Site, day: str, *arguments: str) -> dict[str, Any]:
    """A back-up of ``day``, identical to Ceph's; day 0 becomes day 1 with not a byte changed."""
    before = contents(site.root("a") / "daily.0")
    report: dict[str, Any] = site.backup("--snap-date", day, *arguments)["by_name"]["a"]
    assert report["result"] == "done"
    assert contents(site.root("a") / "daily.1") == before
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a", day)
    manifest = json.loads((site.root("a") / "daily.0" / "a.json").read_text())
    assert (manifest["kind"], manifest["full_because"]) == (report["kind"], report["full_because"])
    return report


def _delete_base(pool: TestPool) -> None:
    pool.unsnap("a", DAY)


def _delete_and_remake_base(pool: TestPool) -> None:
    pool.unsnap("a", DAY)
    pool.write("a", seed=3)
    pool.snap("a", DAY)


def _resize(size: int) -> Callable[[TestPool], None]:
    def resize(pool: TestPool) -> None:
        with pool.image("a") as image:
            image.resize(size)

    return resize


def _remake(pool: TestPool) -> None:
    pool.remove("a")
    pool.create("a", 16 * MIB, seed=4)


@pytest.mark.parametrize(
    ("happens", "because"),
    [
        (_delete_base, "no longer exists"),
        (_delete_and_remake_base, "no longer exists"),
        (_resize(20 * MIB), "size changed"),
        (_resize(9 * MIB), "size changed"),
        (_remake, "re-created"),
    ],
    ids=["deleted", "deleted-and-remade", "grown", "shrunk", "remade"],
)
def test_what_happened_in_ceph(based: Site, happens: Callable[[TestPool], None], because: str) -> None:
    happens(based.pool)
    based.pool.write("a", seed=2)
    based.pool.snap("a", NEXT)
    report = _back_up(based, NEXT)
    assert (report["kind"], report["mismatch"]) == ("full", None)
    assert because in report["full_because"]


def _missing(manifest: Path) -> None:
    manifest.unlink()


def _truncated(manifest: Path) -> None:
    os.truncate(manifest, manifest.stat().st_size // 2)


def _edited(**values: Any) -> Callable[[Path], None]:
    def edit(manifest: Path) -> None:
        found = json.loads(manifest.read_text())
        del found["checksum"]
        manifest.write_text(sealed(json.dumps({**found, **values})))

    return edit


@pytest.mark.parametrize(
    ("damage", "because"),
    [
        (_missing, "has no manifest"),
        (_truncated, "can't be read"),
        (_edited(manifest_version=3), "can't be read"),
        (_edited(image_id="abc"), "re-created"),
        (_edited(fsid="x"), "another cluster"),
        (_edited(snapshot_id=99999), "no older snapshot"),
    ],
    ids=["missing", "truncated", "newer", "of-another-image", "of-another-cluster", "of-a-later-snapshot"],
)
def test_manifest(based: Site, damage: Callable[[Path], None], because: str) -> None:
    damage(based.root("a") / "daily.0" / "a.json")
    based.pool.write("a", seed=2)
    based.pool.snap("a", NEXT)
    report = _back_up(based, NEXT)
    assert report["kind"] == "full"
    assert because in report["full_because"]


def test_full_on_request(based: Site) -> None:
    based.pool.snap("a", NEXT)
    report = _back_up(based, NEXT, "--full")
    assert (report["kind"], report["full_because"]) == ("full", "--full was given")


def test_base_without_its_qcow2(based: Site) -> None:
    (based.root("a") / "daily.0" / "a.qcow2").unlink()
    based.pool.write("a", seed=2)
    based.pool.snap("a", NEXT)
    assert "has no qcow2" in _back_up(based, NEXT)["full_because"]


@pytest.mark.parametrize("changed", [True, False], ids=["increment", "unchanged"])
@pytest.mark.parametrize(
    ("where", "keep_time", "because", "mismatch"),
    [
        (data_cluster, False, "not as it was made", False),
        (data_cluster, True, "differed from the snapshot", True),
        (l2_table, True, "failed its check", False),
    ],
    ids=["data-written", "data-rotten", "l2-rotten"],
)
def test_base_with_a_flipped_bit(
    based: Site, changed: bool, where: Callable[[Path], int], keep_time: bool, because: str, mismatch: bool
) -> None:
    qcow = based.root("a") / "daily.0" / "a.qcow2"
    flip(qcow, where(qcow), keep_time)
    if changed:
        based.pool.write("a", seed=2)
    based.pool.snap("a", NEXT)
    report = _back_up(based, NEXT)
    assert report["kind"] == "full"
    assert because in report["full_because"]
    assert bool(report["mismatch"]) == mismatch


def test_base_deleted_while_its_changes_are_copied(based: Site) -> None:
    """The extents may then be wrong: a full backup in the same run."""
    with based.pool.image("a") as image:
        image.write(os.urandom(12 * MIB), 0)
    based.pool.snap("a", NEXT)
    before = contents(based.root("a") / "daily.0")
    with based.start("ceph_rsnapshot", "--json", "--snap-date", NEXT, "--bandwidth-limit", "4M") as process:
        partial = based.base / ".incoming" / str(based.pool) / "a" / "a.qcow2.partial"
        wait_until(partial.exists, "the transfer")
        based.pool.unsnap("a", DAY)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    report = json.loads(stdout)["images"][0]
    assert report["kind"] == "full"
    assert "no longer exists" in report["full_because"]
    assert contents(based.root("a") / "daily.1") == before
    assert based.same(based.root("a") / "daily.0" / "a.qcow2", "a", NEXT)


def test_base_deleted_before_its_changes_are_served(based: Site) -> None:
    """After the agent has found the first change, and before nbdkit looks for the base."""
    remove = f"rbd -c {based.pool.cluster.conf} snap rm --no-progress {based.pool}/a@{DAY}"
    based.stop_agent()
    based.start_agent(env=instead_of(based.folder, "nbdkit", f'{remove} 2>/dev/null\nexec "$real" "$@"'))
    based.pool.write("a", seed=2)
    based.pool.snap("a", NEXT)
    report = _back_up(based, NEXT)
    assert report["kind"] == "full"
    assert "no longer exists" in report["full_because"]


@pytest.fixture(params=["xfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, request.param, 400 * MIB) as at:
        yield at


def test_with_and_without_reflinks(site: Site, disk: Path) -> None:
    site.pool.create("a", 100 * MIB)
    with site.pool.image("a") as image:
        image.write(os.urandom(50 * MIB), 0)
    site.pool.snap("a", DAY)
    site.configure(TRANSFER_MODE="direct", BACKUP_BASE_PATH=str(disk), MIN_FREESPACE="10M")
    site.base = disk
    site.start_agent()
    site.backup()
    site.pool.write("a", seed=2, pieces=2)
    site.pool.snap("a", NEXT)
    used = _used(disk)
    report = _back_up(site, NEXT)
    assert report["kind"] == "increment"
    grown = _used(disk) - used
    assert grown < 8 * MIB if disk.name == "xfs" else grown > 50 * MIB
    site.pool.snap("a", THIRD)
    used = _used(disk)
    assert _back_up(site, THIRD)["kind"] == "unchanged"
    assert _used(disk) - used < MIB


def _used(path: Path) -> int:
    subprocess.run(["sync", "-f", str(path)], check=True)
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_pool_on_another_file_system_than_the_base(based: Site, tmp_path: Path) -> None:
    """Nothing can be linked or cloned across: it is copied."""
    with mounted(tmp_path, "ext4", 200 * MIB) as disk:
        old = based.base / str(based.pool)
        subprocess.run(["cp", "-a", f"{old}/.", str(disk)], check=True)
        subprocess.run(["mount", "--bind", str(disk), str(old)], check=True)
        try:
            based.pool.write("a", seed=2)
            for name in (NEXT, "2026-01-04"):
                based.pool.snap("a", name)
            assert _back_up(based, NEXT)["kind"] == "increment"
            assert _back_up(based, "2026-01-04")["kind"] == "unchanged"
            root = based.root("a")
            assert (root / "daily.0" / "a.qcow2").samefile(root / "daily.1" / "a.qcow2")
        finally:
            subprocess.run(["umount", str(old)], check=True)


def test_incoming_on_another_disk(based: Site, tmp_path: Path) -> None:
    """A link in its place: what is ready there is copied, and the link stays."""
    incoming = based.base / ".incoming"
    with mounted(tmp_path, "ext4", 200 * MIB) as disk:
        incoming.symlink_to(disk / "incoming")
        (disk / "incoming").mkdir()
        based.pool.write("a", seed=2)
        for name in (NEXT, "2026-01-04"):
            based.pool.snap("a", name)
        assert _back_up(based, NEXT)["kind"] == "increment"
        assert _back_up(based, "2026-01-04")["kind"] == "unchanged"
        assert list((disk / "incoming").iterdir()) == []
        incoming.unlink()
