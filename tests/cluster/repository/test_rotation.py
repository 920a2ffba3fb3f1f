"""Rotation: killed ones are finished, and days beyond are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.ceph import MIB
from tests.cluster.site import Site, contents

DAYS = [f"2026-02-0{number}" for number in range(1, 6)]


def test_reducing_retain_number_leaves_the_days_beyond_alone(running: Site) -> None:
    running.configure(RETAIN_NUMBER=4)
    running.pool.create("a", MIB)
    for number in range(1, 5):
        running.night(f"2026-01-1{number}", ["a"])
    oldest = contents(running.root("a") / "daily.3")
    running.configure(RETAIN_NUMBER=2)
    running.night(DAYS[0], ["a"])
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
        running.night(day, ["a"])
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
