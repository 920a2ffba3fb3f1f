"""What must be installed on the backup node: programs, and the bindings that are not on PyPI."""

from __future__ import annotations

import importlib
from typing import Any

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CephRsnapshotError, GuestfsMissing, NbdBindingsMissing
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process.commands import find_tool


def nbd_bindings() -> Any:
    """The module ``nbd`` (python3-libnbd; on PyPI there is none).

    Raises:
        NbdBindingsMissing: with what to install.
    """
    return _imported("nbd", NbdBindingsMissing)


def guestfs_bindings() -> Any:
    """The module ``guestfs`` (python3-guestfs; on PyPI there is none). Only `ceph_rsnapshot.files` needs it.

    Raises:
        GuestfsMissing: with what to install.
    """
    return _imported("guestfs", GuestfsMissing)


def _imported(module: str, missing: type[CephRsnapshotError]) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(reason=error) from None


def tools_needed(settings: Settings) -> list[str]:
    """The programs that a run needs on this node."""
    remote = ["ssh"] if settings.ceph_host != "localhost" else []
    return ["rsnapshot", "rsync", "setpriv", *remote, "qemu-img", "qemu-nbd"]


def check(settings: Settings) -> None:
    """See that all is there before a run begins.

    Raises:
        ToolMissing, NbdBindingsMissing: with what to install.
    """
    nbd_bindings()
    for tool in tools_needed(settings):
        find_tool(tool, Node.BACKUP)
