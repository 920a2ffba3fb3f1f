"""Days that are held stay beside the rotation until they are released."""

from __future__ import annotations

import json
from typing import Any

import pytest

import ceph_rsnapshot
from tests.cluster.ceph import MIB
from tests.cluster.site import Site, contents

DAYS = [f"2026-02-0{number}" for number in range(1, 8)]


def _list(site: Site, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.run("ceph_rsnapshot", "list", "--json", *arguments).stdout)
    return found


@pytest.fixture
def held(running: Site) -> Site:
    """Two nights of one image, the first of which is held."""
    running.pool.create("a", 4 * MIB)
    running.night(DAYS[0], ["a"])
    running.pool.write("a", seed=5)
    running.night(DAYS[1], ["a"])
    done = running.run("ceph_rsnapshot", "hold", f"a@{DAYS[0]}", "--reason", "before the migration")
    assert f"held/{DAYS[0]}" in done.stdout
    return running


def test_a_held_day_outlives_the_rotation_and_is_as_good_as_any(held: Site) -> None:
    kept = held.root("a") / "held" / DAYS[0]
    before = contents(kept)
    for day in DAYS[2:6]:
        held.night(day, ["a"])
    assert held.days("a") == ["daily.0", "daily.1", "daily.2"]
    assert contents(kept) == before
    assert held.same(kept / "a.qcow2", "a", DAYS[0])
    shown = held.run("ceph_rsnapshot", "list", "a").stdout
    assert f"held/{DAYS[0]}" in shown
    assert "before the migration" in shown
    held.run("ceph_rsnapshot", "verify", f"a@{DAYS[0]}")
    (listed,) = _list(held, f"a@{DAYS[0]}")
    assert listed["state"] == "verified"
    target = held.folder / "a.raw"
    held.run("ceph_rsnapshot", "restore", f"a@{DAYS[0]}", "--to-file", str(target), "--format", "raw")
    assert target.read_bytes() == held.pool.export("a", DAYS[0], held.folder / "export.raw").read_bytes()


def test_without_a_day_the_newest_is_restored_not_the_held_one(held: Site) -> None:
    done = held.run("ceph_rsnapshot", "restore", "a", "--to-file", str(held.folder / "a.raw"), "--format", "raw")
    assert f"a@{DAYS[1]}" in done.stdout


def test_a_held_day_of_a_deleted_image_stays_when_all_others_have_gone(held: Site) -> None:
    held.pool.create("b", MIB)
    held.pool.remove("a")
    for day in DAYS[2:6]:
        held.night(day, ["b"])
    assert held.days("a") == []
    assert [backup["interval"] for backup in _list(held, "a")] == ["held"]
    held.run("ceph_rsnapshot", "release", "a")
    assert not held.root("a").exists()


def test_release_takes_only_the_held_copy(held: Site) -> None:
    days = {day: contents(held.root("a") / day) for day in held.days("a")}
    held.run("ceph_rsnapshot", "release", f"a@{DAYS[0]}")
    assert not (held.root("a") / "held").exists()
    assert {day: contents(held.root("a") / day) for day in held.days("a")} == days
    done = held.run("ceph_rsnapshot", "release", f"a@{DAYS[0]}", code=1)
    assert "no backup of one held day" in done.stderr
    assert held.leftovers() == []


def test_a_day_is_held_once(held: Site) -> None:
    before = contents(held.root("a"))
    done = held.run("ceph_rsnapshot", "hold", f"a@{DAYS[0]}", code=1)
    assert "release it first" in done.stderr
    assert contents(held.root("a")) == before


def test_the_same_from_python(held: Site) -> None:
    settings = ceph_rsnapshot.load_settings(held.config_path)
    copy = ceph_rsnapshot.hold(settings, f"{held.pool}/a@daily.0", reason="why")
    assert copy.hold and copy.hold.reason == "why"
    assert ceph_rsnapshot.release(settings, f"{held.pool}/a@{copy.day}").folder == copy.folder
    with pytest.raises(ceph_rsnapshot.CephRsnapshotError) as caught:
        ceph_rsnapshot.hold(settings, "nosuch")
    assert caught.value.code == "backup-not-found"
