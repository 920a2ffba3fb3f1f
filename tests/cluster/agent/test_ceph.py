"""How images, snapshots and their differences are read."""

from __future__ import annotations

import json

import rbd

from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


def test_snapshots_in_the_trash_and_of_groups_do_not_count(site: Site) -> None:
    """A clone of format 2 keeps its parent's deleted snapshot alive in the trash namespace."""
    site.pool.create("a", MIB)
    site.pool.snap("a", DAY)
    site.pool.cluster.rbd("clone", "--rbd-default-clone-format", "2", f"{site.pool}/a@{DAY}", f"{site.pool}/child")
    site.pool.unsnap("a", DAY)
    with site.pool.image("a") as image:
        assert [entry["namespace"] for entry in image.list_snaps()] == [2]
    site.pool.cluster.rbd("group", "create", f"{site.pool}/group")
    site.pool.cluster.rbd("group", "image", "add", f"{site.pool}/group", f"{site.pool}/a")
    site.pool.cluster.rbd("group", "snap", "create", f"{site.pool}/group@{DAY}")
    listing = json.loads(site.run("gathernames", "--json", "--image-re", "a$").stdout)[0]
    assert [(image["snapshot"], image["newest"]) for image in listing["images"]] == [(None, None)]


def test_an_image_that_can_not_be_opened_is_an_error_and_not_without_snapshot(running: Site) -> None:
    site = running
    for image in ("broken", "fine"):
        site.pool.create(image, MIB)
        site.pool.snap(image, DAY)
    with site.pool.image("broken") as image:
        image_id = image.id()
    with site.pool.ioctx() as ioctx:
        ioctx.remove_object(f"rbd_header.{image_id}")
    done = site.run("gathernames", code=1)
    assert done.stdout.splitlines() == ["fine"]
    assert "broken" in done.stderr
    report = site.backup(code=1)
    assert report["by_name"]["broken"]["error"]["code"] == "image-unreadable"
    assert report["by_name"]["fine"]["result"] == "done"
    assert report["orphans"] == []


def test_least_rights_are_enough(site: Site) -> None:
    """The caps that docs/installation.md names."""
    keyring = site.folder / "keyring"
    inner = site.pool.in_namespace("tenant")
    for place in (site.pool, inner):
        place.create("a")
        place.snap("a", DAY)
    caps = ["mon", "allow r", "osd", f"profile rbd-read-only pool={site.pool.name}"]
    site.pool.cluster.ceph("auth", "get-or-create", "client.backup", *caps, "-o", str(keyring))
    conf = site.folder / "backup.conf"
    conf.write_text(f"{site.pool.cluster.conf.read_text()}[client.backup]\nkeyring = {keyring}\n")
    site.configure(CEPH_CONF=str(conf), CEPH_USER="backup", POOL=[str(site.pool), str(inner)])
    site.start_agent()
    report = site.backup()
    assert [image["result"] for image in report["images"]] == ["done", "done"]
    for place in (site.pool, inner):
        assert site.same(site.root("a", place) / "daily.0" / "a.qcow2", "a", pool=place)
    manifest = json.loads((site.root("a") / "daily.0" / "a.json").read_text())
    assert manifest["versions"]["ceph"].startswith("16.")
    site.pool.cluster.ceph("auth", "rm", "client.backup")


def test_an_object_map_that_is_marked_invalid_is_not_asked(running: Site) -> None:
    """Enabling the feature on an image that has data makes an empty map, marked invalid."""
    maps = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
    running.pool.create("a", 64 * MIB, features=rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
    running.pool.snap("a", DAY)
    running.pool.write("a", seed=2)
    running.pool.snap("a", "2026-01-02")
    with running.pool.image("a") as image:
        image.update_features(maps, True)
        assert image.flags() & (rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID)
    running.configure(TRANSFER_MODE="direct", FAST_DIFF=True)
    for day, kind in ((DAY, "full"), ("2026-01-02", "increment")):
        assert running.backup("--snap-date", day)["by_name"]["a"]["kind"] == kind
        assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a", day)
