"""The agent's unix socket: who may hold it, and how it starts and ends."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_agent.nbd import nbdkit
from ceph_rsnapshot_agent.restore import new_image
from ceph_rsnapshot_agent.rpc import listener
from ceph_rsnapshot_agent.rpc.service import Sessions
from ceph_rsnapshot_agent.staging import claims
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.files import folders, locks

_logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end what is under way, remove its files, and return.

    Raises:
        LockHeld: another agent has the socket.
        PathNotUsable: a folder or the socket can't be used, or is open to others.
    """
    address = settings.agent_socket
    _private_parent(address)
    folders.make_private(settings.qcow_temp_path, "QCOW_TEMP_PATH")
    with locks.hold(address.with_name(f"{address.name}.lock")):
        # the lock is ours: a socket or file that is still there belongs to a dead agent
        address.unlink(missing_ok=True)
        claims.sweep(settings.qcow_temp_path)
        nbdkit.sweep(settings)
        new_image.sweep(settings)
        with Readers(settings.read_threads) as readers:
            _serve(settings, Sessions(settings, readers))


def _serve(settings: Settings, sessions: Sessions) -> None:
    address = settings.agent_socket
    try:
        with listener.opened(address, settings, sessions) as listening:
            _notify("READY=1")
            _logger.info("listening on %s", address)
            try:
                listening.run()
            except OSError as error:
                raise PathNotUsable(key="AGENT_SOCKET", path=address, reason=error) from None
            finally:
                _notify("STOPPING=1")
    finally:
        sessions.end_all()
    _logger.info("ended")


def _private_parent(address: Path) -> None:
    """The folder of the socket, with mode 0700 if it is made here; nobody else may change what is in it."""
    parent = folders.make_private(address.parent, "AGENT_SOCKET")
    if parent.stat().st_mode & 0o077:
        _logger.warning("%s is open to other users: only the mode of the socket keeps them out", parent)


def _notify(state: str) -> None:
    """Tell systemd, if it started us (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        notify.sendall(state.encode())
