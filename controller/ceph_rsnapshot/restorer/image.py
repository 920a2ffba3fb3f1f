"""A backup becomes a new RBD image, which is read back and compared before it gets its name."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.nbd import qemu_nbd
from ceph_rsnapshot.nbd.handle import data_extents
from ceph_rsnapshot.remote.client import AgentClient, Pending
from ceph_rsnapshot.remote.connection import AgentConnection
from ceph_rsnapshot.remote.lease import Lease
from ceph_rsnapshot.remote.link import forwarded
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot.repository.open_backup import Held, hold
from ceph_rsnapshot.restorer.result import Restored
from ceph_rsnapshot.restorer.source import expected_digests, usable
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.content.block_digests import BLOCK
from ceph_rsnapshot_common.errors import AgentUnreachable, CephRsnapshotError, CommandFailed, NbdFailed, RestoreFailed
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import image_file, qemu_img, servers
from ceph_rsnapshot_common.progress import Progress, ProgressByName, named
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import BlockDigests, BlockRequest, ExportName, RestoreOpened, RestoreRequest

_DATA_BLOCKS = 64
_MOST_BLOCKS = 4096
_logger = logging.getLogger(__name__)


def restore_image(
    settings: Settings,
    backup: Backup,
    pool: Pool,
    image: str,
    data_pool: str | None,
    accept_damage: bool,
    progress: ProgressByName,
) -> Restored:
    """Create ``image`` in ``pool``; see `ceph_rsnapshot.restore`."""
    started = time.monotonic()
    manifest = usable(backup, accept_damage)
    size, target = manifest.size, f"{pool}/{image}"
    request = RestoreRequest(pool=pool, image=image, size=size, layout=manifest.layout, data_pool=data_pool)
    with ExitStack() as stack:
        folder = stack.enter_context(run_folder.made())
        held = stack.enter_context(hold(backup))
        client = stack.enter_context(AgentConnection(settings, folder)).client()
        # before anything is made: reading them from the qcow2 may take longer than a lease
        reading, restoring = named(progress, backup.name), named(progress, target)
        expected = stack.enter_context(
            expected_digests(held, manifest, folder, accept_damage, reading, settings.idle_timeout)
        )
        opened = client.run(calls.RESTORE, request, restoring)
        with _removed_on_failure(client, opened.export):
            written = _Restore(client, opened, target, size, folder, restoring).run(held, expected.descriptor)
            client.run(calls.FINISH, ExportName(export=opened.export))
    return Restored(
        backup=backup,
        target=target,
        image_id=opened.image_id,
        size=size,
        written=written,
        damage=expected.damage,
        seconds=round(time.monotonic() - started, 3),
        next_steps=_next_steps(manifest, pool, image),
    )


class _Restore:
    """Write, and compare."""

    def __init__(
        self, client: AgentClient, opened: RestoreOpened, target: str, size: int, folder: Path, progress: Progress
    ) -> None:
        self._client, self._opened, self._target, self._size = client, opened, target, size
        self._folder, self._progress = folder, progress
        self._export = ExportName(export=opened.export)
        self._lease = Lease(client, opened.export, opened.lease)

    def run(self, held: Held, expected: int) -> int:
        """The bytes that were written. ``expected``: an open file of digests."""
        written = self._write(held)
        self._client.run(calls.WRITTEN, self._export)
        self._compare(expected)
        return written

    def _write(self, held: Held) -> int:
        try:
            with ExitStack() as stack:
                remote, local = Path(self._opened.socket), self._folder / "restore.sock"
                target = stack.enter_context(forwarded(self._client.link, remote, local))
                qcow = stack.enter_context(image_file.opened(held.qcow))
                qemu_img.convert(
                    qcow.name,
                    servers.nbd_uri(target),
                    ["-n", "--target-is-zero", "-O", "raw"],
                    Node.BACKUP,
                    progress=self._progress,
                    stage="restoring",
                    total=self._size,
                    pass_fds=qcow.pass_fds,
                    idle=self._client.link.idle,
                    waiting=self._lease.renew,
                )
            return self._data_bytes(held)
        except (NbdFailed, CommandFailed) as error:
            # nbdkit knows why a write failed; if the agent is gone, that is the error
            reason = "; ".join(filter(None, [str(error), self._client.run(calls.WRITTEN, self._export).log]))
            raise RestoreFailed(target=self._target, reason=reason) from None

    def _data_bytes(self, held: Held) -> int:
        with qemu_nbd.opened(held.qcow, self._folder, "reading the backup", self._client.link.idle) as handle:
            return sum(length for _, length in data_extents(handle, 0, self._size))

    def _compare(self, expected: int) -> None:
        """Raises: RestoreFailed if the new image does not hold what was backed up."""
        for first, count, found in self._read_back(expected):
            self._progress("comparing", first * BLOCK, self._size)
            blocks = {number: int(text, 16) for number, text in found.blocks}
            for number, digest in enumerate(digest_file.entries(expected, first, count), first):
                if blocks.get(number, 0) != digest:
                    where = f"the {BLOCK} bytes at {number * BLOCK} of the new image are not what was backed up"
                    hint = "verify the backup (ceph_rsnapshot verify), or accept its damage with --accept-damage"
                    raise RestoreFailed(target=self._target, reason=f"{where}; {hint}")

    def _read_back(self, expected: int) -> Iterator[tuple[int, int, BlockDigests]]:
        """First block, number of blocks and their digests; the agent is always a step ahead."""
        ahead: deque[tuple[int, int, Pending[BlockRequest, BlockDigests]]] = deque()
        for first, count in windows(expected, -(-self._size // BLOCK)):
            request = BlockRequest(export=self._opened.export, first=first, count=count)
            ahead.append((first, count, self._client.begin(calls.BLOCK_DIGESTS, request)))
            if len(ahead) > 1:
                first_asked, count_asked, answer = ahead.popleft()
                yield first_asked, count_asked, answer.result()
        for first_asked, count_asked, answer in ahead:
            yield first_asked, count_asked, answer.result()


def windows(expected: int, blocks: int) -> Iterator[tuple[int, int]]:
    """First block and number of blocks of parts that hold a bounded amount of data each; holes cost next to nothing."""
    first = 0
    while first < blocks:
        digests = digest_file.entries(expected, first, min(_MOST_BLOCKS, blocks - first))
        data = (number for number, digest in enumerate(digests, 1) if digest)
        count = next(islice(data, _DATA_BLOCKS - 1, None), len(digests))
        yield first, count
        first += count


@contextlib.contextmanager
def _removed_on_failure(client: AgentClient, export: str) -> Iterator[None]:
    """If the connection is gone, the agent removes the image by itself."""
    try:
        yield
    except BaseException:
        try:
            client.run(calls.ABORT, ExportName(export=export))
        except AgentUnreachable:
            pass
        except CephRsnapshotError as left:
            _logger.error("%s", left)
        raise


def _next_steps(manifest: Manifest, pool: Pool, image: str) -> tuple[str, ...]:
    original = f"{Pool(pool=manifest.pool, namespace=manifest.namespace)}/{manifest.image}"
    target = f"{pool}/{image}"
    if target == original:
        return ()
    aside = f"rbd rename {original} {original}.before-restore"
    if target.rpartition("/")[0] != original.rpartition("/")[0]:
        # rbd rename does not cross pools and namespaces: https://docs.ceph.com/en/latest/man/8/rbd/
        return aside, f"rbd deep cp {target} {original}"
    return aside, f"rbd rename {target} {original}"
