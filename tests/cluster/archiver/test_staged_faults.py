"""Kill, hang, fill, lie: the older days stay as they were, nothing is left behind, and the next run succeeds."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.faults import children, kill, small_disk
from tests.cluster.site import DAY, Site, contents, size_of, stopped, wait_until

EARLIER = "2025-12-31"
SIZE = 200 * MIB


@pytest.fixture
def large(site: Site) -> Iterator[Site]:
    """An image that takes a while, with an earlier backup that must be as before at the end of the test."""
    site.pool.create("large", SIZE)
    site.pool.snap("large", EARLIER)
    site.start_agent()
    site.backup("--snap-date", EARLIER)
    site.pool.fill("large", SIZE)
    site.pool.snap("large", DAY)
    before = contents(site.root("large") / "daily.0")
    yield site
    earlier = site.root("large") / "daily.1"
    assert contents(earlier) == before
    assert site.same(site.root("large") / "daily.0" / "large.qcow2", "large")
    assert site.days("large") == ["daily.0", "daily.1"]
    assert site.leftovers() == []
    site.stop_agent()
    assert site.temporary_folders() == []


@pytest.fixture(params=["local", "ssh"])
def either_way(request: pytest.FixtureRequest, large: Site, ssh_server: SshServer) -> Site:
    if request.param == "ssh":
        large.over_ssh(ssh_server)
    return large


def _exporting(site: Site) -> Path:
    return site.temp / str(site.pool) / "large" / "large.qcow2.partial"


def _until_exporting(site: Site) -> None:
    wait_until(lambda: size_of(_exporting(site)) > MIB, "the export")


def _until_syncing(site: Site) -> None:
    sync = site.root("large") / ".sync"
    wait_until(lambda: any(map(size_of, sync.glob(".large.qcow2.*"))), "rsync")


@pytest.mark.on_disk
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", [_until_exporting, _until_syncing])
def test_ctrl_c_and_sigterm_clean_up(either_way: Site, signum: int, code: int, moment: Callable[[Site], None]) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        moment(either_way)
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in stderr
    wait_until(lambda: either_way.leftovers() == [], "clean-up")
    assert either_way.days("large") == ["daily.0"]
    either_way.backup()


def test_controller_killed_in_mid_export(either_way: Site) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        _until_exporting(either_way)
        process.kill()
    assert either_way.days("large") == ["daily.0"]
    # at once: the agent may still be ending the first export
    either_way.backup()


def test_controller_killed_in_mid_sync(either_way: Site) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        _until_syncing(either_way)
        process.kill()
    assert either_way.days("large") == ["daily.0"]
    either_way.backup()


def test_agent_killed_in_mid_export(either_way: Site) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        _until_exporting(either_way)
        assert either_way.agent
        servers = children(either_way.agent, "nbdkit") + children(either_way.agent, "qemu-img")
        assert servers
        either_way.kill_agent()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the agent can't be reached" in stderr
    wait_until(lambda: not any(Path("/proc", str(pid), "exe").exists() for pid in servers), "nbdkit and qemu-img")
    assert either_way.days("large") == ["daily.0"]
    assert _exporting(either_way).exists()
    either_way.start_agent()
    assert not _exporting(either_way).exists(), "the agent sweeps what its killed predecessor left"
    either_way.backup()


def test_agent_restarted_in_mid_export_takes_the_next_image(large: Site) -> None:
    large.pool.create("next")
    large.pool.snap("next", DAY)
    with large.start("ceph_rsnapshot") as process:
        _until_exporting(large)
        with stopped(process):
            large.stop_agent()
            large.start_agent()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stdout + stderr
    assert "next@" in stderr
    assert "1 done, 1 failed" in stdout
    large.backup()


def test_agent_stopped_in_mid_export_leaves_nothing(large: Site) -> None:
    with large.start("ceph_rsnapshot") as process:
        _until_exporting(large)
        large.stop_agent()
        assert list(large.temp.rglob("*.qcow2*")) == []
        process.communicate(timeout=60)
    assert process.returncode == 3
    large.start_agent()
    large.backup()


@pytest.mark.parametrize("victim", ["nbdkit", "qemu-img"])
def test_tool_killed_in_mid_export(large: Site, victim: str) -> None:
    with large.start("ceph_rsnapshot") as process:
        _until_exporting(large)
        assert large.agent
        kill(children(large.agent, victim))
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stdout + stderr
    assert "export of large" in stderr
    assert large.leftovers() == []
    large.backup()


@pytest.mark.parametrize("victim", ["rsync", "rsnapshot", "ssh"])
def test_transfer_killed(large: Site, ssh_server: SshServer, victim: str) -> None:
    large.over_ssh(ssh_server)
    with large.start("ceph_rsnapshot") as process:
        _until_syncing(large)
        kill(children(process, victim))
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (1, 3), stdout + stderr
    assert large.days("large") == ["daily.0"]
    wait_until(lambda: list(large.temp.rglob("*.qcow2*")) == [], "the agent's clean-up")
    large.backup()


def test_snapshot_deleted_in_mid_export(large: Site) -> None:
    """librbd does not tell a reader that its snapshot is gone, and reads on; that must not become a backup."""
    large.pool.snap("large", "2026-01-02")
    with large.start("ceph_rsnapshot", "--snap-date", "2026-01-02") as process:
        _until_exporting(large)
        large.pool.unsnap("large", "2026-01-02")
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stdout + stderr
    assert "no longer exists" in stderr
    assert large.days("large") == ["daily.0"]
    assert large.leftovers() == []
    large.backup()


def test_hung_cluster_fails_in_bounded_time(large: Site) -> None:
    large.configure(RADOS_TIMEOUT=2)
    large.stop_agent()
    large.start_agent()
    with large.start("ceph_rsnapshot") as process:
        _until_exporting(large)
        with stopped(large.pool.cluster.osd):
            stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stdout + stderr
    assert "timed out" in stderr.lower() or "timeout" in stderr.lower(), stderr
    assert large.leftovers() == []
    with stopped(large.pool.cluster.osd):
        done = large.run("ceph_rsnapshot", code=3)
    assert "does not answer" in done.stderr
    assert large.days("large") == ["daily.0"]
    large.backup()


def _fill(path: Path) -> None:
    """Somebody else's file takes all the space that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(MIB)) == MIB:
            pass


def test_ceph_node_fills_up_in_mid_export(large: Site) -> None:
    large.configure(QCOW_TEMP_PATH=str(large.folder / "small"), MIN_FREESPACE="50M")
    large.stop_agent()
    with small_disk(large.folder / "small", "400M"):
        large.start_agent()
        with large.start("ceph_rsnapshot", "--json") as process:
            partial = large.folder / "small" / str(large.pool) / "large" / "large.qcow2.partial"
            wait_until(partial.exists, "the export")
            assert large.agent
            writers = children(large.agent, "qemu-img")
            for pid in writers:
                os.kill(pid, signal.SIGSTOP)
            _fill(large.folder / "small" / "other")
            for pid in writers:
                os.kill(pid, signal.SIGCONT)
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stdout + stderr
        assert "space" in stderr.lower()
        assert list((large.folder / "small").rglob("*.qcow2*")) == []
        (large.folder / "small" / "other").unlink()
        large.backup()
        large.stop_agent()


def test_backup_node_fills_up(large: Site) -> None:
    base = large.folder / "small"
    options = dict(large.options)
    with small_disk(base, "100M"):
        large.configure(BACKUP_BASE_PATH=str(base))
        report = large.backup(code=1)
        assert report["by_name"]["large"]["error"]["code"] == "not-enough-space"
        assert not list(base.rglob("daily.*"))
    large.options = options
    large.configure()
    large.backup()


def test_rsnapshot_that_does_nothing_is_not_believed(large: Site) -> None:
    """-t makes rsnapshot print what it would do, and exit 0."""
    large.configure(EXTRA_ARGS="-t")
    report = large.backup(code=1)
    assert report["by_name"]["large"]["error"]["code"] == "transfer-failed"
    large.configure(EXTRA_ARGS="")
    large.backup()


def test_stale_rsnapshot_lock_of_a_living_pid_does_not_block(large: Site) -> None:
    (large.root("large") / ".rsnapshot.pid").write_text(str(os.getpid()))
    large.backup()
