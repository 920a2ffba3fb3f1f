"""The restores of one session, by the names of their exports; each is undone with it, unless it is finished."""

from __future__ import annotations

import secrets
import threading

from ceph_rsnapshot_agent.nbd.loan import Loan
from ceph_rsnapshot_agent.restore.new_image import Restore, sweep
from ceph_rsnapshot_agent.restore.read_back import block_digests
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

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: Owned[str, Restore] = Owned(Restore.abort)

    def create(self, request: RestoreRequest, progress: Progress, _cancelled: threading.Event) -> RestoreOpened:
        """Create an image and open an export to write to."""
        progress("creating the image")
        sweep(self._settings)
        restore, name = Restore.started(self._settings, request), secrets.token_hex(8)
        self._open.add(name, restore)
        lease = self._settings.export_lease
        return RestoreOpened(export=name, image_id=restore.image_id, socket=restore.loan.socket, lease=lease)

    def written(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Closed:
        """Close the export: all has been written."""
        return Closed(log=self._open.get(request.export).loan.close())

    def digests(self, request: BlockRequest, _progress: Progress, cancelled: threading.Event) -> BlockDigests:
        """Read back what was written."""
        return block_digests(self._open.get(request.export), request, cancelled)

    def finish(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Nothing:
        """Give the image its true name; from now on it stays."""
        self._open.get(request.export).finish()
        self._open.end(request.export)
        return Nothing()

    def abort(self, request: ExportName, _progress: Progress, _cancelled: threading.Event) -> Nothing:
        """Remove the image."""
        if not self._open.end(request.export):
            raise ExportUnknown(export=request.export)
        return Nothing()

    def loan(self, name: str) -> Loan | None:
        """The export of a restore of this name, if there is one."""
        restore = self._open.find(name)
        return restore.loan if restore else None

    def close(self) -> None:
        """Remove the images of all that are not finished."""
        self._open.close()
