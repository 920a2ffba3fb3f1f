"""What is made from the parser: man pages that man(1) reads without a warning, completion that a shell can load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ceph_rsnapshot.cli.parser import COMMANDS
from tests import ROOT, SCRIPTS

DOCS = ROOT / "docs"
PROGRAM = str(SCRIPTS / "ceph_rsnapshot")


def test_a_man_page_for_each_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(DOCS / "manpages.py"), str(tmp_path)], check=True)
    names = {f"ceph_rsnapshot{suffix}.1" for suffix in ("", *(f"-{name}" for name in COMMANDS))}
    assert {path.name for path in tmp_path.iterdir()} == names
    for page in tmp_path.iterdir():
        assert _output("groff", "-man", "-Tutf8", "-ww", "-z", str(page)) == ""
    restore = (tmp_path / "ceph_rsnapshot-restore.1").read_text()
    assert "accept" in restore and "ceph_rsnapshot restore" in restore


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    asked = [_output(PROGRAM, *words) for words in (["help", command], [command, "--help"])]
    assert asked[0] == asked[1]
    assert f"ceph_rsnapshot {command}" in asked[0].partition("xample")[2]


def test_completion_in_bash() -> None:
    script = _output(PROGRAM, "completion", "bash")
    words = 'COMP_WORDS=(ceph_rsnapshot rest); COMP_CWORD=1; COMP_LINE="ceph_rsnapshot rest"'
    call = '$(complete -p ceph_rsnapshot | sed "s/.*-F \\([^ ]*\\).*/\\1/")'
    printed = _output("bash", "-euc", f'{script}\n{words}\n{call}\nprintf "%s\\n" "${{COMPREPLY[@]}}"')
    assert printed.split() == ["restore"]


def _output(*argv: str) -> str:
    """All that a command says, if it exits 0."""
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout
