"""Verdicts of the verification belong to a day, whatever becomes of it."""

from __future__ import annotations

import json
import shutil

from tests.cluster.ceph import MIB
from tests.cluster.damage import damage_data
from tests.cluster.site import Site

NEXT = "2026-01-02"


def test_a_deleted_image_leaves_no_folder_behind_because_of_verdicts(backed_up: Site) -> None:
    backed_up.verify("a")
    backed_up.pool.create("b", MIB)
    backed_up.pool.remove("a")
    for day in ("2026-01-02", "2026-01-03", "2026-01-04"):
        backed_up.pool.snap("b", day)
        backed_up.backup("--snap-date", day)
    assert not backed_up.root("a").exists()


def test_the_verdict_moves_with_its_day(backed_up: Site) -> None:
    backed_up.verify("a")
    backed_up.pool.write("a", seed=76)
    backed_up.pool.snap("a", NEXT)
    backed_up.backup("--snap-date", NEXT)
    listed = json.loads(backed_up.run("ceph_rsnapshot", "list", "--json").stdout)
    assert [(each["number"], each["state"]) for each in listed] == [(0, "complete"), (1, "verified")]
    shutil.rmtree(backed_up.root("a") / "daily.1")
    backed_up.verify("a")
    assert len(json.loads((backed_up.root("a") / ".verified.json").read_text())["verdicts"]) == 1


def test_verdicts_that_are_damaged_make_no_bad_backup_a_good_one(backed_up: Site) -> None:
    damage_data(backed_up.root("a") / "daily.0")
    backed_up.verify("a", code=1)
    path = backed_up.root("a") / ".verified.json"
    path.write_text(path.read_text().replace('"ok": false', '"ok": true '))
    (listed,) = json.loads(backed_up.run("ceph_rsnapshot", "list", "--json").stdout)
    assert listed["state"] == "complete"
    backed_up.pool.snap("a", NEXT)
    report = backed_up.backup("--snap-date", NEXT)["by_name"]["a"]
    assert (report["kind"], report["full_because"]) == ("full", "what verifications found can't be read")
    backed_up.verify("a@daily.1", code=1)
