"""Direct mode: full, increment and unchanged days are what Ceph holds, and older days stay as they were."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

import pytest
import rbd

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.kinds import KINDS
from tests.cluster.site import DAY, Site, contents, same_content

NEXT = "2026-01-02"


@pytest.fixture
def direct(site: Site) -> Site:
    """A site in direct mode with an agent."""
    site.configure(TRANSFER_MODE="direct")
    site.start_agent()
    return site


@contextmanager
def writing(place: TestPool, image: str, seed: int) -> Iterator[None]:
    """Writes, discards and zero-writes go on while the block runs; what a writer thread raised is raised at the end."""
    ended, failures = threading.Event(), []

    def write() -> None:
        try:
            turn = 0
            while not ended.is_set() or turn < 1:
                place.write(image, seed=seed * 1000 + turn, pieces=2)
                turn += 1
        except rbd.Error as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert failures == []


@pytest.mark.parametrize(("days", "fast_diff"), [(11, False), (5, True)])
def test_days_of_every_kind(site: Site, new_pool: Callable[[], TestPool], days: int, fast_diff: bool) -> None:
    """Snapshots taken while writes go on; some days nothing changes, on one all are full."""
    places = {kind.name: kind.make(site.pool, new_pool) for kind in KINDS}
    site.configure(
        POOL=f"{site.pool},{site.pool}/tenant",
        IMAGE_RE=f"({'|'.join(places)})$",
        TRANSFER_MODE="direct",
        VERIFY_SAMPLE="1M",
        FAST_DIFF=fast_diff,
    )
    site.start_agent()
    randomly = random.Random(77)
    kinds_seen: dict[str, set[str]] = {name: set() for name in places}
    made = {(name, DAY) for name in places}
    previous, exports = "", site.folder / "exports"
    for number in range(1, days + 1):
        today, tomorrow = f"2026-01-{number:02}", f"2026-01-{number + 1:02}"
        for name, place in places.items():
            if (name, today) not in made and randomly.random() < 0.3:
                place.write(name, seed=number)
                place.snap(name, today)
                place.snap(name, tomorrow)  # with nothing written between
                made.add((name, tomorrow))
            elif (name, today) not in made:
                with writing(place, name, seed=number):
                    place.snap(name, today)
        report = site.backup("--snap-date", today, *(["--full"] if number == 7 else []))["by_name"]
        assert {name: image["result"] for name, image in report.items()} == dict.fromkeys(places, "done")
        assert [image["mismatch"] for image in report.values()] == [None] * len(places)
        for name, place in places.items():
            kinds_seen[name].add(report[name]["kind"])
            newest, raws = site.root(name, place) / "daily.0" / f"{name}.qcow2", exports / name
            raws.mkdir(parents=True, exist_ok=True)
            assert same_content(newest, place.export(name, today, raws / today)), (name, today, report[name])
            if previous:
                older = newest.parents[1] / "daily.1" / newest.name
                assert same_content(older, raws / previous), (name, previous)
                (raws / previous).unlink()
        previous = today
    written = {name for name, place in places.items() if name != "empty"}
    assert {name for name in written if {"full", "increment"} <= kinds_seen[name]} == written
    assert sum("unchanged" in seen for seen in kinds_seen.values()) > len(places) / 2
    assert site.leftovers() == []


@pytest.mark.on_disk
def test_three_days_over_ssh(direct: Site, ssh_server: SshServer) -> None:
    direct.over_ssh(ssh_server)
    direct.configure(VERIFY_FULL_EVERY=0)  # whose turn it is depends on the name of the pool
    pool = direct.pool
    pool.create("a", 64 * MIB)
    pool.snap("a", DAY)
    first = direct.next_day(DAY)
    assert (first["kind"], first["full_because"], first["verified"]) == ("full", "there is no backup yet", "changed")
    before = contents(direct.root("a") / "daily.0")

    pool.write("a", seed=2)
    pool.snap("a", NEXT)
    second = direct.next_day(NEXT)
    assert (second["kind"], second["base"], second["next_base"]) == ("increment", DAY, NEXT)
    assert 0 < second["transferred"] <= second["changed"]
    assert contents(direct.root("a") / "daily.1") == before

    pool.snap("a", "2026-01-03")
    third = direct.next_day("2026-01-03")
    assert (third["kind"], third["base"], third["transferred"]) == ("unchanged", NEXT, 0)
    root = direct.root("a")
    assert (root / "daily.0" / "a.qcow2").samefile(root / "daily.1" / "a.qcow2")
    assert contents(root / "daily.2") == before


def test_an_unchanged_image_costs_nothing_in_staged_mode_too(running: Site) -> None:
    running.pool.create("a", 16 * MIB)
    for name in (DAY, NEXT):
        running.pool.snap("a", name)
    assert running.next_day(DAY)["kind"] == "full"
    second = running.next_day(NEXT)
    assert (second["kind"], second["transfer_mode"], second["transferred"]) == ("unchanged", "staged", 0)
    root = running.root("a")
    assert (root / "daily.0" / "a.qcow2").samefile(root / "daily.1" / "a.qcow2")
    running.pool.write("a", seed=5)
    running.pool.snap("a", "2026-01-03")
    assert running.next_day("2026-01-03")["kind"] == "full"


def test_modes_take_over_from_each_other(running: Site) -> None:
    running.pool.create("a", 16 * MIB)
    kinds = []
    for number, mode in enumerate(["staged", "direct", "staged", "direct"], 1):
        running.pool.write("a", seed=number)
        running.pool.snap("a", f"2026-01-0{number}")
        kinds.append(running.next_day(f"2026-01-0{number}", "--transfer-mode", mode)["kind"])
    assert kinds == ["full", "increment", "full", "increment"]


@pytest.mark.on_disk
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("mode", ["direct", "staged"])
def test_compressed_backups_and_increments_onto_them(running: Site, mode: str, compression: str) -> None:
    """An increment writes plain clusters over compressed ones; `next_day` compares the whole with Ceph."""
    with running.pool.ioctx() as ioctx:
        rbd.RBD().create(ioctx, "a", 16 * MIB, old_format=False)
    with running.pool.image("a") as image:
        image.write(b"a rather compressible text " * 300_000, 0)
    running.configure(TRANSFER_MODE=mode, QCOW_COMPRESSION=compression, QCOW_CLUSTER_SIZE="128K", VERIFY="full")
    running.pool.snap("a", DAY)
    running.next_day(DAY)
    qcow = running.root("a") / "daily.0" / "a.qcow2"
    assert qcow.stat().st_blocks * 512 < MIB
    running.configure(TRANSFER_MODE="direct")
    for number in range(2, 6):
        running.pool.write("a", seed=number)
        running.pool.snap("a", f"2026-01-0{number}")
        assert running.next_day(f"2026-01-0{number}")["kind"] == "increment"


@pytest.mark.parametrize("fast", [False, True])
def test_extents_by_object_map(direct: Site, fast: bool) -> None:
    features = sum(
        getattr(rbd, f"RBD_FEATURE_{name}") for name in ("LAYERING", "EXCLUSIVE_LOCK", "OBJECT_MAP", "FAST_DIFF")
    )
    direct.configure(FAST_DIFF=fast)
    direct.pool.create("a", 300 * MIB, features=features)
    kinds = []
    for number in range(1, 6):
        direct.pool.snap("a", f"2026-01-0{number}")
        kinds.append(direct.next_day(f"2026-01-0{number}")["kind"])
        if number != 3:
            direct.pool.write("a", seed=number)
    assert kinds == ["full", "increment", "increment", "unchanged", "increment"]


def test_bandwidth_limit(direct: Site, ssh_server: SshServer) -> None:
    """Both modes take at least as long as the limit says."""
    direct.over_ssh(ssh_server)
    direct.configure(SH_LOGGING=True)
    direct.stop_agent()
    direct.start_agent()
    with direct.pool.ioctx() as ioctx:
        rbd.RBD().create(ioctx, "a", 16 * MIB, old_format=False)
    for name, mode in ((DAY, "direct"), ("2026-01-02", "staged")):
        with direct.pool.image("a") as image:
            image.write(os.urandom(8 * MIB), 0)
        direct.pool.snap("a", name)
        limited = direct.next_day(name, "--transfer-mode", mode, "--bandwidth-limit", "2M", "--full")
        assert limited["seconds"] > 1.9  # nbdkit lets two seconds pass at once
    # what crosses the network is limited once: in staged mode that is rsync's part
    assert direct.agent_log.read_text().count("--filter=rate") == 1
