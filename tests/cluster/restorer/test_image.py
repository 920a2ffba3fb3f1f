"""`ceph_rsnapshot restore`: every kind of image comes back identical; nothing is overwritten or left half-made."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
import rbd

from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer
from tests.cluster import ceph
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.damage import damage_data
from tests.cluster.faults import children, instead_of, kill
from tests.cluster.kinds import KINDS
from tests.cluster.site import DAY, Site, contents, same_content, stopped, wait_until


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
    # who compares a smaller one takes what is missing for zeros
    return raw.stat().st_size == again.stat().st_size and same_content(again, raw, "raw")


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


def test_zeros_are_not_written(restorable: Site) -> None:
    restorable.pool.create("sparse", 3000 * MIB, seed=86)
    restorable.pool.snap("sparse", DAY)
    restorable.backup("--image-re", "sparse")
    done = restorable.run("ceph_rsnapshot", "restore", "--json", "sparse", "--to", f"{restorable.pool}/b")
    assert json.loads(done.stdout)["written"] < 10 * MIB
    with restorable.pool.image("b") as image:
        extents: list[int] = []
        image.diff_iterate(0, image.size(), None, lambda _at, length, exists: extents.append(length * exists))
    assert 0 < sum(extents) < 20 * MIB


def test_any_day_by_folder_or_snapshot(restorable: Site) -> None:
    older = restorable.pool.export("a", DAY, restorable.folder / "older.raw")
    restorable.pool.write("a", seed=82)
    restorable.pool.snap("a", "2026-01-02")
    restorable.backup("--snap-date", "2026-01-02", "--transfer-mode", "direct")
    for number, which in enumerate((f"{restorable.pool}/a@{DAY}", "a@daily.1")):
        done = restorable.run("ceph_rsnapshot", "restore", which, "--to", f"{restorable.pool}/b{number}")
        assert f"rbd rename {restorable.pool}/b{number} {restorable.pool}/a" in done.stdout
        assert _same(restorable.pool, f"b{number}", older, restorable.folder / "again.raw")
    done = restorable.run("ceph_rsnapshot", "restore", "a@daily.5", "--to", f"{restorable.pool}/c", code=1)
    assert "did you mean daily.0 or daily.1" in done.stderr.replace("daily.1 or daily.0", "daily.0 or daily.1")


def test_the_next_backup_of_a_restored_image_is_a_full_one(restorable: Site) -> None:
    restorable.pool.remove("a")
    restorable.run("ceph_rsnapshot", "restore", "a", "--to", f"{restorable.pool}/a")
    restorable.pool.snap("a", "2026-01-02")
    report = restorable.backup("--snap-date", "2026-01-02", "--transfer-mode", "direct")["by_name"]["a"]
    assert (report["kind"], "re-created" in report["full_because"]) == ("full", True)
    assert restorable.same(restorable.root("a") / "daily.0" / "a.qcow2", "a", "2026-01-02")


def test_nothing_is_overwritten_and_bad_targets_are_refused(restorable: Site) -> None:
    pool = restorable.pool
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
        assert said in restorable.run("ceph_rsnapshot", "restore", which, "--to", to, code=code).stderr
    done = restorable.run("ceph_rsnapshot", "restore", "a", "--to", f"{pool}/b", "--data-pool", "nowhere", code=1)
    assert "nowhere (the data pool" in done.stderr
    assert _names(pool) == ["a"]
    with pool.image("a") as image:
        assert image.read(0, image.size()) == before
    assert _notes(restorable) == []


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


def _nbdkit(site: Site) -> list[int]:
    assert site.agent
    return children(site.agent, "nbdkit")


def _have_read(pids: list[int], amount: int) -> bool:
    words = [Path(f"/proc/{pid}/io").read_text().split() for pid in pids]
    return any(int(each[each.index("rchar:") + 1]) > amount for each in words)


def test_nbdkit_is_killed(big: Site) -> None:
    process = _start(big)
    wait_until(lambda: _have_read(_nbdkit(big), 20 * MIB), "a restore half-way")
    kill(_nbdkit(big))
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


def test_two_restores_at_once(restorable: Site) -> None:
    started = [
        restorable.start("ceph_rsnapshot", "restore", "a", "--to", f"{restorable.pool}/b{number}")
        for number in range(3)
    ]
    for process in started:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    raw = restorable.pool.export("a", DAY, restorable.folder / "a.raw")
    assert all(_same(restorable.pool, f"b{number}", raw, restorable.folder / "b.raw") for number in range(3))


def test_a_rotten_backup_is_restored_only_if_that_is_wanted(restorable: Site) -> None:
    damage_data(restorable.root("a") / "daily.0")
    done = restorable.run("ceph_rsnapshot", "restore", "a", "--to", f"{restorable.pool}/b", code=1)
    assert "not what was backed up" in done.stderr
    assert _names(restorable.pool) == ["a"]
    target = restorable.folder / "a.raw"
    done = restorable.run("ceph_rsnapshot", "restore", "a", "--to-file", str(target), code=1)
    assert "not what was backed up" in done.stderr
    assert not target.exists()
    restorable.run("ceph_rsnapshot", "verify", "a", code=1)
    done = restorable.run("ceph_rsnapshot", "restore", "a", "--to", f"{restorable.pool}/b", code=1)
    assert "its verification failed" in done.stderr
    done = restorable.run("ceph_rsnapshot", "restore", "a", "--to", f"{restorable.pool}/b", "--accept-damage")
    assert "DAMAGED: content: 1 blocks" in done.stdout
    assert _names(restorable.pool) == ["a", "b"]


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


def test_a_file_system_comes_back_file_by_file(restorable: Site) -> None:
    """ext4 with many files: each has its content and its mode in the restored image."""
    tree, raw = restorable.folder / "tree", restorable.folder / "fs.raw"
    randomly = random.Random(87)
    for number in range(200):
        path = tree / f"d{number % 7}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(randomly.randbytes(randomly.choice([0, 100, 5000, 200_000])))
        path.chmod(randomly.choice([0o600, 0o644, 0o755]))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(raw), "64M"], check=True)
    restorable.pool.cluster.rbd("import", "--no-progress", "--dest-pool", restorable.pool.name, str(raw), "fs")
    restorable.pool.snap("fs", DAY)
    restorable.backup("--image-re", "fs", "--transfer-mode", "direct")
    restorable.pool.remove("fs")
    restorable.run("ceph_rsnapshot", "restore", "fs", "--to", f"{restorable.pool}/fs")
    again, out = restorable.folder / "again.raw", restorable.folder / "out"
    restorable.pool.cluster.rbd("export", "--no-progress", "--pool", restorable.pool.name, "--image", "fs", str(again))
    subprocess.run(["e2fsck", "-f", "-n", str(again)], check=True, capture_output=True)
    out.mkdir()
    subprocess.run(["debugfs", "-R", f'rdump / "{out}"', str(again)], check=True, capture_output=True)
    files = [path.relative_to(tree) for path in sorted(tree.rglob("*")) if path.is_file()]
    assert len(files) == 200
    for path in files:
        assert (out / path).read_bytes() == (tree / path).read_bytes()
        assert (out / path).stat().st_mode == (tree / path).stat().st_mode
