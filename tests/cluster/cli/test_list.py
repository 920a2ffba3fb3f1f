"""`list` and `serve`, and how every command behaves with pipes, terminals and configuration."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ceph_rsnapshot_common.protocol.manifest import render
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, SCRIPTS, Site, contents, same_content, wait_until
from tests.manifests import MANIFEST

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


@pytest.fixture
def three_days(running: Site) -> Site:
    """Images ``a`` with three days and ``b`` with the first and the last of them."""
    for image in "ab":
        running.pool.create(image, 8 * MIB, seed=ord(image))
    running.configure(TRANSFER_MODE="direct", RETAIN_NUMBER=5)
    for day in DAYS:
        for image in "ab":
            if (image, day) != ("b", DAYS[1]):
                running.pool.snap(image, day)
        running.backup("--snap-date", day)
    return running


def _list(site: Site, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.run("ceph_rsnapshot", "list", "--json", *arguments, code=code).stdout)
    return found


def test_list_names_every_day(three_days: Site) -> None:
    pool = str(three_days.pool)
    three_days.stop_agent()
    found = [(each["pool"], each["image"], each["number"], each["manifest"]["snapshot"]) for each in _list(three_days)]
    days = [(pool, "a", 0, DAYS[2]), (pool, "a", 1, DAYS[1]), (pool, "a", 2, DAYS[0])]
    assert found == [*days, (pool, "b", 0, DAYS[2]), (pool, "b", 1, DAYS[0])]
    assert [each["image"] for each in _list(three_days, f"{pool}/b")] == ["b", "b"]
    assert [each["number"] for each in _list(three_days, f"a@{DAYS[1]}")] == [1]
    text = three_days.run("ceph_rsnapshot", "list").stdout
    assert [f"{pool}/a", f"{pool}/b"] == [line for line in text.splitlines() if line.startswith(pool)]
    assert "same direct" in text and "full direct" in text
    assert "\033" not in text
    # the image never changed: its days are hard links, which cost nothing alone
    assert {each["alone_bytes"] for each in _list(three_days, "a")} == {0}


def test_an_empty_base_and_unknown_names(site: Site) -> None:
    assert "BACKUP_BASE_PATH" in site.run("ceph_rsnapshot", "list", code=2).stderr
    site.base.mkdir(mode=0o700)
    assert "no backups yet" in site.run("ceph_rsnapshot", "list").stderr
    assert _list(site) == []
    assert "there is no backup of x" in site.run("ceph_rsnapshot", "list", "x", code=1).stderr


def test_a_damaged_day_is_shown(three_days: Site) -> None:
    (three_days.root("a") / "daily.1" / "a.json").write_text("{}")
    (three_days.root("b") / "daily.0" / "b.qcow2").unlink()
    states = {(each["image"], each["number"]): each["state"] for each in _list(three_days)}
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
def test_tables_fit_the_terminal(three_days: Site, columns: int) -> None:
    for arguments in (["list"], ["list", "--calendar"]):
        plain = _on_a_terminal(three_days, columns, *arguments, NO_COLOR="1")
        assert "\033[" not in plain
        assert max(map(len, plain.splitlines())) <= columns, plain
        assert "a" in plain
    assert "\033[" in _on_a_terminal(three_days, columns, "list")


def test_a_pipe_that_is_closed_early(three_days: Site) -> None:
    command = f"{SCRIPTS}/ceph_rsnapshot -c {three_days.config_path} list | head -1"
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


def _serve(site: Site, *arguments: str) -> subprocess.Popen[str]:
    process = site.start("ceph_rsnapshot", "serve", *arguments)
    assert process.stdout
    said = ""
    while "Ctrl-C ends it" not in said:
        line = process.stdout.readline()
        assert line, process.communicate()
        said += line
    assert "guestfish" in said and "nbdfuse" in said and "nbd-client" in said
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in stderr) == (0, False), stderr


@pytest.mark.parametrize("way", ["socket", "port"])
def test_serve_is_the_day_also_when_it_rolls_off(three_days: Site, way: str) -> None:
    oldest = three_days.root("a") / "daily.2"
    before = contents(three_days.base)
    raw = three_days.pool.export("a", DAYS[0], three_days.folder / "a.raw")
    address = three_days.folder / "a.sock"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where, uri = {
        "socket": (["--socket", str(address)], f"nbd+unix:///?socket={address}"),
        "port": (["--port", str(port)], f"nbd://127.0.0.1:{port}"),
    }[way]
    process = _serve(three_days, f"a@{DAYS[0]}", *where)
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", uri]))
    assert info["virtual-size"] == 8 * MIB
    write = ["qemu-io", "-f", "raw", "-c", "write -P 1 0 4096", uri]
    assert subprocess.run(write, capture_output=True, check=False).returncode != 0
    for number in range(4, 9):
        day = f"2026-01-{number:02}"
        three_days.pool.write("a", seed=number)
        three_days.pool.snap("a", day)
        three_days.backup("--snap-date", day, "--image-re", "a")
    assert not any(day["manifest"]["snapshot"] == DAYS[0] for day in _list(three_days, "a"))
    copy = three_days.folder / "copy.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(copy)], check=True)
    assert same_content(copy, raw)
    _end(process)
    assert not address.exists()
    assert three_days.temporary_folders() == []
    assert oldest.exists() and before


def test_serve_refuses_what_is_taken(three_days: Site) -> None:
    taken = three_days.folder / "taken"
    taken.write_text("x")
    done = three_days.run("ceph_rsnapshot", "serve", "a", "--socket", str(taken), code=2)
    assert "exists already" in done.stderr
    assert taken.read_text() == "x"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = str(listening.getsockname()[1])
        assert "in use" in three_days.run("ceph_rsnapshot", "serve", "a", "--port", port, code=2).stderr
    assert "no port" in three_days.run("ceph_rsnapshot", "serve", "a", "--port", "70000", code=2).stderr
    assert "did you mean" in three_days.run("ceph_rsnapshot", "serve", "aa", code=1).stderr


def test_verify_while_the_day_rolls_off(running: Site) -> None:
    """Opened before a rotation, read to the end after it."""
    running.pool.create("big", 256 * MIB)
    with running.pool.image("big") as image:
        for at in range(0, 240 * MIB, 4 * MIB):
            image.write(os.urandom(MIB) * 4, at)
    running.configure(TRANSFER_MODE="direct", RETAIN_NUMBER=2)
    for day in DAYS[:2]:
        running.pool.write("big", seed=int(day[-1]))
        running.pool.snap("big", day)
        running.backup("--snap-date", day)
    process = running.start("ceph_rsnapshot", "verify", "--json", f"big@{DAYS[0]}")
    oldest = running.root("big") / "daily.1"
    wait_until(lambda: _is_open(process.pid, "big.qcow2") or process.poll() is not None, "an open backup")
    oldest.rename(running.folder / "gone")
    for path in sorted((running.folder / "gone").iterdir()):
        path.unlink()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["backups"][0]["problems"] == []


def _is_open(pid: int, name: str) -> bool:
    try:
        return any(str(each.readlink()).endswith(name) for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def test_many_images_are_listed(tmp_path: Path) -> None:
    for image in range(300):
        folder = tmp_path / "rbd" / f"vm-{image}" / "daily.0"
        folder.mkdir(parents=True)
        changed = MANIFEST.model_copy(update={"image": f"vm-{image}", "qcow2_file_size": 3})
        (folder / f"vm-{image}.json").write_text(render(changed))
        (folder / f"vm-{image}.qcow2").write_bytes(b"qfi")
    config = tmp_path / "c.yaml"
    config.write_text(f"BACKUP_BASE_PATH: {tmp_path}\n")
    done = subprocess.run([str(SCRIPTS / "ceph_rsnapshot"), "-c", str(config), "list"], capture_output=True, check=True)
    assert done.stdout.count(b"daily.0") == 300
