"""Backups to restore, of an agent that may create images."""

from __future__ import annotations

import os
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
    with allowed.pool.image("big") as image:
        for at in range(0, 400 * MIB, 4 * MIB):
            image.write(os.urandom(MIB) * 4, at)
    allowed.pool.snap("big", DAY)
    allowed.backup("--transfer-mode", "direct", "--verify", "none")
    yield allowed
    assert contents(allowed.base)
