"""Temporary folders, their sweep, and durable files."""

from __future__ import annotations

from pathlib import Path

from ceph_rsnapshot_common.files import folders


def test_sweep_takes_only_what_dead_owners_left(tmp_path: Path) -> None:
    prefix = str(tmp_path / "x_")
    with folders.temporary(prefix) as alive:
        dead, foreign, link = tmp_path / "x_dead", tmp_path / "x_foreign", tmp_path / "x_link"
        for folder in (dead, foreign):
            folder.mkdir()
            (folder / "file").touch()
        (dead / "owner.lock").touch()
        link.symlink_to(dead)
        folders.sweep(prefix)
        assert alive.exists()
        assert foreign.exists()
        assert link.is_symlink()
        assert not dead.exists()
    assert not alive.exists()


def test_durable_files_are_whole(tmp_path: Path) -> None:
    folders.write_durably(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "text"
