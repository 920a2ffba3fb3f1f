"""Real parts for every test: one Ceph cluster and one sshd a session, a pool and an agent a test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer
from tests.cluster import ceph
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.faults import own_mounts, small_disk
from tests.cluster.site import DAY, Site

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A file system in memory: on a disk much of a test's time would go to fsync."""
    own_mounts()
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    with small_disk(folder, "10G"):
        yield folder
    folder.rmdir()


@pytest.fixture(scope="session")
def cluster(memory: Path) -> Iterator[CephCluster]:
    with CephCluster(memory / "ceph", objectstore="memstore", osd_size=8 * 1024**3) as running:
        yield running


@pytest.fixture(scope="session")
def connection(cluster: CephCluster) -> Iterator[Any]:
    opened = ceph.connect(cluster)
    yield opened
    opened.shutdown()


@pytest.fixture(scope="session")
def ssh_server() -> Iterator[SshServer]:
    with SshServer() as running:
        yield running


@pytest.fixture
def new_pool(cluster: CephCluster, connection: Any) -> Iterator[Callable[[], TestPool]]:
    """Makes pools that are removed after the test."""
    pools: list[TestPool] = []

    def make() -> TestPool:
        pools.append(ceph.new_pool(cluster, connection, f"pool{next(_numbers)}"))
        return pools[-1]

    yield make
    for pool in pools:
        ceph.remove_pool(pool)


@pytest.fixture
def pool(new_pool: Callable[[], TestPool]) -> TestPool:
    return new_pool()


@pytest.fixture
def site(request: pytest.FixtureRequest, pool: TestPool, memory: Path) -> Iterator[Site]:
    """A configured site without an agent; on a disk if the test is marked so."""
    made = Site(pool, None if request.node.get_closest_marker("on_disk") else memory)
    yield made
    made.close()


@pytest.fixture
def running(site: Site) -> Site:
    """A site with an agent."""
    site.start_agent()
    return site


@pytest.fixture
def backed_up(running: Site) -> Site:
    """An image ``a`` with a day 0 made in direct mode."""
    running.pool.create("a", 24 * MIB, seed=70)
    running.pool.snap("a", DAY)
    running.configure(TRANSFER_MODE="direct", VERIFY_SAMPLE=0, VERIFY_FULL_EVERY=0)
    running.backup()
    return running


@pytest.fixture
def based(site: Site) -> Iterator[Site]:
    """A direct backup of a 16 MiB image; at the end its files must be as the test left them, and a next day succeed."""
    site.pool.create("a", 16 * MIB)
    site.pool.snap("a", DAY)
    site.configure(TRANSFER_MODE="direct")
    site.start_agent()
    site.backup()
    yield site
    site.pool.write("a", seed=9)
    site.pool.snap("a", "2026-01-09")
    assert site.next_day("2026-01-09")["kind"] == "increment"


@pytest.fixture
def three_days(running: Site) -> Site:
    """Images ``a`` with three days and ``b`` with the first and the last of them."""
    return _with_three_days(running)


@pytest.fixture(scope="session")
def three_days_to_look_at(cluster: CephCluster, connection: Any, memory: Path) -> Iterator[Site]:
    """As ``three_days``, for many tests that change nothing."""
    pool = ceph.new_pool(cluster, connection, "looked-at")
    site = Site(pool, memory)
    site.start_agent()
    yield _with_three_days(site)
    site.close()
    ceph.remove_pool(pool)


def _with_three_days(site: Site) -> Site:
    for image in "ab":
        site.pool.create(image, 8 * MIB, seed=ord(image))
    site.configure(TRANSFER_MODE="direct", RETAIN_NUMBER=5)
    for number in range(1, 4):
        for image in "ab":
            if (image, number) != ("b", 2):
                site.pool.snap(image, f"2026-01-0{number}")
        site.backup("--snap-date", f"2026-01-0{number}")
    return site
