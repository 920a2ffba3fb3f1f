"""`list` and `serve`, and how every command behaves with pipes, terminals and configuration."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import datetime, timedelta

import pytest

from ceph_rsnapshot_common.protocol.manifest import render
from tests import SCRIPTS
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site
from tests.manifests import MANIFEST

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


def test_list_names_every_day(three_days: Site) -> None:
    pool = str(three_days.pool)
    three_days.stop_agent()
    found = [
        (each["pool"], each["image"], each["number"], each["manifest"]["snapshot"]) for each in three_days.listed()
    ]
    days = [(pool, "a", 0, DAYS[2]), (pool, "a", 1, DAYS[1]), (pool, "a", 2, DAYS[0])]
    assert found == [*days, (pool, "b", 0, DAYS[2]), (pool, "b", 1, DAYS[0])]
    assert [each["image"] for each in three_days.listed(f"{pool}/b")] == ["b", "b"]
    assert [each["number"] for each in three_days.listed(f"a@{DAYS[1]}")] == [1]
    text = three_days.run("ceph_rsnapshot", "list").stdout
    assert [f"{pool}/a", f"{pool}/b"] == [line for line in text.splitlines() if line.startswith(pool)]
    assert "same direct" in text and "full direct" in text
    assert "\033" not in text
    # the image never changed: its days are hard links, which cost nothing alone
    assert {each["alone_bytes"] for each in three_days.listed("a")} == {0}


def test_an_empty_base_and_unknown_names(site: Site) -> None:
    assert "BACKUP_BASE_PATH" in site.run("ceph_rsnapshot", "list", code=2).stderr
    site.base.mkdir(mode=0o700)
    assert "no backups yet" in site.run("ceph_rsnapshot", "list").stderr
    assert site.listed() == []
    assert "there is no backup of x" in site.run("ceph_rsnapshot", "list", "x", code=1).stderr


def test_a_damaged_day_is_shown(three_days: Site) -> None:
    (three_days.root("a") / "daily.1" / "a.json").write_text("{}")
    (three_days.root("b") / "daily.0" / "b.qcow2").unlink()
    states = {(each["image"], each["number"]): each["state"] for each in three_days.listed()}
    assert (states["a", 1], states["b", 0], states["a", 0]) == ("damaged", "damaged", "complete")
    assert three_days.run("ceph_rsnapshot", "list").stdout.count("DAMAGED") == 2
    calendar = three_days.run("ceph_rsnapshot", "list", "--calendar", env={"PYTHONIOENCODING": "utf-8"}).stdout
    assert calendar.count("✗") == 3, "one for each image, and one in the legend"


def test_the_calendar_shows_a_gap(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    source = running.root("a") / "daily.0"
    noon = datetime.now().astimezone().replace(hour=12)
    for number, days_ago in enumerate((3, 4, 6)):
        folder = running.base / "rbd" / "vm" / f"daily.{number}"
        folder.mkdir(parents=True)
        taken = noon - timedelta(days=days_ago)
        size = (source / "a.qcow2").stat().st_size
        changed = {"image": "vm", "snapshot_created": taken, "ended": taken, "qcow2_file_size": size}
        (folder / "vm.json").write_text(render(MANIFEST.model_copy(update=changed)))
        os.link(source / "a.qcow2", folder / "vm.qcow2")
    lines = running.run("ceph_rsnapshot", "list", "--calendar", "rbd/vm", env={"PYTHONIOENCODING": "utf-8"}).stdout
    (marks,) = (line.split()[1:] for line in lines.splitlines() if line.startswith("rbd/vm"))
    assert marks[:4] == ["●", "□", "●", "●"]
    assert marks[4:] == ["□", "□"], "the days since then, but for today, are missing"
    both = running.run("ceph_rsnapshot", "list", "--calendar", env={"PYTHONIOENCODING": "utf-8"}).stdout
    (younger,) = (line.split()[1:] for line in both.splitlines() if line.startswith(f"{running.pool}/a"))
    assert younger == ["●"], "of the days before its first backup none is missing"
    ascii_only = running.run("ceph_rsnapshot", "list", "--calendar", "rbd/vm", env={"PYTHONIOENCODING": "ascii"})
    assert "rbd/vm" in ascii_only.stdout and "●" not in ascii_only.stdout


def _on_a_terminal(site: Site, columns: int, *arguments: str, **env: str) -> str:
    """What a terminal of that width gets."""
    master, slave = pty.openpty()
    full = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "LANG": "C.UTF-8", **env}
    argv = [str(SCRIPTS / "ceph_rsnapshot"), "-c", str(site.config_path), *arguments]
    with subprocess.Popen(argv, stdout=slave, stderr=slave, stdin=slave, env=full) as process:
        os.close(slave)
        said = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            said += piece
        process.wait(timeout=60)
    os.close(master)
    return said.decode()


@pytest.mark.parametrize("columns", [36, 40, 60, 80, 140])
def test_tables_fit_the_terminal(three_days_to_look_at: Site, columns: int) -> None:
    for arguments in (["list"], ["list", "--calendar"]):
        plain = _on_a_terminal(three_days_to_look_at, columns, *arguments, NO_COLOR="1")
        assert "\033[" not in plain
        assert max(map(len, plain.splitlines())) <= columns, plain
        assert "a" in plain
    assert "\033[" in _on_a_terminal(three_days_to_look_at, columns, "list")


def test_a_pipe_that_is_closed_early(three_days_to_look_at: Site) -> None:
    command = f"{SCRIPTS}/ceph_rsnapshot -c {three_days_to_look_at.config_path} list | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_options_of_a_backup_are_refused_elsewhere(site: Site) -> None:
    assert "--noop is an option of backup" in site.run("ceph_rsnapshot", "-n", "list", code=2).stderr
    for topic in ("restore", "verify", "list", "serve", "check", "settings", "backup"):
        assert f"ceph_rsnapshot {topic}" in site.run("ceph_rsnapshot", "help", topic).stdout
    assert "invalid choice" in site.run("ceph_rsnapshot", "help", "restores", code=2).stderr
    assert "from" in site.run("ceph_rsnapshot", "settings").stdout
    assert "RETAIN_NUMBER: 3  # file" in site.run("ceph_rsnapshot", "settings").stdout
    assert "NOOP: true  # flag" in site.run("ceph_rsnapshot", "settings", "-n").stdout


def test_backup_is_the_explicit_name(running: Site) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.run("ceph_rsnapshot", "backup", "--noop")
    assert running.days("a") == []
    running.run("ceph_rsnapshot", "backup")
    assert running.days("a") == ["daily.0"]
