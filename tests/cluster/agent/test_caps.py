"""The cephx caps of our documents: what they are enough for, and what a stolen key can't do."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from demo.ceph_cluster import CephCluster
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.site import DAY, Site

_DOCS = Path(__file__).parents[3] / "docs"


def _documented(document: str, client: str, pool: TestPool) -> list[str]:
    """The caps as they are typed, for one pool of the test."""
    text = (_DOCS / document).read_text().replace("\\\n", " ")
    (line,) = re.findall(rf"^    ceph auth get-or-create {client} (.*?) -o", text, re.MULTILINE)
    words = shlex.split(line)
    caps = dict(zip(words[::2], words[1::2]))
    first = caps["osd"].split(", ")[0].replace("pool=rbd", f"pool={pool.name}")
    assert first.endswith(pool.name)
    return ["mon", caps["mon"], "osd", first]


@pytest.fixture
def key(cluster: CephCluster, site: Site) -> Iterator[Callable[[str, str], str]]:
    """Makes a client with documented caps for the site's pool."""
    made: list[str] = []

    def make(document: str, client: str) -> str:
        caps = _documented(document, client, site.pool)
        name = f"{client}-{site.pool.name}"
        (cluster.folder / f"{name}.keyring").write_text(cluster.ceph("auth", "get-or-create", name, *caps))
        made.append(name)
        return name.partition(".")[2]

    yield make
    for name in made:
        cluster.ceph("auth", "rm", name)


def _refused(cluster: CephCluster, user: str, *argv: str) -> None:
    done = subprocess.run(
        [argv[0], "-c", str(cluster.conf), "--id", user, *argv[1:]],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0, (argv, done)
    assert re.search(r"EACCES|not permitted|Permission denied|EPERM|access denied", done.stderr), (argv, done)


def _never(cluster: CephCluster, user: str, other: TestPool) -> None:
    """What neither key may do: stop clients, see other pools, and change users or the cluster."""
    _refused(cluster, user, "ceph", "osd", "blocklist", "add", "127.0.0.1:0/12345")
    _refused(cluster, user, "ceph", "auth", "get", "client.admin")
    _refused(cluster, user, "ceph", "osd", "pool", "delete", other.name, other.name, "--yes-i-really-really-mean-it")
    _refused(cluster, user, "rbd", "info", f"{other.name}/secret")
    _refused(cluster, user, "rados", "-p", other.name, "ls")


def test_the_backup_key(site: Site, cluster: CephCluster, new_pool: Callable[[], TestPool], key: Any) -> None:
    user, other = key("installation.md", "client.backup"), new_pool()
    other.create("secret", MIB)
    site.pool.create("a", 4 * MIB)
    site.pool.in_namespace("ns").create("b", MIB)
    site.pool.in_namespace("ns").snap("b", DAY)
    for day in (DAY, "2026-01-02"):
        site.pool.snap("a", day)
    site.configure(CEPH_USER=user, POOL=[str(site.pool), f"{site.pool}/ns"])
    site.start_agent()
    site.backup("--transfer-mode", "staged")
    site.pool.in_namespace("ns").snap("b", "2026-01-02")
    site.backup("--transfer-mode", "direct", "--snap-date", "2026-01-02")
    site.run("ceph_rsnapshot", "verify", "--source", f"{site.pool}/a@daily.0")
    assert site.run("gathernames", "--snap-date", DAY).stdout
    _never(cluster, user, other)
    image = f"{site.pool}/a"
    _refused(cluster, user, "rbd", "snap", "create", f"{image}@x")
    _refused(cluster, user, "rbd", "snap", "rm", f"{image}@{DAY}")
    _refused(cluster, user, "rbd", "rename", image, f"{site.pool}/b")
    _refused(cluster, user, "rbd", "create", "--size", "1M", f"{site.pool}/new")
    _refused(cluster, user, "rbd", "bench", "--io-type", "write", "--io-total", "4K", image)
    _refused(cluster, user, "rados", "-p", site.pool.name, "rm", "rbd_directory")
    with pytest.raises(AssertionError):  # it may read, so that a refusal says something
        _refused(cluster, user, "rbd", "info", image)


def test_the_restore_key(site: Site, cluster: CephCluster, new_pool: Callable[[], TestPool], key: Any) -> None:
    other = new_pool()
    other.create("secret", MIB)
    site.pool.create("a", 4 * MIB)
    site.pool.snap("a", DAY)
    backup, restore = key("installation.md", "client.backup"), key("restore.md", "client.restore")
    site.configure(CEPH_USER=backup, CEPH_RESTORE_USER=restore, ALLOW_RESTORE=True)
    site.start_agent()
    site.backup()
    site.run("ceph_rsnapshot", "restore", "a", "--to", f"{site.pool}/again")
    done = site.run("ceph_rsnapshot", "check", code=None)
    assert f"restore to {site.pool}: client.{restore} may write" in done.stdout
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")
    _never(cluster, restore, other)
