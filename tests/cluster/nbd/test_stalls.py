"""Whatever stands still is ended: after IDLE_TIMEOUT by itself, and at once by SIGTERM."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.faults import instead_of
from tests.cluster.lying_agent import lying, stalling
from tests.cluster.site import DAY, Site, contents, wait_until

NEXT = "2026-01-02"
_AFTER = (0, 50, 400, 200_000)


@pytest.fixture
def nightly(running: Site) -> Iterator[Site]:
    """An image with a day and a new snapshot; what is there must be as before at the end of the test."""
    running.pool.create("a", 8 * MIB)
    running.pool.snap("a", DAY)
    running.configure(TRANSFER_MODE="direct")
    running.backup()
    running.pool.write("a", seed=2, pieces=40)
    running.pool.snap("a", NEXT)
    running.configure(SNAP_DATE=NEXT, IDLE_TIMEOUT=2)
    before = contents(running.root("a"))
    yield running
    assert contents(running.root("a")) == before
    wait_until(lambda: not running.leftovers(), "that the agent has cleaned up")


@contextmanager
def _stalled_export(site: Site, after: int) -> Iterator[list[str]]:
    """The exports that the agent lends (their sockets are yielded) say so many bytes and then nothing more."""
    address, target = site.folder / "stalls.sock", list[str]()

    def lie(real: dict[str, Any]) -> dict[str, Any]:
        target.append(real["socket"])
        return {**real, "socket": str(address)}

    with stalling(address, target, after), lying(site, {"start_open": lie}):
        yield target


def test_an_export_that_stalls(nightly: Site) -> None:
    for after in _AFTER:
        began = time.monotonic()
        with _stalled_export(nightly, after):
            report = nightly.backup("--full", code=1)
        assert report["by_name"]["a"]["error"]["code"] == "nbd-failed", after
        assert "IDLE_TIMEOUT" in report["stderr"], after
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("after", _AFTER)
def test_sigterm_while_an_export_stalls(nightly: Site, after: int) -> None:
    nightly.configure(IDLE_TIMEOUT=600)
    with _stalled_export(nightly, after) as opened:
        process = nightly.start("ceph_rsnapshot", "--full")
        wait_until(lambda: opened, "that the export was opened")
        time.sleep(1)  # it stalls wherever it does; there is nothing to see of it from here
        began = time.monotonic()
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("tool", ["qemu-nbd", "qemu-img", "rsync", "rsnapshot"])
def test_a_tool_that_stalls(nightly: Site, tool: str) -> None:
    began = time.monotonic()
    condition = '[ "$1" = check ]' if tool == "qemu-img" else '[ "$1" != --version ]'
    env = instead_of(nightly.folder, tool, f'if {condition}; then exec sleep 1000; fi\nexec $real "$@"')
    # qemu-nbd is given its time to start with
    nightly.configure(IDLE_TIMEOUT=2)
    report = nightly.backup("--full", code=1, env=env)
    assert report["by_name"]["a"]["result"] == "failed"
    assert "2 s" in report["stderr"]
    assert time.monotonic() - began < 60


def test_ssh_that_stalls(nightly: Site, ssh_server: SshServer) -> None:
    nightly.over_ssh(ssh_server)
    env = instead_of(nightly.folder, "ssh", "exec sleep 1000")
    began = time.monotonic()
    done = nightly.run("ceph_rsnapshot", code=3, env=env)
    assert "2 s" in done.stderr
    assert time.monotonic() - began < 30
