"""`ceph_rsnapshot verify`: every kind of damage is found and named, nothing is changed, and none is a base any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import pytest

import ceph_rsnapshot
from ceph_rsnapshot.verifier.report import Verified
from ceph_rsnapshot_common.protocol.manifest import sealed
from demo.ceph_cluster import CephCluster
from tests.cluster.ceph import MIB
from tests.cluster.damage import damage_data, flip, l2_table
from tests.cluster.site import Site, contents, wait_until

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")

NEXT = "2026-01-02"


@pytest.mark.parametrize("mode", ["staged", "direct"])
def test_good_backups_are_good_also_against_ceph(running: Site, mode: str) -> None:
    running.pool.create("a", 24 * MIB + 1234, seed=71)
    for number, day in enumerate(("2026-01-01", "2026-01-02", "2026-01-03")):
        if number < 2:
            running.pool.write("a", seed=72 + number)
        running.pool.snap("a", day)
        running.backup("--snap-date", day, "--transfer-mode", mode)
    before = contents(running.root("a"))
    results = running.verify("--all", "--source")
    assert [(each["problems"], each["notes"], each["against_source"]) for each in results] == [([], [], True)] * 3
    after = contents(running.root("a"))
    assert {name: after[name] for name in before} == before
    assert running.temporary_folders() == []
    running.pool.unsnap("a", "2026-01-01")
    (oldest,) = running.verify(f"{running.pool}/a@2026-01-01", "--source")
    assert oldest["problems"] == []
    assert not oldest["against_source"]
    assert "no longer exists" in oldest["notes"][0]


def _damage_l2(day: Path) -> None:
    flip(day / "a.qcow2", l2_table(day / "a.qcow2"))


def _damage_header(day: Path) -> None:
    flip(day / "a.qcow2", 27)


def _damage_feature_names(day: Path) -> None:
    flip(day / "a.qcow2", 140)


def _damage_manifest(day: Path) -> None:
    flip(day / "a.json", (day / "a.json").read_text().index('"size"') + 9)


def _damage_digests(day: Path) -> None:
    flip(day / "a.digests", 20)


def _remove_digests(day: Path) -> None:
    (day / "a.digests").unlink()


def _cut_qcow(day: Path) -> None:
    os.truncate(day / "a.qcow2", (day / "a.qcow2").stat().st_size - 65536)


@pytest.mark.parametrize(
    ("damage", "part", "because"),
    [
        (damage_data, "content: ", "failed its verification: content"),
        (_damage_l2, ("qcow2: ", "content: "), "failed its check"),
        (_damage_header, "header: ", "failed its check"),
        (_damage_feature_names, "header: ", "failed its verification: header"),
        (_damage_manifest, "manifest: ", "manifest of the newest backup can't be read"),
        (_damage_digests, "digests: ", "failed its verification: digests"),
        (_remove_digests, "digests: ", "failed its verification: digests"),
        (_cut_qcow, "qcow2: ", "not as it was made"),
    ],
)
def test_damage_is_found_named_and_is_no_base(
    backed_up: Site, damage: Callable[[Path], None], part: str | tuple[str, ...], because: str
) -> None:
    day = backed_up.root("a") / "daily.0"
    damage(day)
    before = contents(day)
    (result,) = backed_up.verify(f"{backed_up.pool}/a", code=1)
    assert result["problems"][0].startswith(part), result["problems"]
    assert contents(day) == before
    human = backed_up.run("ceph_rsnapshot", "verify", "--all", code=1).stdout
    assert "BAD" in human and "1 verified, 1 bad" in human
    backed_up.pool.write("a", seed=73)
    backed_up.pool.snap("a", NEXT)
    report = backed_up.backup("--snap-date", NEXT)["by_name"]["a"]
    assert report["kind"] == "full", report
    assert because in report["full_because"]
    assert backed_up.same(backed_up.root("a") / "daily.0" / "a.qcow2", "a", NEXT)
    assert {name: digest for name, (_, digest) in contents(backed_up.root("a") / "daily.1").items()} == {
        name: digest for name, (_, digest) in before.items()
    }


def test_a_flipped_byte_that_was_not_verified_yet_is_not_laundered(backed_up: Site) -> None:
    """An increment onto a rotten base keeps the old digests of what it doesn't write: the rot is found later too."""
    day = backed_up.root("a") / "daily.0"
    status = (day / "a.qcow2").stat()
    damage_data(day)
    os.utime(day / "a.qcow2", ns=(status.st_atime_ns, status.st_mtime_ns))
    with backed_up.pool.image("a") as image:
        image.write(b"new" * 1000, 20 * MIB)
    backed_up.pool.snap("a", NEXT)
    assert backed_up.backup("--snap-date", NEXT)["by_name"]["a"]["kind"] == "increment"
    results = backed_up.verify("--all", code=1)
    assert [[problem.partition(":")[0] for problem in each["problems"]] for each in results] == [["content"]] * 2


def test_made_before_there_were_digests(backed_up: Site) -> None:
    day = backed_up.root("a") / "daily.0"
    manifest = json.loads((day / "a.json").read_text())
    for key in ("checksum", "digests"):
        del manifest[key]
    (day / "a.json").write_text(json.dumps({**manifest, "manifest_version": 1}))
    (day / "a.digests").unlink()
    (result,) = backed_up.verify("a")
    assert result["problems"] == []
    assert "no digests" in result["notes"][0]
    (result,) = backed_up.verify("a", "--source")
    assert result["against_source"]
    backed_up.pool.write("a", seed=74)
    backed_up.pool.snap("a", NEXT)
    report = backed_up.backup("--snap-date", NEXT)["by_name"]["a"]
    assert (report["kind"], "before there were digests" in report["full_because"]) == ("full", True)


def test_a_difference_from_ceph_is_found_though_the_digests_agree(backed_up: Site) -> None:
    """The backup of another snapshot, with good digests, passed off as this one."""
    backed_up.pool.write("a", seed=75)
    backed_up.pool.snap("a", NEXT)
    backed_up.backup("--snap-date", NEXT)
    newest, older = (backed_up.root("a") / f"daily.{number}" for number in (0, 1))
    manifest = json.loads((newest / "a.json").read_text())
    wanted = json.loads((older / "a.json").read_text())
    del manifest["checksum"]
    swapped = {**manifest, "snapshot": wanted["snapshot"], "snapshot_id": wanted["snapshot_id"]}
    (newest / "a.json").write_text(sealed(json.dumps(swapped)))
    assert backed_up.verify("a@daily.0")[0]["problems"] == []
    (result,) = backed_up.verify("a@daily.0", "--source", code=1)
    assert result["problems"][0].startswith("source: ")


def test_since_verified(backed_up: Site) -> None:
    assert len(backed_up.verify("--all", "--since-verified", "7d")) == 1
    assert backed_up.verify("--all", "--since-verified", "7d") == []
    path = backed_up.root("a") / ".verified.json"
    verdicts = json.loads(path.read_text())
    del verdicts["checksum"]
    for verdict in verdicts["verdicts"].values():
        verdict["at"] = verdict["at"].replace("20", "19", 1)
    path.write_text(sealed(json.dumps(verdicts)))
    assert backed_up.listed()[0]["state"] == "verified"
    assert len(backed_up.verify("--all", "--since-verified", "7d")) == 1
    assert "is no age" in backed_up.run("ceph_rsnapshot", "verify", "--all", "--since-verified", "soon", code=2).stderr
    assert "--all" in backed_up.run("ceph_rsnapshot", "verify", code=2).stderr


def test_unknown_names_get_suggestions(backed_up: Site) -> None:
    def said(which: str) -> str:
        return backed_up.run("ceph_rsnapshot", "verify", which, code=1).stderr

    assert f"did you mean {backed_up.pool}/a" in said(f"{backed_up.pool}/aa")
    assert "did you mean 2026-01-01?" in said("a@2026-01-10")
    assert "did you mean daily.0?" in said("a@daily.7")


def test_an_agent_that_is_away_is_no_verdict(backed_up: Site) -> None:
    backed_up.stop_agent()
    done = backed_up.run("ceph_rsnapshot", "verify", "a", "--source", code=3)
    assert "can't be reached" in done.stderr
    assert not (backed_up.root("a") / ".verified.json").exists()
    assert len(backed_up.verify("a")) == 1


def test_a_source_that_can_not_be_read_is_no_verdict(backed_up: Site, cluster: CephCluster) -> None:
    caps = ["mon", "profile rbd", "osd", "profile rbd pool=another"]
    keyring = cluster.folder / "client.blind.keyring"
    keyring.write_text(cluster.ceph("auth", "get-or-create", "client.blind", *caps))
    backed_up.stop_agent()
    backed_up.configure(CEPH_USER="blind")
    backed_up.start_agent()
    (result,) = backed_up.verify("a", "--source", code=1)
    assert (result["problems"], result["undecided"], result["against_source"]) == ([], True, False)
    assert "could not be compared with Ceph" in result["notes"][0]
    (result,) = backed_up.verify("a")
    assert not result["undecided"]


def test_a_day_that_rolls_off_before_its_turn_is_no_failure(backed_up: Site) -> None:
    """A list of all is made once, and worked off for hours."""
    for name in ("b", "c"):
        backed_up.pool.create(name, MIB)
        backed_up.pool.snap(name, "2026-01-01")
    backed_up.backup()
    seen = []

    def on_verified(verified: Verified) -> None:
        seen.append((verified.backup.image, verified.gone))
        if verified.backup.image == "a":
            shutil.rmtree(backed_up.root("b"))
            (backed_up.root("c") / "daily.0").rename(backed_up.root("c") / "daily.1")

    settings = ceph_rsnapshot.load_settings(backed_up.config_path)
    report = ceph_rsnapshot.verify(settings, on_verified=on_verified)
    assert seen == [("a", False), ("b", True), ("c", False)]
    assert report.ok
    assert "has rolled off" in report.backups[1].notes[0]
    assert not backed_up.root("b").exists()


def test_a_disk_that_is_mounted_read_only(backed_up: Site) -> None:
    """Of a backup node that has died, say: what was found can't be noted, and is told all the same."""
    subprocess.run(["mount", "--bind", str(backed_up.base), str(backed_up.base)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(backed_up.base)], check=True)
        (result,) = backed_up.verify("a")
        assert result["problems"] == []
        assert "could not be noted" in result["notes"][0]
    finally:
        subprocess.run(["umount", str(backed_up.base)], check=True)


def test_verify_while_the_day_rolls_off(running: Site) -> None:
    """Opened before a rotation, read to the end after it."""
    running.pool.create("big", 256 * MIB)
    running.pool.fill("big", 240 * MIB)
    running.configure(TRANSFER_MODE="direct", RETAIN_NUMBER=2)
    for day in DAYS[:2]:
        running.pool.write("big", seed=int(day[-1]))
        running.pool.snap("big", day)
        running.backup("--snap-date", day)
    process = running.start("ceph_rsnapshot", "verify", "--json", f"big@{DAYS[0]}")
    oldest = running.root("big") / "daily.1"
    wait_until(lambda: _is_open(process.pid, "big.qcow2") or process.poll() is not None, "an open backup")
    oldest.rename(running.folder / "gone")
    for path in sorted((running.folder / "gone").iterdir()):
        path.unlink()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["backups"][0]["problems"] == []


def _is_open(pid: int, name: str) -> bool:
    try:
        return any(str(each.readlink()).endswith(name) for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
