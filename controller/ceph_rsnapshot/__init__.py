"""Back up Ceph RBD snapshots to qcow2 files that rsnapshot keeps: the controller, for scripts.

import ceph_rsnapshot

settings = ceph_rsnapshot.load_settings("/etc/ceph-rsnapshot/ceph_rsnapshot.yaml")
report = ceph_rsnapshot.backup(settings)
for image in report.images:
    print(image.pool, image.image, image.result)
"""

from ceph_rsnapshot.api import (
    backup,
    check,
    explain_settings,
    files,
    hold,
    list_backups,
    load_settings,
    release,
    restore,
    serve,
    verify,
)
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.report import ImageReport, OrphanReport, RunReport
from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CephRsnapshotError

__all__ = [
    "CephRsnapshotError",
    "ImageReport",
    "Observer",
    "OrphanReport",
    "RunReport",
    "Settings",
    "__version__",
    "backup",
    "check",
    "explain_settings",
    "files",
    "hold",
    "list_backups",
    "load_settings",
    "release",
    "restore",
    "serve",
    "verify",
]
