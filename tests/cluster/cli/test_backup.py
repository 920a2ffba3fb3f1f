"""What users meet: the Python API, the screen, kept configurations, units, and settings that reach the tools."""

from __future__ import annotations

import json
import re
import subprocess

import ceph_rsnapshot
from tests import SCRIPTS
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents


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


def test_sh_logging_logs_every_command(running: Site) -> None:
    running.configure(SH_LOGGING=True)
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    log = (running.folder / "log" / "ceph_rsnapshot.log").read_text()
    assert re.search(r"rsnapshot -c \S+ sync: exit 0 after", log)
    assert re.search(r"rsnapshot -c \S+ daily: exit 0 after", log)
    assert re.search(r"date --date=2026-01-01 .*: exit 0 after", log)


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


def test_standard_error_that_is_closed(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    argv = [str(SCRIPTS / "ceph_rsnapshot"), "-c", str(running.config_path)]
    subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *argv], check=True, stdout=subprocess.DEVNULL)
    assert running.days("a") == ["daily.0"]
