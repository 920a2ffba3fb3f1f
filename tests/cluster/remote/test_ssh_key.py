"""What the backup node's ssh key can do there: a real sshd with the block of docs/installation.md as it is typed."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.ceph_cluster import CephCluster
from demo.ssh_server import SshServer
from tests import SCRIPTS
from tests.cluster import ceph
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, wait_until

_DOCUMENT = Path(__file__).parents[3] / "docs" / "installation.md"


def documented_block(site: Site) -> str:
    """The Match block, for this test's user, agent and program."""
    (block,) = re.findall(r"^    Match User .*?^    Match all\n", _DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    places = {
        "Match User ceph_rsnapshot": f"Match User {getpass.getuser()}",
        "/opt/ceph-rsnapshot/bin": str(SCRIPTS),
        "/etc/ceph-rsnapshot/ceph_rsnapshot.yaml": str(site.config_path),
        "/run/ceph-rsnapshot/": f"{Path(site.options['AGENT_SOCKET']).parent}/",
    }
    for documented, here in places.items():
        assert documented in block
        block = block.replace(documented, here)
    return str(block)


@pytest.fixture
def narrow(running: Site) -> Iterator[SshServer]:
    """An sshd that lets our key do what the document says; the site goes through it, and has an image."""
    with SshServer(config=documented_block(running), key_options="restrict,port-forwarding") as server:
        running.over_ssh(server)
        running.pool.create("vm 1", 4 * MIB)
        running.pool.snap("vm 1", DAY)
        yield server


def _ssh(server: SshServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", *server.ssh_args, "-o", "BatchMode=yes", *arguments]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def _command(server: SshServer, command: str) -> str:
    """What a command that must be refused says."""
    done = _ssh(server, server.host, command)
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr.startswith("ceph_rsnapshot_agent: error: refused: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("mode", ["staged", "direct"])
def test_backups_work(running: Site, narrow: SshServer, mode: str) -> None:
    running.configure(TRANSFER_MODE=mode, BANDWIDTH_LIMIT="100M")
    running.backup()
    running.pool.write("vm 1", seed=5)
    running.pool.snap("vm 1", "2026-01-02")
    running.backup("--snap-date", "2026-01-02")
    assert running.days("vm%201") == ["daily.0", "daily.1"]
    assert running.same(running.root("vm%201") / "daily.0" / "vm%201.qcow2", "vm 1", "2026-01-02")
    running.run("ceph_rsnapshot", "verify", "--source", "vm 1@daily.0")
    running.run("ceph_rsnapshot", "check", code=1)  # the agent's key of this test may write
    assert running.leftovers() == []
    log = (narrow.folder / "sshd.log").read_text()
    assert "refused" not in log


def test_restore_works(running: Site, narrow: SshServer) -> None:
    running.backup()
    running.stop_agent()
    running.configure(ALLOW_RESTORE=True)
    running.start_agent()
    running.run("ceph_rsnapshot", "restore", "vm 1", "--to", f"{running.pool}/again")


@pytest.fixture(scope="module")
def attacked(cluster: CephCluster, connection: Any, memory: Path) -> Iterator[Site]:
    """One site for all that must be refused."""
    pool = ceph.new_pool(cluster, connection, "attacked")
    site = Site(pool, memory)
    site.start_agent()
    pool.create("vm 1", 4 * MIB)
    pool.snap("vm 1", DAY)
    yield site
    site.close()
    ceph.remove_pool(pool)


@pytest.fixture(scope="module")
def key(attacked: Site) -> Iterator[SshServer]:
    with SshServer(config=documented_block(attacked), key_options="restrict,port-forwarding") as server:
        yield server


@pytest.fixture(scope="module")
def staged(attacked: Site) -> Path:
    """The folder of an image of which the agent's node has made a file."""
    attacked.run("export_qcow", "vm 1")
    return attacked.temp / str(attacked.pool) / "vm%201"


def _rsync(server: SshServer, source: Path | str, to: Path, *options: str) -> subprocess.CompletedProcess[str]:
    ssh = " ".join(["ssh", *server.ssh_args])
    argv = ["rsync", "-rtR", f"--rsh={ssh}", *options, f"{server.host}:{source}", f"{to}/"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_rsync_reads_the_folder_of_an_image(staged: Path, key: SshServer, tmp_path: Path) -> None:
    (staged / "link").symlink_to("/etc/passwd")
    done = _rsync(key, f"{staged}/./", tmp_path, "--bwlimit=100000", "--sparse")
    assert done.returncode == 0, done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vm%201.json", "vm%201.qcow2"]


@pytest.mark.parametrize(
    "options",
    [
        ["--remote-option=--log-file=/tmp/written-by-a-test"],
        ["--remove-source-files"],
        ["--files-from=:/etc/hostname"],
        ["--copy-links"],
        ["--remote-option=-L"],
        ["--remote-option=--rsh=sh"],
        ["--remote-option=--config=/etc/passwd"],
        ["--remote-option=--daemon"],
        ["--secluded-args"],
        ["--remote-option=--write-batch=/tmp/written-by-a-test"],
    ],
)
def test_options_of_rsync_that_do_more(staged: Path, key: SshServer, tmp_path: Path, options: list[str]) -> None:
    done = _rsync(key, f"{staged}/./", tmp_path, *options)
    assert done.returncode != 0 and "refused: " in done.stderr, done
    assert list(tmp_path.iterdir()) == []
    assert (staged / "vm%201.qcow2").exists()
    assert not Path("/tmp/written-by-a-test").exists()


def test_paths_elsewhere(attacked: Site, staged: Path, key: SshServer, tmp_path: Path) -> None:
    secret = attacked.folder / "secret"
    (secret / "vm").mkdir(parents=True)
    (secret / "vm" / "key").write_text("key")
    (attacked.temp / "pool").mkdir()
    (attacked.temp / "pool" / "vm").symlink_to(secret / "vm")
    (attacked.temp / "all").symlink_to(secret)
    for place in (
        f"{attacked.temp}/pool/vm/./",
        f"{attacked.temp}/all/vm/./",
        f"{secret}/vm/./",
        f"{attacked.temp}/../secret/vm/./",
        f"{staged}/../../../secret/vm/./",
        "/etc/./",
        f"{attacked.temp}/./",
        f"{attacked.temp}/.claims/./",
        f"{attacked.temp}*/vm/./",
        f"{staged}/./ {secret}/vm",
        "secret/vm/./",
    ):
        done = _rsync(key, place, tmp_path)
        assert done.returncode != 0 and "refused: " in done.stderr, (place, done)
    assert list(tmp_path.iterdir()) == []


def test_filter_rules_read_no_file_elsewhere(attacked: Site, staged: Path, key: SshServer, tmp_path: Path) -> None:
    """A rule of the client makes the sender read a file, and its words come back in messages or can be guessed."""
    (attacked.folder / "keyring").write_text("- *.json\n")
    done = _rsync(key, f"{staged}/./", tmp_path, f"--filter=dir-merge {attacked.folder}/keyring")
    assert "vm%201.json" in [path.name for path in tmp_path.iterdir()] or done.returncode != 0
    assert "keyring" not in done.stdout


def test_it_never_receives(staged: Path, key: SshServer, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("x")
    argv = ["rsync", "-r", f"--rsh=ssh {' '.join(key.ssh_args)}", f"{tmp_path}/new", f"{key.host}:{staged}/"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "refused: " in done.stderr
    assert not (staged / "new").exists()


@pytest.mark.parametrize(
    "command",
    [
        "id",
        "true; id",
        "true\nid",
        "sh -c id",
        "rsync --server --daemon .",
        "rsync --server --sender -e.iLsfxCIvu --rsh=sh . {temp}/p/i/./",
        "rsync --server --sender -re sh . {temp}/p/i/./",
        "rsync --server -re.iLsfxCIvu . {temp}/p/i/./",
        "rsync --server --sender -re.iLsfxCIvu . {temp}/p/i/./; id",
        "rsync --server --sender -re.iLsfxCIvu . $(id)",
        "rsync --server --sender -re.iLsfxCIvu . '{temp}/p/i/./",
        "rsync --server --sender",
        "/usr/bin/rsync --server --sender -r . {temp}/p/i/./",
    ],
)
def test_other_commands(attacked: Site, key: SshServer, command: str) -> None:
    _command(key, command.format(temp=attacked.temp))


def test_no_shell_no_sftp_no_terminal(key: SshServer) -> None:
    assert "refused" in _ssh(key, key.host).stderr
    assert _ssh(key, "-s", key.host, "sftp").returncode != 0
    assert "PTY allocation request failed" in _ssh(key, "-tt", key.host, "true").stderr
    assert _ssh(key, key.host, "true").returncode == 0


@contextlib.contextmanager
def _greeting(family: socket.AddressFamily, address: str | tuple[str, int]) -> Iterator[socket.socket]:
    """A server that says HELLO to one connection: who hears it, got through."""
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()

        def greet() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                connection.sendall(b"HELLO")
                connection.close()

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _through(server: SshServer, local: Path, target: str) -> tuple[bytes, str]:
    """What the other end of ``-L`` says, and what ssh says."""
    local.unlink(missing_ok=True)
    argv = ["ssh", *server.ssh_args, "-N", "-L", f"{local}:{target}", server.host]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as ssh:
        wait_until(local.is_socket, "the forwarding")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(local))
            said = client.recv(100)
        ssh.terminate()
        return said, ssh.communicate()[1]


def test_only_our_sockets_are_reached(attacked: Site, key: SshServer, tmp_path: Path) -> None:
    local, ours = attacked.folder / "l", Path(attacked.options["AGENT_SOCKET"])
    with _greeting(socket.AF_UNIX, str(ours.with_name("export-2.sock"))):
        assert _through(key, local, f"{ours.parent}/export-2.sock") == (b"HELLO", "")
    with _greeting(socket.AF_UNIX, str(attacked.folder / "other.sock")):
        said, message = _through(key, local, f"{attacked.folder}/other.sock")
        assert said == b"" and "open failed" in message
        said, _ = _through(key, local, f"{ours.parent}/../other.sock")
        assert said == b""
    with _greeting(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            said, message = _through(key, local, f"{host}:{port}")
            assert said == b"" and "administratively prohibited" in message
        assert _ssh(key, "-W", f"127.0.0.1:{port}", key.host).stdout == ""
        assert _socks(key, port) != b"HELLO"


def _socks(server: SshServer, port: int) -> bytes:
    """What comes through ``-D`` (SOCKS4)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    with subprocess.Popen(["ssh", *server.ssh_args, "-N", "-D", f"127.0.0.1:{own}", server.host]) as ssh:

        def connected() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", own)) == 0

        wait_until(connected, "the SOCKS server")
        with socket.create_connection(("127.0.0.1", own)) as client:
            client.sendall(b"\x04\x01" + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + b"\0")
            said = client.makefile("rb").read()
        ssh.terminate()
        return said[8:]


@pytest.mark.parametrize("what", ["0:127.0.0.1:22", "{folder}/remote.sock:{folder}/x"])
def test_nothing_is_forwarded_back(attacked: Site, key: SshServer, what: str) -> None:
    remote = what.format(folder=attacked.folder)
    done = _ssh(key, "-N", "-o", "ExitOnForwardFailure=yes", "-R", remote, key.host)
    assert done.returncode != 0 and "forwarding failed" in done.stderr, done
    assert not (attacked.folder / "remote.sock").exists()


def test_no_agent_and_no_x11(key: SshServer, tmp_path: Path) -> None:
    log = key.folder / "sshd.log"
    with _greeting(socket.AF_UNIX, str(tmp_path / "agent")):
        env = {"PATH": "/usr/bin:/bin", "SSH_AUTH_SOCK": str(tmp_path / "agent"), "DISPLAY": ":7"}
        argv = ["ssh", *key.ssh_args, "-v", "-A", "-X", key.host, "true"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0
    assert "X11 forwarding request failed" in done.stderr
    assert "auth agent" not in log.read_text().lower() or "refused" in log.read_text().lower()


def test_our_ssh_gives_nothing_back(running: Site, ssh_server: SshServer, tmp_path: Path) -> None:
    """Forwardings, the agent and X11 of the user's configuration stay at home; an alias of it works."""
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    leak, config = tmp_path / "leak.sock", tmp_path / "config"
    user, _, host = ssh_server.host.partition("@")
    config.write_text(
        f"Host node\n  HostName {host}\n  User {user}\n  ForwardAgent yes\n  ForwardX11 yes\n"
        f"  RemoteForward {leak} /nowhere\n  LocalForward {tmp_path}/local.sock /nowhere\n"
        f"  StrictHostKeyChecking accept-new\n  RemoteCommand touch {tmp_path}/ran\n"
    )
    args = " ".join(ssh_server.ssh_args).replace("-F none", f"-F {config}")
    args = args.replace("StrictHostKeyChecking=yes", "Compression=no")
    for mode, day in (("staged", DAY), ("direct", "2026-01-02")):
        running.configure(CEPH_HOST="node", SSH_ARGS=args, TRANSFER_MODE=mode)
        if day != DAY:
            running.pool.snap("a", day)
        with running.start("ceph_rsnapshot", "--snap-date", day) as process:
            while process.poll() is None:
                assert not leak.exists() and not (tmp_path / "local.sock").exists()
                time.sleep(0.005)
            assert process.returncode == 0, process.communicate()
    empty = tmp_path / "known_hosts"
    running.configure(SSH_ARGS=args.replace(str(ssh_server.known_hosts), str(empty)))
    assert "Host key verification failed" in running.run("ceph_rsnapshot", code=3).stderr
    assert not empty.exists() and not (tmp_path / "ran").exists()
