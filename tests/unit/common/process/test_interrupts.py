"""Signals: deferred, raised, and a process that is just starting ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, interrupts, servers
from ceph_rsnapshot_common.process.interrupts import SIGNALS
from tests.unit.common.process.python import python


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
        start(python("import time; time.sleep(60)"), tmp_path)
    assert interrupted[0].poll() is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_must_come_to_its_end_does_so_also_if_the_interrupt_comes_while_it_starts(
    tmp_path: Path, interrupted: list[subprocess.Popen[bytes]]
) -> None:
    """A rotation, which would be left half-way."""
    with pytest.raises(KeyboardInterrupt):
        commands.run(python(f"import time; time.sleep(0.3); open({str(tmp_path / 'made')!r}, 'w')"), finish=True)
    assert interrupted[0].returncode == 0
    assert (tmp_path / "made").exists()


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
