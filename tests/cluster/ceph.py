"""Images in the test cluster, made through librbd; `rbd export` is the oracle for their content."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rados
import rbd

from demo.ceph_cluster import CephCluster

MIB = 1024 * 1024


@dataclass(frozen=True)
class TestPool:
    """A pool (or namespace) of one test."""

    __test__ = False
    cluster: CephCluster
    rados: Any
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.namespace}" if self.namespace else self.name

    @contextmanager
    def ioctx(self) -> Iterator[Any]:
        with self.rados.open_ioctx(self.name) as ioctx:
            ioctx.set_namespace(self.namespace)
            yield ioctx

    def in_namespace(self, namespace: str) -> TestPool:
        """A namespace of this pool, made if it is missing."""
        with self.rados.open_ioctx(self.name) as ioctx:
            if not rbd.RBD().namespace_exists(ioctx, namespace):
                rbd.RBD().namespace_create(ioctx, namespace)
        return TestPool(self.cluster, self.rados, self.name, namespace)

    def create(self, image: str, size: int = 8 * MIB, seed: int = 1, **options: Any) -> None:
        """An image with some data written; ``options`` go to RBD.create."""
        with self.ioctx() as ioctx:
            rbd.RBD().create(ioctx, image, size, old_format=False, **options)
        self.write(image, seed)

    @contextmanager
    def image(self, image: str) -> Iterator[Any]:
        with self.ioctx() as ioctx, rbd.Image(ioctx, image) as opened:
            yield opened

    def write(self, image: str, seed: int, pieces: int = 6) -> None:
        """Random writes, discards and zero-writes all over the image, the same for the same seed."""
        randomly = random.Random(seed)
        with self.image(image) as opened:
            size = opened.size()
            for _ in range(pieces if size else 0):
                offset = randomly.randrange(size)
                length = min(randomly.choice([512, 4096, 70_000, MIB]), size - offset)
                opened.write(randomly.randbytes(length), offset)
            for _ in range(2 if size > MIB else 0):
                opened.discard(randomly.randrange(size - MIB), MIB // 2)
                opened.write(bytes(5000), randomly.randrange(size - MIB))

    def fill(self, image: str, size: int, seed: int = 0) -> None:
        """Write ``size`` bytes from the start: nothing that compresses, and no two 4 MiB alike."""
        block = random.Random(seed).randbytes(4 * MIB)
        with self.image(image) as opened:
            for at in range(0, size, len(block)):
                opened.write((at.to_bytes(8, "big") + block[8:])[: size - at], at)

    def snap(self, image: str, name: str) -> None:
        with self.image(image) as opened:
            opened.create_snap(name)

    def unsnap(self, image: str, name: str) -> None:
        with self.image(image) as opened:
            opened.remove_snap(name)

    def remove(self, image: str) -> None:
        """Remove the image with its snapshots."""
        with self.image(image) as opened:
            for snapshot in list(opened.list_snaps()):
                if opened.is_protected_snap(snapshot["name"]):
                    opened.unprotect_snap(snapshot["name"])
                opened.remove_snap(snapshot["name"])
        with self.ioctx() as ioctx:
            rbd.RBD().remove(ioctx, image)

    def export(self, image: str, snapshot: str, to: Path) -> Path:
        """What the oracle says is in the snapshot, as a raw file."""
        to.unlink(missing_ok=True)
        place = ["--namespace", self.namespace] if self.namespace else []
        source = ["--pool", self.name, *place, "--image", image, "--snap", snapshot]
        self.cluster.rbd("export", "--no-progress", *source, str(to))
        return to


def new_pool(cluster: CephCluster, connection: Any, name: str) -> TestPool:
    """A pool with one placement group, made through the monitor directly (the ceph command takes a second)."""
    command(connection, prefix="osd pool create", pool=name, pg_num=1, pgp_num=1)
    command(connection, prefix="osd pool application enable", pool=name, app="rbd")
    pool = TestPool(cluster, connection, name)
    with pool.ioctx() as ioctx:
        rbd.RBD().pool_init(ioctx, True)
    return pool


def remove_pool(pool: TestPool) -> None:
    command(pool.rados, prefix="osd pool delete", pool=pool.name, pool2=pool.name, yes_i_really_really_mean_it=True)


def command(connection: Any, **words: Any) -> str:
    """A command to the monitor."""
    code, output, message = connection.mon_command(json.dumps(words), b"")
    if code:
        raise RuntimeError(f"{words}: {message}")
    return str(output.decode())


def connect(cluster: CephCluster) -> Any:
    connection = rados.Rados(conffile=str(cluster.conf))
    connection.connect(timeout=30)
    return connection
