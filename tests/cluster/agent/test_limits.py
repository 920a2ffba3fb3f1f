"""Over a limit there is a clear error for that client only; a restore that can't be is refused at once."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rbd
import rpyc
from rpyc.utils.factory import unix_connect

from ceph_rsnapshot_common.protocol.wire import PROTOCOL_CONFIG
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.site import DAY, Site, wait_until
from tests.unit.agent.rpc.serving import Calls

_NOBODY = 65534
_LAYOUT = {
    "features": ["layering"],
    "object_size": 4 * MIB,
    "stripe_unit": 4 * MIB,
    "stripe_count": 1,
    "data_pool": None,
}


@contextmanager
def _client(site: Site) -> Iterator[Calls]:
    connection = unix_connect(site.options["AGENT_SOCKET"], service=rpyc.VoidService, config=PROTOCOL_CONFIG)
    try:
        yield Calls(connection)
    finally:
        connection.close()


def _ended(calls: Calls, begun: dict[str, Any]) -> dict[str, Any]:
    """The status of a job when it has ended."""
    while (status := calls("poll", begun["result"])["result"])["state"] == "running":
        pass
    found: dict[str, Any] = status
    return found


def _request(site: Site, image: str) -> dict[str, Any]:
    with site.pool.image(image) as opened:
        ids = {"image_id": opened.id(), "snapshot_id": next(iter(opened.list_snaps()))["id"]}
    return {"pool": {"pool": site.pool.name}, "image": image, "snapshot": DAY, **ids}


def _new_image(site: Site, name: str, size: int, **layout: object) -> dict[str, Any]:
    return {"pool": {"pool": site.pool.name}, "image": name, "size": size, "layout": {**_LAYOUT, **layout}}


def _names(pool: TestPool) -> list[str]:
    with pool.ioctx() as ioctx:
        return sorted(rbd.RBD().list(ioctx))


def _threads(site: Site) -> int:
    assert site.agent
    return len(list(Path(f"/proc/{site.agent.pid}/task").iterdir()))


def test_many_jobs_share_the_threads_that_read(site: Site) -> None:
    """Forty digest jobs had 457 threads and 756 MB."""
    site.configure(MAX_CONNECTION_JOBS=20, READ_THREADS=4)
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", DAY)
    site.start_agent()
    groups = [[[at * MIB, MIB]] for at in range(64)] * 8
    digests, small = ({"snapshot": _request(site, "a"), "groups": some} for some in (groups, groups[:1]))
    with _client(site) as one, _client(site) as other:
        for calls in (one, other):
            assert "result" in calls("hello")
            assert _ended(calls, calls("start_digests", small))["state"] == "done"
        before = _threads(site)
        begun = [one("start_digests", digests) for _ in range(40)]
        assert _threads(site) - before <= 20 + 4
        refused = [each["error"] for each in begun if "error" in each]
        assert {(error["code"], error["data"]["setting"]) for error in refused} == {
            ("limit-reached", "MAX_CONNECTION_JOBS")
        }
        assert _ended(other, other("start_digests", small))["state"] == "done", "everybody else goes on"
        good = [each for each in begun if "result" in each]
        assert len(good) >= 20
        for each in good:
            one("cancel", each["result"])


@pytest.mark.parametrize("call", ["start_open", "start_export", "start_restore"])
def test_exports_are_limited_and_their_places_come_back(site: Site, call: str) -> None:
    site.configure(MAX_CONNECTION_EXPORTS=1, MAX_EXPORTS=2, ALLOW_RESTORE=True)
    requests = []
    for image in ("a", "b", "c"):
        site.pool.create(image)
        site.pool.snap(image, DAY)
        requests.append(_request(site, image) if call != "start_restore" else _new_image(site, f"new-{image}", MIB))
    site.start_agent()

    def code(calls: Calls, number: int) -> object:
        status = _ended(calls, calls(call, requests[number]))
        return status["state"] if status["state"] == "done" else status["error"]["data"]["setting"]

    with _client(site) as first, _client(site) as third:
        assert code(first, 0) == "done"
        assert code(first, 1) == "MAX_CONNECTION_EXPORTS"
        with _client(site) as second:
            assert code(second, 1) == "done"
            assert code(third, 2) == "MAX_EXPORTS"
        wait_until(lambda: code(third, 2) == "done", "a place")
    wait_until(lambda: site.leftovers() == [], "the end of all")
    wait_until(lambda: _names(site.pool) == ["a", "b", "c"], "the end of the restores")


@pytest.mark.parametrize(
    ("size", "layout", "says"),
    [
        (2**60, {}, "RESTORE_MAX_SIZE"),
        (2**80, {}, "RESTORE_MAX_SIZE"),
        (64 * 1024**4 + 1, {}, "RESTORE_MAX_SIZE"),
        (64 * 1024**4, {"object_size": 4096}, "objects"),
        (MIB, {"object_size": 0}, "object"),
        (MIB, {"object_size": -4096}, "object"),
        (MIB, {"object_size": 4095}, "object"),
    ],
)
def test_a_size_that_can_not_be_is_refused_before_anything_is_made(
    site: Site, size: int, layout: dict[str, int], says: str
) -> None:
    site.configure(ALLOW_RESTORE=True)
    site.start_agent()
    with _client(site) as calls:
        begun = calls("start_restore", _new_image(site, "new", size, **layout))
        if "result" in begun:
            error = _ended(calls, begun)["error"]
            assert (error["code"], says in error["message"]) == ("restore-failed", True), error
        else:
            assert begun["error"]["code"] == "bad-request"
    assert _names(site.pool) == []
    assert not list((site.folder / "restores").glob("*"))


@pytest.mark.parametrize("data_pool", [False, True])
def test_what_a_failed_restore_left_goes_however_large_it_is(site: Site, new_pool: Any, data_pool: bool) -> None:
    """To remove 2**60 bytes librbd would ask for 2**38 objects, and nothing else was restored meanwhile."""
    site.configure(ALLOW_RESTORE=True)
    leftover, notes = "big.restoring-0123abcd", site.folder / "restores"
    options = {"data_pool": new_pool().name} if data_pool else {}
    with site.pool.ioctx() as ioctx:
        rbd.RBD().create(ioctx, leftover, 8 * MIB, old_format=False, features=rbd.RBD_FEATURE_LAYERING, **options)
        with rbd.Image(ioctx, leftover) as image:
            image.write(b"some", 0)
            image.write(b"more", 4 * MIB)
            image.create_snap("by a script")
            header, prefix = f"rbd_header.{image.id()}", image.block_name_prefix()
        ioctx.execute(header, "rbd", "set_size", struct.pack("<Q", 2**60))
    notes.mkdir(mode=0o700)
    note = {"pool": site.pool.name, "fsid": site.pool.cluster.fsid, "image": leftover}
    (notes / "0123abcd.note").write_text(f"4711\n{json.dumps(note)}\n")
    (notes / "00000000.note").write_text(f"4711\n{json.dumps({**note, 'fsid': 'another cluster'})}\n")
    (notes / "11111111.note").write_text("\0" * 100)
    for number, text in enumerate(["{}", "[]", "4711\n{}\n"]):
        (notes / f"2222222{number}.note").write_text(text)
    site.start_agent()
    with _client(site) as calls:
        assert _ended(calls, calls("start_restore", _new_image(site, "new", MIB)))["state"] == "done"
    wait_until(lambda: _names(site.pool) == [], "the end of the leftover")
    left = {"00000000.note", *(f"2222222{number}.note" for number in range(3))}
    wait_until(lambda: {path.name for path in notes.iterdir()} == left, "the end of its note")
    with site.pool.rados.open_ioctx(options.get("data_pool", site.pool.name)) as ioctx:
        assert not [each.key for each in ioctx.list_objects() if each.key.startswith(prefix)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")
@pytest.mark.parametrize("key", ["TEMP_CONF_DIR", "BACKUP_BASE_PATH", "LOG_BASE_PATH"])
def test_a_folder_that_another_user_made_beforehand_is_refused(running: Site, key: str) -> None:
    """From his TEMP_CONF_DIR rsnapshot ran his commands as root."""
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    folder = running.folder / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, _NOBODY, _NOBODY)
    running.configure(**{key: str(folder)})
    done = running.run("ceph_rsnapshot", code=2)
    assert f"{key}: {folder}: belongs to another user" in done.stderr
    assert "chown" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("key", ["QCOW_TEMP_PATH", "AGENT_SOCKET"])
def test_the_agent_does_not_follow_a_link_to_its_folder(site: Site, key: str) -> None:
    (site.folder / "elsewhere").mkdir(mode=0o700)
    (site.folder / "link").symlink_to(site.folder / "elsewhere")
    site.configure(**{key: str(site.folder / "link" / ("agent.sock" if key == "AGENT_SOCKET" else ""))})
    done = site.run("ceph_rsnapshot_agent", code=2)
    assert "is a link" in done.stderr
    assert list((site.folder / "elsewhere").iterdir()) == []
