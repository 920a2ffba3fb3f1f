"""A backup becomes a new RBD image, which is read back and compared before it gets its name."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Optional

from ceph_rsnapshot import digest_file, qemu_nbd
from ceph_rsnapshot.backups import Backup
from ceph_rsnapshot.client import AgentClient, Pending
from ceph_rsnapshot.connection import forwarded
from ceph_rsnapshot.context import RUN_FOLDER_PREFIX, AgentConnection
from ceph_rsnapshot.copying import copy
from ceph_rsnapshot.expected import expected_digests, usable
from ceph_rsnapshot.held import Held, hold
from ceph_rsnapshot_common import folders
from ceph_rsnapshot_common.block_digests import BLOCK
from ceph_rsnapshot_common.errors import CephRsnapshotError, NbdFailed, RestoreFailed
from ceph_rsnapshot_common.manifest import Manifest
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.records import BlockDigests, BlockRequest, RestoreOpened, RestoreRequest
from ceph_rsnapshot_common.settings import Settings

Progress = Callable[[str, str, int, int], None]

_RENEW_SECONDS = 30.0
_WINDOW_BLOCKS = 64


class Restored(Record):
    """A restore that is complete and was compared with the backup.

    Attributes:
        target: the image ``pool/image``, or the path of the file.
        image_id: of the new image.
        written: bytes of content that were written.
        next_steps: commands that put the image into the place of the original; none if it is there already.
    """

    backup: Backup
    target: str
    image_id: Optional[str] = None
    size: int
    written: int
    seconds: float
    next_steps: tuple[str, ...] = ()


def restore_image(
    settings: Settings,
    backup: Backup,
    pool: Pool,
    image: str,
    data_pool: str | None,
    accept_damage: bool,
    progress: Progress,
) -> Restored:
    """Create ``image`` in ``pool``; see `ceph_rsnapshot.restore`."""
    started = time.monotonic()
    manifest = usable(backup, accept_damage)
    size, target = manifest.size, f"{pool}/{image}"
    request = RestoreRequest(pool=pool, image=image, size=size, layout=manifest.layout, data_pool=data_pool)
    with ExitStack() as stack:
        folder = stack.enter_context(folders.temporary(RUN_FOLDER_PREFIX))
        held = stack.enter_context(hold(backup))
        client = stack.enter_context(AgentConnection(settings, folder)).client()
        opened = client.open_restore(request, lambda status: progress(target, status.stage, 0, 0))
        with _removed_on_failure(client, opened.export):
            expected = stack.enter_context(expected_digests(held, manifest, folder, accept_damage, progress))
            written = _Restore(client, opened, target, size, folder, progress).run(held, expected)
            client.finish_restore(opened.export)
    return Restored(
        backup=backup,
        target=target,
        image_id=opened.image_id,
        size=size,
        written=written,
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
        self._renewed = time.monotonic()

    def run(self, held: Held, expected: int) -> int:
        """The bytes that were written. ``expected``: an open file of digests."""
        written = self._write(held)
        self._client.written(self._opened.export)
        self._compare(expected)
        return written

    def _write(self, held: Held) -> int:
        try:
            with ExitStack() as stack:
                remote, local = Path(self._opened.socket), self._folder / "restore.sock"
                target = stack.enter_context(forwarded(self._client.link, remote, local))
                source = stack.enter_context(qemu_nbd.serve(held.qcow, self._folder, pass_fds=held.pass_fds))
                return copy(source, target, True, self._tick).data
        except NbdFailed as error:
            # nbdkit knows why a write failed; and if the agent is gone, that is what is said
            reason = "; ".join(filter(None, [str(error), self._client.written(self._opened.export).log]))
            raise RestoreFailed(target=self._target, reason=reason) from None

    def _tick(self, done: int, total: int) -> None:
        self._progress(self._target, "restoring", done, total)
        if time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._client.renew(self._opened.export)
            self._renewed = time.monotonic()

    def _compare(self, expected: int) -> None:
        """Raises: RestoreFailed if the new image does not hold what was backed up."""
        for first, count, found in self._read_back():
            self._progress(self._target, "comparing", first * BLOCK, self._size)
            blocks = {number: int(text, 16) for number, text in found.blocks}
            for number, digest in enumerate(digest_file.entries(expected, first, count), first):
                if blocks.get(number, 0) != digest:
                    where = f"the {BLOCK} bytes at {number * BLOCK} of the new image are not what was backed up"
                    hint = "verify the backup (ceph_rsnapshot verify), or accept its damage with --accept-damage"
                    raise RestoreFailed(target=self._target, reason=f"{where}; {hint}")

    def _read_back(self) -> Iterator[tuple[int, int, BlockDigests]]:
        """First block, number of blocks and their digests; the agent is always a step ahead."""
        blocks = -(-self._size // BLOCK)
        ahead: deque[tuple[int, int, Pending[BlockDigests]]] = deque()
        for first in range(0, blocks, _WINDOW_BLOCKS):
            count = min(_WINDOW_BLOCKS, blocks - first)
            request = BlockRequest(export=self._opened.export, first=first, count=count)
            ahead.append((first, count, self._client.block_digests(request)))
            if len(ahead) > 1:
                first_asked, count_asked, answer = ahead.popleft()
                yield first_asked, count_asked, answer.result()
        for first_asked, count_asked, answer in ahead:
            yield first_asked, count_asked, answer.result()


@contextlib.contextmanager
def _removed_on_failure(client: AgentClient, export: str) -> Iterator[None]:
    """If the connection is gone, the agent removes the image by itself."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(CephRsnapshotError):
            client.abort_restore(export)
        raise


def _next_steps(manifest: Manifest, pool: Pool, image: str) -> tuple[str, ...]:
    original = f"{Pool(pool=manifest.pool, namespace=manifest.namespace)}/{manifest.image}"
    target = f"{pool}/{image}"
    if target == original:
        return ()
    if target.rpartition("/")[0] != original.rpartition("/")[0]:
        return (f"rbd info {target}",)
    return (f"rbd rename {original} {original}.before-restore", f"rbd rename {target} {original}")
