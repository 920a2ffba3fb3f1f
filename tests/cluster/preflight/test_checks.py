"""`ceph_rsnapshot check`: what is not right is found on both nodes, with advice, and nothing is changed by looking."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents


def _check(site: Site, code: int, **env: str) -> dict[str, dict[str, Any]]:
    done = site.run("ceph_rsnapshot", "check", "--json", code=code, env=env)
    return {item["name"]: item for item in json.loads(done.stdout)["items"]}


@pytest.fixture
def ready(site: Site, cluster: CephCluster, ssh_server: SshServer) -> Site:
    """A site of which nothing is to be said."""
    keyring = cluster.folder / "client.looker.keyring"
    words = ["mon", "allow r", "osd", "profile rbd-read-only"]
    keyring.write_text(cluster.ceph("auth", "get-or-create", "client.looker", *words))
    site.configure(CEPH_USER="looker")
    site.over_ssh(ssh_server)
    site.start_agent()
    site.pool.create("a", 4 * MIB)
    site.pool.snap("a", DAY)
    site.backup()
    return site


def test_all_is_well(ready: Site) -> None:
    before = contents(ready.base)
    items = _check(ready, 0)
    assert all(item["ok"] for item in items.values())
    pool = f"pool {ready.pool}"
    expected = {"backup node: rsnapshot", "backup node: ssh", "BACKUP_BASE_PATH", "free space", "reflinks", "lock"}
    expected |= {"last good run", "agent", "clocks", "ceph node: nbdkit", "ceph node: socket", "ceph", pool, "restore"}
    assert expected | {f"{pool}: snapshots", f"{pool}: reading", f"{pool}: rights"} <= set(items)
    assert "can't write" in items[f"{pool}: rights"]["detail"]
    assert contents(ready.base) == before
    text = ready.run("ceph_rsnapshot", "check").stdout
    assert text.count("✓") + text.count("ok ") >= len(items) and "ready" in text
    assert ready.temporary_folders() == []


def test_what_is_wrong_is_named_with_advice(ready: Site) -> None:
    ready.pool.create("b", MIB)
    ready.base.chmod(0o755)
    ready.configure(MIN_FREESPACE="900T")
    items = _check(ready, 1)
    bad = {name for name, item in items.items() if not item["ok"]}
    assert bad == {"BACKUP_BASE_PATH", "free space", f"pool {ready.pool}: snapshots"}
    assert all(items[name]["advice"] for name in bad)
    assert "not: b" in items[f"pool {ready.pool}: snapshots"]["detail"]
    text = ready.run("ceph_rsnapshot", "check", code=1).stdout
    assert f"-> chmod 0700 {ready.base}" in text


def test_rights_that_are_too_wide_and_too_narrow(running: Site) -> None:
    """The agent of this site is client.admin."""
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    rights = _check(running, 1)[f"pool {running.pool}: rights"]
    assert not rights["ok"] and "does not need to" in rights["detail"]
    running.stop_agent()
    running.configure(ALLOW_RESTORE=True)
    running.start_agent()
    assert _check(running, 0)[f"restore to {running.pool}"]["ok"]
    running.stop_agent()
    running.configure(CEPH_RESTORE_USER="nobody")
    running.start_agent()
    assert not _check(running, 1)["restore"]["ok"]


def test_no_agent_no_pool_no_tool(site: Site) -> None:
    agent = _check(site, 1)["agent"]
    assert not agent["ok"] and "can't be reached" in agent["detail"]
    site.start_agent()
    site.configure(POOL="nowhere")
    assert "does not exist" in _check(site, 1)["pool nowhere"]["detail"]
    empty = site.folder / "bin"
    empty.mkdir()
    for tool in ("rsync", "qemu-img", "qemu-nbd", "setpriv", "date", "sh"):
        (empty / tool).symlink_to(f"/usr/bin/{tool}")
    items = _check(site, 1, PATH=str(empty))
    assert items["backup node: rsync"]["ok"]
    assert not items["backup node: rsnapshot"]["ok"]


def test_a_tool_that_the_ceph_node_lacks_hides_nothing_else(site: Site) -> None:
    folder = site.folder / "bin"
    folder.mkdir()
    for tool in ("rsync", "qemu-img", "setpriv", "date"):
        (folder / tool).symlink_to(f"/usr/bin/{tool}")
    site.start_agent(env={"PATH": str(folder)})
    items = _check(site, 1)
    assert items["agent"]["ok"]
    assert not items["ceph node: nbdkit"]["ok"]
    assert f"pool {site.pool}" in items


@pytest.mark.parametrize("key", ["LOG_BASE_PATH", "TEMP_CONF_DIR", "BACKUP_BASE_PATH"])
def test_folders_that_can_not_be_made(running: Site, key: str) -> None:
    running.configure(**{key: "/proc/nowhere"})
    item = _check(running, 1)[key]
    assert not item["ok"] and "can't be written" in item["detail"] and item["advice"]


def test_ssh_and_the_agent_are_told_apart(site: Site, ssh_server: SshServer) -> None:
    site.over_ssh(ssh_server)
    items = _check(site, 1)
    assert items["ssh"]["ok"]
    assert "systemctl" in items["agent"]["advice"]
    site.configure(CEPH_HOST="nobody-is-called-so@127.0.0.1")
    items = _check(site, 1)
    assert not items["ssh"]["ok"] and "agent" not in items


def test_a_configuration_that_can_not_be_used(site: Site) -> None:
    site.configure(RETAIN_NUMBR=4)
    items = _check(site, 1)
    assert list(items) == ["configuration"]
    assert "did you mean RETAIN_NUMBER" in items["configuration"]["detail"]
    assert "✗" in site.run("ceph_rsnapshot", "check", code=1, env={"PYTHONIOENCODING": "utf-8"}).stdout


def test_another_run_is_under_way(running: Site) -> None:
    running.pool.create("a", 8 * MIB)
    running.pool.snap("a", DAY)
    running.configure(TRANSFER_MODE="direct", BANDWIDTH_LIMIT="1M")
    with running.start("ceph_rsnapshot") as process:
        lock = _check_until_locked(running)
        assert str(process.pid) in lock["detail"]
        process.terminate()
        process.communicate()


def _check_until_locked(site: Site) -> dict[str, Any]:
    for _ in range(20):
        lock = json.loads(site.run("ceph_rsnapshot", "check", "--json", code=None).stdout)
        found: dict[str, Any] = next(item for item in lock["items"] if item["name"] == "lock")
        if not found["ok"]:
            return found
    raise AssertionError("the lock was never seen")
