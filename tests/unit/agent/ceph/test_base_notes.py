"""Notes of bases are bounded in number, and lie in a folder that is ours."""

from __future__ import annotations

import os
from pathlib import Path

from ceph_rsnapshot_agent.ceph import base_notes
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import LandedRequest, SnapshotRequest

POOL = Pool(pool="rbd")


def _write(settings: Settings, image: str, snapshot_id: int = 1) -> None:
    snapshot = SnapshotRequest(pool=POOL, image=image, image_id="id", snapshot="d", snapshot_id=snapshot_id)
    base_notes.write(settings, LandedRequest(fsid="fsid", snapshot=snapshot))


def _found(settings: Settings, image: str) -> bool:
    return base_notes.read(settings, "fsid", POOL, image, "id") is not None


def test_the_oldest_notes_go(tmp_path: Path) -> None:
    settings = Settings(qcow_temp_path=tmp_path / "qcow", max_base_notes=20)
    for number in range(100):
        _write(settings, f"image-{number}")
        note = next(settings.bases_folder.glob(f"*image-{number}.json"))
        os.utime(note, (number, number))
        assert len(list(settings.bases_folder.iterdir())) <= 20
    assert all(_found(settings, f"image-{number}") for number in range(90, 100))
    assert not _found(settings, "image-0")


def test_a_note_that_is_there_is_written_again(tmp_path: Path) -> None:
    settings = Settings(qcow_temp_path=tmp_path / "qcow", max_base_notes=2)
    for image in ("a", "b"):
        _write(settings, image)
    _write(settings, "a", 2)
    assert _found(settings, "b")
    base = base_notes.read(settings, "fsid", POOL, "a", "id")
    assert base
    assert base.snapshot_id == 2


def test_notes_behind_a_link_are_not_written(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "bases").symlink_to(precious)
    _write(Settings(qcow_temp_path=tmp_path / "qcow"), "a")
    assert list(precious.iterdir()) == []
