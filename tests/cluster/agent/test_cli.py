"""The agent: its commands without a controller, its start and end, and what can be reached over its socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


def test_gathernames_prints_the_images_with_the_snapshot(site: Site) -> None:
    for image in ("b", "a", "c with space", "without"):
        site.pool.create(image, MIB)
    for image in ("b", "a", "c with space"):
        site.pool.snap(image, DAY)
    done = site.run("gathernames")
    assert done.stdout.splitlines() == ["a", "b", "c with space"]
    assert "without" in done.stderr
    assert site.run("gathernames", "--image-re", "[ab]").stdout.splitlines() == ["a", "b"]
    assert site.run("gathernames", "--snap-date", "2020-02-02").stdout == ""


def test_gathernames_json_tells_all_that_is_known(site: Site) -> None:
    site.pool.create("a", 5 * MIB)
    site.pool.snap("a", "older")
    site.pool.snap("a", DAY)
    with site.pool.image("a") as image:
        image_id = image.id()
        snapshot_id = list(image.list_snaps())[-1]["id"]
        image.resize(7 * MIB)
    (listing,) = json.loads(site.run("gathernames", "--json").stdout)
    (found,) = listing["images"]
    assert listing["fsid"] == site.pool.cluster.fsid
    assert (found["name"], found["id"], found["size"]) == ("a", image_id, 7 * MIB)
    assert {"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"} == set(found["features"])
    snapshot = found["snapshot"]
    assert (snapshot["name"], snapshot["id"], snapshot["size"]) == (DAY, snapshot_id, 5 * MIB)
    assert snapshot["created"].endswith("Z")


def test_gathernames_json_tells_the_base_of_the_next_increment(running: Site) -> None:
    """With it, who deletes snapshots knows which one to keep, and who forgot hears of it."""

    def found() -> tuple[object, bool]:
        (listing,) = json.loads(running.run("gathernames", "--json").stdout)
        return listing["images"][0]["base"], listing["images"][0]["base_exists"]

    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    assert found() == (None, False)
    running.backup()
    with running.pool.image("a") as image:
        base = {"snapshot": DAY, "snapshot_id": next(iter(image.list_snaps()))["id"]}
    assert found() == (base, True)
    running.pool.unsnap("a", DAY)
    running.pool.snap("a", DAY)
    assert found() == (base, False)


def test_export_and_remove_by_hand(site: Site) -> None:
    site.pool.create("a")
    site.pool.snap("a", DAY)
    qcow = Path(site.run("export_qcow", "a").stdout.strip())
    assert qcow == site.temp / str(site.pool) / "a" / "a.qcow2"
    assert sorted(path.name for path in qcow.parent.iterdir()) == ["a.json", "a.qcow2"]
    assert site.same(qcow, "a")
    site.start_agent()
    assert qcow.exists(), "the agent's sweep takes only what is its own"
    site.run("remove_qcow", "a")
    assert site.leftovers() == []
    assert "there was no" in site.run("remove_qcow", "a").stderr


def test_export_names_pool_namespace_and_snapshot(site: Site) -> None:
    inner = site.pool.in_namespace("tenant")
    inner.create("-odd name", 2 * MIB)
    inner.snap("-odd name", "weekly")
    done = site.run("export_qcow", "--", f"{inner}/-odd name@weekly")
    qcow = Path(done.stdout.strip())
    assert qcow == site.temp / str(inner) / "-odd%20name" / "-odd%20name.qcow2"
    assert site.same(qcow, "-odd name", "weekly", pool=inner)
    site.run("remove_qcow", "-p", str(inner), "--", "-odd name")
    assert site.leftovers() == []


def test_export_of_what_is_not_there(site: Site) -> None:
    site.pool.create("a")
    site.pool.snap("a", "2025-12-31")
    site.pool.create("database")
    done = site.run("export_qcow", "databse", code=1)
    assert "there is no image databse" in done.stderr
    assert "did you mean database?" in done.stderr
    done = site.run("export_qcow", "a", code=1)
    assert DAY in done.stderr
    assert "2025-12-31" in done.stderr
    assert site.leftovers() == []


@pytest.mark.parametrize(
    "script", ["ceph_rsnapshot", "ceph_rsnapshot_agent", "gathernames", "export_qcow", "remove_qcow"]
)
def test_every_command_has_help_and_version(site: Site, script: str) -> None:
    help_text = site.run(script, "--help").stdout
    assert "example" in help_text
    assert "--config" in help_text
    assert site.run(script, "--version").stdout.startswith(f"{script} ")
    assert site.run(script, "--nonsense", code=2).stderr


def test_output_closed_early(site: Site) -> None:
    for number in range(30):
        site.pool.create(f"image-{number}", MIB)
        site.pool.snap(f"image-{number}", DAY)
    process = site.start("gathernames")
    assert process.stdout
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr
    assert process.stderr.read() == ""
