"""The agent's unix socket: who may hold it, and how it starts and ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rpyc.utils.helpers import classpartial
from rpyc.utils.server import ThreadedServer

from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.restore import new_image
from ceph_rsnapshot_agent.rpc.service import AgentService, Sessions
from ceph_rsnapshot_agent.staging import claims
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.protocol.wire import PROTOCOL_CONFIG

_logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end what is under way, remove its files, and return.

    Raises:
        LockHeld: another agent has the socket.
        PathNotUsable: a folder can't be used, or is open to others.
    """
    address = settings.agent_socket
    _private_parent(address)
    folders.make_private(settings.qcow_temp_path, "QCOW_TEMP_PATH")
    with locks.hold(address.with_name(f"{address.name}.lock")):
        # the lock is ours: a socket or file that is still there belongs to a dead agent
        address.unlink(missing_ok=True)
        claims.sweep(settings.qcow_temp_path)
        nbdkit.sweep(settings)
        # Ceph may be away: that must not keep the agent from starting
        threading.Thread(target=new_image.sweep, args=(settings,), daemon=True).start()
        sessions = Sessions(settings)
        server = _server(address, sessions)
        try:
            with _ended_by_signals(server):
                _logger.info("listening on %s", address)
                server.start()
        finally:
            _notify("STOPPING=1")
            sessions.end_all()
            address.unlink(missing_ok=True)
            _logger.info("ended")


def _private_parent(address: Path) -> None:
    """The folder of the socket, with mode 0700 if it is made here; nobody else may change what is in it."""
    parent = folders.make_private(address.parent, "AGENT_SOCKET")
    mode = parent.stat().st_mode
    if mode & 0o022:
        raise PathNotUsable(
            key="AGENT_SOCKET", path=parent, reason="other users can write there: chmod 0700, or choose another folder"
        )
    if mode & 0o077:
        _logger.warning("%s is open to other users: only the mode of the socket keeps them out", parent)


def _server(address: Path, sessions: Sessions) -> Any:
    logger = logging.getLogger(f"{__name__}.rpyc")
    logger.setLevel(logging.WARNING)
    try:
        server = ThreadedServer(
            classpartial(AgentService, sessions),
            socket_path=str(address),
            protocol_config=PROTOCOL_CONFIG,
            logger=logger,
        )
        address.chmod(0o600)  # before it listens
        return server
    except OSError as error:
        raise PathNotUsable(key="AGENT_SOCKET", path=address, reason=error) from None


@contextmanager
def _ended_by_signals(server: Any) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP close the server; systemd is told when it listens."""

    def end(signum: int, _frame: object) -> None:
        _logger.info("ending because of %s", signal.Signals(signum).name)
        # not in the handler itself: it may have interrupted code that holds a lock which close() needs
        threading.Thread(target=server.close).start()

    before = {signum: signal.signal(signum, end) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    server.listener.listen()
    _notify("READY=1")
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _notify(state: str) -> None:
    """Tell systemd, if it started us (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        notify.sendall(state.encode())
