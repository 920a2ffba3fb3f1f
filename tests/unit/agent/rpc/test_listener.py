"""The agent stays up: too many connections, silent ones, no files left; and each signal ends it, and nothing else."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.agent.rpc.serving import Serving, serving, wait_until

_MANY = 1100


@pytest.mark.parametrize("files", [64, 256])
def test_it_survives_more_connections_than_it_can_have(tmp_path: Path, files: int) -> None:
    """RPyC's server took EMFILE for its end: exit 0, and nobody was there any more."""
    with serving(tmp_path, files=files) as agent, agent.client() as earlier:
        assert "result" in earlier("hello")
        with contextlib.ExitStack() as stack:
            for _ in range(_MANY):
                stack.enter_context(agent.raw())
            wait_until(lambda: "can be accepted" in agent.log or "closed unheard" in agent.log, "the limit")
            for _ in range(10):
                assert "result" in earlier("hello"), "who is there already is served"
            assert agent.process.poll() is None
        wait_until(lambda: _answers(agent), "an answer to a newcomer")
        assert agent.log.count("can be accepted") + agent.log.count("closed unheard") < 10


def _answers(agent: Serving) -> bool:
    with contextlib.suppress(EOFError, OSError), agent.client() as calls:
        return "result" in calls("hello")
    return False


def test_who_is_one_too_many_is_told_so(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=2) as agent, agent.client() as first:
        assert "result" in first("hello")
        with agent.client() as second:
            assert "result" in second("hello")
            with agent.client() as third:
                error = third("hello")["error"]
                assert (error["code"], error["data"]["setting"]) == ("limit-reached", "MAX_CONNECTIONS")
                assert "MAX_CONNECTIONS is 2" in error["message"]
                assert third.code("remove_qcow", {"pool": {"pool": "rbd"}, "image": "a"}) == "limit-reached"
            assert "result" in first("hello")
            assert "result" in second("hello")
        wait_until(lambda: _answers(agent), "a place")


@pytest.mark.parametrize("begun", [b"", b"\0\0\0\x20\0half a message"])
def test_who_never_says_hello_is_hung_up_on(tmp_path: Path, begun: bytes) -> None:
    with serving(tmp_path, hello_timeout=1) as agent, agent.client() as greeted, agent.raw() as silent:
        assert "result" in greeted("hello")
        silent.sendall(begun)
        with contextlib.suppress(ConnectionResetError):
            while silent.recv(1000):
                pass
        assert "result" in greeted("hello"), "who has said hello may be silent for as long as he likes"


_FORKS = """
import json, os, random, signal, socket, sys, time
from pathlib import Path
from ceph_rsnapshot_agent.rpc import server
from ceph_rsnapshot_common.config.settings import Settings

folder, times, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
randomly, missed = random.Random(seed), []
for number in range(times):
    address = folder / str(number) / "agent.sock"
    child = os.fork()
    if child == 0:
        read, write = os.pipe()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        server.serve(Settings(agent_socket=str(address), qcow_temp_path=str(folder / "qcow"), read_threads=1))
        os._exit(0)
    while not address.exists():
        time.sleep(0.0002)
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as last:  # it is about to wait again when the signal comes
                last.connect(str(address))
                time.sleep(randomly.uniform(0, 0.001))
                os.kill(child, signal.SIGTERM)
                break
        except ConnectionRefusedError:
            pass
    deadline = time.monotonic() + 5
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    if ended[0] == 0:
        missed.append(number)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
print(json.dumps(missed))
"""


def test_no_sigterm_is_missed(tmp_path: Path) -> None:
    """A signal between the interpreter's last look and accept(2) was seen only at the next connection."""
    seed = 20260101
    argv = [sys.executable, "-c", _FORKS, str(tmp_path), "50", str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [], f"seed {seed}"


_ELSEWHERE = """
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
"""


def test_a_signal_that_does_not_interrupt_the_wait_is_seen(tmp_path: Path) -> None:
    """As one that comes just before it begins; here another thread gets it, so that it is sure not to."""
    agent = Serving(tmp_path, first=_ELSEWHERE)
    try:
        agent.wait_ready()
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(10) == 0
    finally:
        agent.process.kill()


_DEAF = """
import contextlib, socket, stat, threading, time

def listening():
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                yield socket.socket(fileno=os.dup(int(name)))

def deafen():
    while True:
        for each in listening():
            with each:
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    each.shutdown(socket.SHUT_RDWR)
                    return
        time.sleep(0.01)

threading.Thread(target=deafen, daemon=True).start()
"""


def test_an_end_without_a_signal_is_no_success(tmp_path: Path) -> None:
    """systemd starts it again only if it failed."""
    agent = Serving(tmp_path, first=_DEAF)
    try:
        assert agent.process.wait(30) == 2
        assert "AGENT_SOCKET" in agent.log
    finally:
        agent.process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_of_these_signals_ends_it_at_once(tmp_path: Path, signum: int) -> None:
    with serving(tmp_path) as agent, agent.raw() as idle, agent.client() as calls:
        assert "result" in calls("hello")
        agent.process.send_signal(signum)
        assert agent.process.wait(5) == 0
        assert idle.recv(1) == b""
        assert isinstance(idle, socket.socket)
