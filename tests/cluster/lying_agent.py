"""An agent that lies: a real RPyC service on the agent's socket whose every answer a test can replace.

    with lying(site, {"start_list": lambda real: {**real, "names": []}}):      # one answer of a real agent is changed
        site.backup(code=1)
    with lying(site, {"hello": HELLO, "start_list": {...}}, real=False):       # there is no other agent
    with lying(site, {"hello": Raises(SystemExit(0))}):
    with garbage(site, b"\\0" * 100):                                           # no RPyC at all

The key is the name of a call; of a job (``start_list``) it is the job's result that is replaced. A lie is

    a function        of what the real agent answers (of the request if there is none)
    `Raises`          an exception, raised where RPyC meets it
    `Hangs`           no answer until the block ends
    `Raw`             what RPyC carries in place of the text of an answer
    `Error`           an error record
    `Runs`            (a job) it is running for ever; what `poll` says each time is made by a function
    anything else     the result itself

What the real agent would have been asked is asked all the same, so that all else is as it is in a calm night. It works
through the test's sshd as well, because the socket has the same path there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import rpyc
from rpyc.core.consts import HANDLE_CALLATTR
from rpyc.utils.server import ThreadedServer

from ceph_rsnapshot_common.protocol import wire
from ceph_rsnapshot_common.protocol.records import PROTOCOL
from tests.cluster.site import Site

HELLO: dict[str, Any] = {"version": "1.0.0", "protocol": PROTOCOL}
"""A greeting that is in order."""


@dataclass(frozen=True)
class Raises:
    """Raise ``error``, of whatever class."""

    error: BaseException


@dataclass(frozen=True)
class Hangs:
    """Don't answer."""


@dataclass(frozen=True)
class Raw:
    """Answer ``value`` as it is."""

    value: object


@dataclass(frozen=True)
class Error:
    """Tell an error."""

    code: str
    message: str
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """A job that never ends; ``status`` gets the number of the question."""

    status: Callable[[int], dict[str, Any]] = lambda _number: {}


class _Liar(rpyc.Service):  # type: ignore[misc]
    """One connection, with one of its own to the real agent."""

    def __init__(self, agent: LyingAgent) -> None:
        self._agent = agent
        self._jobs: dict[str, tuple[str, str]] = {}
        self._numbers = itertools.count()
        self._real = wire.connected(str(agent.real), wire.CALL_SECONDS) if agent.real else None

    def on_disconnect(self, _connection: object) -> None:
        if self._real:
            self._real.close()

    def _rpyc_getattr(self, name: str) -> Callable[..., object]:
        return lambda *arguments: self._answer(name, *arguments)

    def _answer(self, name: str, *arguments: str) -> object:
        self._agent.asked.append((name, *arguments))
        if name == "poll" and arguments[0] in self._jobs:
            return self._poll(arguments[0])
        if name == "result" and arguments[0] in self._jobs:
            job, request = self._jobs.pop(arguments[0])
            return self._told(job, request, lambda: self._ask(name, *arguments))
        if name.startswith("start_") and name in self._agent.lies:
            return self._begun(name, *arguments)
        request = arguments[0] if arguments else ""
        return self._told(name, request, lambda: self._ask(name, *arguments))

    def _begun(self, name: str, request: str) -> object:
        """The job runs at the real agent, if there is one; what becomes of its result is decided in the end."""
        lie = self._agent.lies[name]
        if isinstance(lie, Raises):
            raise lie.error
        answer = self._ask(name, request) if self._real else json.dumps({"result": f"job {next(self._numbers)}"})
        job = json.loads(str(answer)).get("result")
        if job is not None:
            self._jobs[job] = (name, request)
        return answer

    def _poll(self, job: str) -> object:
        lie = self._agent.lies[self._jobs[job][0]]
        if isinstance(lie, Runs):
            return _result({"state": "running", **lie.status(next(self._numbers))})
        return self._ask("poll", job) if self._real else _result({"state": "done"})

    def _told(self, name: str, request: str, real: Callable[[], object]) -> object:
        if name not in self._agent.lies:
            return real()
        lie = self._agent.lies[name]
        if isinstance(lie, Raises):
            raise lie.error
        if isinstance(lie, Hangs):
            self._agent.ended.wait()
        if isinstance(lie, Raw):
            return lie.value
        if isinstance(lie, Error):
            return json.dumps({"error": {"code": lie.code, "message": lie.message, "data": lie.data}})
        answer = json.loads(str(real())) if self._real else {"result": json.loads(request) if request else None}
        if "error" in answer:
            return json.dumps(answer)
        return _result(lie(answer["result"]) if callable(lie) else lie)

    def _ask(self, name: str, *arguments: str) -> object:
        assert self._real, f"nobody to ask for {name}"
        return self._real.sync_request(HANDLE_CALLATTR, self._real.root, name, arguments)


def _result(value: object) -> str:
    return json.dumps({"result": value})


class LyingAgent:
    """What is asked of it, for tests to look at; ``lies`` may be changed while it runs."""

    def __init__(self, lies: Mapping[str, Any], real: Path | None) -> None:
        self.lies = dict(lies)
        self.real = real
        self.asked: list[tuple[str, ...]] = []
        self.ended = threading.Event()

    def calls(self, name: str) -> list[str]:
        """The requests of the calls of this name."""
        return [each[1] if len(each) > 1 else "" for each in self.asked if each[0] == name]


@contextmanager
def lying(site: Site, lies: Mapping[str, Any], real: bool = True) -> Iterator[LyingAgent]:
    """A liar on the agent's socket; a real agent that runs there is asked by the liar meanwhile, if ``real``."""
    address = Path(site.options["AGENT_SOCKET"])
    with _moved_away(address) as moved:
        agent = LyingAgent(lies, moved if real else None)
        address.parent.mkdir(mode=0o700, exist_ok=True)
        config = {"propagate_KeyboardInterrupt_locally": False, "propagate_SystemExit_locally": False}
        server = ThreadedServer(
            rpyc.utils.helpers.classpartial(_Liar, agent), socket_path=str(address), protocol_config=config
        )
        server.listener.listen()
        thread = threading.Thread(target=server.start, daemon=True)
        thread.start()
        try:
            yield agent
        finally:
            agent.ended.set()
            server.close()
            thread.join(10)
            address.unlink()


@contextmanager
def garbage(site: Site, data: bytes, then_close: bool = False) -> Iterator[None]:
    """Another program has the socket: it says ``data`` to whoever connects, and then nothing more."""
    address = Path(site.options["AGENT_SOCKET"])
    with _moved_away(address), _saying(address, data, then_close):
        yield


@contextmanager
def _saying(address: Path, data: bytes, then_close: bool) -> Iterator[None]:
    address.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(address))
        stack.callback(address.unlink)
        listener.listen()
        clients: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    clients.append(client)
                    with contextlib.suppress(OSError):
                        client.sendall(data)
                    if then_close:
                        client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for client in clients:
                client.close()


@contextmanager
def stalling(address: Path, target: list[str], after: int) -> Iterator[None]:
    """A way to the unix socket that ``target`` names last, on which nothing comes after so many bytes."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(address))
        stack.callback(address.unlink)
        listener.listen()
        threads: list[threading.Thread] = []

        def forward(source: socket.socket, sink: socket.socket, left: float) -> None:
            with contextlib.suppress(OSError):
                while left > 0 and (data := source.recv(min(65536, int(min(left, 65536))))):
                    sink.sendall(data)
                    left -= len(data)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(target[-1])
                    for each in (client, server):
                        stack.callback(each.close)
                    for arguments in ((client, server, float("inf")), (server, client, float(after))):
                        threads.append(threading.Thread(target=forward, args=arguments, daemon=True))
                        threads[-1].start()

        accepting = threading.Thread(target=serve, daemon=True)
        accepting.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(10)


@contextmanager
def _moved_away(address: Path) -> Iterator[Path]:
    """The socket of a real agent gets another name, under which it is still reached."""
    moved = address.with_name("real.sock")
    there = address.exists()
    if there:
        address.rename(moved)
    try:
        yield moved
    finally:
        if there:
            moved.rename(address)
