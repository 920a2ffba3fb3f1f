"""Files out of a guest's file system, through a real libguestfs."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

import ceph_rsnapshot
from ceph_rsnapshot_common.errors import GuestFilesFailed, NotEnoughSpace, TargetExists
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents

_ODD = b"\x1b[31mred\xff\n"


@pytest.fixture
def guest(running: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A backup of an ext4 whose owner means ill."""
    monkeypatch.setenv("LIBGUESTFS_BACKEND", "direct")
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")  # there are machines whose KVM does not work
    etc = tmp_path / "tree" / "etc"
    (etc / "sub").mkdir(parents=True)
    (etc / "hostname").write_text("vm-1\n")
    (etc / "sub" / "root").write_text("#!/bin/sh\n")
    (etc / "sub" / "root").chmod(0o6777)
    (etc / "passwd").symlink_to("/etc/hostname")
    (etc / "up").symlink_to("../../../../..")
    os.mkfifo(etc / "pipe")
    os.mknod(etc / "disk", 0o666 | stat.S_IFBLK, os.makedev(7, 0))
    (Path(os.fsdecode(os.fsencode(etc) + b"/" + _ODD))).write_text("odd")
    with (etc / "huge").open("w") as huge:
        huge.truncate(1 << 40)
    raw = tmp_path / "disk.raw"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tmp_path / "tree"), str(raw), "64M"], check=True)
    running.pool.create("vm", 64 * MIB)
    with running.pool.image("vm") as image:
        for at in range(0, 64 * MIB, 4 * MIB):
            image.write(raw.read_bytes()[at : at + 4 * MIB], at)
    running.pool.snap("vm", DAY)
    running.backup("--transfer-mode", "direct")
    return running


def test_ls_cat_get(guest: Site, tmp_path: Path) -> None:
    before = contents(guest.base)
    target = tmp_path / "out"
    with ceph_rsnapshot.files(ceph_rsnapshot.load_settings(guest.config_path), "vm") as files:
        names = files.ls("/etc")
        assert names == sorted([b"hostname", b"sub", b"passwd", b"up", b"pipe", b"disk", b"huge", _ODD])
        assert files.ls("/etc/hostname") == [b"hostname"]
        files.get("/etc/passwd", tmp_path / "passwd")
        assert (tmp_path / "passwd").read_text() == "vm-1\n", "a link is followed in the guest, not here"
        for special in ("/etc/pipe", "/etc/disk", "/etc/none"):
            with pytest.raises(GuestFilesFailed):
                files.get(special, tmp_path / "special")
        with pytest.raises(NotEnoughSpace):
            files.get("/etc/huge", tmp_path / "huge")
        with pytest.raises(NotEnoughSpace):
            files.get("/etc", target)
        left_out = files.get("/etc/sub", tmp_path / "sub")
        with pytest.raises(TargetExists):
            files.get("/etc/hostname", tmp_path / "passwd")
        with pytest.raises(TargetExists):
            files.get("/etc/sub", tmp_path / "sub")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        with pytest.raises(TargetExists):
            files.get("/etc/hostname", tmp_path / "dangling")
        with pytest.raises(GuestFilesFailed, match="UTF-8"):
            files.get("/etc/" + os.fsdecode(_ODD), tmp_path / "odd")
    assert left_out == []
    assert {path.name for path in tmp_path.iterdir()} <= {"tree", "disk.raw", "passwd", "sub", "dangling", "out"}
    assert stat.S_IMODE((tmp_path / "sub" / "root").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "sub").stat().st_mode) == 0o700
    assert not [path for path in target.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]
    assert contents(guest.base) == before
    assert guest.temporary_folders() == []


def test_the_command(guest: Site) -> None:
    listed = guest.run("ceph_rsnapshot", "files", f"vm@{DAY}", "ls", "/etc").stdout
    assert "\\x1b[31mred\\udcff\\n\n" in listed and "\033" not in listed
    guest.run("ceph_rsnapshot", "files", "vm", "get", "/etc/hostname")
    assert (guest.folder / "hostname").read_text() == "vm-1\n"
    (guest.folder / "guestfs.py").write_text("raise ImportError('none here')")
    done = guest.run("ceph_rsnapshot", "files", "vm", "ls", "/", env={"PYTHONPATH": str(guest.folder)}, code=1)
    assert "install python3-guestfs" in done.stderr
