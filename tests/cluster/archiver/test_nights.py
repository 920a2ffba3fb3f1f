"""Nights in a row: rotation, orphans, images without a snapshot, runs that are repeated."""

from __future__ import annotations

import json

import pytest

from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents

DAYS = [f"2026-02-0{number}" for number in range(1, 6)]


@pytest.mark.on_disk
def test_five_days_keep_exactly_the_last_three(running: Site) -> None:
    site = running
    for image in ("kept", "deleted", "gap", "other"):
        site.pool.create(image, 4 * MIB, seed=len(image))
    site.night(DAYS[0], ["kept", "deleted", "gap", "other"])
    site.night(DAYS[1], ["kept", "deleted", "gap", "other"])
    site.pool.remove("deleted")
    report = site.night(DAYS[2], ["kept", "gap", "other"])
    assert [(orphan["image"], orphan["result"]) for orphan in report["orphans"]] == [("deleted", "rotated")]
    assert site.days("deleted") == ["daily.0", "daily.1", "daily.2"]
    before = contents(site.root("gap"))
    report = site.night(DAYS[3], ["kept", "other"])
    assert report["by_name"]["gap"]["result"] == "no-snapshot"
    assert report["by_name"]["gap"]["newest_snapshot"] == DAYS[2]
    assert contents(site.root("gap")) == before
    report = site.night(DAYS[4], ["kept", "gap", "other"])
    assert [(orphan["image"], orphan["result"]) for orphan in report["orphans"]] == [("deleted", "removed")]
    assert not site.root("deleted").exists()

    assert site.days("kept") == site.days("gap") == ["daily.0", "daily.1", "daily.2"]
    for number, day in enumerate(reversed(DAYS[2:])):
        assert site.same(site.root("kept") / f"daily.{number}" / "kept.qcow2", "kept", day)
    for number, day in enumerate([DAYS[4], DAYS[2], DAYS[1]]):
        assert site.same(site.root("gap") / f"daily.{number}" / "gap.qcow2", "gap", day)
    assert site.leftovers() == []


def test_the_same_night_again_changes_nothing(running: Site) -> None:
    site = running
    site.pool.create("a")
    site.pool.create("b")
    site.night(DAYS[0], ["a", "b"])
    site.pool.remove("b")
    site.night(DAYS[1], ["a"])
    before = contents(site.base)
    report = site.backup("--snap-date", DAYS[1])
    assert report["by_name"]["a"]["result"] == "skipped"
    assert [(orphan["image"], orphan["result"]) for orphan in report["orphans"]] == [("b", "already-rotated")]
    assert contents(site.base).keys() == before.keys()
    assert {path: value for path, value in contents(site.base).items() if "lock" not in path} == {
        path: value for path, value in before.items() if "lock" not in path
    }


def test_force_backs_up_again_and_replaces_the_day(running: Site) -> None:
    running.pool.create("a")
    running.night(DAYS[0], ["a"])
    first = running.root("a") / "daily.0" / "a.qcow2"
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    report = running.backup("--snap-date", DAYS[0], "--force")
    assert (report["by_name"]["a"]["result"], report["by_name"]["a"]["replaced"]) == ("done", "daily.0")
    assert running.days("a") == ["daily.0"]
    assert running.same(first, "a", DAYS[0])
    assert running.leftovers() == []


def test_a_snapshot_made_again_under_its_name_replaces_the_day(running: Site) -> None:
    running.pool.create("a")
    running.night(DAYS[0], ["a"])
    running.pool.unsnap("a", DAYS[0])
    assert running.night(DAYS[0], ["a"])["by_name"]["a"]["result"] == "done"
    assert running.days("a") == ["daily.0"]
    assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a", DAYS[0])


@pytest.mark.parametrize("damage", ["no manifest", "no qcow2", "short qcow2", "damaged manifest"])
def test_an_incomplete_newest_day_is_not_taken_for_done(running: Site, damage: str) -> None:
    running.pool.create("a")
    running.night(DAYS[0], ["a"])
    day = running.root("a") / "daily.0"
    if damage == "no manifest":
        (day / "a.json").unlink()
    elif damage == "no qcow2":
        (day / "a.qcow2").unlink()
    elif damage == "short qcow2":
        (day / "a.qcow2").write_bytes(b"QFI\xfb")
    else:
        (day / "a.json").write_text("{}")
    assert running.backup("--snap-date", DAYS[0])["by_name"]["a"]["result"] == "done"
    assert running.same(day / "a.qcow2", "a", DAYS[0])


def test_nothing_has_the_snapshot(running: Site) -> None:
    running.pool.create("a")
    running.pool.create("b")
    running.pool.snap("a", "2025-12-30")
    running.pool.snap("b", "2025-12-31")
    report = running.backup(code=1)
    assert DAY in report["stderr"]
    assert "2025-12-31" in report["stderr"]
    assert "2025-12-30" not in report["stderr"]


def test_some_have_the_snapshot(running: Site) -> None:
    running.pool.create("a")
    running.pool.create("b")
    running.pool.snap("a", DAY)
    done = running.run("ceph_rsnapshot")
    assert "1 done" in done.stdout
    assert "1 no snapshot" in done.stdout
    assert f"{running.pool}/b" in done.stdout.splitlines()[-1]


def test_noop_does_nothing(running: Site) -> None:
    running.pool.create("a")
    running.pool.snap("a", DAY)
    before = sorted(running.folder.rglob("*"))
    report = running.backup("-n")
    assert report["by_name"]["a"]["result"] == "would-back-up"
    assert sorted(running.folder.rglob("*")) == before
    assert not running.base.exists()
    running.backup()
    before_contents = contents(running.base)
    report = running.backup("--noop")
    assert report["by_name"]["a"]["result"] == "skipped"
    assert contents(running.base) == before_contents


def test_manifest_says_what_the_backup_is(running: Site) -> None:
    running.pool.create("a", 8 * MIB)
    running.pool.snap("a", DAY)
    running.backup()
    manifest = json.loads((running.root("a") / "daily.0" / "a.json").read_text())
    with running.pool.image("a") as image:
        assert manifest["image_id"] == image.id()
        assert manifest["snapshot_id"] == next(iter(image.list_snaps()))["id"]
    assert manifest["fsid"] == running.pool.cluster.fsid
    assert (manifest["pool"], manifest["namespace"], manifest["image"]) == (running.pool.name, "", "a")
    assert (manifest["snapshot"], manifest["size"], manifest["transfer_mode"]) == (DAY, 8 * MIB, "staged")
    assert 0 < manifest["allocated_bytes"] <= 8 * MIB
    qcow = running.root("a") / "daily.0" / "a.qcow2"
    assert manifest["qcow2_file_size"] == qcow.stat().st_size
    assert manifest["versions"].keys() == {"ceph_rsnapshot", "ceph", "qemu"}
    assert manifest["started"] < manifest["ended"]
