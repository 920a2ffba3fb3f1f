"""The sweep of claims removes what dead processes left, and never follows a link or a name to anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ceph_rsnapshot_agent.staging import claims
from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.names import Pool
from tests.unit.agent.rpc.serving import Serving, serving

POOL = Pool(pool="rbd")
NAME = "rbd%2Fvm"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A QCOW_TEMP_PATH with the files of one image."""
    folder = tmp_path / "node" / "qcow"
    (folder / ".claims").mkdir(parents=True, mode=0o700)
    for each in (tmp_path / "node", folder):
        each.chmod(0o700)
    _files(folder / "rbd" / "vm")
    return folder


def _files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.qcow2.partial").write_text("half")
    (folder / f"{folder.name}.json").write_text("{}")
    return folder


def _claim(folder: str) -> str:
    return "4711\n" + json.dumps({"folder": folder}) + "\n"


@pytest.mark.parametrize("text", [_claim("rbd/vm"), "", "4711\n", "\0" * 30, "4711\n" + "\0" * 30])
def test_what_a_dead_process_left_goes(base: Path, text: str) -> None:
    """Also if its claim was not written before it was killed, or before a power cut: its name says the same."""
    (base / ".claims" / NAME).write_text(text)
    claims.sweep(base)
    assert [path.name for path in base.iterdir()] == [".claims"]
    assert list((base / ".claims").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (NAME, _claim("rbd/other")),
        ("..%2Fprecious", _claim("../precious")),
        ("%2E.%2Fprecious", _claim("../precious")),
        ("rbd%2F..%2F..%2Fprecious", _claim("rbd/../../precious")),
        ("%2Fprecious", _claim("/precious")),
        ("precious", _claim("precious")),
        ("%2E.%2Fprecious", ""),
        (NAME, "{}"),
        (NAME, "[]"),
        (NAME, "4711\n{}\n"),
        (NAME, "4711\n[]\n"),
        (NAME, "4711\nnull\n"),
        (NAME, "a letter of somebody\n"),
        ("notes.txt", "what I must not forget\n"),
    ],
)
def test_what_is_no_claim_stays(base: Path, name: str, text: str) -> None:
    mark, precious = base / ".claims" / name, _files(base.parent / "precious")
    mark.write_text(text)
    claims.sweep(base)
    assert mark.read_text() == text
    assert len(list(precious.iterdir())) == 2
    assert (base / "rbd" / "vm" / "vm.json").exists()


def test_the_agent_starts_with_any_of_them(tmp_path: Path, base: Path) -> None:
    for number, text in enumerate(["{}", "[]", "\0" * 100, "", "\udcff", "4711\n{}"]):
        for folder in (base / ".claims", base.parent / "restores"):
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / f"0000000{number}.note").write_text(text, errors="surrogateescape")
    (base / ".claims" / "folder").mkdir()
    os.mkfifo(base / ".claims" / "pipe", 0o600)
    with serving(tmp_path) as agent, agent.client() as calls:
        assert "result" in calls("hello")


def test_claims_behind_a_link_are_refused(tmp_path: Path, base: Path) -> None:
    """Every file of the folder that it led to was removed."""
    precious = _files(tmp_path / "precious")
    (base / ".claims").rmdir()
    (base / ".claims").symlink_to(precious)
    with pytest.raises(PathNotUsable, match="is a link"):
        claims.sweep(base)
    agent = Serving(tmp_path)
    assert agent.process.wait(30) == 2
    assert "is a link" in agent.log
    assert len(list(precious.iterdir())) == 2


def test_links_among_the_claims_lead_nowhere(base: Path) -> None:
    elsewhere = base.parent / "claim"
    elsewhere.write_text(_claim("rbd/vm"))
    (base / ".claims" / NAME).symlink_to(elsewhere)
    os.link(elsewhere, base / ".claims" / "rbd%2Fother")
    claims.sweep(base)
    assert elsewhere.read_text() == _claim("rbd/vm")
    assert (base / "rbd" / "vm" / "vm.json").exists()


@pytest.mark.parametrize("part", ["rbd", "rbd/vm"])
def test_an_image_s_folder_behind_a_link_is_not_touched(base: Path, part: str) -> None:
    precious = base.parent / "precious" / "vm"
    (base / part).rename(base / "aside")
    _files(precious)
    (base / part).symlink_to(precious if part.endswith("vm") else precious.parent)
    (base / ".claims" / NAME).write_text(_claim("rbd/vm"))
    claims.sweep(base)
    with pytest.raises(PathNotUsable, match="a link"), claims.claim(base, POOL, "vm"):
        pass
    assert len(list(precious.iterdir())) == 2
