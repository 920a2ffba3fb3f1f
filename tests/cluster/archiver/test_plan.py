"""What is no base for an increment gets a full backup that says why; older days are as before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from ceph_rsnapshot_common.protocol.manifest import sealed
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.damage import data_cluster, flip, l2_table
from tests.cluster.faults import instead_of
from tests.cluster.site import DAY, Site, contents, wait_until

NEXT, THIRD = "2026-01-02", "2026-01-03"


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
    report = based.next_day(NEXT)
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
    report = based.next_day(NEXT)
    assert report["kind"] == "full"
    assert because in report["full_because"]


def test_full_on_request(based: Site) -> None:
    based.pool.snap("a", NEXT)
    report = based.next_day(NEXT, "--full")
    assert (report["kind"], report["full_because"]) == ("full", "--full was given")


def test_base_without_its_qcow2(based: Site) -> None:
    (based.root("a") / "daily.0" / "a.qcow2").unlink()
    based.pool.write("a", seed=2)
    based.pool.snap("a", NEXT)
    assert "has no qcow2" in based.next_day(NEXT)["full_because"]


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
    report = based.next_day(NEXT)
    assert report["kind"] == "full"
    assert because in report["full_because"]
    assert bool(report["mismatch"]) == mismatch


def test_base_deleted_while_its_changes_are_copied(based: Site) -> None:
    """The extents may then be wrong: a full backup in the same run."""
    based.pool.fill("a", 12 * MIB)
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
    report = based.next_day(NEXT)
    assert report["kind"] == "full"
    assert "no longer exists" in report["full_because"]
