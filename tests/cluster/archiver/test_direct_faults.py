"""Direct mode under faults: the older days stay as they were, nothing is left behind, and the next run succeeds."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.faults import children, kill, small_disk
from tests.cluster.site import DAY, Site, contents, stopped, wait_until

EARLIER = "2025-12-31"
SIZE = 80 * MIB


@pytest.fixture(params=["full", "increment"])
def large(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """A transfer that takes seconds, with an earlier backup that must be as before at the end of the test."""
    # nbdkit lets what two seconds are worth pass at once; the rest takes a second and more
    site.configure(TRANSFER_MODE="direct", BANDWIDTH_LIMIT="25M")
    site.pool.create("large", SIZE)
    site.pool.snap("large", EARLIER)
    site.start_agent()
    site.backup("--snap-date", EARLIER)
    if request.param == "full":
        site.pool.unsnap("large", EARLIER)
    site.pool.fill("large", SIZE)
    site.pool.snap("large", DAY)
    before = contents(site.root("large") / "daily.0")
    yield site
    assert contents(site.root("large") / "daily.1") == before
    assert site.same(site.root("large") / "daily.0" / "large.qcow2", "large")
    assert site.days("large") == ["daily.0", "daily.1"]
    assert site.leftovers() == []
    site.stop_agent()
    assert site.temporary_folders() == []
    assert [path.name for path in (site.folder / "run").iterdir() if path.is_dir()] == []


@pytest.fixture
def either_way(request: pytest.FixtureRequest, large: Site, ssh_server: SshServer) -> Site:
    """The full one over ssh, the increment on one machine."""
    if "full" in request.node.callspec.id:
        large.over_ssh(ssh_server)
    return large


def _partial(site: Site) -> Path:
    return site.base / ".incoming" / str(site.pool) / "large" / "large.qcow2.partial"


def _until_copying(site: Site) -> None:
    def written() -> bool:
        try:
            return _partial(site).stat().st_blocks * 512 > 5 * MIB
        except FileNotFoundError:
            return False

    wait_until(written, "the transfer")


def _day_0_is_the_earlier_one(site: Site) -> None:
    assert site.days("large") == ["daily.0"]


def _next_run_succeeds(site: Site) -> None:
    site.configure(BANDWIDTH_LIMIT=None)
    site.backup()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_clean_up(either_way: Site, signum: int, code: int) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        _until_copying(either_way)
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert either_way.leftovers() == []
    _day_0_is_the_earlier_one(either_way)
    _next_run_succeeds(either_way)


def test_controller_killed(either_way: Site) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        _until_copying(either_way)
        assert either_way.agent
        servers = children(either_way.agent, "nbdkit") + children(process, "qemu-nbd")
        assert len(servers) == 2
        process.kill()
    wait_until(lambda: not any(Path("/proc", str(pid), "exe").exists() for pid in servers), "nbdkit and qemu-nbd")
    _day_0_is_the_earlier_one(either_way)
    _next_run_succeeds(either_way)


def test_agent_killed(either_way: Site) -> None:
    with either_way.start("ceph_rsnapshot") as process:
        _until_copying(either_way)
        either_way.kill_agent()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the agent can't be reached" in stderr
    assert either_way.leftovers() == []
    _day_0_is_the_earlier_one(either_way)
    either_way.start_agent()
    _next_run_succeeds(either_way)


def test_ctrl_c_while_the_agent_hangs(large: Site) -> None:
    """Who waits for a prompt is not kept for minutes: what the agent was asked for goes with the connection."""
    with large.start("ceph_rsnapshot") as process:
        _until_copying(large)
        assert large.agent
        with stopped(large.agent):
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=25)
    assert process.returncode == 130, stderr
    wait_until(lambda: not children(large.agent, "nbdkit"), "the end of the export")  # type: ignore[arg-type]
    _day_0_is_the_earlier_one(large)
    _next_run_succeeds(large)


@pytest.mark.parametrize("victim", ["nbdkit", "qemu-nbd"])
def test_server_killed(request: pytest.FixtureRequest, either_way: Site, victim: str) -> None:
    """An increment that can't be written is one whose base may be rotten: a full backup in the same run."""
    instead = victim == "qemu-nbd" and "increment" in request.node.callspec.id
    with either_way.start("ceph_rsnapshot") as process:
        _until_copying(either_way)
        assert either_way.agent
        kill(children(either_way.agent, victim) + children(process, victim))
        stdout, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert either_way.leftovers() == []
    if instead:
        assert process.returncode == 0, stdout + stderr
        assert "full" in stdout
        return
    assert process.returncode == 1, stdout + stderr
    assert "NBD" in stderr
    _day_0_is_the_earlier_one(either_way)
    _next_run_succeeds(either_way)


def test_ssh_killed(large: Site, ssh_server: SshServer) -> None:
    large.over_ssh(ssh_server)
    with large.start("ceph_rsnapshot") as process:
        _until_copying(large)
        kill(children(process, "ssh"))
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (1, 3), stdout + stderr
    assert "Traceback" not in stderr
    _day_0_is_the_earlier_one(large)
    _next_run_succeeds(large)


def test_snapshot_deleted_while_it_is_copied(large: Site) -> None:
    large.pool.snap("large", "2026-01-02")
    with large.start("ceph_rsnapshot", "--snap-date", "2026-01-02") as process:
        _until_copying(large)
        large.pool.unsnap("large", "2026-01-02")
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stdout + stderr
    assert "no longer exists" in stderr
    _day_0_is_the_earlier_one(large)
    _next_run_succeeds(large)


def test_hung_cluster_fails_in_bounded_time(large: Site) -> None:
    large.configure(RADOS_TIMEOUT=2)
    large.stop_agent()
    large.start_agent()
    with large.start("ceph_rsnapshot") as process:
        _until_copying(large)
        with stopped(large.pool.cluster.osd):
            stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (1, 3), stdout + stderr
    assert "timeout" in stderr.lower() or "timed out" in stderr.lower(), stderr
    _day_0_is_the_earlier_one(large)
    large.configure(RADOS_TIMEOUT=30)
    large.stop_agent()
    large.start_agent()
    _next_run_succeeds(large)


@pytest.mark.parametrize("minimum", ["1M", "60M"], ids=["full", "minimum-reached"])
def test_backup_node_fills_up(large: Site, minimum: str) -> None:
    """Once the disk itself ends the transfer, once MIN_FREESPACE does."""
    options, base = dict(large.options), large.folder / "small"
    with small_disk(base, "70M"):
        large.configure(BACKUP_BASE_PATH=str(base), MIN_FREESPACE=minimum, BANDWIDTH_LIMIT=None)
        error = large.backup(code=1)["by_name"]["large"]["error"]
        assert "space" in error["message"].lower()
        assert [path for path in base.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    large.options = options
    large.configure()
    _next_run_succeeds(large)
