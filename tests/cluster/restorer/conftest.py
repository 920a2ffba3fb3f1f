"""Backups to restore, of an agent that may create images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents


@pytest.fixture
def allowed(site: Site) -> Site:
    """A site whose agent may create images."""
    site.configure(ALLOW_RESTORE=True)
    site.start_agent()
    return site


@pytest.fixture
def restorable(allowed: Site) -> Site:
    """With a backup of image ``a``."""
    allowed.pool.create("a", 64 * MIB, seed=80)
    allowed.pool.write("a", seed=81, pieces=30)
    allowed.pool.snap("a", DAY)
    allowed.backup("--transfer-mode", "direct")
    return allowed


@pytest.fixture
def big(allowed: Site) -> Iterator[Site]:
    """A backup that takes a while to restore."""
    allowed.pool.create("big", 512 * MIB, seed=83)
    allowed.pool.fill("big", 400 * MIB)
    allowed.pool.snap("big", DAY)
    allowed.backup("--transfer-mode", "direct", "--verify", "none")
    before = contents(allowed.root("big") / "daily.0")
    yield allowed
    assert contents(allowed.root("big") / "daily.0") == before
