"""The Python API."""

from __future__ import annotations

from pathlib import Path

import pytest

import ceph_rsnapshot
from ceph_rsnapshot_common.names import Pool
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


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
