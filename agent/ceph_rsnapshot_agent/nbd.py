"""nbdkit serving one snapshot on a unix socket, for one transfer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ceph_rsnapshot_agent.cluster import client_options
from ceph_rsnapshot_common import folders, servers
from ceph_rsnapshot_common.commands import find_tool
from ceph_rsnapshot_common.records import ExportRequest
from ceph_rsnapshot_common.settings import Settings

FOLDER_PREFIX = "ceph_rsnapshot_nbd_"
_PLUGIN = Path(__file__).parent / "nbdkit" / "plugin.py"
_THREADS = 16


@dataclass(frozen=True)
class Export:
    """A running NBD export: its URI for qemu, and nbdkit's log, which has the cause of read errors."""

    uri: str
    log: Path


@contextmanager
def serve(settings: Settings, request: ExportRequest) -> Iterator[Export]:
    """Serve the snapshot of ``request``, read-only, on a socket in a folder that only this user can enter.

    Raises:
        CommandFailed: nbdkit did not start; has its output.
        ToolMissing: nbdkit is not installed.
    """
    with folders.temporary(FOLDER_PREFIX) as folder:
        address, log = folder / "nbd.sock", folder / "nbdkit.log"
        timeout = settings.rados_timeout + 30.0
        argv = _command(settings, request, address)
        with servers.running(argv, node="ceph", log=log, ready=lambda: _greets(address), timeout=timeout):
            yield Export(f"nbd+unix:///?socket={quote(str(address))}", log)


def _command(settings: Settings, request: ExportRequest, address: Path) -> list[str]:
    parameters = {
        "conf": str(settings.ceph_conf_path),
        "user": settings.ceph_user,
        "cluster": settings.ceph_cluster,
        "pool": request.pool.pool,
        "namespace": request.pool.namespace,
        "image": request.image,
        "image_id": request.image_id,
        "snapshot_id": str(request.snapshot_id),
        **{f"ceph.{key}": value for key, value in client_options(settings).items()},
    }
    options = ["--foreground", "--exit-with-parent", "--readonly", f"--threads={_THREADS}", f"--unix={address}"]
    given = [f"{key}={value}" for key, value in parameters.items() if value]
    return [find_tool("nbdkit", "ceph"), *options, "python", str(_PLUGIN), *given]


def _greets(address: Path) -> bool:
    """Whether the server has accepted a connection: it listens earlier than it has opened the image."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(address))
            return probe.recv(8) == b"NBDMAGIC"
        except OSError:
            return False
