"""The border, with any answer at all: what passes fits the question, and everything else is one of two errors."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot.remote import answers
from ceph_rsnapshot_common.errors import AgentLied, BadAnswer, CephRsnapshotError
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.manifest import Base
from ceph_rsnapshot_common.protocol.records import (
    MAX_SIZE,
    BlockRequest,
    CheckRequest,
    DescribeRequest,
    DigestRequest,
    ExportName,
    ExportRequest,
    Extents,
    ImageName,
    ListRequest,
    Nothing,
    RestoreRequest,
    SnapshotRequest,
)
from tests.manifests import MANIFEST

_FSID = "11111111-2222-3333-4444-555555555555"
_POOL, _LAYOUT = Pool(pool="rbd"), MANIFEST.layout
_SNAPSHOT: dict[str, Any] = {
    "fsid": _FSID,
    "pool": _POOL,
    "image": "a",
    "image_id": "abc",
    "snapshot": "today",
    "snapshot_id": 7,
    "size": 10 * 1024**2,
}
_QUESTIONS: list[tuple[Any, Any]] = [
    (calls.HELLO, Nothing()),
    (calls.RENEW, ExportName(export="x")),
    (calls.REMOVE_QCOW, ImageName(pool=_POOL, image="a")),
    (calls.POLL, "job"),
    (calls.LIST, ListRequest(pool=_POOL)),
    (calls.DESCRIBE, DescribeRequest(pool=_POOL, snapshot_name="today", images=("a", "b"))),
    (calls.EXPORT, ExportRequest(**_SNAPSHOT)),
    (calls.OPEN, ExportRequest(**_SNAPSHOT, base=Base(snapshot="yesterday", snapshot_id=5))),
    (calls.CLOSE, ExportName(export="x")),
    (calls.EXTENTS, SnapshotRequest(**_SNAPSHOT)),
    (calls.DIGESTS, DigestRequest(snapshot=SnapshotRequest(**_SNAPSHOT), groups=(((0, 512),), ((512, 512),)))),
    (calls.CHECK, CheckRequest(pools=(), snapshot_name="today", staged=True)),
    (calls.RESTORE, RestoreRequest(pool=_POOL, image="a", size=1, layout=_LAYOUT)),
    (calls.BLOCK_DIGESTS, BlockRequest(export="x", first=10, count=5)),
]

_numbers = st.one_of(st.integers(), st.sampled_from([-1, 0, 7, 10, 512, MAX_SIZE, 2**63, 2**64, 10**500]), st.floats())
_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "a", "b", "abc", "rbd", "today", _FSID, "0" * 32, "/x/rbd/a", "/s.sock", "2026-01-01T00:00:00Z"]
    ),
)
_leaves = st.one_of(st.none(), st.booleans(), _numbers, _texts)
_fields = sorted(
    {field for call, _ in _QUESTIONS for field in getattr(call.gives, "model_fields", ())} | {"pool", "name"}
)
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(_fields), _texts), inner, max_size=8)
    ),
    max_leaves=25,
)


def _facts(**fields: Any) -> dict[str, Any]:
    created = datetime(2026, 1, 1, tzinfo=timezone.utc).isoformat()
    layout = _LAYOUT.model_dump(mode="json")
    return {"fsid": _FSID, "size": _SNAPSHOT["size"], "created": created, "layout": layout, "ceph": "16", **fields}


def _right() -> dict[str, Any]:
    """An answer to each question that is worth one."""
    snapshot = {"name": "today", "id": 7, "created": "2026-01-01T00:00:00Z", "size": 512}
    image = {"name": "a", "id": "abc", "size": 512, "features": ["layering"], "snapshot": snapshot, "newest": snapshot}
    same: dict[str, Any] = {"fsid": _FSID, "pool": {"pool": "rbd", "namespace": ""}}
    opened = {"facts": _facts(), "export": "x", "socket": "/run/x.sock", "lease": 300}
    manifest = MANIFEST.model_copy(
        update={
            **_SNAPSHOT,
            "pool": "rbd",
            "digests": None,
            "snapshot_created": datetime(2026, 1, 1, tzinfo=timezone.utc),
        }
    )
    return {
        "hello": {"version": "1.0.0", "protocol": 5},
        "poll": {"state": "running", "stage": "copying", "done": 1, "total": 2},
        "start_list": {**same, "names": ["a", "b", "c"]},
        "start_describe": {**same, "snapshot_name": "today", "images": [image], "vanished": ["b"]},
        "start_open": opened,
        "start_export": {
            "facts": _facts(),
            "folder": "/var/qcow/rbd/a",
            "manifest": manifest.model_dump(mode="json"),
            "allocated": [[0, 512], [1024, 512]],
        },
        "start_extents": {"fsid": _FSID, "allocated": [[0, 512], [1024, 512]]},
        "start_digests": {"digests": ["0" * 32, "1" * 32]},
        "start_check": {"items": [{"name": "x", "ok": True, "detail": "y"}], "time": 1.5},
        "start_restore": {"export": "x", "image_id": "abc", "socket": "/run/x.sock"},
        "start_block_digests": {"blocks": [[10, "0" * 32]]},
    }


_RIGHT = _right()


@given(st.sampled_from(_QUESTIONS), _values)
def test_any_answer_fits_or_is_an_error_of_ours(question: tuple[Any, Any], value: object) -> None:
    call, asked = question
    try:
        found = answers.judged(call, asked, answers.opened(call.name, json.dumps({"result": value})))
    except (BadAnswer, AgentLied) as error:
        assert len(str(error)) < 2000
    else:
        assert isinstance(found, call.gives)


def _changed(data: st.DataObject, value: Any) -> Any:
    """``value`` with something else in any one place of it."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: _changed(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], _changed(data, value[at]), *value[at + 1 :]]
    return data.draw(_values)


@given(st.sampled_from(range(len(_QUESTIONS))), st.data())
def test_an_answer_that_is_right_but_for_one_thing(number: int, data: st.DataObject) -> None:
    call, asked = _QUESTIONS[number]
    if call.name not in _RIGHT:
        return
    assert answers.judged(call, asked, _RIGHT[call.name])
    text = json.dumps({"result": _changed(data, _RIGHT[call.name])})
    try:
        answers.judged(call, asked, answers.opened(call.name, text))
    except (BadAnswer, AgentLied) as error:
        assert len(str(error)) < 2000  # noqa: PT017 - some changes fit as well


@given(st.one_of(_values, st.binary(), st.text()))
def test_anything_in_place_of_an_answer(value: object) -> None:
    for answer in (value, json.dumps(value) if not isinstance(value, bytes) else value):
        try:
            answers.opened("hello", answer)
        except CephRsnapshotError as error:
            assert error.exit_code != 0  # noqa: PT017 - most raise nothing, and that is right too


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=6), st.integers(0, 2**41))
def test_ranges_that_pass_are_ascending_and_inside(ranges: list[tuple[int, int]], size: int) -> None:
    asked = SnapshotRequest(**{**_SNAPSHOT, "size": size})
    try:
        found: Extents = answers.judged(calls.EXTENTS, asked, {"fsid": _FSID, "allocated": ranges})
    except AgentLied:
        ends = [0, *(offset + length for offset, length in ranges)]
        inside = all(length > 0 and offset + length <= size for offset, length in ranges)
        assert not (inside and all(offset >= end for (offset, _), end in zip(ranges, ends)))
    else:
        covered = [each for offset, length in found.allocated for each in (offset, offset + length)]
        assert covered == sorted(covered)
        assert all(each <= size for each in covered)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"size": 512}, AgentLied),
        ({"size": -1}, BadAnswer),
        ({"fsid": _FSID.replace("1", "2")}, AgentLied),
        ({"created": "9999-12-31T23:59:59Z"}, AgentLied),
        ({"created": "2026-01-01T00:00:00"}, AgentLied),
        ({"layout": {"features": [], "object_size": -1, "stripe_unit": 0, "stripe_count": 0}}, AgentLied),
    ],
)
def test_facts(fields: dict[str, Any], error: type[Exception]) -> None:
    asked = ExportRequest(**_SNAPSHOT)
    good = {"facts": _facts(), "export": "x", "socket": "/run/x.sock"}
    assert answers.judged(calls.OPEN, asked, good).socket == "/run/x.sock"
    with pytest.raises(error):
        answers.judged(calls.OPEN, asked, {**good, "facts": _facts(**fields)})


@pytest.mark.parametrize("blocks", [[[9, "0" * 32]], [[15, "0" * 32]], [[10, "0" * 32], [10, "1" * 32]]])
def test_block_digests_of_other_blocks(blocks: list[Any]) -> None:
    asked = BlockRequest(export="x", first=10, count=5)
    assert answers.judged(calls.BLOCK_DIGESTS, asked, {"blocks": [[10, "0" * 32], [14, "1" * 32]]}).blocks
    with pytest.raises(AgentLied):
        answers.judged(calls.BLOCK_DIGESTS, asked, {"blocks": blocks})


@pytest.mark.parametrize("time", [math.inf, -math.inf, math.nan])
def test_a_clock_that_is_none(time: float) -> None:
    with pytest.raises(BadAnswer):
        answers.judged(calls.CHECK, None, {"items": [], "time": time})
