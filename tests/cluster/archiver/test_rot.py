"""A base that is rotten, unreadable or slow: a right backup in the same run, and digests that are right too."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rbd

from tests.cluster.ceph import MIB, command
from tests.cluster.damage import compressed_cluster, data_cluster, extents, flip
from tests.cluster.faults import instead_of
from tests.cluster.site import DAY, Site

NEXT, THIRD = "2026-01-02", "2026-01-03"
PIECE = 65536


@pytest.fixture
def direct(site: Site) -> Iterator[Site]:
    """At the end nothing is left over, and all days are as their digests say."""
    site.configure(TRANSFER_MODE="direct")
    site.start_agent()
    yield site
    assert site.leftovers() == []
    newest = site.root("a") / "daily.0" / "a.qcow2"
    assert site.run("ceph_rsnapshot", "verify", f"{site.pool}/a@daily.0").stdout.count("good") == 1
    assert newest.exists()


def _make(site: Site, size: int = 16 * MIB, **options: Any) -> None:
    with site.pool.ioctx() as ioctx:
        rbd.RBD().create(ioctx, "a", size, old_format=False, **options)
    with site.pool.image("a") as image:
        # compressible, but not of one byte alone
        image.write(b"".join(bytes([at % 251]) * 1000 for at in range(4 * MIB // 1000 + 1))[: 4 * MIB], 0)
    site.pool.snap("a", DAY)


@pytest.mark.parametrize("mode", ["direct", "staged"])
@pytest.mark.parametrize("changed", [True, False], ids=["increment", "unchanged"])
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_rot_in_compressed_data(direct: Site, compression: str, changed: bool, mode: str) -> None:
    """`qemu-img check` does not see it; who reads it or writes beside it gets an I/O error."""
    direct.configure(QCOW_COMPRESSION=compression)
    _make(direct)
    direct.next_day(DAY)
    qcow = direct.root("a") / "daily.0" / "a.qcow2"
    for offset in range(12):
        flip(qcow, compressed_cluster(qcow) + offset)
    if changed:
        with direct.pool.image("a") as image:
            image.write(b"new", 100)  # a part of the rotten cluster
    direct.pool.snap("a", NEXT)
    report = direct.next_day(NEXT, "--transfer-mode", mode)
    assert report["kind"] == "full"
    if mode == "direct" or not changed:
        assert "newest backup" in report["full_because"]


@pytest.fixture
def rotten(direct: Site) -> Site:
    """The first piece of day 0 has rotted, and no sample is taken that may meet it."""
    direct.configure(VERIFY_SAMPLE=0, VERIFY_FULL_EVERY=0)
    _make(direct)
    direct.next_day(DAY)
    qcow = direct.root("a") / "daily.0" / "a.qcow2"
    assert extents(qcow)[0]["start"] == 0
    flip(qcow, data_cluster(qcow))
    return direct


def test_rot_in_what_is_overwritten_gets_no_false_digest(rotten: Site) -> None:
    with rotten.pool.image("a") as image:
        image.write(os.urandom(PIECE), 0)
    rotten.pool.snap("a", NEXT)
    report = rotten.next_day(NEXT)
    assert report["kind"] == "full"
    assert "not what it was" in report["full_because"]


def test_rot_that_no_sample_meets_is_found_when_all_is_compared(rotten: Site) -> None:
    with rotten.pool.image("a") as image:
        image.write(b"elsewhere", 8 * MIB)
    rotten.pool.snap("a", NEXT)
    rotten.configure(VERIFY_FULL_EVERY=1)
    report = rotten.next_day(NEXT)
    assert (report["kind"], report["verified"]) == ("full", "full")
    assert "differs from the snapshot" in report["mismatch"]


def test_a_base_that_can_not_be_read(direct: Site, tmp_path: Path) -> None:
    """A bad sector: cp says so."""
    _make(direct)
    direct.next_day(DAY)
    with direct.pool.image("a") as image:
        image.write(b"new", 100)
    direct.pool.snap("a", NEXT)
    report = direct.next_day(NEXT, env=_cp(tmp_path, 'echo "cp: error reading: Input/output error" >&2; exit 1'))
    assert report["kind"] == "full"
    assert "Input/output error" in report["full_because"]


def test_a_clone_that_takes_longer_than_the_loan_of_the_export(site: Site, tmp_path: Path) -> None:
    """Without reflinks a base is copied: that may take longer than an export is lent that nobody renews."""
    site.configure(TRANSFER_MODE="direct", EXPORT_LEASE=2)
    site.start_agent()
    _make(site)
    site.next_day(DAY)
    with site.pool.image("a") as image:
        image.write(b"new", 100)
    site.pool.snap("a", NEXT)
    slowly = _cp(tmp_path, 'sleep 4; exec "$real" "$@"')
    assert site.next_day(NEXT, env=slowly)["kind"] == "increment"


def _cp(folder: Path, instead: str) -> dict[str, str]:
    """An environment in which there are no reflinks, and a real copy does ``instead``."""
    return instead_of(folder, "cp", f'[ "$1" = --reflink=always ] && exit 1\n{instead}')


@pytest.mark.parametrize("mode", ["direct", "staged"])
def test_a_base_that_ceph_keeps_in_its_trash_for_a_clone(direct: Site, mode: str) -> None:
    """A snapshot that is deleted while a clone (v2) needs it keeps its id, under a name that nothing finds."""
    _make(direct, features=rbd.RBD_FEATURE_LAYERING)
    direct.next_day(DAY)
    command(direct.pool.rados, prefix="osd set-require-min-compat-client", version="mimic")
    image = f"{direct.pool}/a"
    direct.pool.cluster.rbd("--rbd-default-clone-format", "2", "clone", f"{image}@{DAY}", f"{direct.pool}/child")
    direct.pool.unsnap("a", DAY)
    direct.pool.write("a", seed=3)
    direct.pool.snap("a", NEXT)
    report = direct.next_day(NEXT, "--transfer-mode", mode, "--image-re", "a$")
    assert report["kind"] == "full"
    assert "no longer exists" in report["full_because"]


@pytest.mark.parametrize("fast", [True, False])
def test_an_image_that_was_smaller_in_between(direct: Site, fast: bool) -> None:
    """The object map's difference lacks what was cut off and grew again."""
    _make(direct, 80 * MIB)
    randomly = random.Random(5)
    with direct.pool.image("a") as image:
        for offset in range(0, 80 * MIB, 4 * MIB):
            image.write(randomly.randbytes(PIECE), offset)
    direct.pool.snap("a", NEXT)
    direct.configure(FAST_DIFF=fast, VERIFY_SAMPLE=0, VERIFY_FULL_EVERY=0)
    direct.next_day(NEXT)
    with direct.pool.image("a") as image:
        image.resize(40 * MIB)
        image.create_snap("between")
        image.resize(80 * MIB)
        image.write(b"new", 100)
        image.create_snap(THIRD)
    report = direct.next_day(THIRD)
    assert report["kind"] == "increment"
    assert report["changed"] >= 10 * PIECE


def test_a_base_path_with_quotes(site: Site) -> None:
    site.base = site.folder / 'it\'s "here"'
    site.configure(TRANSFER_MODE="direct", BACKUP_BASE_PATH=str(site.base))
    site.start_agent()
    _make(site)
    site.next_day(DAY)
    with site.pool.image("a") as image:
        image.write(b"new", 100)
    site.pool.snap("a", NEXT)
    assert site.next_day(NEXT)["kind"] == "increment"
    assert (site.root("a") / "daily.0" / "a.qcow2").stat().st_nlink == 1


def test_the_base_is_told_again_after_a_run_that_was_killed_before_it_could(direct: Site) -> None:
    _make(direct)
    direct.next_day(DAY)
    for note in (direct.temp.parent / "bases").iterdir():
        note.unlink()
    assert direct.backup()["by_name"]["a"]["result"] == "skipped"
    images = json.loads(direct.run("gathernames", "--json").stdout)
    assert [image["base"]["snapshot"] for listing in images for image in listing["images"]] == [DAY]


def test_full_comparisons_do_not_fall_on_one_night(site: Site) -> None:
    site.configure(TRANSFER_MODE="direct", VERIFY_FULL_EVERY=4)
    site.start_agent()
    for number in range(16):
        site.pool.create(f"vm-{number}", MIB)
        site.pool.snap(f"vm-{number}", DAY)
    verified = [image["verified"] for image in site.backup()["images"]]
    assert 1 <= verified.count("full") <= 10
    assert verified.count("full") + verified.count("changed") == 16
