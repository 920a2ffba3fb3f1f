"""Orphans: images that have gone, and those that only seem to."""

from __future__ import annotations

from tests.cluster.ceph import MIB
from tests.cluster.site import Site, contents

DAYS = [f"2026-02-0{number}" for number in range(1, 6)]


def test_an_empty_listing_rotates_nothing(running: Site) -> None:
    running.pool.create("a")
    running.night(DAYS[0], ["a"])
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
    running.night(DAYS[0], images)
    for image in images[:3]:
        running.pool.remove(image)
    before = {image: contents(running.root(image)) for image in images[:3]}
    report = running.night(DAYS[1], images[3:], code=1)
    assert report["orphans"] == []
    assert "--rotate-many-orphans" in report["stderr"]
    assert {image: contents(running.root(image)) for image in images[:3]} == before
    report = running.backup("--snap-date", DAYS[1], "--rotate-many-orphans")
    assert [orphan["result"] for orphan in report["orphans"]] == ["rotated"] * 3
    # they are known to be orphans now: the next night needs no flag
    report = running.night(DAYS[2], images[3:])
    assert [orphan["result"] for orphan in report["orphans"]] == ["rotated"] * 3


def test_orphans_are_left_alone_when_asked(running: Site) -> None:
    running.pool.create("a")
    running.pool.create("b")
    running.night(DAYS[0], ["a", "b"])
    running.pool.remove("b")
    before = contents(running.root("b"))
    report = running.night(DAYS[1], ["a"], "--no-rotate-orphans")
    assert [orphan["result"] for orphan in report["orphans"]] == ["kept"]
    assert contents(running.root("b")) == before


def test_an_image_outside_image_re_is_no_orphan_and_stays(running: Site) -> None:
    for image in ("web-1", "db-1", "gone-1"):
        running.pool.create(image, MIB)
    running.night(DAYS[0], ["web-1", "db-1", "gone-1"])
    running.pool.remove("gone-1")
    before = {image: contents(running.root(image)) for image in ("db-1", "gone-1")}
    report = running.night(DAYS[1], ["web-1", "db-1"], "--image-re", "web")
    assert [image["image"] for image in report["images"]] == ["web-1"]
    assert report["orphans"] == []
    assert {image: contents(running.root(image)) for image in ("db-1", "gone-1")} == before


def test_an_orphan_that_comes_back_is_an_image_again(running: Site) -> None:
    running.pool.create("a")
    running.pool.create("b")
    running.night(DAYS[0], ["a", "b"])
    running.pool.remove("b")
    running.night(DAYS[1], ["a"])
    running.pool.create("b", seed=9)
    report = running.night(DAYS[2], ["a", "b"])
    assert report["by_name"]["b"]["result"] == "done"
    assert report["orphans"] == []
    assert running.same(running.root("b") / "daily.0" / "b.qcow2", "b", DAYS[2])
    running.pool.remove("b")
    assert [orphan["result"] for orphan in running.night(DAYS[3], ["a"])["orphans"]] == ["rotated"]


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
    running.night(DAYS[0], ["a", "b"])
    running.pool.remove("b")
    before = contents(running.root("b"))
    report = running.backup("--snap-date", "2062-02-01", code=1)
    assert [orphan["result"] for orphan in report["orphans"]] == ["kept"]
    assert contents(running.root("b")) == before
