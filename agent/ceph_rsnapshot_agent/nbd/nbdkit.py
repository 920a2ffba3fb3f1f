"""nbdkit serving one snapshot on a unix socket, for one transfer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot_agent.ceph.cluster import client_options
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import servers
from ceph_rsnapshot_common.process.commands import find_tool
from ceph_rsnapshot_common.protocol.records import ExportRequest

FOLDER_PREFIX = "ceph_rsnapshot_nbd_"
_PLUGINS = Path(__file__).parents[1] / "nbdkit_plugins"
_THREADS = 16
# the Python in nbdkit takes its library from beside the first python3 of PATH, which may be any (pyenv, conda)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True)
class Export:
    """A running NBD export: its socket, and nbdkit's log, which has the cause of read errors."""

    socket: Path
    log: Path

    @property
    def uri(self) -> str:
        """For qemu."""
        return servers.nbd_uri(self.socket)


@contextmanager
def serve(
    settings: Settings, request: ExportRequest, prefix: str = FOLDER_PREFIX, unchanged_below: int = 0
) -> Iterator[Export]:
    """Serve the snapshot of ``request``, read-only, on a socket in a folder that only this user can enter.

    Args:
        prefix: how the path of that folder begins; see `folders.temporary`.
        unchanged_below: with a base, the offset up to which nothing has changed.

    Raises:
        CommandFailed: nbdkit did not start; has its output.
        ToolMissing: nbdkit is not installed.
    """
    # the filter counts bits
    rate = f"rate={request.bandwidth_limit * 8}" if request.bandwidth_limit else ""
    filters = ["--readonly", *(["--filter=rate"] if rate else [])]
    parameters = {
        **_place(settings, request.pool),
        "image": request.image,
        "image_id": request.image_id,
        "snapshot_id": str(request.snapshot_id),
        "base_id": str(request.base.snapshot_id) if request.base else "",
        "unchanged_below": str(unchanged_below) if unchanged_below else "",
        "fast_diff": "1" if request.fast_diff else "",
    }
    with _running(settings, prefix, filters, "reader.py", parameters, rate) as export:
        yield export


@contextmanager
def serve_new(settings: Settings, pool: Pool, image_id: str, prefix: str) -> Iterator[Export]:
    """Serve a new image to be written; otherwise as `serve`."""
    with _running(settings, prefix, [], "writer.py", {**_place(settings, pool), "image_id": image_id}) as export:
        yield export


def _place(settings: Settings, pool: Pool) -> dict[str, str]:
    return {
        "conf": str(settings.ceph_conf_path),
        "user": settings.ceph_user,
        "cluster": settings.ceph_cluster,
        "pool": pool.pool,
        "namespace": pool.namespace,
        **{f"ceph.{key}": value for key, value in client_options(settings).items()},
    }


@contextmanager
def _running(
    settings: Settings, prefix: str, options: list[str], plugin: str, parameters: dict[str, str], *more: str
) -> Iterator[Export]:
    with folders.temporary(prefix) as folder:
        address, log = folder / "nbd.sock", folder / "nbdkit.log"
        how = ["--foreground", "--exit-with-parent", f"--threads={_THREADS}", f"--unix={address}", *options]
        given = [*(f"{key}={value}" for key, value in parameters.items() if value), *filter(None, more)]
        argv = [find_tool("nbdkit", Node.CEPH), *how, "python", str(_PLUGINS / plugin), *given]
        with servers.started(argv, node=Node.CEPH, log=log, env=_ENVIRONMENT) as server:
            server.wait(lambda: servers.greets(address), settings.rados_timeout + 30.0)
            yield Export(address, log)
