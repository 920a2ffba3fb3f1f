"""Every kind of RBD image there is to back up."""

from __future__ import annotations

from typing import Callable, NamedTuple

import rbd

from tests.cluster.ceph import MIB, TestPool
from tests.cluster.site import DAY


class Kind(NamedTuple):
    name: str
    make: Callable[[TestPool, Callable[[], TestPool]], TestPool]
    """Makes the image called like the kind, with its snapshot; returns the pool or namespace that it is in."""


def _plain(pool: TestPool, _more: object) -> TestPool:
    pool.create("plain", 16 * MIB, seed=2)
    pool.snap("plain", DAY)
    pool.write("plain", seed=3)
    return pool


def _sparse(pool: TestPool, _more: object) -> TestPool:
    pool.create("sparse", 3000 * MIB, seed=4)
    pool.snap("sparse", DAY)
    return pool


def _unwritten(pool: TestPool, _more: object) -> TestPool:
    pool.create("unwritten", 0)
    with pool.image("unwritten") as image:
        image.resize(50 * MIB)
    pool.snap("unwritten", DAY)
    return pool


def _empty(pool: TestPool, _more: object) -> TestPool:
    pool.create("empty", 0)
    pool.snap("empty", DAY)
    return pool


def _small_objects(pool: TestPool, _more: object) -> TestPool:
    pool.create("small-objects", 24 * MIB, seed=5, order=20)
    pool.snap("small-objects", DAY)
    return pool


def _striped(pool: TestPool, _more: object) -> TestPool:
    features = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_STRIPINGV2
    pool.create("striped", 40 * MIB, seed=6, features=features, stripe_unit=65536, stripe_count=5)
    pool.write("striped", seed=7)
    pool.snap("striped", DAY)
    return pool


def _data_pool(pool: TestPool, more: Callable[[], TestPool]) -> TestPool:
    pool.create("data-pool", 16 * MIB, seed=8, data_pool=more().name)
    pool.snap("data-pool", DAY)
    return pool


def _namespaced(pool: TestPool, _more: object) -> TestPool:
    inner = pool.in_namespace("tenant")
    inner.create("namespaced", 16 * MIB, seed=9)
    inner.snap("namespaced", DAY)
    return inner


def _grown(pool: TestPool, _more: object) -> TestPool:
    return _resized(pool, "grown", 30 * MIB)


def _shrunk(pool: TestPool, _more: object) -> TestPool:
    return _resized(pool, "shrunk", 5 * MIB)


def _resized(pool: TestPool, name: str, size: int) -> TestPool:
    pool.create(name, 17 * MIB, seed=10)
    pool.snap(name, DAY)
    with pool.image(name) as image:
        image.resize(size)
    pool.write(name, seed=11)
    return pool


def _odd_size(pool: TestPool, _more: object) -> TestPool:
    pool.create("odd-size", 9 * MIB + 513, seed=12)
    pool.snap("odd-size", DAY)
    return pool


def _clone(pool: TestPool, name: str) -> TestPool:
    """A clone of a parent that is larger than the clone's own changes, with parts of it written and discarded."""
    pool.create(f"{name}-parent", 20 * MIB, seed=13)
    with pool.image(f"{name}-parent") as parent:
        parent.create_snap("base")
        parent.protect_snap("base")
    with pool.ioctx() as ioctx:
        rbd.RBD().clone(ioctx, f"{name}-parent", "base", ioctx, name, features=rbd.RBD_FEATURE_LAYERING)
    with pool.image(name) as image:
        image.resize(26 * MIB)
    pool.write(name, seed=14)
    with pool.image(name) as image:
        image.discard(0, 6 * MIB)
    pool.snap(name, DAY)
    return pool


def _cloned(pool: TestPool, _more: object) -> TestPool:
    return _clone(pool, "cloned")


def _flattened(pool: TestPool, _more: object) -> TestPool:
    _clone(pool, "flattened")
    with pool.image("flattened") as image:
        image.flatten()
    return pool


def _flattened_before(pool: TestPool, _more: object) -> TestPool:
    _clone(pool, "flattened-before")
    with pool.image("flattened-before") as image:
        image.remove_snap(DAY)
        image.flatten()
    pool.write("flattened-before", seed=15)
    pool.snap("flattened-before", DAY)
    return pool


KINDS = [
    Kind("plain", _plain),
    Kind("sparse", _sparse),
    Kind("unwritten", _unwritten),
    Kind("empty", _empty),
    Kind("small-objects", _small_objects),
    Kind("striped", _striped),
    Kind("data-pool", _data_pool),
    Kind("namespaced", _namespaced),
    Kind("grown", _grown),
    Kind("shrunk", _shrunk),
    Kind("odd-size", _odd_size),
    Kind("cloned", _cloned),
    Kind("flattened", _flattened),
    Kind("flattened-before", _flattened_before),
]
