"""Every kind of image becomes a qcow2 that is identical to `rbd export` of the snapshot, locally and through ssh."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.kinds import KINDS
from tests.cluster.site import DAY, Site, wait_until

ODD_NAMES = ["with space", "100%", "per%20cent", "quote'\"s", "-dash", "käse-日本", "tab\tname", "..", ".sync", "a~b"]
ODD_NAMES += ["$(x);&", "dots..", "disk.1"]


@pytest.mark.on_disk
@pytest.mark.parametrize("way", ["local", "ssh"])
def test_every_kind_is_identical_to_rbd_export(
    site: Site, new_pool: Callable[[], TestPool], ssh_server: SshServer, way: str
) -> None:
    places = {kind.name: kind.make(site.pool, new_pool) for kind in KINDS}
    site.configure(POOL=f"{site.pool},{site.pool}/tenant", IMAGE_RE=f"({'|'.join(places)})$")
    if way == "ssh":
        site.over_ssh(ssh_server)
    site.start_agent()
    report = site.backup()
    assert {name: image["result"] for name, image in report["by_name"].items()} == dict.fromkeys(places, "done")
    different = [
        name
        for name, place in places.items()
        if not site.same(site.root(name, place) / "daily.0" / f"{name}.qcow2", name, pool=place)
    ]
    assert different == []
    assert site.leftovers() == []


@pytest.mark.parametrize("way", ["local", "ssh"])
def test_odd_names_get_paths_of_their_own(site: Site, ssh_server: SshServer, way: str) -> None:
    for number, name in enumerate(ODD_NAMES):
        site.pool.create(name, MIB, seed=number)
        site.pool.snap(name, DAY)
    if way == "ssh":
        site.over_ssh(ssh_server)
    site.start_agent()
    report = site.backup()
    assert {image["image"]: image["result"] for image in report["images"]} == dict.fromkeys(ODD_NAMES, "done")
    paths = {image["path"] for image in report["images"]}
    assert len(paths) == len(ODD_NAMES)
    assert all(set(str(Path(path).relative_to(site.base))) <= _PLAIN for path in paths)
    for image in report["images"]:
        assert site.same(Path(image["path"]), image["image"])
    assert site.leftovers() == []


_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-%/")


def test_namespace_and_image_of_one_name_do_not_meet(site: Site) -> None:
    inner = site.pool.in_namespace("twin")
    for place, image in [(site.pool, "twin"), (inner, "twin"), (inner, "daily.0"), (inner, "daily.1")]:
        place.create(image, MIB, seed=len(image))
    site.configure(POOL=[str(site.pool), str(inner)])
    site.start_agent()
    for day in ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"):
        for place, image in [(site.pool, "twin"), (inner, "twin"), (inner, "daily.0"), (inner, "daily.1")]:
            place.write(image, seed=int(day[-1]))
            place.snap(image, day)
        report = site.backup("--snap-date", day)
        for image in report["images"]:
            place = inner if image["pool"] == str(inner) else site.pool
            assert site.same(Path(image["path"]), image["image"], day, pool=place)
    assert site.days("twin") == ["daily.0", "daily.1", "daily.2"]
    assert site.days("twin/twin") == ["daily.0", "daily.1", "daily.2"]


def test_backup_while_writes_go_on_is_the_snapshot(running: Site) -> None:
    running.pool.create("busy", 64 * MIB, seed=20)
    running.pool.snap("busy", DAY)
    process = running.start("ceph_rsnapshot")
    seed = 21
    while process.poll() is None:
        running.pool.write("busy", seed=seed)
        seed += 1
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    wait_until(lambda: seed > 22, "writes beside the backup", 1)
    assert running.same(running.root("busy") / "daily.0" / "busy.qcow2", "busy")
