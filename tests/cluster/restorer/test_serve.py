"""`ceph_rsnapshot serve`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess

import pytest

from demo import child
from tests.cluster.ceph import MIB
from tests.cluster.site import Site, same_content

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


def _serve(site: Site, *arguments: str) -> subprocess.Popen[str]:
    process = site.start("ceph_rsnapshot", "serve", *arguments)
    assert process.stdout
    said = ""
    while "Ctrl-C ends it" not in said:
        line = process.stdout.readline()
        assert line, process.communicate()
        said += line
    assert "guestfish" in said and "ro,nosuid,nodev,noexec,norecovery" in said
    assert ("EVERY local user can read it" in said) == ("--port" in arguments)
    assert "guestfish" in said and "nbdfuse" in said and "nbd-client" in said
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in stderr) == (0, False), stderr


@pytest.mark.parametrize("way", ["socket", "port"])
def test_serve_is_the_day_also_when_it_rolls_off(three_days: Site, way: str) -> None:
    raw = three_days.pool.export("a", DAYS[0], three_days.folder / "a.raw")
    address = three_days.folder / "a.sock"
    with child.free_ports(1) as (port,):
        pass
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
    assert not any(day["manifest"]["snapshot"] == DAYS[0] for day in three_days.listed("a"))
    copy = three_days.folder / "copy.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(copy)], check=True)
    assert same_content(copy, raw)
    _end(process)
    assert not address.exists()
    assert three_days.temporary_folders() == []


def test_serve_refuses_what_is_taken(three_days_to_look_at: Site) -> None:
    taken = three_days_to_look_at.folder / "taken"
    taken.write_text("x")
    done = three_days_to_look_at.run("ceph_rsnapshot", "serve", "a", "--socket", str(taken), code=2)
    assert "exists already" in done.stderr
    assert taken.read_text() == "x"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = str(listening.getsockname()[1])
        assert "in use" in three_days_to_look_at.run("ceph_rsnapshot", "serve", "a", "--port", port, code=2).stderr
    assert "no port" in three_days_to_look_at.run("ceph_rsnapshot", "serve", "a", "--port", "70000", code=2).stderr
    assert "did you mean" in three_days_to_look_at.run("ceph_rsnapshot", "serve", "aa", code=1).stderr
