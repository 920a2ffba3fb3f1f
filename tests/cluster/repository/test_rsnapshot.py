"""What rsnapshot is told, judged by rsnapshot and by rsync."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot.repository.rsnapshot import Source, render
from ceph_rsnapshot_common.config.settings import Settings
from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


@pytest.mark.parametrize("argument", ["plain", "with space", "a  b"])
def test_rsnapshot_accepts_the_configuration(tmp_path: Path, argument: str) -> None:
    """rsnapshot's own configtest is the judge."""
    root = tmp_path / "base with space" / "rbd" / "a%20b"
    root.mkdir(parents=True)
    settings = Settings(
        backup_base_path=str(tmp_path / "base with space"),  # type: ignore[arg-type]
        extra_long_args=f"rsync-path={argument}",  # type: ignore[arg-type]
    )
    source = Source("/var/lib/x y/rbd/a%20b", "user@host", ("-i", f"/key {argument}"))
    conf = tmp_path / "conf"
    conf.write_text(render(settings, ImageFolder(root, "daily"), source, tmp_path / "log", 14))
    done = subprocess.run(["rsnapshot", "-c", str(conf), "configtest"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Syntax OK"), done.stderr


@pytest.mark.parametrize("way", ["-k", "TEMP_CONF_DIR"])
def test_kept_configurations_pass_rsnapshots_own_test(running: Site, ssh_server: SshServer, way: str) -> None:
    running.over_ssh(ssh_server)
    for image in ("a", "with space"):
        running.pool.create(image, MIB)
        running.pool.snap(image, DAY)
    if way == "-k":
        report = running.backup("-k")
    else:
        running.configure(TEMP_CONF_DIR=str(running.folder / "kept"))
        report = running.backup()
    confs = sorted(Path(report["conf_folder"]).rglob("*.conf"))
    assert [conf.name for conf in confs] == ["a.conf", "with%20space.conf"]
    for conf in confs:
        done = subprocess.run(["rsnapshot", "-c", str(conf), "configtest"], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "Syntax OK", done.stderr


def test_extra_long_args_reach_rsync(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    log = running.folder / "rsync log"
    running.backup("-e", f"bwlimit=100000,log-file={log},no-whole-file")
    assert "a.qcow2" in log.read_text()
