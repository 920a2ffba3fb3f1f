"""The restores of one session, by the names of their exports; each is undone with it, unless it is finished."""

from __future__ import annotations

import secrets
import threading
from contextlib import ExitStack

from ceph_rsnapshot_agent.ceph.readers import Readers
from ceph_rsnapshot_agent.nbd.loan import Loan
from ceph_rsnapshot_agent.restore.new_image import Restore, sweep
from ceph_rsnapshot_agent.restore.read_back import block_digests
from ceph_rsnapshot_agent.rpc.limits import Limit
from ceph_rsnapshot_agent.rpc.owned import Owned
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import ExportUnknown
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import (
    BlockDigests,
    BlockRequest,
    Closed,
    ExportName,
    Nothing,
    RestoreOpened,
    RestoreRequest,
)


class Restores:
    """Each step is a job; all but the first raise ExportUnknown if there is no such restore."""

    def __init__(self, settings: Settings, exports: Limit, readers: Readers) -> None:
        self._settings, self._exports, self._readers = settings, exports, readers
        self._open: Owned[str, tuple[Restore, ExitStack]] = Owned(lambda opened: opened[1].close())

    def create(self, request: RestoreRequest, progress: Progress, _cancelled: threading.Event) -> RestoreOpened:
        """Create an image and open an export to write to."""
        progress("creating the image")
        name = secrets.token_hex(8)
        with ExitStack() as stack:
            stack.enter_context(self._exports.taken())
            restore = Restore.started(self._settings, request, self._readers)
            stack.callback(restore.abort)
            self._open.add(name, (restore, stack.pop_all()))
        sweep(self._settings)
        lease = self._settings.export_lease
        return RestoreOpened(export=name, image_id=restore.image_id, socket=restore.loan.socket, lease=lease)

    def written(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Closed:
        """Close the export: all has been written."""
        return Closed(log=self._restore(request.export).loan.close())

    def digests(self, request: BlockRequest, _progress: Progress, cancelled: threading.Event) -> BlockDigests:
        """Read back what was written."""
        return block_digests(self._restore(request.export), request, cancelled)

    def finish(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Nothing:
        """Give the image its true name; from now on it stays."""
        self._restore(request.export).finish()
        self._open.end(request.export)
        return Nothing()

    def abort(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Nothing:
        """Remove the image."""
        if not self._open.end(request.export):
            raise ExportUnknown(export=request.export)
        return Nothing()

    def loan(self, name: str) -> Loan | None:
        """The export of a restore of this name, if there is one."""
        found = self._open.find(name)
        return found[0].loan if found else None

    def close(self) -> None:
        """Remove the images of all that are not finished."""
        self._open.close()

    def _restore(self, name: str) -> Restore:
        return self._open.get(name)[0]
