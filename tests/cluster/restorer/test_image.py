"""`ceph_rsnapshot restore`: every kind of image comes back identical; nothing is overwritten or left half-made."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import rbd

from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer
from tests.cluster import ceph
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.faults import children, instead_of, kill
from tests.cluster.kinds import KINDS
from tests.cluster.site import DAY, Site, contents, stopped, wait_until
from tests.cluster.verifier.test_verifier import damage_data


@pytest.fixture
def allowed(site: Site) -> Site:
    """A site whose agent may create images."""
    site.configure(ALLOW_RESTORE=True)
    site.start_agent()
    return site


@pytest.fixture
def backed_up(allowed: Site) -> Site:
    """With a backup of image ``a``."""
    allowed.pool.create("a", 64 * MIB, seed=80)
    allowed.pool.write("a", seed=81, pieces=30)
    allowed.pool.snap("a", DAY)
    allowed.backup("--transfer-mode", "direct")
    return allowed


def _names(pool: TestPool) -> list[str]:
    with pool.ioctx() as ioctx:
        return sorted(rbd.RBD().list(ioctx))


def _notes(site: Site) -> list[Path]:
    return list((site.folder / "restores").glob("*"))


def _same(pool: TestPool, image: str, raw: Path, again: Path) -> bool:
    """Whether the image's content now is that of ``raw``, byte for byte."""
    again.unlink(missing_ok=True)
    place = ["--namespace", pool.namespace] if pool.namespace else []
    pool.cluster.rbd("export", "--no-progress", "--pool", pool.name, *place, "--image", image, str(again))
    return subprocess.run(["cmp", "--quiet", str(raw), str(again)], check=False).returncode == 0


@pytest.mark.parametrize("way", ["local", "ssh"])
def test_every_kind_is_destroyed_and_comes_back(
    allowed: Site, new_pool: Callable[[], TestPool], ssh_server: SshServer, way: str
) -> None:
    places = {kind.name: kind.make(allowed.pool, new_pool) for kind in KINDS}
    allowed.configure(POOL=f"{allowed.pool},{allowed.pool}/tenant", IMAGE_RE=f"({'|'.join(places)})$")
    if way == "ssh":
        allowed.over_ssh(ssh_server)
    allowed.backup("--transfer-mode", "direct")
    before = contents(allowed.base)
    wrong = []
    for name, pool in places.items():
        raw = pool.export(name, DAY, allowed.folder / "original.raw")
        layout = _layout(pool, name)
        pool.remove(name)
        done = allowed.run("ceph_rsnapshot", "restore", "--json", f"{pool}/{name}", "--to", f"{pool}/{name}")
        assert json.loads(done.stdout)["target"] == f"{pool}/{name}"
        if not _same(pool, name, raw, allowed.folder / "restored.raw") or _layout(pool, name) != layout:
            wrong.append((name, layout, _layout(pool, name)))
    assert wrong == []
    assert contents(allowed.base) == before
    assert allowed.temporary_folders() == []
    assert _notes(allowed) == []


def _layout(pool: TestPool, name: str) -> tuple[object, ...]:
    data_pool_and_more = rbd.RBD_FEATURE_DATA_POOL | rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_STRIPINGV2
    with pool.image(name) as image:
        features = image.features() & data_pool_and_more
        return features, image.stat()["obj_size"], image.stripe_unit(), image.stripe_count(), image.data_pool_id()


def test_zeros_are_not_written(backed_up: Site) -> None:
    backed_up.pool.create("sparse", 3000 * MIB, seed=86)
    backed_up.pool.snap("sparse", DAY)
    backed_up.backup("--image-re", "sparse")
    done = backed_up.run("ceph_rsnapshot", "restore", "--json", "sparse", "--to", f"{backed_up.pool}/b")
    assert json.loads(done.stdout)["written"] < 10 * MIB
    with backed_up.pool.image("b") as image:
        extents: list[int] = []
        image.diff_iterate(0, image.size(), None, lambda _at, length, exists: extents.append(length * exists))
    assert 0 < sum(extents) < 20 * MIB


def test_any_day_by_folder_or_snapshot(backed_up: Site) -> None:
    older = backed_up.pool.export("a", DAY, backed_up.folder / "older.raw")
    backed_up.pool.write("a", seed=82)
    backed_up.pool.snap("a", "2026-01-02")
    backed_up.backup("--snap-date", "2026-01-02", "--transfer-mode", "direct")
    for number, which in enumerate((f"{backed_up.pool}/a@{DAY}", "a@daily.1")):
        done = backed_up.run("ceph_rsnapshot", "restore", which, "--to", f"{backed_up.pool}/b{number}")
        assert f"rbd rename {backed_up.pool}/b{number} {backed_up.pool}/a" in done.stdout
        assert _same(backed_up.pool, f"b{number}", older, backed_up.folder / "again.raw")
    done = backed_up.run("ceph_rsnapshot", "restore", "a@daily.5", "--to", f"{backed_up.pool}/c", code=1)
    assert "did you mean daily.0 or daily.1" in done.stderr.replace("daily.1 or daily.0", "daily.0 or daily.1")


def test_the_next_backup_of_a_restored_image_is_a_full_one(backed_up: Site) -> None:
    backed_up.pool.remove("a")
    backed_up.run("ceph_rsnapshot", "restore", "a", "--to", f"{backed_up.pool}/a")
    backed_up.pool.snap("a", "2026-01-02")
    report = backed_up.backup("--snap-date", "2026-01-02", "--transfer-mode", "direct")["by_name"]["a"]
    assert (report["kind"], "re-created" in report["full_because"]) == ("full", True)
    assert backed_up.same(backed_up.root("a") / "daily.0" / "a.qcow2", "a", "2026-01-02")


def test_nothing_is_overwritten_and_bad_targets_are_refused(backed_up: Site) -> None:
    pool = backed_up.pool
    with pool.image("a") as image:
        before = image.read(0, image.size())
    cases = [
        ("a", f"{pool}/a", 1, "exists already"),
        ("a", "nowhere/a", 1, "pool nowhere does not exist"),
        ("a", f"{pool}/nospace/a", 1, "does not exist"),
        ("b", f"{pool}/b", 1, "there is no backup of b"),
        ("a", "a", 2, "is not POOL[/NAMESPACE]/NAME"),
    ]
    for which, to, code, said in cases:
        assert said in backed_up.run("ceph_rsnapshot", "restore", which, "--to", to, code=code).stderr
    done = backed_up.run("ceph_rsnapshot", "restore", "a", "--to", f"{pool}/b", "--data-pool", "nowhere", code=1)
    assert "nowhere (the data pool" in done.stderr
    assert _names(pool) == ["a"]
    with pool.image("a") as image:
        assert image.read(0, image.size()) == before
    assert _notes(backed_up) == []


def test_not_allowed(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    done = running.run("ceph_rsnapshot", "restore", "a", "--to", f"{running.pool}/b", code=1)
    assert "ALLOW_RESTORE: true" in done.stderr
    assert _names(running.pool) == ["a"]


def test_the_right_to_write_is_that_of_the_user_for_restores(site: Site, cluster: CephCluster) -> None:
    def user(name: str, caps: str) -> None:
        keyring = cluster.folder / f"client.{name}.keyring"
        words = ["mon", f"profile {caps}", "osd", f"profile {caps}"]
        keyring.write_text(cluster.ceph("auth", "get-or-create", f"client.{name}", *words))

    user("reader", "rbd-read-only")
    user("restorer", "rbd")
    site.configure(CEPH_USER="reader", ALLOW_RESTORE=True)
    site.start_agent()
    site.pool.create("a", 4 * MIB)
    site.pool.snap("a", DAY)
    site.backup()
    done = site.run("ceph_rsnapshot", "restore", "a", "--to", f"{site.pool}/b", code=1)
    assert "could not be created" in done.stderr
    site.stop_agent()
    site.configure(CEPH_RESTORE_USER="restorer")
    site.start_agent()
    site.run("ceph_rsnapshot", "restore", "a", "--to", f"{site.pool}/b")
    raw = site.pool.export("a", DAY, site.folder / "a.raw")
    assert _same(site.pool, "b", raw, site.folder / "b.raw")
    assert _names(site.pool) == ["a", "b"]


def _start(site: Site) -> subprocess.Popen[str]:
    """A restore that is under way."""
    process = site.start("ceph_rsnapshot", "restore", f"{site.pool}/big", "--to", f"{site.pool}/new")
    wait_until(lambda: any("new.restoring-" in name for name in _names(site.pool)), "the image of the restore")
    return process


@pytest.fixture
def big(allowed: Site) -> Iterator[Site]:
    """A backup that takes a while to restore."""
    allowed.pool.create("big", 512 * MIB, seed=83)
    with allowed.pool.image("big") as image:
        for at in range(0, 400 * MIB, 4 * MIB):
            image.write(os.urandom(MIB) * 4, at)
    allowed.pool.snap("big", DAY)
    allowed.backup("--transfer-mode", "direct", "--verify", "none")
    yield allowed
    assert contents(allowed.base)


def _ended_without_a_trace(site: Site, process: subprocess.Popen[str], code: int) -> str:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    wait_until(lambda: _names(site.pool) == ["big"], "the end of the unfinished image", 120)
    wait_until(lambda: _notes(site) == [], "the end of its note")
    return stderr


def test_ctrl_c(big: Site) -> None:
    process = _start(big)
    process.terminate()
    _ended_without_a_trace(big, process, 143)
    assert big.temporary_folders() == []


def test_the_controller_is_killed(big: Site) -> None:
    process = _start(big)
    process.kill()
    _ended_without_a_trace(big, process, -9)


def _nbdkit(site: Site) -> int:
    assert site.agent
    found = subprocess.run(
        ["pgrep", "-P", str(site.agent.pid), "nbdkit"], check=False, capture_output=True, text=True
    ).stdout.split()
    return int(found[0]) if found else 0


def _has_read(pid: int, amount: int) -> bool:
    if not pid:
        return False
    words = Path(f"/proc/{pid}/io").read_text().split()
    return int(words[words.index("rchar:") + 1]) > amount


def test_nbdkit_is_killed(big: Site) -> None:
    process = _start(big)
    wait_until(lambda: _has_read(_nbdkit(big), 20 * MIB), "a restore half-way")
    os.kill(_nbdkit(big), 9)
    stderr = _ended_without_a_trace(big, process, 1)
    assert "failed" in stderr
    big.run("ceph_rsnapshot", "restore", "big", "--to", f"{big.pool}/new")
    raw = big.pool.export("big", DAY, big.folder / "big.raw")
    assert _same(big.pool, "new", raw, big.folder / "new.raw")


def test_the_agent_is_killed_and_its_next_start_cleans_up(big: Site) -> None:
    process = _start(big)
    big.kill_agent()
    process.communicate(timeout=120)
    assert process.returncode == 3
    assert len(_names(big.pool)) == 2
    big.start_agent()
    wait_until(lambda: _names(big.pool) == ["big"], "the end of the unfinished image", 120)
    wait_until(lambda: _notes(big) == [], "the end of its note")


def test_ssh_is_killed(big: Site, ssh_server: SshServer) -> None:
    big.over_ssh(ssh_server)
    process = _start(big)
    kill(children(process, "ssh"))
    assert "can't be reached" in _ended_without_a_trace(big, process, 3)


def test_a_name_that_is_taken_meanwhile_is_left_alone(big: Site) -> None:
    process = _start(big)
    with stopped(process):
        big.pool.create("new", MIB, seed=84)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, "exists already" in stderr) == (1, True), stderr
    wait_until(lambda: _names(big.pool) == ["big", "new"], "the end of the unfinished image", 60)
    with big.pool.image("new") as image:
        assert image.size() == MIB


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_full_pool(big: Site, connection: Any, when: str) -> None:
    """Ceph calls itself full: an error at once, and the image goes though it is full."""
    big.stop_agent()
    big.configure(RADOS_TIMEOUT=10)
    big.start_agent()
    process = _start(big) if when == "meanwhile" else None
    try:
        if process:
            process.send_signal(signal.SIGSTOP)
        _set_full_ratios(connection, 0.00001, 0.00001, 0.00001)
        wait_until(lambda: "full" in _osd_state(connection), "a full OSD", 60)
        if process:
            process.send_signal(signal.SIGCONT)
        process = process or big.start("ceph_rsnapshot", "restore", "big", "--to", f"{big.pool}/new")
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr
        assert "insufficient space" in stderr or "No space left" in stderr
        assert "Traceback" not in stderr
        assert "new" not in _names(big.pool)
    finally:
        _set_full_ratios(connection, 0.85, 0.90, 0.95)
        wait_until(lambda: "full" not in _osd_state(connection), "the end of being full", 60)
    # a full Ceph may refuse even to delete: then the next restore does
    big.run("ceph_rsnapshot", "restore", "big", "--to", f"{big.pool}/new")
    wait_until(lambda: _names(big.pool) == ["big", "new"], "the end of the unfinished image", 60)
    wait_until(lambda: _notes(big) == [], "the end of its note")


def _set_full_ratios(connection: Any, nearfull: float, backfillfull: float, full: float) -> None:
    """An OSD takes none of them for lower than the one before."""
    for name, ratio in {"nearfull": nearfull, "backfillfull": backfillfull, "full": full}.items():
        ceph.command(connection, prefix=f"osd set-{name}-ratio", ratio=ratio)


def _osd_state(connection: Any) -> list[str]:
    states: list[str] = json.loads(ceph.command(connection, prefix="osd dump", format="json"))["osds"][0]["state"]
    return states


def test_two_restores_at_once(backed_up: Site) -> None:
    started = [
        backed_up.start("ceph_rsnapshot", "restore", "a", "--to", f"{backed_up.pool}/b{number}") for number in range(3)
    ]
    for process in started:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    raw = backed_up.pool.export("a", DAY, backed_up.folder / "a.raw")
    assert all(_same(backed_up.pool, f"b{number}", raw, backed_up.folder / "b.raw") for number in range(3))


def test_a_rotten_backup_is_restored_only_if_that_is_wanted(backed_up: Site) -> None:
    damage_data(backed_up.root("a") / "daily.0")
    done = backed_up.run("ceph_rsnapshot", "restore", "a", "--to", f"{backed_up.pool}/b", code=1)
    assert "not what was backed up" in done.stderr
    assert _names(backed_up.pool) == ["a"]
    target = backed_up.folder / "a.raw"
    done = backed_up.run("ceph_rsnapshot", "restore", "a", "--to-file", str(target), code=1)
    assert "not what was backed up" in done.stderr
    assert not target.exists()
    backed_up.run("ceph_rsnapshot", "verify", "a", code=1)
    done = backed_up.run("ceph_rsnapshot", "restore", "a", "--to", f"{backed_up.pool}/b", code=1)
    assert "its verification failed" in done.stderr
    done = backed_up.run("ceph_rsnapshot", "restore", "a", "--to", f"{backed_up.pool}/b", "--accept-damage")
    assert "DAMAGED: content: 1 blocks" in done.stdout
    assert _names(backed_up.pool) == ["a", "b"]


@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_to_a_file_without_the_cluster(backed_up: Site, file_format: str) -> None:
    odd = 9 * MIB + 513
    backed_up.pool.create("odd", odd, seed=85)
    backed_up.pool.snap("odd", DAY)
    backed_up.backup()
    raw = backed_up.pool.export("odd", DAY, backed_up.folder / "original.raw")
    backed_up.stop_agent()
    target = backed_up.folder / "out" / "odd.img"
    target.parent.mkdir()
    arguments = ["restore", "odd", "--to-file", str(target), "--format", file_format]
    backed_up.run("ceph_rsnapshot", *arguments)
    compare = ["qemu-img", "compare", "-f", file_format, "-F", "raw", str(target), str(raw)]
    assert subprocess.run(compare, check=False).returncode == 0
    if file_format == "raw":
        assert target.read_bytes() == raw.read_bytes()
    assert list(target.parent.iterdir()) == [target]
    before = target.read_bytes()
    assert "exists already" in backed_up.run("ceph_rsnapshot", *arguments, code=1).stderr
    assert target.read_bytes() == before


def test_a_file_is_private_and_may_have_any_name(backed_up: Site) -> None:
    done = backed_up.run("ceph_rsnapshot", "restore", "--json", "a", "--to-file", "nbd:a 1.raw", "--format", "raw")
    target = Path(json.loads(done.stdout)["target"])
    assert target == backed_up.folder / "nbd:a 1.raw"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.read_bytes() == backed_up.pool.export("a", DAY, backed_up.folder / "a.raw").read_bytes()


def test_to_a_file_system_without_hard_links(backed_up: Site, tmp_path: Path) -> None:
    """FAT, say; and a file that is there already is not overwritten there either."""
    refuse = "def link(*_names, **_how):\n    raise PermissionError(1, 'Operation not permitted')\n"
    (tmp_path / "sitecustomize.py").write_text(f"import os\n{refuse}os.link = link\n")
    target, env = backed_up.folder / "a.raw", {"PYTHONPATH": str(tmp_path)}
    arguments = ["restore", "a", "--to-file", str(target), "--format", "raw"]
    backed_up.run("ceph_rsnapshot", *arguments, env=env)
    assert target.read_bytes() == backed_up.pool.export("a", DAY, backed_up.folder / "export.raw").read_bytes()
    target.write_bytes(b"precious")
    backed_up.run("ceph_rsnapshot", *arguments, env=env, code=1)
    assert target.read_bytes() == b"precious"
    assert not list(backed_up.folder.glob("*.partial"))


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGKILL])
def test_a_file_whose_restore_ended_early_leaves_nothing_for_long(big: Site, signum: int) -> None:
    """The terminal that closes; and what a killed one leaves goes with the next."""
    target, done = big.folder / "out" / "big.raw", big.folder / "converted"
    target.parent.mkdir()
    # a qemu-img that does not come to its end: the real one may be done before the signal is sent
    hanging = instead_of(big.folder, "qemu-img", f'"$real" "$@"\ntouch {done}\nexec sleep 1000')
    arguments = ["restore", "big", "--to-file", str(target), "--format", "raw"]
    process = big.start("ceph_rsnapshot", *arguments, env=hanging)
    wait_until(done.exists, "a partial file")
    (partial,) = target.parent.iterdir()
    assert partial.stat().st_mode & 0o777 == 0o600
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == (129 if signum == signal.SIGHUP else -9)
    assert list(target.parent.iterdir()) == ([] if signum == signal.SIGHUP else [partial])
    big.run("ceph_rsnapshot", *arguments)
    assert list(target.parent.iterdir()) == [target]


def test_an_unfinished_image_is_not_backed_up_and_goes_with_its_snapshots(big: Site) -> None:
    """Whatever makes the snapshots of the night meets it too."""
    process = _start(big)
    with stopped(process):
        (unfinished,) = [name for name in _names(big.pool) if name != "big"]
        big.pool.snap(unfinished, DAY)
        report = big.backup()
        assert [image["image"] for image in report["images"]] == ["big"]
    process.terminate()
    _ended_without_a_trace(big, process, 143)
    assert not (big.base / str(big.pool) / unfinished).exists()


def test_digests_that_must_be_read_first_cost_no_loan(big: Site, tmp_path: Path) -> None:
    """With --accept-damage the whole backup is read: the image is not made, nor its export lent, before that."""
    big.stop_agent()
    big.configure(EXPORT_LEASE=1)
    big.start_agent()
    slowly = instead_of(tmp_path, "qemu-nbd", 'sleep 2; exec "$real" "$@"')
    big.run("ceph_rsnapshot", "restore", "big", "--to", f"{big.pool}/new", "--accept-damage", env=slowly)
    raw = big.pool.export("big", DAY, big.folder / "big.raw")
    assert _same(big.pool, "new", raw, big.folder / "new.raw")


def test_a_file_system_comes_back_file_by_file(backed_up: Site) -> None:
    """ext4 with many files: each has its content and its mode in the restored image."""
    tree, raw = backed_up.folder / "tree", backed_up.folder / "fs.raw"
    randomly = random.Random(87)
    for number in range(200):
        path = tree / f"d{number % 7}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(randomly.randbytes(randomly.choice([0, 100, 5000, 200_000])))
        path.chmod(randomly.choice([0o600, 0o644, 0o755]))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(raw), "64M"], check=True)
    backed_up.pool.cluster.rbd("import", "--no-progress", "--dest-pool", backed_up.pool.name, str(raw), "fs")
    backed_up.pool.snap("fs", DAY)
    backed_up.backup("--image-re", "fs", "--transfer-mode", "direct")
    backed_up.pool.remove("fs")
    backed_up.run("ceph_rsnapshot", "restore", "fs", "--to", f"{backed_up.pool}/fs")
    again, out = backed_up.folder / "again.raw", backed_up.folder / "out"
    backed_up.pool.cluster.rbd("export", "--no-progress", "--pool", backed_up.pool.name, "--image", "fs", str(again))
    subprocess.run(["e2fsck", "-f", "-n", str(again)], check=True, capture_output=True)
    out.mkdir()
    subprocess.run(["debugfs", "-R", f'rdump / "{out}"', str(again)], check=True, capture_output=True)
    files = [path.relative_to(tree) for path in sorted(tree.rglob("*")) if path.is_file()]
    assert len(files) == 200
    for path in files:
        assert (out / path).read_bytes() == (tree / path).read_bytes()
        assert (out / path).stat().st_mode == (tree / path).stat().st_mode
