"""An agent that lies: nothing that it answers, omits or raises costs a day, and the exit code is never 0."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB
from tests.cluster.lying_agent import HELLO, Error, Hangs, Raises, Raw, Runs, garbage, lying
from tests.cluster.site import DAY, Site, contents, wait_until

NEXT = "2026-01-02"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def nightly(running: Site) -> Iterator[Site]:
    """Two images with a day each, and a new snapshot; what is there must be as before at the end of the test."""
    for image in ("a", "b"):
        running.pool.create(image, 2 * MIB)
        running.pool.snap(image, DAY)
    running.backup()
    for image in ("a", "b"):
        running.pool.write(image, seed=2)
        running.pool.snap(image, NEXT)
    running.configure(SNAP_DATE=NEXT)
    before = _days(running)
    yield running
    assert _days(running) == before
    wait_until(lambda: not running.leftovers(), "that the agent has cleaned up")


def _days(site: Site) -> dict[str, tuple[int, str]]:
    return {name: what for name, what in contents(site.base).items() if not name.endswith(".lock")}


def _each(**fields: Any) -> Change:
    """A description of which every image has other fields."""
    return lambda real: {**real, "images": [{**image, **fields} for image in real["images"]]}


def _snapshot(**fields: Any) -> Change:
    def change(real: dict[str, Any]) -> dict[str, Any]:
        images = [{**image, "snapshot": {**image["snapshot"], **fields}} for image in real["images"]]
        return {**real, "images": images}

    return change


def _repeated(real: dict[str, Any]) -> dict[str, Any]:
    """Each image as often as there are days, with other snapshots: each would cost a day."""
    images = []
    for number in range(3):
        for image in real["images"]:
            newer = {**image["snapshot"], "id": image["snapshot"]["id"] + number}
            images.append({**image, "snapshot": newer, "newest": newer})
    return {**real, "images": images}


def _also(name: str) -> Change:
    return lambda real: {**real, "images": [*real["images"], {**real["images"][0], "name": name, "id": "abc"}]}


_CONTRADICTIONS: list[tuple[str, Change]] = [
    ("start_list", lambda real: {**real, "pool": {"pool": "other", "namespace": ""}}),
    ("start_list", lambda real: {**real, "pool": {"pool": "", "namespace": real["pool"]["pool"]}}),
    ("start_list", lambda real: {**real, "names": [*real["names"], *real["names"]]}),
    ("start_list", lambda real: {**real, "names": ["", *real["names"]]}),
    ("start_list", lambda real: {**real, "fsid": "../../x"}),
    ("start_list", lambda real: {**real, "fsid": "11111111-2222-3333-4444-555555555555"}),
    ("start_describe", _repeated),
    ("start_describe", lambda real: {**real, "pool": {"pool": "other", "namespace": ""}}),
    ("start_describe", lambda real: {**real, "snapshot_name": DAY}),
    ("start_describe", lambda real: {**real, "images": real["images"][1:]}),
    ("start_describe", lambda real: {**real, "vanished": ["a"]}),
    ("start_describe", _also("c")),
    ("start_describe", _snapshot(name=DAY)),
    ("start_describe", _snapshot(id=10**9)),
    ("start_describe", _snapshot(created="1066-10-14T09:00:00Z")),
    ("start_describe", _snapshot(created="2026-01-02T00:00:00")),
    ("start_describe", _each(newest=None)),
    ("start_describe", _each(id="../x")),
    ("start_describe", _each(id="same")),
]


def test_a_listing_that_contradicts_the_question_is_not_believed(nightly: Site) -> None:
    with lying(nightly, {}) as agent:
        for number, (call, lie) in enumerate(_CONTRADICTIONS):
            agent.lies = {call: lie}
            report = nightly.backup(code=1)
            assert [error["code"] for error in report["errors"]] == ["agent-lied"], number
            assert (report["images"], report["orphans"]) == ([], [])


def test_a_listing_of_another_form_ends_the_run(nightly: Site) -> None:
    lies: list[Any] = [
        _snapshot(size=-512),
        _snapshot(size=2**63),
        _snapshot(size=10**400),
        _snapshot(id=-1),
        _each(name="x" * 5000),
        lambda real: {**real, "images": None},
        lambda real: [real],
        "text",
    ]
    with lying(nightly, {}) as agent:
        for lie in lies:
            agent.lies = {"start_describe": lie}
            done = nightly.run("ceph_rsnapshot", code=1)
            assert "start_describe" in done.stderr
            assert len(done.stderr) < 2000


def test_image_re_never_leaves_this_node(nightly: Site) -> None:
    """A regex can hold the interpreter of whoever evaluates it for hours; and it is not for others to say what fits."""
    nightly.configure(IMAGE_RE="(a+)+$")
    with lying(nightly, {"start_export": Error("export-failed", "not now")}) as agent:
        nightly.backup(code=1)
    assert not any("a+" in each for asked in agent.asked for each in asked)
    assert [json.loads(asked)["images"] for asked in agent.calls("start_describe")] == [["a"]]


_OTHER_EXPORTS: list[Change] = [
    lambda real: {**real, "manifest": {**real["manifest"], "image": "other"}},
    lambda real: {**real, "manifest": {**real["manifest"], "size": 1}},
    lambda real: {**real, "manifest": {**real["manifest"], "kind": "unchanged"}},
    lambda real: {**real, "manifest": {**real["manifest"], "verified": "full"}},
    lambda real: {**real, "manifest": {**real["manifest"], "snapshot": DAY}},
    lambda real: {**real, "manifest": {**real["manifest"], "qcow2_file_size": -1}},
    lambda real: {**real, "facts": {**real["facts"], "size": 512}},
    lambda real: {**real, "facts": {**real["facts"], "fsid": "11111111-2222-3333-4444-555555555555"}},
    lambda real: {**real, "folder": "/etc"},
    lambda real: {**real, "folder": real["folder"] + "/../a"},
    lambda real: {**real, "folder": "relative/a"},
    lambda real: {**real, "folder": real["folder"] + "\n"},
    lambda real: {**real, "allocated": [[0, 2**62]]},
    lambda real: {**real, "allocated": [[512, 512], [0, 512]]},
    lambda real: {**real, "allocated": [[0, 1024], [512, 512]]},
]


def test_a_staged_export_of_something_else(nightly: Site) -> None:
    nightly.configure(IMAGE_RE="a")
    with lying(nightly, {}) as agent:
        for number, lie in enumerate(_OTHER_EXPORTS):
            agent.lies = {"start_export": lie}
            report = nightly.backup(code=1)
            assert {image["error"]["code"] for image in report["images"]} == {"agent-lied"}, number


def test_an_export_without_manifest_and_base(nightly: Site) -> None:
    lie = {"start_export": lambda real: {"facts": real["facts"]}}
    with lying(nightly, lie):
        report = nightly.backup("--full", code=1)
    assert {image["error"]["code"] for image in report["images"]} == {"bad-answer"}


def test_a_socket_that_is_none(nightly: Site) -> None:
    with lying(nightly, {}) as agent:
        for address in ("relative.sock", "/tmp/" + "x" * 200, "/tmp/../etc/x.sock", "/tmp/\x1b[31m.sock"):
            agent.lies = {"start_open": lambda real, address=address: {**real, "socket": address}}
            report = nightly.backup("--transfer-mode", "direct", code=1)
            assert {image["error"]["code"] for image in report["images"]} == {"agent-lied"}


@pytest.mark.parametrize("mode", ["staged", "direct"])
def test_digests_that_are_not_of_what_was_asked(nightly: Site, mode: str) -> None:
    lies: list[tuple[Change, str]] = [
        (lambda real: {"digests": []}, "agent-lied"),
        (lambda real: {"digests": [*real["digests"], "0" * 32]}, "agent-lied"),
        (lambda real: {"digests": ["no digest" for _ in real["digests"]]}, "bad-answer"),
    ]
    with lying(nightly, {}) as agent:
        for lie, code in lies:
            agent.lies = {"start_digests": lie}
            report = nightly.backup("--transfer-mode", mode, code=1)
            assert {image["error"]["code"] for image in report["images"]} == {code}


_ERRORS = (SystemExit(0), KeyboardInterrupt(), GeneratorExit(), MemoryError(), OSError(28, "x"))


def test_no_exception_of_the_agent_is_raised_here(nightly: Site) -> None:
    with lying(nightly, {}) as agent:
        for call in ("hello", "start_list", "poll", "result"):
            for error in _ERRORS if call == "hello" else _ERRORS[:2]:
                agent.lies = {call: Raises(error)}
                done = nightly.run("ceph_rsnapshot", code=1)
                assert f"raised {type(error).__name__}" in done.stderr


def test_what_is_no_text_is_no_answer(nightly: Site) -> None:
    for value in (None, 5, b"bytes", {"a": 1}, "\ud800".encode("utf-8", "surrogatepass"), "{", "[]", "[" * 100_000):
        with lying(nightly, {"hello": Raw(value)}):
            done = nightly.run("ceph_rsnapshot", code=1)
        assert "hello" in done.stderr
        assert len(done.stderr) < 1000


def test_errors_that_only_this_node_finds_are_not_taken_from_the_agent(nightly: Site) -> None:
    with lying(nightly, {}) as agent:
        for code in ("nbd-failed", "content-differs", "lock-held", "config", "backup-damaged", "agent-lied"):
            agent.lies = {"start_export": Error(code, "it says")}
            report = nightly.backup(code=1)
            assert {image["error"]["code"] for image in report["images"]} == {"error"}


def test_a_message_of_50_megabytes_is_cut(nightly: Site) -> None:
    with lying(nightly, {"start_list": Error("pool-unreadable", "x" * 50_000_000)}):
        done = nightly.run("ceph_rsnapshot", code=1)
    assert len(done.stderr) < 6000
    assert (nightly.folder / "log" / "ceph_rsnapshot.log").stat().st_size < 100_000


def test_escape_sequences_do_not_reach_the_terminal_or_the_log(nightly: Site) -> None:
    text = "\x1b]0;gotcha\x07\x9b31m\u202e\r\nfake line"
    with lying(nightly, {"start_export": Error("export-failed", text)}):
        done = nightly.run("ceph_rsnapshot", code=1)
        report = nightly.backup(code=1)
    log = (nightly.folder / "log" / "ceph_rsnapshot.log").read_text()
    for output in (done.stdout, done.stderr, log):
        assert not any(each in output for each in "\x1b\x07\x9b\u202e\r")
        assert "\nfake line" not in output
    assert "\\x1b]0;gotcha" in done.stderr
    assert report["by_name"]["a"]["error"]["message"] == text


def test_what_hangs_is_ended(nightly: Site) -> None:
    lies: list[dict[str, Any]] = [
        {"hello": Hangs()},
        {"poll": Hangs()},
        {"start_list": Runs()},
        {"start_describe": Runs(lambda number: {"stage": "working", "done": number % 2, "total": 2})},
        {"start_export": Runs(lambda number: {"stage": "working", "done": 5})},
        {"start_digests": Runs()},
    ]
    nightly.configure(IDLE_TIMEOUT=2)
    for lie in lies:
        began = time.monotonic()
        with lying(nightly, lie):
            done = nightly.run("ceph_rsnapshot", code=None)
        assert done.returncode in (1, 3), lie
        assert "2 s" in done.stderr
        assert time.monotonic() - began < 40


@pytest.mark.parametrize("lies", [{"hello": Hangs()}, {"start_export": Runs()}, {"start_digests": Runs()}])
def test_sigterm_ends_a_wait(nightly: Site, lies: dict[str, Any]) -> None:
    (call,) = lies
    with lying(nightly, lies) as agent:
        process = nightly.start("ceph_rsnapshot")
        wait_until(lambda: agent.calls(call), f"that {call} was asked")
        began = time.monotonic()
        process.terminate()
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143, stderr
    assert time.monotonic() - began < 10
    assert "Traceback" not in stderr


def test_the_socket_is_another_programs(nightly: Site) -> None:
    nightly.configure(IDLE_TIMEOUT=2)
    http = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    for data in (b"", b"SSH-2.0-OpenSSH_9.2\r\n", http * 100, b"\0\0\0\x05\0", b"\0" * 10_000):
        began = time.monotonic()
        with garbage(nightly, data):
            done = nightly.run("ceph_rsnapshot", code=None)
        assert done.returncode in (1, 3)
        assert len(done.stderr.splitlines()) == 1
        assert time.monotonic() - began < 20


def test_a_message_that_is_too_long_is_not_read(nightly: Site) -> None:
    with garbage(nightly, (2**31).to_bytes(4, "big") + b"\0" + b"x" * 1000):
        done = nightly.run("ceph_rsnapshot", code=3)
    assert str(2**31) in done.stderr


def test_lies_through_ssh_are_the_same(nightly: Site, ssh_server: SshServer) -> None:
    nightly.over_ssh(ssh_server)
    with lying(nightly, {"start_describe": _repeated}):
        report = nightly.backup(code=1)
    assert [error["code"] for error in report["errors"]] == ["agent-lied"]


def test_other_clusters_for_other_pools(nightly: Site, new_pool: Any) -> None:
    """Of two listings that contradict each other neither is believed."""
    nightly.configure(POOL=[str(nightly.pool), str(new_pool())])

    def lie(real: dict[str, Any]) -> dict[str, Any]:
        fsid = "11111111-2222-3333-4444-555555555555" if real["pool"]["pool"] == str(nightly.pool) else real["fsid"]
        return {**real, "fsid": fsid}

    with lying(nightly, {"start_list": lie, "start_describe": lie}):
        report = nightly.backup(code=1)
    assert [error["code"] for error in report["errors"]] == ["agent-lied"]
    assert (report["images"], report["orphans"]) == ([], [])


def test_a_liar_that_does_not_lie_is_an_agent(running: Site) -> None:
    """What the other tests rely on: through the liar a calm night is a calm night."""
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    with lying(running, {"hello": lambda real: {**real, "version": HELLO["version"]}}):
        report = running.backup()
    assert report["by_name"]["a"]["verified"] in ("changed", "full")
    manifest = json.loads(Path(report["by_name"]["a"]["path"]).with_suffix(".json").read_text())
    assert manifest["comparisons"] > 0
    assert manifest["compared_bytes"] > 0
