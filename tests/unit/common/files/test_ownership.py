"""A folder of ours is ours alone: other users' folders, links and open modes are refused, with the line that helps."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.files import folders, ownership

_NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder as /tmp is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder


def _as_nobody(code: str, *arguments: object) -> str:
    script = f"import os, sys\nfrom pathlib import Path\nfrom ceph_rsnapshot_common.files import folders\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr[-500:]


def test_a_folder_is_made_with_all_above_it_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = folders.make_private(tmp_path / "a" / "b" / "c", "KEY")
    finally:
        os.umask(before)
    assert [each.stat().st_mode & 0o777 for each in (made, made.parent, made.parent.parent)] == [0o700] * 3
    assert folders.make_private(made, "KEY") == made


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o722])
def test_what_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PathNotUsable, match="chmod go-w ") as refused:
        folders.make_private(folder, "KEY")
    line = str(refused.value).partition("chmod ")[2].partition(" (or")[0]
    subprocess.run(["bash", "-c", f"chmod {line}"], check=True)
    folders.make_private(folder, "KEY")


@pytest.mark.parametrize("there", [True, False])
def test_links_are_refused(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for make in (folders.make_private, folders.make_shared):
        with pytest.raises(PathNotUsable, match=r"is a link.*real"):
            make(tmp_path / "link", "KEY")
    assert (tmp_path / "real").exists() == there


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PathNotUsable, match="Not a directory"):
            folders.make_private(path, "KEY")


@as_root
def test_another_user_s_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "made beforehand"
    folder.mkdir(mode=0o700)
    os.chown(folder, _NOBODY, _NOBODY)
    with pytest.raises(PathNotUsable, match="belongs to another user .*chown root ") as refused:
        folders.make_private(folder, "KEY")
    subprocess.run(["bash", "-c", f"chown {str(refused.value).partition('chown ')[2]}"], check=True)
    folders.make_private(folder, "KEY")


@as_root
def test_root_s_folder_is_believed_by_others(common: Path) -> None:
    (common / "root").mkdir(mode=0o755)
    said = _as_nobody("folders.make_private(Path(sys.argv[1]), 'KEY')", common / "root")
    assert "not writable for this user" in said


def test_a_folder_for_all_is_good_only_with_the_sticky_bit(common: Path) -> None:
    assert folders.make_shared(common, "KEY") == common
    common.chmod(0o777)
    with pytest.raises(PathNotUsable, match=r"chmod \+t "):
        folders.make_shared(common, "KEY")


@as_root
def test_the_sweep_passes_by_what_others_made(common: Path) -> None:
    """Theirs can't be looked into by a user, and must not be removed by root."""
    made = "with folders.temporary(sys.argv[1]) as made:\n    print(made, flush=True)\n    os._exit(0)"
    prefix = str(common / "x_")
    theirs = Path(_as_nobody(made, prefix).strip())
    folders.sweep(prefix)
    assert (theirs / "owner.lock").exists()
    ours = common / "x_root"
    ours.mkdir(mode=0o700)
    (ours / "owner.lock").touch()
    assert _as_nobody("folders.sweep(sys.argv[1]); print('went on')", prefix) == "went on\n"
    assert not theirs.exists(), "its own are swept"
    assert ours.exists()
    folders.sweep(prefix)
    assert not ours.exists()


def test_the_sweep_wants_a_lock_that_is_a_file_of_ours(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("content")
    for name in ("x_0", "x_1"):
        (tmp_path / name).mkdir()
    (tmp_path / "x_0" / "owner.lock").symlink_to(precious)
    os.link(precious, tmp_path / "x_1" / "owner.lock")
    folders.sweep(str(tmp_path / "x_"))
    assert precious.read_text() == "content"
    assert len(list(tmp_path.glob("x_*"))) == 2


def test_the_prefix_of_a_sweep_is_no_pattern(tmp_path: Path) -> None:
    for name in ("x[ab]_1", "xa_1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "owner.lock").touch()
    folders.sweep(str(tmp_path / "x[ab]_"))
    assert [path.name for path in tmp_path.iterdir()] == ["xa_1"]


def test_a_plain_path_has_no_link_below_its_base(tmp_path: Path) -> None:
    (tmp_path / "base" / "real").mkdir(parents=True)
    (tmp_path / "base" / "link").symlink_to("real")
    (tmp_path / "to base").symlink_to("base")
    assert ownership.is_plain(tmp_path / "to base" / "real" / "x", tmp_path / "to base")
    assert not ownership.is_plain(tmp_path / "base" / "link" / "x", tmp_path / "base")
