"""External commands: output, exit codes, time limits, interrupts; and errors that cross the wire."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

from ceph_rsnapshot_common.errors import (
    Cancelled,
    CephRsnapshotError,
    CommandFailed,
    ErrorRecord,
    LockHeld,
    NotEnoughSpace,
    ToolMissing,
    from_record,
)
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, interrupts, servers
from ceph_rsnapshot_common.process.interrupts import SIGNALS


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_larger_than_a_pipe_is_drained() -> None:
    done = commands.run(_python("import sys; sys.stderr.write('e' * 300000); print('o' * 300000)"))
    assert (len(done.stdout), len(done.stderr)) == (300001, 300000)


def test_failure_has_the_end_of_the_output() -> None:
    with pytest.raises(CommandFailed) as caught:
        commands.run(_python("import sys; print('x' * 5000 + 'the cause', file=sys.stderr); sys.exit(7)"))
    assert "exit code 7" in str(caught.value)
    assert str(caught.value).endswith("the cause")
    assert len(str(caught.value)) < 1200


def test_time_limit() -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        commands.run(_python("import time; time.sleep(60)"), timeout=0.2)


def test_cancel() -> None:
    cancelled = threading.Event()
    with pytest.raises(Cancelled):
        commands.run(
            _python("import time; print('on', flush=True); time.sleep(60)"),
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


def test_errors_cross_the_wire_as_their_class() -> None:
    error = NotEnoughSpace(path="/x", need=3, free=2, minimum=1)
    again = from_record(ErrorRecord.model_validate_json(error.record().model_dump_json()))
    assert type(again) is NotEnoughSpace
    assert str(again) == str(error)
    assert again.data == error.data


def test_an_unknown_error_is_an_error_too() -> None:
    again = from_record(ErrorRecord(code="of-the-future", message="what it says"))
    assert type(again) is CephRsnapshotError
    assert str(again) == "what it says"


def test_lock_is_exclusive_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.hold(path):
        with pytest.raises(LockHeld, match=str(path)), locks.hold(path):
            pass
        assert locks.holder(path).isdigit()
    with locks.hold(path, remove=True):
        pass
    assert not path.exists()


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


def test_of_a_traceback_only_the_error_is_shown(tmp_path: Path) -> None:
    """As nbdkit writes them, many times over."""
    frames = '   File "pl.py", line 8, in pread\n    raise RuntimeError("why")\n'
    one = "nbdkit: python.{}: error: pl.py: pread: error: Traceback (most recent call last):\n" + frames
    log = tmp_path / "log"
    log.write_text("".join(f"{one.format(number)} rbd.Timeout: [errno 110] why\n\n" for number in range(30)))
    assert servers.tail(log) == "rbd.Timeout: [errno 110] why"


def test_a_socket_listens_only_when_it_does(tmp_path: Path) -> None:
    address = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as here:
        assert not servers.listens(address)
        here.bind(str(address))
        assert not servers.listens(address)
        here.listen()
        assert servers.listens(address)
    assert not servers.listens(address)


def _run(argv: list[str], _folder: Path) -> None:
    commands.run(argv)


def _beside(argv: list[str], _folder: Path) -> None:
    with commands.beside(argv):
        pass


def _serve(argv: list[str], folder: Path) -> None:
    with servers.started(argv, node=Node.CEPH, log=folder / "log") as server:
        server.wait(lambda: False, 60)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started; a signal comes in the moment after each start."""
    begun: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    return begun


@pytest.mark.parametrize("start", [_run, _beside, _serve])
def test_who_is_interrupted_while_a_process_starts_ends_it(
    start: Callable[[list[str], Path], None], tmp_path: Path, interrupted: list[subprocess.Popen[bytes]]
) -> None:
    """Seen: a SIGHUP in that moment left a qemu-img that made its file again after it had been removed."""
    with pytest.raises(KeyboardInterrupt):
        start(_python("import time; time.sleep(60)"), tmp_path)
    assert interrupted[0].poll() is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_must_come_to_its_end_does_so_also_if_the_interrupt_comes_while_it_starts(
    tmp_path: Path, interrupted: list[subprocess.Popen[bytes]]
) -> None:
    """A rotation, which would be left half-way."""
    with pytest.raises(KeyboardInterrupt):
        commands.run(_python(f"import time; time.sleep(0.3); open({str(tmp_path / 'made')!r}, 'w')"), finish=True)
    assert interrupted[0].returncode == 0
    assert (tmp_path / "made").exists()


def test_a_command_beside_a_block() -> None:
    with commands.beside(_python("print('said')")) as command:
        pass
    assert command.result.stdout == "said\n"
    with pytest.raises(CommandFailed, match="exit code 3"), commands.beside(_python("import sys; sys.exit(3)")):
        pass
    with pytest.raises(ZeroDivisionError), commands.beside(_python("import time; time.sleep(60)")) as command:
        raise ZeroDivisionError
    assert command.process.returncode == -signal.SIGTERM


@contextmanager
def _handlers(first: Any) -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        for each in SIGNALS:
            signal.signal(each, first)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_deferred_signals_are_all_raised_and_handlers_are_as_before() -> None:
    heard = []

    def hear(signum: int, _frame: object) -> None:
        heard.append(signum)
        raise KeyboardInterrupt(signum)

    with _handlers(hear):
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert heard == []
        assert heard == [signal.SIGTERM, signal.SIGINT]
        assert [signal.getsignal(each) for each in SIGNALS] == [hear] * 3
    with _handlers(signal.SIG_IGN), interrupts.deferred():  # while a clean-up runs
        signal.raise_signal(signal.SIGTERM)
