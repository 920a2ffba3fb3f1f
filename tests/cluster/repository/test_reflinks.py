"""Bases on file systems with and without reflinks, and on several of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.file_system import mounted
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site

NEXT, THIRD = "2026-01-02", "2026-01-03"


@pytest.fixture(params=["xfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, request.param, 400 * MIB) as at:
        yield at


@pytest.mark.on_disk
def test_with_and_without_reflinks(site: Site, disk: Path) -> None:
    site.pool.create("a", 100 * MIB)
    site.pool.fill("a", 50 * MIB)
    site.pool.snap("a", DAY)
    site.configure(TRANSFER_MODE="direct", BACKUP_BASE_PATH=str(disk), MIN_FREESPACE="10M")
    site.base = disk
    site.start_agent()
    site.backup()
    site.pool.write("a", seed=2, pieces=2)
    site.pool.snap("a", NEXT)
    used = _used(disk)
    report = site.next_day(NEXT)
    assert report["kind"] == "increment"
    grown = _used(disk) - used
    assert grown < 8 * MIB if disk.name == "xfs" else grown > 50 * MIB
    site.pool.snap("a", THIRD)
    used = _used(disk)
    assert site.next_day(THIRD)["kind"] == "unchanged"
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
            assert based.next_day(NEXT)["kind"] == "increment"
            assert based.next_day("2026-01-04")["kind"] == "unchanged"
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
        assert based.next_day(NEXT)["kind"] == "increment"
        assert based.next_day("2026-01-04")["kind"] == "unchanged"
        assert list((disk / "incoming").iterdir()) == []
        incoming.unlink()
