"""Folders of the backups."""

from __future__ import annotations

from pathlib import Path

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


def test_paths_with_spaces(running: Site, ssh_server: SshServer) -> None:
    running.stop_agent()
    running.over_ssh(ssh_server)
    temp, base = running.folder / "temp folder", running.folder / "base folder"
    running.configure(QCOW_TEMP_PATH=str(temp), BACKUP_BASE_PATH=str(base))
    running.start_agent()
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    report = running.backup()
    assert running.same(Path(report["by_name"]["a"]["path"]), "a")
    assert not list(temp.rglob("*.qcow2"))


def test_backup_base_is_private(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    assert running.base.stat().st_mode & 0o777 == 0o700
    qcow = running.root("a") / "daily.0" / "a.qcow2"
    assert qcow.stat().st_mode & 0o077 == 0
