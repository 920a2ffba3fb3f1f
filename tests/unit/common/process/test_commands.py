"""External commands: output, exit codes, time limits, interrupts; and errors that cross the wire."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from ceph_rsnapshot_common.errors import (
    Cancelled,
    CommandFailed,
    ToolMissing,
)
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands
from tests.unit.common.process.python import python


def test_output_larger_than_a_pipe_is_drained() -> None:
    done = commands.run(python("import sys; sys.stderr.write('e' * 300000); print('o' * 300000)"))
    assert (len(done.stdout), len(done.stderr)) == (300001, 300000)


def test_failure_has_the_end_of_the_output() -> None:
    with pytest.raises(CommandFailed) as caught:
        commands.run(python("import sys; print('x' * 5000 + 'the cause', file=sys.stderr); sys.exit(7)"))
    assert "exit code 7" in str(caught.value)
    assert str(caught.value).endswith("the cause")
    assert len(str(caught.value)) < 1200


def test_time_limit() -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        commands.run(python("import time; time.sleep(60)"), timeout=0.2)


def test_cancel() -> None:
    cancelled = threading.Event()
    with pytest.raises(Cancelled):
        commands.run(
            python("import time; print('on', flush=True); time.sleep(60)"),
            cancelled=cancelled,
            on_stdout=lambda text: cancelled.set(),
        )


def test_a_command_that_can_not_be_started() -> None:
    with pytest.raises(CommandFailed, match="could not be started"):
        commands.run(["/nonexistent/tool"])


def test_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="install the package rsync"):
        commands.find_tool("rsync", Node.BACKUP)


def test_a_command_beside_a_block() -> None:
    with commands.beside(python("print('said')")) as command:
        pass
    assert command.result.stdout == "said\n"
    with pytest.raises(CommandFailed, match="exit code 3"), commands.beside(python("import sys; sys.exit(3)")):
        pass
    with pytest.raises(ZeroDivisionError), commands.beside(python("import time; time.sleep(60)")) as command:
        raise ZeroDivisionError
    assert command.process.returncode == -signal.SIGTERM
