"""What a guest's tar may make here."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

from ceph_rsnapshot.restorer.guest_files import _unpacked


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o6777) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, mode
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


def test_a_tar_stays_in_its_folder(tmp_path: Path) -> None:
    target, packed = tmp_path / "target", io.BytesIO()
    target.mkdir()
    bad = [
        _member("../out"),
        _member("a/../../out"),
        _member("link", tarfile.SYMTYPE, "/etc"),
        _member("hard", tarfile.LNKTYPE, "good"),
        _member("device", tarfile.BLKTYPE),
        _member("pipe", tarfile.FIFOTYPE),
    ]
    good = [_member("./", tarfile.DIRTYPE), *map(_member, ("good", "/etc/abs", "link/x", "odd\udcff"))]
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member in [*good[:1], *bad, *good[1:], _member("good")]:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r|") as tar:
        left_out = _unpacked(tar, target, lambda path, size: None)
    assert left_out == [*(member.name for member in bad), "good"]
    made = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert made == ["etc/abs", "good", "link/x", "odd\udcff"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    for path in target.rglob("*"):
        assert not path.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700) or path.is_dir()
