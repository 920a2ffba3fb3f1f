"""The agent's server: its start and end, and what can be reached over its socket."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rpyc
from rpyc.utils.factory import unix_connect

from tests.cluster.site import DAY, Site


def test_agent_ends_cleanly_and_starts_again(running: Site) -> None:
    agent = running.agent
    assert agent
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    assert not Path(running.options["AGENT_SOCKET"]).exists()
    running.stop_agent()
    running.start_agent()
    running.pool.create("a")
    running.pool.snap("a", DAY)
    assert running.backup()["by_name"]["a"]["result"] == "done"


def test_second_agent_is_refused_and_a_dead_one_is_not_in_the_way(running: Site) -> None:
    assert running.agent
    done = running.run("ceph_rsnapshot_agent", code=4)
    assert "holds" in done.stderr
    running.kill_agent()
    assert Path(running.options["AGENT_SOCKET"]).exists()
    running.start_agent()


def test_socket_in_a_folder_that_others_can_write_is_refused(site: Site) -> None:
    (site.folder / "run").mkdir()
    (site.folder / "run").chmod(0o1777)
    done = site.run("ceph_rsnapshot_agent", code=2)
    assert "0700" in done.stderr


def test_socket_is_private(site: Site) -> None:
    address = Path(site.options["AGENT_SOCKET"])
    site.start_agent()
    assert address.parent.stat().st_mode & 0o777 == 0o700
    assert address.stat().st_mode & 0o777 == 0o600
    site.stop_agent()
    address.parent.chmod(0o755)
    site.start_agent()
    assert "open to other users" in site.agent_log.read_text()
    assert address.stat().st_mode & 0o777 == 0o600


def test_agent_tells_systemd_that_it_is_ready(site: Site) -> None:
    address = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.settimeout(30)
        site.start_agent(env={"NOTIFY_SOCKET": str(address)})
        assert notify.recv(100) == b"READY=1"
        site.stop_agent()
        assert notify.recv(100) == b"STOPPING=1"


@pytest.fixture
def root(running: Site) -> Iterator[Any]:
    """A connection like that of a curious stranger, with every right that the client side can give itself."""
    config = {"allow_all_attrs": True, "allow_public_attrs": True, "allow_setattr": True, "allow_pickle": True}
    connection = unix_connect(running.options["AGENT_SOCKET"], service=rpyc.VoidService, config=config)
    yield connection.root
    connection.close()


@pytest.mark.parametrize(
    "name",
    ["_session", "_sessions", "__dict__", "on_disconnect", "_rpyc_getattr", "exposed_hello"],
)
def test_nothing_but_the_calls_can_be_reached(root: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(root, name)


def test_what_a_call_is_made_of_can_not_be_reached(root: Any) -> None:
    call = root.hello
    for name in ("__globals__", "__closure__", "__code__", "__self__", "__func__"):
        with pytest.raises(AttributeError):
            getattr(call, name)
    with pytest.raises(AttributeError):
        root.hello = None


@pytest.mark.parametrize(
    ("call", "argument", "code"),
    [
        ("start_export", "{}", "bad-request"),
        ("start_export", "not json", "bad-request"),
        ("start_list", 5, "bad-request"),
        ("remove_qcow", '{"pool": {"pool": "x"}}', "bad-request"),
        ("poll", "no such job", "job-unknown"),
        ("cancel", "no such job", "job-unknown"),
        ("result", "no such job", "job-unknown"),
    ],
)
def test_bad_requests_get_an_error_by_value(root: Any, call: str, argument: object, code: str) -> None:
    answer = getattr(root, call)(argument)
    assert type(answer) is str
    assert json.loads(answer)["error"]["code"] == code


@pytest.mark.parametrize("image", ["../../etc", "..", ".", "/etc/passwd", ".claims"])
def test_remove_takes_no_paths(running: Site, root: Any, image: str) -> None:
    precious = running.folder / "etc"
    precious.mkdir()
    (precious / "etc.qcow2").write_text("precious")
    request = json.dumps({"pool": {"pool": "rbd"}, "image": image})
    assert json.loads(root.remove_qcow(request)) == {"result": False}
    assert (precious / "etc.qcow2").read_text() == "precious"
