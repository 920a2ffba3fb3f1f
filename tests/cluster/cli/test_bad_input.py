"""What bad input gets: one clear line, the right exit code, nothing touched, nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import child
from demo.ssh_server import SshServer
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.site import DAY, Site, contents

TOOLS = ("rsnapshot", "rsync", "ssh", "setpriv", "date", "qemu-img", "nbdkit", "logger", "cp", "rm", "du")


@pytest.fixture
def earlier(site: Site) -> Iterator[Site]:
    """A site with an earlier backup of image ``a``, which must be as before when the test has ended."""
    site.pool.create("a")
    site.pool.snap("a", "2025-12-31")
    site.pool.snap("a", DAY)
    site.start_agent()
    site.backup("--snap-date", "2025-12-31")
    before = contents(site.root("a"))
    options = dict(site.options)
    yield site
    site.options = options
    site.configure()
    assert contents(site.root("a")) == before
    assert site.leftovers() == []
    site.stop_agent()
    assert site.temporary_folders() == []


def _only_line(done: Any) -> str:
    """The one line that a command says on standard error."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return str(lines[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"IMAGE_REE": "x"}, ["IMAGE_REE", "unknown key", "IMAGE_RE?"]),
        ({"IMAGE_RE": "("}, ["IMAGE_RE", "regular expression"]),
        ({"RETAIN_NUMBER": "many"}, ["RETAIN_NUMBER", "many", "integer"]),
        ({"RETAIN_NUMBER": 1}, ["RETAIN_NUMBER", "2 or more"]),
        ({"RETAIN_INTERVAL": "sync"}, ["RETAIN_INTERVAL", "sync"]),
        ({"MIN_FREESPACE": "5Q"}, ["MIN_FREESPACE", "5Q", "size"]),
        ({"VERBOSE": "yes please"}, ["VERBOSE", "boolean"]),
        ({"EXTRA_LONG_ARGS": "foo\tbar"}, ["EXTRA_LONG_ARGS", "tab"]),
        ({"EXTRA_LONG_ARGS": "foo\nbar"}, ["EXTRA_LONG_ARGS", "newline"]),
        ({"EXTRA_LONG_ARGS": "inplace"}, ["EXTRA_LONG_ARGS", "--inplace", "refused"]),
        ({"SSH_ARGS": "-o 'x"}, ["SSH_ARGS", "split"]),
        ({"CEPH_HOST": "-oProxyCommand=x"}, ["CEPH_HOST", "host"]),
        ({"BACKUP_BASE_PATH": "relative"}, ["BACKUP_BASE_PATH", "absolute"]),
        ({"POOL": "a/b/c"}, ["POOL", "a/b/c"]),
        ({"POOL": 5}, ["POOL"]),
        ({"SNAP_DATE": "the day after never"}, ["SNAP_DATE", "the day after never"]),
        ({"SNAP_NAMING_DATE_FORMAT": "%Y/%m"}, ["SNAP_NAMING_DATE_FORMAT", "name of a snapshot"]),
    ],
)
def test_bad_options_are_refused(site: Site, options: dict[str, Any], says: list[str]) -> None:
    site.configure(**options)
    done = site.run("ceph_rsnapshot", code=2)
    assert all(word in done.stderr for word in says), done.stderr
    assert not site.base.exists()


def test_all_problems_are_reported_together(site: Site) -> None:
    site.configure(KEEPCON=True, VERBOSE="maybe", IMAGE_RE="[", MIN_FREESPACE=-1)
    for script in ("ceph_rsnapshot", "ceph_rsnapshot_agent", "gathernames"):
        done = site.run(script, code=2)
        assert all(key in done.stderr for key in ("KEEPCON", "VERBOSE", "IMAGE_RE", "MIN_FREESPACE")), done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("POOL: [rbd", "not valid YAML"),
        ("SNAP_NAMING_DATE_FORMAT: %Y-%m-%d", "in quotes"),
        ("POOL: rbd\npool: other", "given twice"),
        ("just text", "KEY: value"),
        ("\x00", "YAML"),
    ],
)
def test_unreadable_yaml(site: Site, text: str, says: str) -> None:
    site.config_path.write_text(text)
    done = site.run("ceph_rsnapshot", code=2)
    assert says in _only_line(done)
    assert str(site.config_path) in done.stderr


def test_configuration_file_that_is_not_there(site: Site) -> None:
    site.config_path.unlink()
    assert str(site.config_path) in _only_line(site.run("ceph_rsnapshot", code=2))


def test_bad_flags_are_named_as_flags(site: Site) -> None:
    done = site.run("ceph_rsnapshot", "--image-re", "(", code=2)
    assert "--image-re" in done.stderr


def test_a_pool_that_does_not_exist_does_not_stop_the_others(earlier: Site) -> None:
    earlier.configure(POOL=["nosuchpool", f"{earlier.pool}/nosuchnamespace", str(earlier.pool)])
    report = earlier.backup("--snap-date", "2025-12-31", code=1)
    assert [error["code"] for error in report["errors"]] == ["pool-not-found"] * 2
    assert "nosuchpool" in report["stderr"]
    assert "nosuchnamespace" in report["stderr"]
    assert report["by_name"]["a"]["result"] == "skipped"


def test_wrong_cephx_user(earlier: Site) -> None:
    earlier.configure(CEPH_USER="nobody")
    earlier.stop_agent()
    earlier.start_agent()
    assert "client.nobody" in _only_line(earlier.run("ceph_rsnapshot", code=3))
    assert "client.nobody" in _only_line(earlier.run("gathernames", code=3))


def test_wrong_cephx_key(earlier: Site) -> None:
    conf = earlier.folder / "other.conf"
    keyring = earlier.folder / "keyring"
    subprocess.run(["ceph-authtool", "-C", str(keyring), "-n", "client.admin", "-g"], check=True, capture_output=True)
    text = earlier.pool.cluster.conf.read_text()
    conf.write_text(text.replace(f"keyring = {earlier.pool.cluster.folder}/$name.keyring", f"keyring = {keyring}"))
    earlier.configure(CEPH_CONF=str(conf))
    earlier.stop_agent()
    earlier.start_agent()
    assert "client.admin" in _only_line(earlier.run("ceph_rsnapshot", code=3))


def test_ceph_conf_missing(earlier: Site) -> None:
    earlier.configure(CEPH_CONF="/nonexistent/ceph.conf")
    earlier.stop_agent()
    earlier.start_agent()
    assert "/nonexistent/ceph.conf" in _only_line(earlier.run("ceph_rsnapshot", code=3))
    assert "/nonexistent/ceph.conf" in _only_line(earlier.run("export_qcow", "a", code=3))


def test_agent_not_running(earlier: Site, ssh_server: SshServer) -> None:
    earlier.stop_agent()
    assert earlier.options["AGENT_SOCKET"] in _only_line(earlier.run("ceph_rsnapshot", code=3))
    earlier.over_ssh(ssh_server)
    line = _only_line(earlier.run("ceph_rsnapshot", code=3))
    assert f"{ssh_server.host}:{earlier.options['AGENT_SOCKET']}" in line


def test_ssh_refused(earlier: Site, ssh_server: SshServer) -> None:
    earlier.over_ssh(ssh_server)
    with child.free_ports(1) as (port,):
        pass
    earlier.configure(SSH_ARGS=" ".join(ssh_server.ssh_args).replace(str(ssh_server.port), str(port)))
    line = _only_line(earlier.run("ceph_rsnapshot", code=3))
    assert "Connection refused" in line
    assert ssh_server.host in line


def test_host_key_unknown(earlier: Site, ssh_server: SshServer) -> None:
    earlier.over_ssh(ssh_server)
    empty = earlier.folder / "no_hosts"
    empty.touch()
    earlier.configure(SSH_ARGS=" ".join(ssh_server.ssh_args).replace(str(ssh_server.known_hosts), str(empty)))
    assert "Host key verification failed" in _only_line(earlier.run("ceph_rsnapshot", code=3))


def test_ssh_key_refused(earlier: Site, ssh_server: SshServer) -> None:
    earlier.over_ssh(ssh_server)
    key = earlier.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    args = " ".join(ssh_server.ssh_args).replace(str(ssh_server.folder / "client_key"), str(key))
    earlier.configure(SSH_ARGS=args)
    assert "Permission denied" in _only_line(earlier.run("ceph_rsnapshot", code=3))


@pytest.fixture(scope="session")
def rpyc5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RPyC 5, which does not talk to RPyC 6."""
    folder = tmp_path_factory.mktemp("rpyc5")
    argv = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "rpyc>=5,<6"]
    subprocess.run(argv, check=True, capture_output=True)
    return folder


def test_rpyc_of_another_major_version(earlier: Site, rpyc5: Path) -> None:
    earlier.stop_agent()
    server = (
        "import rpyc, sys; from rpyc.utils.server import ThreadedServer as S\n"
        "assert rpyc.__version__.startswith('5.')\n"
        "S(rpyc.Service, socket_path=sys.argv[1]).start()"
    )
    log = earlier.folder / "rpyc5.log"
    address = earlier.options["AGENT_SOCKET"]
    env = {**os.environ, "PYTHONPATH": str(rpyc5)}
    old = child.start([sys.executable, "-c", server, address], log, env=env)
    try:
        child.wait_ready(old, lambda: "server started" in log.read_text() or Path(address).is_socket(), log)
        line = _only_line(earlier.run("ceph_rsnapshot", code=3))
    finally:
        child.stop(old)
    assert "RPyC" in line
    assert address in line


@pytest.mark.parametrize(("tool", "package"), [("rsnapshot", "rsnapshot"), ("rsync", "rsync")])
def test_tools_missing_on_the_backup_node(earlier: Site, tool: str, package: str) -> None:
    line = _only_line(earlier.run("ceph_rsnapshot", code=1, env={"PATH": _path_without(earlier, tool)}))
    assert f"{tool} is missing on the backup node" in line
    assert f"package {package}" in line


@pytest.mark.parametrize(("tool", "package"), [("qemu-img", "qemu-utils"), ("nbdkit", "nbdkit-plugin-python")])
def test_tools_missing_on_the_ceph_node(earlier: Site, tool: str, package: str) -> None:
    earlier.stop_agent()
    earlier.start_agent(env={"PATH": _path_without(earlier, tool)})
    line = _only_line(earlier.run("ceph_rsnapshot", code=1))
    assert f"{tool} is missing on the ceph node" in line
    assert package in line
    line = _only_line(earlier.run("export_qcow", "a", code=1, env={"PATH": _path_without(earlier, tool)}))
    assert f"{tool} is missing on the ceph node" in line


def _path_without(site: Site, missing: str) -> str:
    folder = site.folder / f"bin-without-{missing}"
    folder.mkdir(exist_ok=True)
    for tool in TOOLS:
        if tool != missing and not (folder / tool).exists():
            (folder / tool).symlink_to(f"/usr/bin/{tool}")
    return str(folder)


def test_rbd_bindings_missing(site: Site, tmp_path: Path) -> None:
    # a module of that name which can't be imported, as in an environment without the system's packages
    (tmp_path / "rbd.py").write_text("raise ImportError('No module named rbd')")
    (tmp_path / "rados.py").write_text("raise ImportError('No module named rados')")
    done = site.run("gathernames", code=1, env={"PYTHONPATH": str(tmp_path)})
    assert "install python3-rados and python3-rbd" in _only_line(done)
    assert "--system-site-packages" in done.stderr


def test_not_enough_free_space(earlier: Site) -> None:
    earlier.pool.unsnap("a", DAY)
    earlier.pool.write("a", seed=2)
    earlier.pool.snap("a", DAY)
    earlier.configure(MIN_FREESPACE="900T")
    earlier.stop_agent()
    earlier.start_agent()
    report = earlier.backup(code=1)
    error = report["by_name"]["a"]["error"]
    assert error["code"] == "not-enough-space"
    assert int(error["data"]["need"]) > 0
    assert int(error["data"]["minimum"]) == 900 * 1024**4
    assert int(error["data"]["free"]) > 0
    assert all(error["data"][key] in error["message"] for key in ("path", "need", "free", "minimum"))


def test_image_of_size_zero_with_an_odd_name(earlier: Site) -> None:
    earlier.pool.create("null é", 0)
    earlier.pool.snap("null é", "2025-12-31")
    report = earlier.backup("--snap-date", "2025-12-31")
    assert report["by_name"]["null é"]["result"] == "done"
    assert earlier.same(Path(report["by_name"]["null é"]["path"]), "null é", "2025-12-31")


def test_snapshot_deleted_between_listing_and_export(earlier: Site, pool: TestPool) -> None:
    """``a`` is large enough that ``b``'s snapshot is gone before it is its turn."""
    with pool.image("a") as image:
        image.resize(400 * MIB)
        for offset in range(0, 400 * MIB, 4 * MIB):
            image.write(os.urandom(MIB), offset)
    pool.create("b")
    for image_name in ("a", "b"):
        pool.snap(image_name, "2026-01-02")
    earlier.configure(BACKUP_BASE_PATH=str(earlier.folder / "elsewhere"))
    with earlier.start("ceph_rsnapshot", "--json", "--snap-date", "2026-01-02") as process:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "images to back up" in line:
                pool.unsnap("b", "2026-01-02")
    assert process.returncode == 1
    text = "".join(lines)
    assert "snapshot 2026-01-02" in text
    assert "no longer exists" in text
    assert not (earlier.folder / "elsewhere" / str(pool) / "b" / "daily.0").exists()
    assert (earlier.folder / "elsewhere" / str(pool) / "a" / "daily.0" / "a.qcow2").exists()


@pytest.mark.parametrize("key", ["BACKUP_BASE_PATH", "LOG_BASE_PATH", "TEMP_CONF_DIR"])
def test_folder_not_writable(earlier: Site, key: str) -> None:
    # /proc takes no folders, not even from root
    earlier.configure(**{key: "/proc/nowhere"})
    line = _only_line(earlier.run("ceph_rsnapshot", code=2))
    assert key in line
    assert "/proc/nowhere" in line


def test_a_lock_that_is_held_names_its_holder(earlier: Site) -> None:
    pool = earlier.pool
    with pool.image("a") as image:
        image.resize(300 * MIB)
        for offset in range(0, 300 * MIB, 4 * MIB):
            image.write(os.urandom(MIB), offset)
    pool.snap("a", "2026-01-03")
    elsewhere = earlier.folder / "elsewhere"
    earlier.configure(BACKUP_BASE_PATH=str(elsewhere))
    holding = threading.Event()
    with earlier.start("ceph_rsnapshot", "--snap-date", "2026-01-03") as first:
        assert first.stderr
        for line in first.stderr:
            if "images to back up" in line and not holding.is_set():
                holding.set()
                second = earlier.run("ceph_rsnapshot", code=4)
                assert str(first.pid) in _only_line(second)
                assert str(elsewhere) in second.stderr
    assert holding.is_set()
    assert first.returncode == 0


def test_environment_of_an_odd_locale(earlier: Site) -> None:
    done = earlier.run("ceph_rsnapshot", "--snap-date", "2025-12-31", env={"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert "1 skipped" in done.stdout
