"""An agent that serves in a process of its own; it needs no Ceph until it is asked for something that is there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import rpyc
from rpyc.utils.factory import unix_connect

from ceph_rsnapshot_common.protocol.wire import PROTOCOL_CONFIG

_SCRIPT = """
import json, os, resource, sys
from ceph_rsnapshot_agent.rpc import server
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.console import logs
from ceph_rsnapshot_common.console.entry import exit_with

options, files = json.loads(sys.argv[1]), int(sys.argv[2])
exec(sys.argv[3])
if files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

def main():
    os.umask(0o077)
    logs.set_up(False, False)
    server.serve(Settings(**options))
    return 0

exit_with(main, "agent")
"""


class Serving:
    """A real agent; `client` makes connections to it."""

    def __init__(self, folder: Path, files: int = 0, first: str = "", **options: object) -> None:
        self.address, self.temp = folder / "run" / "agent.sock", folder / "node" / "qcow"
        self._log = folder / "agent.log"
        given = {"agent_socket": str(self.address), "qcow_temp_path": str(self.temp), **options}
        with self._log.open("wb") as output:
            argv = [sys.executable, "-c", _SCRIPT, json.dumps(given), str(files), first]
            self.process = subprocess.Popen(argv, stdout=output, stderr=output)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def wait_ready(self) -> None:
        wait_until(lambda: "listening on" in self.log or self.process.poll() is not None, "the agent's start")
        assert self.process.poll() is None, self.log

    def end(self) -> int:
        """Its exit code after a SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The calls of the agent, each with its answer."""
        connection = unix_connect(str(self.address), service=rpyc.VoidService, config=PROTOCOL_CONFIG)
        try:
            yield Calls(connection)
        finally:
            connection.close()

    def raw(self) -> socket.socket:
        """A connection that says nothing."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(self.address))
        connected.settimeout(20)
        return connected


class Calls:
    """Answers as they come: ``{"result": ...}`` or ``{"error": ...}``."""

    def __init__(self, connection: Any) -> None:
        self._root = connection.root

    def __call__(self, name: str, *records: object) -> dict[str, Any]:
        texts = [each if isinstance(each, str) else json.dumps(each) for each in records]
        answer: dict[str, Any] = json.loads(getattr(self._root, name)(*texts))
        return answer

    def code(self, name: str, *records: object) -> str | None:
        """The code of the error, if it is one."""
        error = self(name, *records).get("error")
        return str(error["code"]) if error else None


@contextmanager
def serving(folder: Path, files: int = 0, first: str = "", **options: object) -> Iterator[Serving]:
    """An agent that is ready; it must end well."""
    agent = Serving(folder, files, first, **options)
    try:
        agent.wait_ready()
        yield agent
        assert agent.end() == 0, agent.log
        assert not agent.address.exists()
    finally:
        agent.process.kill()
        agent.process.wait()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)
