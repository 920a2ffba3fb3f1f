"""The agent: its commands without a controller, its start and end, and what can be reached over its socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rpyc
from rpyc.utils.factory import unix_connect

from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


def test_gathernames_prints_the_images_with_the_snapshot(site: Site) -> None:
    for image in ("b", "a", "c with space", "without"):
        site.pool.create(image, MIB)
    for image in ("b", "a", "c with space"):
        site.pool.snap(image, DAY)
    done = site.run("gathernames")
    assert done.stdout.splitlines() == ["a", "b", "c with space"]
    assert "without" in done.stderr
    assert site.run("gathernames", "--image-re", "[ab]").stdout.splitlines() == ["a", "b"]
    assert site.run("gathernames", "--snap-date", "2020-02-02").stdout == ""


def test_gathernames_json_tells_all_that_is_known(site: Site) -> None:
    site.pool.create("a", 5 * MIB)
    site.pool.snap("a", "older")
    site.pool.snap("a", DAY)
    with site.pool.image("a") as image:
        image_id = image.id()
        snapshot_id = list(image.list_snaps())[-1]["id"]
        image.resize(7 * MIB)
    (listing,) = json.loads(site.run("gathernames", "--json").stdout)
    (found,) = listing["images"]
    assert listing["fsid"] == site.pool.cluster.fsid
    assert (found["name"], found["id"], found["size"]) == ("a", image_id, 7 * MIB)
    assert {"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"} == set(found["features"])
    snapshot = found["snapshot"]
    assert (snapshot["name"], snapshot["id"], snapshot["size"]) == (DAY, snapshot_id, 5 * MIB)
    assert snapshot["created"].endswith("Z")


def test_another_python_comes_first_on_the_path(site: Site) -> None:
    """pyenv, conda: the Python in nbdkit takes its library from beside the first python3 of PATH."""
    other = site.folder / "other"
    for path in (other / "bin" / "python3", other / f"lib/python3.{sys.version_info.minor}" / "os.py"):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    site.start_agent(env={"PATH": f"{other / 'bin'}:{os.environ['PATH']}"})
    site.pool.create("a", MIB)
    site.pool.snap("a", DAY)
    site.backup("--transfer-mode", "direct")
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")


def test_gathernames_json_tells_the_base_of_the_next_increment(running: Site) -> None:
    """With it, who deletes snapshots knows which one to keep, and who forgot hears of it."""

    def found() -> tuple[object, bool]:
        (listing,) = json.loads(running.run("gathernames", "--json").stdout)
        return listing["images"][0]["base"], listing["images"][0]["base_exists"]

    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    assert found() == (None, False)
    running.backup()
    with running.pool.image("a") as image:
        base = {"snapshot": DAY, "snapshot_id": next(iter(image.list_snaps()))["id"]}
    assert found() == (base, True)
    running.pool.unsnap("a", DAY)
    running.pool.snap("a", DAY)
    assert found() == (base, False)


def test_snapshots_in_the_trash_and_of_groups_do_not_count(site: Site) -> None:
    """A clone of format 2 keeps its parent's deleted snapshot alive in the trash namespace."""
    site.pool.create("a", MIB)
    site.pool.snap("a", DAY)
    site.pool.cluster.rbd("clone", "--rbd-default-clone-format", "2", f"{site.pool}/a@{DAY}", f"{site.pool}/child")
    site.pool.unsnap("a", DAY)
    with site.pool.image("a") as image:
        assert [entry["namespace"] for entry in image.list_snaps()] == [2]
    site.pool.cluster.rbd("group", "create", f"{site.pool}/group")
    site.pool.cluster.rbd("group", "image", "add", f"{site.pool}/group", f"{site.pool}/a")
    site.pool.cluster.rbd("group", "snap", "create", f"{site.pool}/group@{DAY}")
    listing = json.loads(site.run("gathernames", "--json", "--image-re", "a$").stdout)[0]
    assert [(image["snapshot"], image["newest"]) for image in listing["images"]] == [(None, None)]


def test_an_image_that_can_not_be_opened_is_an_error_and_not_without_snapshot(running: Site) -> None:
    site = running
    for image in ("broken", "fine"):
        site.pool.create(image, MIB)
        site.pool.snap(image, DAY)
    with site.pool.image("broken") as image:
        image_id = image.id()
    with site.pool.ioctx() as ioctx:
        ioctx.remove_object(f"rbd_header.{image_id}")
    done = site.run("gathernames", code=1)
    assert done.stdout.splitlines() == ["fine"]
    assert "broken" in done.stderr
    report = site.backup(code=1)
    assert report["by_name"]["broken"]["error"]["code"] == "image-unreadable"
    assert report["by_name"]["fine"]["result"] == "done"
    assert report["orphans"] == []


def test_export_and_remove_by_hand(site: Site) -> None:
    site.pool.create("a")
    site.pool.snap("a", DAY)
    qcow = Path(site.run("export_qcow", "a").stdout.strip())
    assert qcow == site.temp / str(site.pool) / "a" / "a.qcow2"
    assert sorted(path.name for path in qcow.parent.iterdir()) == ["a.json", "a.qcow2"]
    assert site.same(qcow, "a")
    site.start_agent()
    assert qcow.exists(), "the agent's sweep takes only what is its own"
    site.run("remove_qcow", "a")
    assert site.leftovers() == []
    assert "there was no" in site.run("remove_qcow", "a").stderr


def test_export_names_pool_namespace_and_snapshot(site: Site) -> None:
    inner = site.pool.in_namespace("tenant")
    inner.create("-odd name", 2 * MIB)
    inner.snap("-odd name", "weekly")
    done = site.run("export_qcow", "--", f"{inner}/-odd name@weekly")
    qcow = Path(done.stdout.strip())
    assert qcow == site.temp / str(inner) / "-odd%20name" / "-odd%20name.qcow2"
    assert site.same(qcow, "-odd name", "weekly", pool=inner)
    site.run("remove_qcow", "-p", str(inner), "--", "-odd name")
    assert site.leftovers() == []


def test_export_of_what_is_not_there(site: Site) -> None:
    site.pool.create("a")
    site.pool.snap("a", "2025-12-31")
    site.pool.create("database")
    done = site.run("export_qcow", "databse", code=1)
    assert "there is no image databse" in done.stderr
    assert "did you mean database?" in done.stderr
    done = site.run("export_qcow", "a", code=1)
    assert DAY in done.stderr
    assert "2025-12-31" in done.stderr
    assert site.leftovers() == []


def test_least_rights_are_enough(site: Site) -> None:
    """The caps that docs/installation.md names."""
    keyring = site.folder / "keyring"
    inner = site.pool.in_namespace("tenant")
    for place in (site.pool, inner):
        place.create("a")
        place.snap("a", DAY)
    caps = ["mon", "profile rbd-read-only", "osd", f"profile rbd-read-only pool={site.pool.name}"]
    site.pool.cluster.ceph("auth", "get-or-create", "client.backup", *caps, "-o", str(keyring))
    conf = site.folder / "backup.conf"
    conf.write_text(f"{site.pool.cluster.conf.read_text()}[client.backup]\nkeyring = {keyring}\n")
    site.configure(CEPH_CONF=str(conf), CEPH_USER="backup", POOL=[str(site.pool), str(inner)])
    site.start_agent()
    report = site.backup()
    assert [image["result"] for image in report["images"]] == ["done", "done"]
    for place in (site.pool, inner):
        assert site.same(site.root("a", place) / "daily.0" / "a.qcow2", "a", pool=place)
    manifest = json.loads((site.root("a") / "daily.0" / "a.json").read_text())
    assert manifest["versions"]["ceph"].startswith("16.")
    site.pool.cluster.ceph("auth", "rm", "client.backup")


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


@pytest.mark.parametrize("image", ["../../../etc", "..", ".", "/etc/passwd", ".claims"])
def test_remove_takes_no_paths(running: Site, root: Any, image: str) -> None:
    precious = running.folder / "etc"
    precious.mkdir()
    (precious / "etc.qcow2").write_text("precious")
    request = json.dumps({"pool": {"pool": "rbd"}, "image": image})
    assert json.loads(root.remove_qcow(request)) == {"result": False}
    assert (precious / "etc.qcow2").read_text() == "precious"


@pytest.mark.parametrize(
    "script", ["ceph_rsnapshot", "ceph_rsnapshot_agent", "gathernames", "export_qcow", "remove_qcow"]
)
def test_every_command_has_help_and_version(site: Site, script: str) -> None:
    help_text = site.run(script, "--help").stdout
    assert "example" in help_text
    assert "--config" in help_text
    assert site.run(script, "--version").stdout.startswith(f"{script} ")
    assert site.run(script, "--nonsense", code=2).stderr


def test_output_closed_early(site: Site) -> None:
    for number in range(30):
        site.pool.create(f"image-{number}", MIB)
        site.pool.snap(f"image-{number}", DAY)
    process = site.start("gathernames")
    assert process.stdout
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr
    assert process.stderr.read() == ""
