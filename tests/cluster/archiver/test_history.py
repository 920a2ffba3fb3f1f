"""History belongs to the backup node: what a night may take of it, by this node's clock and notes alone."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ceph_rsnapshot_common.protocol.manifest import read_manifest, render
from tests.cluster.ceph import MIB
from tests.cluster.faults import instead_of
from tests.cluster.site import Site, contents

DAYS = [f"2026-02-{number:02}" for number in range(1, 21)]


def _landed(site: Site, image: str, day: str, days_ago: int) -> None:
    """Let a day have been landed so long ago, as far as this node knows."""
    path = site.root(image) / day / f"{image}.json"
    at = datetime.now(timezone.utc) - timedelta(days=days_ago)
    path.write_text(render(read_manifest(path).model_copy(update={"landed": at})))


def test_an_older_date_is_refused_and_says_how_to_catch_up(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAYS[0])
    running.night(DAYS[1], ["a"])
    before = contents(running.root("a"))
    report = running.backup("--snap-date", DAYS[0], code=1)
    assert report["by_name"]["a"]["error"]["code"] == "date-not-forward"
    assert "begin with the oldest date" in report["stderr"]
    assert contents(running.root("a")) == before
    assert running.backup("--snap-date", DAYS[0], "--noop", code=1)["by_name"]["a"]["result"] == "failed"
    assert running.leftovers() == []


def test_a_date_that_is_kept_already_is_not_backed_up_again(running: Site) -> None:
    running.pool.create("a", MIB)
    running.night(DAYS[0], ["a"])
    running.night(DAYS[1], ["a"])
    before = contents(running.root("a"))
    report = running.backup("--snap-date", DAYS[0])
    assert (report["by_name"]["a"]["result"], Path(report["by_name"]["a"]["path"]).parent.name) == (
        "skipped",
        "daily.1",
    )
    assert contents(running.root("a")) == before


def test_a_snapshot_that_was_made_again_does_not_replace_an_older_day(running: Site) -> None:
    running.pool.create("a", MIB)
    running.night(DAYS[0], ["a"])
    running.night(DAYS[1], ["a"])
    running.pool.unsnap("a", DAYS[0])
    before = contents(running.root("a"))
    report = running.night(DAYS[0], ["a"], code=1)
    assert report["by_name"]["a"]["error"]["code"] == "date-not-forward"
    assert contents(running.root("a")) == before


def test_names_may_come_again_with_other_dates(running: Site) -> None:
    running.configure(SNAP_NAMING_DATE_FORMAT="nightly", RETAIN_NUMBER=3)
    running.pool.create("a", MIB)
    for day in DAYS[:4]:
        running.pool.snap("a", "nightly")
        assert running.backup("--snap-date", day)["by_name"]["a"]["result"] == "done"
        running.pool.write("a", seed=int(day[-2:]), pieces=1)
        running.pool.unsnap("a", "nightly")
    assert running.days("a") == ["daily.0", "daily.1", "daily.2"]


def test_force_replaces_the_day_of_its_date_and_rotates_nothing(running: Site) -> None:
    running.configure(TRANSFER_MODE="direct")
    running.pool.create("a", 4 * MIB)
    running.night(DAYS[0], ["a"])
    running.pool.write("a", seed=9)
    running.night(DAYS[1], ["a"])
    newest = contents(running.root("a") / "daily.0")
    report = running.backup("--snap-date", DAYS[0], "--force")
    assert report["by_name"]["a"]["replaced"] == "daily.1"
    assert running.days("a") == ["daily.0", "daily.1"]
    assert contents(running.root("a") / "daily.0") == newest
    assert running.same(running.root("a") / "daily.1" / "a.qcow2", "a", DAYS[0])


def test_days_younger_than_retain_min_age_are_kept(running: Site) -> None:
    running.configure(RETAIN_MIN_AGE="30d")
    running.pool.create("a", MIB)
    for day in DAYS[:4]:
        report = running.night(day, ["a"])
    assert running.days("a") == ["daily.0", "daily.1", "daily.2", "daily.3"]
    assert report["by_name"]["a"]["too_young"] == 1
    _landed(running, "a", "daily.3", 31)
    _landed(running, "a", "daily.2", 31)
    running.night(DAYS[4], ["a"])
    assert running.days("a") == ["daily.0", "daily.1", "daily.2"]
    assert running.leftovers() == []


def test_a_rotation_that_fails_costs_no_day(running: Site) -> None:
    running.pool.create("a", MIB)
    for day in DAYS[:3]:
        running.night(day, ["a"])
    before = contents(running.root("a"))
    rotates = 'if [ "${@: -1}" = daily ]; then echo broken >&2; exit 1; fi; exec "$real" "$@"'
    running.pool.snap("a", DAYS[3])
    report = running.backup("--snap-date", DAYS[3], code=1, env=instead_of(running.folder, "rsnapshot", rotates))
    assert report["by_name"]["a"]["error"]["code"] == "rsnapshot-failed"
    assert contents(running.root("a")) == before
    assert running.leftovers() == []


def test_half_of_what_is_left_each_night_is_not_believed(running: Site) -> None:
    images = [f"i{number}" for number in range(8)]
    for image in images:
        running.pool.create(image, MIB)
    running.night(DAYS[0], images)
    for image in images[:3]:
        running.pool.remove(image)
    report = running.night(DAYS[1], images[3:])
    assert [orphan["result"] for orphan in report["orphans"]] == ["rotated"] * 3
    for image in images[3:5]:
        running.pool.remove(image)
    before = {image: contents(running.root(image)) for image in images[:5]}
    report = running.night(DAYS[2], images[5:], code=1)
    assert [error["code"] for error in report["errors"]] == ["orphans-suspicious"]
    assert {image: contents(running.root(image)) for image in images[:5]} == before


def test_new_images_do_not_make_up_for_those_that_are_gone(running: Site) -> None:
    images = [f"i{number}" for number in range(4)]
    for image in images:
        running.pool.create(image, MIB)
    for day in DAYS[:3]:
        running.night(day, images)
    decoys = [f"d{number}" for number in range(8)]
    for image in decoys:
        running.pool.create(image, MIB)
    running.night(DAYS[3], [*images, *decoys])
    for image in images:
        running.pool.remove(image)
    before = {image: contents(running.root(image)) for image in images}
    report = running.night(DAYS[4], decoys, code=1)
    assert [error["code"] for error in report["errors"]] == ["orphans-suspicious"]
    assert {image: contents(running.root(image)) for image in images} == before


def test_the_last_day_of_an_orphan_stays_for_orphan_keep(running: Site) -> None:
    running.configure(ORPHAN_KEEP=30)
    for image in ("a", "b"):
        running.pool.create(image, MIB)
    running.night(DAYS[0], ["a", "b"])
    running.pool.remove("a")
    for day in DAYS[1:3]:
        report = running.night(day, ["b"])
    last = contents(running.root("a"))
    report = running.night(DAYS[3], ["b"])
    (orphan,) = report["orphans"]
    assert orphan["result"] == "kept"
    keep = datetime.now(timezone.utc).date() + timedelta(days=30)
    assert orphan["gone_on"] == keep.isoformat()
    assert contents(running.root("a")) == last
    assert list(running.root("a").rglob("a.qcow2"))
    mark = running.root("a") / ".orphan.json"
    note = json.loads(mark.read_text())
    mark.write_text(json.dumps({**note, "since": "2020-01-01T00:00:00Z"}))
    assert running.night(DAYS[4], ["b"])["orphans"][0]["result"] == "removed"


def test_what_is_on_its_way_out_is_said_with_its_date(running: Site) -> None:
    for image in ("a", "b"):
        running.pool.create(image, MIB)
    running.night(DAYS[0], ["a", "b"])
    running.pool.remove("a")
    report = running.night(DAYS[1], ["b"])
    assert report["orphans"][0]["gone_on"] == DAYS[3]
    assert f"goes on {DAYS[3]}" in running.run("ceph_rsnapshot", "--snap-date", DAYS[1], "--noop").stdout
    running.night(DAYS[2], ["b"])
    assert running.night(DAYS[3], ["b"])["orphans"][0]["result"] == "removed"


def test_orphans_roll_off_though_the_names_of_snapshots_come_again(running: Site) -> None:
    running.configure(SNAP_NAMING_DATE_FORMAT="day-%u")
    for image in ("a", "b"):
        running.pool.create(image, MIB)
    for name in range(1, 8):
        running.pool.snap("b", f"day-{name}")
    running.pool.snap("a", "day-7")
    running.backup("--snap-date", DAYS[0])
    running.pool.remove("a")
    results = [running.backup("--snap-date", day)["orphans"] for day in DAYS[1:9]]
    assert results[2][0]["result"] == "removed"
    assert results[3:] == [[]] * 5


def test_a_backup_of_another_cluster_is_no_orphan_of_this_one(running: Site) -> None:
    for image in ("a", "b"):
        running.pool.create(image, MIB)
    running.night(DAYS[0], ["a", "b"])
    path = running.root("a") / "daily.0" / "a.json"
    path.write_text(render(read_manifest(path).model_copy(update={"fsid": "another"})))
    running.pool.remove("a")
    before = contents(running.root("a"))
    assert running.night(DAYS[1], ["b"])["orphans"] == []
    assert contents(running.root("a")) == before
