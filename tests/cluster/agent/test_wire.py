"""What a stranger on the socket learns of RPyC's own calls, and what becomes of messages that are too much."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rpyc
from rpyc.core import brine, consts
from rpyc.utils.factory import unix_connect

from tests.cluster.lying_agent import Raw, lying
from tests.cluster.site import Site

_CLOSED = [
    consts.HANDLE_DIR,
    consts.HANDLE_STR,
    consts.HANDLE_REPR,
    consts.HANDLE_HASH,
    consts.HANDLE_CMP,
    consts.HANDLE_PICKLE,
    consts.HANDLE_BUFFITER,
    consts.HANDLE_OLDSLICING,
    consts.HANDLE_CTXEXIT,
    consts.HANDLE_INSTANCECHECK,
    consts.HANDLE_SETATTR,
    consts.HANDLE_DELATTR,
]


@pytest.fixture
def stranger(running: Site) -> Iterator[Any]:
    opened = unix_connect(running.options["AGENT_SOCKET"], service=rpyc.VoidService)
    yield opened
    opened.close()


def test_calls_of_rpyc_itself_are_closed(stranger: Any) -> None:
    for code in (*_CLOSED, 99):
        for arguments in ((), (1,), ("x", "y"), ("x", "__getitem__", "y", 1, 2, ())):
            with pytest.raises(AttributeError) as caught:
                stranger.sync_request(code, stranger.root, *arguments)
            assert caught.value.args == ("refused",)


def test_inspect_tells_nothing(stranger: Any) -> None:
    id_pack = object.__getattribute__(stranger.root, "____id_pack__")
    assert stranger.sync_request(consts.HANDLE_INSPECT, id_pack) == (("__call__", ""),)
    assert json.loads(stranger.root.hello())["result"]["protocol"]


def test_what_a_call_can_not_take_is_refused_without_a_word_of_ours(stranger: Any) -> None:
    with pytest.raises(AttributeError) as caught:
        stranger.root.hello(no_such=1)
    assert caught.value.args == ("refused",)


def _frame(body: bytes, compressed: int = 0) -> bytes:
    return struct.pack("!LB", len(body), compressed) + body + b"\n"


_PING = brine.I1.pack(consts.MSG_REQUEST) + brine.dump((1, (consts.HANDLE_PING, (consts.LABEL_TUPLE, ()))))


@pytest.mark.parametrize(
    "message",
    [
        struct.pack("!LB", 600 * 1024**2, 0) + b"x" * 1000,
        _frame(zlib.compress(bytes(500 * 1024**2)), compressed=1),
        _frame(b"no zlib", compressed=1),
        _frame(b"\x01\xff\xff"),
        _frame(b"\x07" + brine.dump((1, ()))),
        _frame(b"\x01" + b"\x10" * 100_000),
        b"GET / HTTP/1.1\r\n\r\n" * 10,
    ],
    ids=["announced", "bomb", "no zlib", "no brine", "no message", "deep", "http"],
)
def test_messages_that_are_too_much_cost_only_their_own_connection(
    running: Site, stranger: Any, message: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(running.options["AGENT_SOCKET"])
        other.settimeout(20)
        other.sendall(message)
        with contextlib.suppress(ConnectionResetError):
            assert other.recv(1) == b"", "the agent hangs up"
    assert json.loads(stranger.root.hello())["result"]["protocol"]
    assert "Traceback" not in running.agent_log.read_text()
    assert running.agent
    status = Path(f"/proc/{running.agent.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 400 * 1024


def test_the_controller_does_not_inflate_a_bomb(running: Site) -> None:
    with lying(running, {"hello": Raw("x" * 300 * 1024**2)}, real=False):  # RPyC compresses it to some 300 KiB
        done = running.run("ceph_rsnapshot", code=3)
    assert "compressed message" in done.stderr
