"""Nights in a row: rotation, orphans, images without a snapshot, runs that are repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents

DAYS = [f"2026-02-0{number}" for number in range(1, 6)]


def _night(site: Site, day: str, images: list[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    for image in images:
        site.pool.write(image, seed=int(day[-1]) * 100 + len(image))
        site.pool.snap(image, day)
    return site.backup("--snap-date", day, *arguments, code=code)


def test_five_days_keep_exactly_the_last_three(running: Site) -> None:
    site = running
    for image in ("kept", "deleted", "gap", "other"):
        site.pool.create(image, 4 * MIB, seed=len(image))
    _night(site, DAYS[0], ["kept", "deleted", "gap", "other"])
    _night(site, DAYS[1], ["kept", "deleted", "gap", "other"])
    site.pool.remove("deleted")
    report = _night(site, DAYS[2], ["kept", "gap", "other"])
    assert [(orphan["image"], orphan["result"]) for orphan in report["orphans"]] == [("deleted", "rotated")]
    assert site.days("deleted") == ["daily.0", "daily.1", "daily.2"]
    before = contents(site.root("gap"))
    report = _night(site, DAYS[3], ["kept", "other"])
    assert report["by_name"]["gap"]["result"] == "no-snapshot"
    assert report["by_name"]["gap"]["newest_snapshot"] == DAYS[2]
    assert contents(site.root("gap")) == before
    report = _night(site, DAYS[4], ["kept", "gap", "other"])
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
    _night(site, DAYS[0], ["a", "b"])
    site.pool.remove("b")
    _night(site, DAYS[1], ["a"])
    before = contents(site.base)
    report = site.backup("--snap-date", DAYS[1])
    assert report["by_name"]["a"]["result"] == "skipped"
    assert [(orphan["image"], orphan["result"]) for orphan in report["orphans"]] == [("b", "already-rotated")]
    assert contents(site.base).keys() == before.keys()
    assert {path: value for path, value in contents(site.base).items() if "lock" not in path} == {
        path: value for path, value in before.items() if "lock" not in path
    }


def test_force_backs_up_again(running: Site) -> None:
    running.pool.create("a")
    _night(running, DAYS[0], ["a"])
    first = running.root("a") / "daily.0" / "a.qcow2"
    damaged = first.read_bytes()[:-1] + b"?"
    first.write_bytes(damaged)
    report = running.backup("--snap-date", DAYS[0], "--force")
    assert report["by_name"]["a"]["result"] == "done"
    assert running.days("a") == ["daily.0", "daily.1"]
    assert running.same(first, "a", DAYS[0])
    assert (running.root("a") / "daily.1" / "a.qcow2").read_bytes() == damaged


def test_a_snapshot_made_again_under_its_name_is_another_one(running: Site) -> None:
    running.pool.create("a")
    _night(running, DAYS[0], ["a"])
    running.pool.unsnap("a", DAYS[0])
    assert _night(running, DAYS[0], ["a"])["by_name"]["a"]["result"] == "done"
    assert running.days("a") == ["daily.0", "daily.1"]
    assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a", DAYS[0])


@pytest.mark.parametrize("damage", ["no manifest", "no qcow2", "short qcow2", "damaged manifest"])
def test_an_incomplete_newest_day_is_not_taken_for_done(running: Site, damage: str) -> None:
    running.pool.create("a")
    _night(running, DAYS[0], ["a"])
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


def test_an_empty_listing_rotates_nothing(running: Site) -> None:
    running.pool.create("a")
    _night(running, DAYS[0], ["a"])
    running.pool.remove("a")
    before = contents(running.root("a"))
    report = running.backup("--snap-date", DAYS[1], code=1)
    assert "orphans-suspicious" in [error["code"] for error in report["errors"]]
    assert contents(running.root("a")) == before
    report = running.backup("--snap-date", DAYS[1], "--rotate-many-orphans", code=1)
    assert [orphan["result"] for orphan in report["orphans"]] == ["rotated"]


def test_too_many_orphans_are_not_believed(running: Site) -> None:
    images = ["a", "b", "c", "d", "e"]
    for image in images:
        running.pool.create(image, MIB)
    _night(running, DAYS[0], images)
    for image in images[:3]:
        running.pool.remove(image)
    before = {image: contents(running.root(image)) for image in images[:3]}
    report = _night(running, DAYS[1], images[3:], code=1)
    assert report["orphans"] == []
    assert "--rotate-many-orphans" in report["stderr"]
    assert {image: contents(running.root(image)) for image in images[:3]} == before
    report = running.backup("--snap-date", DAYS[1], "--rotate-many-orphans")
    assert [orphan["result"] for orphan in report["orphans"]] == ["rotated"] * 3
    # they are known to be orphans now: the next night needs no flag
    report = _night(running, DAYS[2], images[3:])
    assert [orphan["result"] for orphan in report["orphans"]] == ["rotated"] * 3


def test_orphans_are_left_alone_when_asked(running: Site) -> None:
    running.pool.create("a")
    running.pool.create("b")
    _night(running, DAYS[0], ["a", "b"])
    running.pool.remove("b")
    before = contents(running.root("b"))
    report = _night(running, DAYS[1], ["a"], "--no-rotate-orphans")
    assert [orphan["result"] for orphan in report["orphans"]] == ["kept"]
    assert contents(running.root("b")) == before


def test_an_image_outside_image_re_is_no_orphan_and_stays(running: Site) -> None:
    for image in ("web-1", "db-1", "gone-1"):
        running.pool.create(image, MIB)
    _night(running, DAYS[0], ["web-1", "db-1", "gone-1"])
    running.pool.remove("gone-1")
    before = {image: contents(running.root(image)) for image in ("db-1", "gone-1")}
    report = _night(running, DAYS[1], ["web-1", "db-1"], "--image-re", "web")
    assert [image["image"] for image in report["images"]] == ["web-1"]
    assert report["orphans"] == []
    assert {image: contents(running.root(image)) for image in ("db-1", "gone-1")} == before


def test_an_orphan_that_comes_back_is_an_image_again(running: Site) -> None:
    running.pool.create("a")
    running.pool.create("b")
    _night(running, DAYS[0], ["a", "b"])
    running.pool.remove("b")
    _night(running, DAYS[1], ["a"])
    running.pool.create("b", seed=9)
    report = _night(running, DAYS[2], ["a", "b"])
    assert report["by_name"]["b"]["result"] == "done"
    assert report["orphans"] == []
    assert running.same(running.root("b") / "daily.0" / "b.qcow2", "b", DAYS[2])
    running.pool.remove("b")
    assert [orphan["result"] for orphan in _night(running, DAYS[3], ["a"])["orphans"]] == ["rotated"]


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


def test_reducing_retain_number_leaves_the_days_beyond_alone(running: Site) -> None:
    running.configure(RETAIN_NUMBER=4)
    running.pool.create("a", MIB)
    for number in range(1, 5):
        _night(running, f"2026-01-1{number}", ["a"])
    oldest = contents(running.root("a") / "daily.3")
    running.configure(RETAIN_NUMBER=2)
    _night(running, DAYS[0], ["a"])
    assert running.days("a") == ["daily.0", "daily.1", "daily.2", "daily.3"]
    assert contents(running.root("a") / "daily.3") == oldest
    assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a", DAYS[0])


def _interrupt_rotation(root: Path, moved: int) -> None:
    """Leave what a kill of rsnapshot leaves: the oldest is gone, ``moved`` days were moved, .sync is complete."""
    (root / ".rotating").write_text("")
    (root / "daily.0").rename(root / ".sync")
    for number in range(1, 3 - moved):
        (root / f"daily.{number}").rename(root / f"daily.{number - 1}")


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_killed_rotation_is_finished_and_costs_no_day(running: Site, moved: int) -> None:
    running.pool.create("a", MIB)
    for day in DAYS[:3]:
        _night(running, day, ["a"])
    root = running.root("a")
    whole = {path: content for path, (_, content) in contents(root).items()}
    _interrupt_rotation(root, moved)
    report = running.backup("--snap-date", DAYS[2])
    if moved:
        assert report["by_name"]["a"]["result"] == "skipped"
        assert {path: content for path, (_, content) in contents(root).items()} == whole
    for number, day in enumerate(reversed(DAYS[:3])):
        assert running.same(root / f"daily.{number}" / "a.qcow2", "a", day)
    assert running.leftovers() == []


def test_an_orphan_rotates_once_for_each_date_in_whatever_order(running: Site) -> None:
    for image in ("a", "b"):
        running.pool.create(image, MIB)
    for day in DAYS[:2]:
        for image in ("a", "b"):
            running.pool.snap(image, day)
    running.backup("--snap-date", DAYS[0])
    running.pool.remove("b")
    results = [
        running.backup("--snap-date", day)["orphans"][0]["result"] for day in (DAYS[0], DAYS[1], DAYS[0], DAYS[1])
    ]
    assert results == ["rotated", "rotated", "already-rotated", "already-rotated"]


def test_a_date_that_nothing_has_costs_orphans_no_day(running: Site) -> None:
    for image in ("a", "b"):
        running.pool.create(image, MIB)
    _night(running, DAYS[0], ["a", "b"])
    running.pool.remove("b")
    before = contents(running.root("b"))
    report = running.backup("--snap-date", "2062-02-01", code=1)
    assert [orphan["result"] for orphan in report["orphans"]] == ["kept"]
    assert contents(running.root("b")) == before
