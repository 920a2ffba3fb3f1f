"""What a session owns is ended once, and whoever closes it waits until that has been done."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ceph_rsnapshot_agent.rpc.jobs import Jobs
from ceph_rsnapshot_agent.rpc.limits import Limit
from ceph_rsnapshot_agent.rpc.owned import Owned
from ceph_rsnapshot_common.errors import Cancelled, ExportUnknown, JobUnknown
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process.qemu_img import qemu_version
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import Nothing


class _Slow:
    """A thing whose end takes until it is let go."""

    def __init__(self) -> None:
        self.ending, self.go_on = threading.Event(), threading.Event()
        self.ended = 0

    def end(self) -> None:
        self.ending.set()
        assert self.go_on.wait(10)
        self.ended += 1


@contextmanager
def _running(thread: threading.Thread) -> Iterator[threading.Thread]:
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_close_waits_for_what_another_thread_is_ending() -> None:
    owned, slow = Owned[str, _Slow](_Slow.end), _Slow()
    owned.add("a", slow)
    with _running(threading.Thread(target=owned.end, args=("a",))):
        assert slow.ending.wait(10)
        with _running(threading.Thread(target=owned.close)) as closing:
            closing.join(0.1)
            assert closing.is_alive()
            slow.go_on.set()
    assert slow.ended == 1
    with pytest.raises(ExportUnknown):
        owned.get("a")


def test_one_that_can_not_be_ended_keeps_no_other_open() -> None:
    ended: list[str] = []

    def end(name: str) -> None:
        if name == "bad":
            raise OSError("no")
        ended.append(name)

    owned = Owned[str, str](end)
    for name in ("bad", "good"):
        owned.add(name, name)
    owned.close()
    assert ended == ["good"]


def test_jobs_are_cancelled_and_none_begins_after_the_end() -> None:
    def work(progress: Progress, cancelled: threading.Event) -> Nothing:
        progress("waiting", 1, 2)
        assert cancelled.wait(10)
        raise Cancelled(what="it")

    jobs = Jobs(Limit("job", "MAX_JOBS", 2))
    name = jobs.start(work)
    jobs.close()
    status = jobs.get(name).wait()
    assert (status.state, status.stage) == ("failed", "waiting")
    assert status.error
    assert status.error.code == "cancelled"
    with pytest.raises(Cancelled):
        jobs.start(work)
    jobs.forget(name)
    with pytest.raises(JobUnknown):
        jobs.get(name)


def test_an_upgraded_qemu_tells_its_new_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "qemu-img"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for time, version in enumerate(("7.2.22", "8.0.1")):
        tool.write_text(f"#!/bin/sh\necho 'qemu-img version {version} (Debian)'\n")
        tool.chmod(0o755)
        os.utime(tool, (time, time))
        assert qemu_version(Node.CEPH) == version
