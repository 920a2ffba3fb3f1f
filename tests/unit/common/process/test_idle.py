"""What stands still is ended, and what is slow and goes on is not."""

from __future__ import annotations

import time

import pytest

from ceph_rsnapshot_common.errors import CommandFailed, NoProgress
from ceph_rsnapshot_common.process import commands
from ceph_rsnapshot_common.process.patience import Patience
from tests.unit.common.process.python import python

_BUSY = """
import os, time
for _ in range(20):
    time.sleep(0.1)
    os.write(1, b'x')
"""


def test_a_command_that_does_nothing_is_stopped() -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="IDLE_TIMEOUT"):
        commands.run(python("import time; time.sleep(60)"), idle=0.5)
    with (
        pytest.raises(CommandFailed, match="IDLE_TIMEOUT"),
        commands.beside(python("import time; time.sleep(60)"), idle=0.5),
    ):
        pass
    assert time.monotonic() - began < 20


def test_a_command_that_goes_on_is_not() -> None:
    assert commands.run(python(_BUSY), idle=1).stdout == "x" * 20


def test_nor_one_whose_child_goes_on() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_BUSY!r}], check=True)"
    assert commands.run(python(child), idle=1).stdout == "x" * 20


def test_only_what_gets_further_than_ever_is_movement() -> None:
    patience = Patience("it", 0.05)
    patience.saw("copying", 5)
    for done in (5, 4, 5, 0):
        time.sleep(0.03)
        patience.saw("copying", done)
    with pytest.raises(NoProgress, match="it: nothing moved"):
        patience.check()
    patience.saw("copying", 6)
    patience.check()


def test_stages_do_not_last_for_ever() -> None:
    patience = Patience("it", 0.05)
    for number in range(100):
        patience.saw(f"stage {number}", 0)
    time.sleep(0.1)
    patience.saw("one more", 0)
    with pytest.raises(NoProgress):
        patience.check()
