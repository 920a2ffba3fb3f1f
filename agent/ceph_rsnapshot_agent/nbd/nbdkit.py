"""nbdkit serving one snapshot, or one new image, on a unix socket, for one transfer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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

_FOLDER_PREFIX = "ceph_rsnapshot_nbd_"
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


def lent_prefix(settings: Settings) -> str:
    """How the folders of exports begin that are lent: they lie beside the agent's socket, which ssh reaches too."""
    return str(settings.agent_socket.parent / _FOLDER_PREFIX)


def sweep(settings: Settings) -> None:
    """Remove the folders that killed agents left."""
    for prefix in (_FOLDER_PREFIX, lent_prefix(settings)):
        folders.sweep(prefix)
    for name in settings.agent_socket.parent.glob("export-*.sock"):
        name.unlink()


@contextmanager
def _named(settings: Settings, address: Path) -> Iterator[Path]:
    """A short name for a lent export's socket, the first that is free: sshd's PermitOpen can only list exact paths."""
    for number in itertools.count(1):
        name = settings.agent_socket.with_name(f"export-{number}.sock")
        try:
            name.symlink_to(address)
        except FileExistsError:
            continue
        try:
            yield name
        finally:
            name.unlink(missing_ok=True)
        return


@contextmanager
def serve(
    settings: Settings, request: ExportRequest, prefix: str = _FOLDER_PREFIX, unchanged_below: int = 0
) -> Iterator[Export]:
    """Serve the snapshot of ``request``, read-only, on a socket in a folder that only this user can enter.

    Args:
        prefix: how the path of that folder begins; see `folders.temporary`.
        unchanged_below: with a base, the offset up to which nothing has changed.

    Raises:
        CommandFailed: nbdkit did not start; has its output.
        ToolMissing: nbdkit is not installed.
    """
    # the filter counts bits: https://libguestfs.org/nbdkit-rate-filter.1.html
    rate = f"rate={request.bandwidth_limit * 8}" if request.bandwidth_limit else ""
    filters = ["--readonly", *(["--filter=rate"] if rate else [])]
    parameters = {
        **_ceph_parameters(settings, request.pool),
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
def serve_new(settings: Settings, pool: Pool, image_id: str) -> Iterator[Export]:
    """Serve a new image to be written, in a folder for exports that are lent; otherwise as `serve`."""
    parameters = {**_ceph_parameters(settings, pool), "image_id": image_id}
    with _running(settings, lent_prefix(settings), [], "writer.py", parameters) as export:
        yield export


def _ceph_parameters(settings: Settings, pool: Pool) -> dict[str, str]:
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
        # --exit-with-parent: https://libguestfs.org/nbdkit-captive.1.html
        all_options = ["--foreground", "--exit-with-parent", f"--threads={_THREADS}", f"--unix={address}", *options]
        given = [*(f"{key}={value}" for key, value in parameters.items() if value), *filter(None, more)]
        argv = [find_tool("nbdkit", Node.CEPH), *all_options, "python", str(_PLUGINS / plugin), *given]
        with servers.started(argv, node=Node.CEPH, log=log, env=_ENVIRONMENT) as server:
            server.wait(lambda: servers.greets(address), settings.rados_timeout + 30.0)
            lent = prefix == lent_prefix(settings)
            with _named(settings, address) if lent else nullcontext(address) as name:
                yield Export(name, log)
