"""How many jobs there may be; what a call may ask for; and what of an unexpected error crosses."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from ceph_rsnapshot_agent.rpc.jobs import Jobs
from ceph_rsnapshot_agent.rpc.limits import Limit
from ceph_rsnapshot_common.errors import JobUnknown, LimitReached
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import Nothing
from tests.unit.agent.rpc.serving import serving

SNAPSHOT = {"pool": {"pool": "rbd"}, "image": "a", "image_id": "1", "snapshot": "d", "snapshot_id": 1}


def _done(_progress: Progress, _cancelled: threading.Event) -> Nothing:
    return Nothing()


def _until_cancelled(_progress: Progress, cancelled: threading.Event) -> Nothing:
    cancelled.wait(20)
    return Nothing()


def test_limits_of_connections_are_within_that_of_all() -> None:
    everybody = Limit("job", "MAX_JOBS", 3)
    first, second = (Limit("job", "MAX_CONNECTION_JOBS", 2, everybody) for _ in range(2))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(first.taken())
        with pytest.raises(LimitReached, match="MAX_CONNECTION_JOBS is 2"), first.taken():
            pass
        with second.taken(), pytest.raises(LimitReached, match="MAX_JOBS is 3"), second.taken():
            pass
    with second.taken(), second.taken(), first.taken():
        pass


def test_a_job_that_has_ended_has_given_its_place_back() -> None:
    jobs = Jobs(Limit("job", "MAX_JOBS", 1))
    for _ in range(20):
        job = jobs.get(jobs.start(_done))
        while job.wait().state == "running":
            pass
    jobs.start(_until_cancelled)
    with pytest.raises(LimitReached):
        jobs.start(_done)
    jobs.close()


def test_results_that_nobody_fetches_are_forgotten() -> None:
    jobs = Jobs(Limit("job", "MAX_JOBS", 2))
    names = []
    for _ in range(200):
        names.append(jobs.start(_done))
        jobs.get(names[-1]).join()
    with pytest.raises(JobUnknown):
        jobs.get(names[0])
    assert jobs.get(names[-1]).result == Nothing()


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("start_digests", {"snapshot": SNAPSHOT, "groups": [[[0, 1]]] * 1025}),
        ("start_digests", {"snapshot": SNAPSHOT, "groups": [[[0, 1]] * 4097]}),
        ("start_block_digests", {"export": "x", "first": 0, "count": 65537}),
        ("start_block_digests", {"export": "x", "first": -1, "count": 1}),
        ("start_block_digests", {"export": "x", "first": 0, "count": -1}),
    ],
)
def test_a_call_that_asks_for_too_much_is_a_bad_request(tmp_path: Path, call: str, request_: object) -> None:
    with serving(tmp_path) as agent, agent.client() as calls:
        error = calls(call, request_)["error"]
        assert error["code"] == "bad-request"
        assert len(error["message"]) < 2000
        assert "result" in calls("hello")


def test_an_unexpected_error_crosses_without_its_text(tmp_path: Path) -> None:
    with serving(tmp_path) as agent, agent.client() as calls:
        (agent.temp / ".claims" / "rbd%2Fa").mkdir()
        error = calls("remove_qcow", {"pool": {"pool": "rbd"}, "image": "a"})["error"]
        assert error["code"] == "internal"
        assert "log" in error["message"]
        assert str(tmp_path) not in str(error)
        assert agent.log.count("Traceback") == 1
        assert str(agent.temp) in agent.log
