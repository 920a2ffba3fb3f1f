"""Direct mode under faults: the older days stay as they were, nothing is left behind, and the next run succeeds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ceph_rsnapshot_agent.nbdkit_plugins
from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.faults import children, instead_of, kill, small_disk
from tests.cluster.site import DAY, Site, contents, stopped, wait_until

EARLIER = "2025-12-31"
SIZE = 80 * MIB
_PLUGIN = Path(ceph_rsnapshot_agent.nbdkit_plugins.__file__).parent


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
    with site.pool.image("large") as image:
        for offset in range(0, SIZE, 4 * MIB):
            image.write(os.urandom(4 * MIB), offset)
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
        return _partial(site).exists() and _partial(site).stat().st_blocks * 512 > 5 * MIB

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


def _plant(folder: Path, code: str) -> dict[str, str]:
    """An environment whose nbdkit runs a copy of the plugin with ``code`` at the end of its diff.py."""
    copy = folder / "faulty"
    shutil.copytree(_PLUGIN, copy)
    with (copy / "diff.py").open("a") as file:
        file.write(code)
    return instead_of(folder, "nbdkit", f'from={_PLUGIN} to={copy}\nexec "$real" "${{@/$from/$to}}"')


_TOO_FEW = """
_ask_all = Diff.__call__
Diff.__call__ = lambda self, offset, length: _ask_all(self, offset, length)[::2]
"""


@pytest.mark.parametrize("kind", ["increment", "full"])
def test_too_few_extents_are_noticed_by_the_sample(site: Site, tmp_path: Path, kind: str) -> None:
    """Every second change is not reported. The sample (here 4 of 64 MiB) finds it; a full backup is made instead."""
    site.configure(TRANSFER_MODE="direct", VERIFY_SAMPLE="4M", VERIFY_FULL_EVERY=0)
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", EARLIER)
    site.start_agent()
    site.backup("--snap-date", EARLIER)
    before = contents(site.root("a") / "daily.0")
    with site.pool.image("a") as image:
        for offset in range(0, 64 * MIB, 128 * 1024):
            image.write(os.urandom(64 * 1024), offset)
    site.pool.snap("a", DAY)
    site.stop_agent()
    site.start_agent(env=_plant(tmp_path, _TOO_FEW))
    # the full one, which is made in the same run, comes from the same lying plugin: so it is not believed either
    report = site.backup(*(["--full"] if kind == "full" else []), code=1)
    assert report["by_name"]["a"]["error"]["code"] == "content-differs"
    assert contents(site.root("a") / "daily.0") == before
    assert site.days("a") == ["daily.0"]
    site.stop_agent()
    site.start_agent()
    assert site.backup()["by_name"]["a"]["kind"] == "increment"
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")
    assert contents(site.root("a") / "daily.1") == before


_TOO_FEW_INCREMENTS = """
_ask_all = Diff.__call__
Diff.__call__ = lambda self, *range: _ask_all(self, *range)[:: 2 if self._base else 1]
"""


def test_a_mismatch_makes_a_full_backup_in_the_same_run(site: Site, tmp_path: Path) -> None:
    site.configure(TRANSFER_MODE="direct", VERIFY_SAMPLE="4M", VERIFY_FULL_EVERY=0)
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", EARLIER)
    site.start_agent(env=_plant(tmp_path, _TOO_FEW_INCREMENTS))
    site.backup("--snap-date", EARLIER)
    with site.pool.image("a") as image:
        for offset in range(0, 64 * MIB, 128 * 1024):
            image.write(os.urandom(64 * 1024), offset)
    site.pool.snap("a", DAY)
    done = site.backup()
    report = done["by_name"]["a"]
    assert (report["result"], report["kind"]) == ("done", "full")
    assert "differs from the snapshot" in report["mismatch"]
    assert "a first attempt differed" in report["full_because"]
    assert "thrown away" in done["stderr"]
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")


def test_verification_off_does_not_notice(site: Site, tmp_path: Path) -> None:
    """The counter-proof: with VERIFY none the same fault gets through, so that it is the check that finds it."""
    site.configure(TRANSFER_MODE="direct", VERIFY="none")
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", DAY)
    site.start_agent(env=_plant(tmp_path, _TOO_FEW))
    site.backup()
    assert not site.same(site.root("a") / "daily.0" / "a.qcow2", "a")


def test_corruption_on_the_way_in_staged_mode(running: Site, tmp_path: Path) -> None:
    """rsync that delivers other bytes than it was given: found between sync and rotation, and nothing rotates."""
    running.pool.create("a", 8 * MIB)
    running.pool.snap("a", DAY)
    script = (
        '"$real" "$@" || exit $?\n'
        'for last; do :; done; f="$last/a.qcow2"; [ -f "$f" ] || exit 0\n'
        'touch -r "$f" "$f.time"; printf x | dd of="$f" bs=1 seek=$((0x50001)) conv=notrunc 2>/dev/null\n'
        'touch -r "$f.time" "$f"; rm "$f.time"'
    )
    error = running.backup(code=1, env=instead_of(tmp_path, "rsync", script))["by_name"]["a"]["error"]
    assert error["code"] == "content-differs"
    assert running.days("a") == []
    running.backup()
    assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a")
    assert (
        subprocess.run(["qemu-img", "check", "-q", running.root("a") / "daily.0" / "a.qcow2"], check=False).returncode
        == 0
    )
