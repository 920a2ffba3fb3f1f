"""Real parts for every test: one Ceph cluster and one sshd a session, a pool and an agent a test."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer
from tests.cluster import ceph
from tests.cluster.ceph import TestPool
from tests.cluster.site import Site

_numbers = itertools.count(1)
# under nohup(1) it is ignored, here and in all children; a test closes a terminal
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def cluster() -> Iterator[CephCluster]:
    with CephCluster(objectstore="memstore", osd_size=8 * 1024**3) as running:
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
def site(pool: TestPool) -> Iterator[Site]:
    """A configured site without an agent."""
    made = Site(pool)
    yield made
    made.close()


@pytest.fixture
def running(site: Site) -> Site:
    """A site with an agent."""
    site.start_agent()
    return site
