"""An agent that lies: a real RPyC server on the socket whose answers are wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ceph_rsnapshot_common.protocol.records import PROTOCOL
from demo import child
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, contents

_LIAR = """
import json, sys
import rpyc
from rpyc.utils.server import ThreadedServer

class Liar(rpyc.Service):
    def _rpyc_getattr(self, name):
        return lambda *arguments: {answers}.get(name)

ThreadedServer(Liar, socket_path=sys.argv[1]).start()
"""
_HELLO = json.dumps({"result": {"version": "1.0.0", "protocol": PROTOCOL}})


@pytest.fixture
def quiet(site: Site) -> Iterator[Site]:
    """A site with a backup and without an agent; the backup must be as before at the end of the test."""
    site.pool.create("a", MIB)
    site.pool.snap("a", DAY)
    site.start_agent()
    site.backup()
    site.stop_agent()
    before = contents(site.root("a"))
    yield site
    assert contents(site.root("a")) == before


@pytest.mark.parametrize(
    ("answers", "code", "says"),
    [
        ({}, 1, "hello"),
        ({"hello": ["a", "list"]}, 1, "instead of text"),
        ({"hello": "no JSON"}, 1, "hello"),
        ({"hello": '{"result": {"version": 5}}'}, 1, "hello"),
        ({"hello": '{"result": {"version": "9.0.0", "protocol": 99}}'}, 3, "9.0.0"),
        ({"hello": '{"error": {"code": "of-the-future", "message": "not today"}}'}, 1, "not today"),
        ({"hello": _HELLO, "start_list": '{"result": "1"}', "poll": '{"result": {"state": "sleeping"}}'}, 1, "poll"),
        (
            {
                "hello": _HELLO,
                "start_list": '{"result": "1"}',
                "poll": '{"result": {"state": "done"}}',
                "result": '{"result": {"names": []}}',
            },
            1,
            "start_list",
        ),
    ],
)
def test_wrong_answers_are_one_clear_line(quiet: Site, answers: dict[str, object], code: int, says: str) -> None:
    script, log = quiet.folder / "liar.py", quiet.folder / "liar.log"
    script.write_text(_LIAR.replace("{answers}", repr(answers)))
    address = Path(quiet.options["AGENT_SOCKET"])
    liar = child.start([sys.executable, str(script), str(address)], log)
    try:
        child.wait_ready(liar, address.is_socket, log)
        done = quiet.run("ceph_rsnapshot", code=code)
    finally:
        child.stop(liar)
        address.unlink(missing_ok=True)
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr
