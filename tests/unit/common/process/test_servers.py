"""Servers: what of their log is told, and when they listen."""

from __future__ import annotations

import socket
from pathlib import Path

from ceph_rsnapshot_common.process import servers


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
