"""What users meet: the Python API, the screen, kept configurations, units, and settings that reach the tools."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

import ceph_rsnapshot
from ceph_rsnapshot_common.names import Pool
from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, SCRIPTS, Site, contents

ROOT = Path(__file__).parents[3]


class _Recorder(ceph_rsnapshot.Observer):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def run_begins(self, images: int) -> None:
        self.events.append(f"run of {images}")

    def image_begins(self, pool: Pool, image: str) -> None:
        self.events.append(f"begin {image}")

    def image_progress(self, stage: str, done: int, total: int) -> None:
        self.bytes.append((done, total))

    def image_ends(self, report: ceph_rsnapshot.ImageReport) -> None:
        self.events.append(f"end {report.image} {report.result}")

    def run_ends(self) -> None:
        self.events.append("ended")


def test_python_api(running: Site) -> None:
    running.pool.create("a", 60 * MIB)
    running.pool.snap("a", DAY)
    settings = ceph_rsnapshot.load_settings(running.config_path, image_re="a$")
    recorder = _Recorder()
    report = ceph_rsnapshot.backup(settings, observer=recorder)
    assert report.ok
    assert [(image.image, image.result) for image in report.images] == [("a", "done")]
    assert recorder.events == ["run of 1", "begin a", "end a done", "ended"]
    assert all(0 <= done <= total for done, total in recorder.bytes)
    assert max(recorder.bytes)[0] > 0
    assert report.images[0].path
    assert running.same(Path(report.images[0].path), "a")
    with pytest.raises(ceph_rsnapshot.CephRsnapshotError) as caught:
        ceph_rsnapshot.load_settings(running.config_path, image_re="(")
    assert (caught.value.code, caught.value.exit_code) == ("config", 2)


def test_api_reports_failures_and_raises_when_nothing_could_be_done(running: Site) -> None:
    settings = ceph_rsnapshot.load_settings(running.config_path)
    report = ceph_rsnapshot.backup(settings)
    assert (report.ok, report.exit_code, report.errors[0].code) == (False, 1, "nothing-to-back-up")
    running.stop_agent()
    with pytest.raises(ceph_rsnapshot.CephRsnapshotError) as caught:
        ceph_rsnapshot.backup(settings)
    assert caught.value.code == "agent-unreachable"


def test_json_report_is_one_document_on_standard_output(running: Site) -> None:
    running.pool.create("a")
    running.pool.snap("a", DAY)
    done = running.run("ceph_rsnapshot", "--json", "-v")
    report = ceph_rsnapshot.RunReport.model_validate_json(done.stdout)
    assert report.images[0].result == "done"
    assert json.loads(done.stdout)["exit_code"] == 0
    assert done.stderr
    running.stop_agent()
    report = ceph_rsnapshot.RunReport.model_validate_json(running.run("ceph_rsnapshot", "--json", code=3).stdout)
    assert (report.exit_code, report.errors[0].code) == (3, "agent-unreachable")


def test_progress_and_table_on_a_terminal(running: Site) -> None:
    # so that it takes longer than a refresh: nbdkit lets two seconds' worth pass at once
    running.configure(TRANSFER_MODE="direct", BANDWIDTH_LIMIT="4M")
    running.pool.create("a", 60 * MIB)
    with running.pool.image("a") as image:
        image.write(os.urandom(12 * MIB), 0)
    running.pool.snap("a", DAY)
    text = _on_a_terminal(running, columns=100)
    assert "backing up" in text
    assert f"{running.pool}/a: copying" in text
    assert re.search(r"\d/1 images", text)
    assert re.search(r"│ *pool\d+/a +│", text)
    assert "Traceback" not in text


def _on_a_terminal(site: Site, columns: int) -> str:
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "TMPDIR": str(site.folder / "tmp")}
    argv = [str(SCRIPTS / "ceph_rsnapshot"), "-c", str(site.config_path)]
    process = subprocess.Popen(argv, stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    output = b""
    try:
        while chunk := os.read(leader, 65536):
            output += chunk
    except OSError:
        pass  # Linux's way to say that the other side has closed
    assert process.wait(60) == 0
    return output.decode()


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


def test_sh_logging_logs_every_command(running: Site) -> None:
    running.configure(SH_LOGGING=True)
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    log = (running.folder / "log" / "ceph_rsnapshot.log").read_text()
    assert re.search(r"rsnapshot -c \S+ sync: exit 0 after", log)
    assert re.search(r"rsnapshot -c \S+ daily: exit 0 after", log)
    assert re.search(r"date --date=2026-01-01 \S+: exit 0 after", log)


def test_errors_go_to_the_log_and_to_the_terminal(running: Site) -> None:
    done = running.run("ceph_rsnapshot", code=1)
    log = (running.folder / "log" / "ceph_rsnapshot.log").read_text()
    assert "nothing to back up" in log
    assert "nothing to back up" in done.stderr
    running.stop_agent()
    running.run("ceph_rsnapshot", code=3)
    assert "the agent can't be reached" in (running.folder / "log" / "ceph_rsnapshot.log").read_text()


def test_printsettings_touches_nothing(site: Site) -> None:
    before = contents(site.folder)
    done = site.run("ceph_rsnapshot", "--printsettings", "--image-re", "vm-")
    assert 'IMAGE_RE: "vm-"  # flag' in done.stdout
    assert "RETAIN_NUMBER: 3  # file" in done.stdout
    told = json.loads(site.run("ceph_rsnapshot", "--printsettings", "-n", "--json").stdout)
    assert told["retain_number"] == 3
    assert [told["origins"][key] for key in ("retain_number", "noop", "verify")] == ["file", "flag", "default"]
    assert contents(site.folder) == before
    assert not site.base.exists()


def test_backup_base_is_private(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    assert running.base.stat().st_mode & 0o777 == 0o700
    qcow = running.root("a") / "daily.0" / "a.qcow2"
    assert qcow.stat().st_mode & 0o077 == 0


def test_units_are_accepted_by_systemd() -> None:
    units = [*(ROOT / "agent" / "systemd").iterdir(), *(ROOT / "controller" / "systemd").iterdir()]
    assert sorted(unit.suffix for unit in units) == [".service"] * 3 + [".timer"] * 2
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_controller_never_imports_agent_code() -> None:
    for path in [*(ROOT / "controller").rglob("*.py"), *(ROOT / "common").rglob("*.py")]:
        assert "ceph_rsnapshot_agent" not in re.sub(r'".*?"', "", path.read_text()), path
    for path in (ROOT / "agent").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) ceph_rsnapshot[. ]", path.read_text(), re.MULTILINE), path


def test_standard_error_that_is_closed(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    argv = [str(SCRIPTS / "ceph_rsnapshot"), "-c", str(running.config_path)]
    subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *argv], check=True, stdout=subprocess.DEVNULL)
    assert running.days("a") == ["daily.0"]
