"""The connection to Ceph that a plugin serves from.

Standard library and rados only: nbdkit's Python plugins import this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rados


class Connection:
    """An open ioctx of a pool or namespace; parameters are those of the plugins."""

    def __init__(self, given: Mapping[str, str]) -> None:
        options = {key[len("ceph.") :]: value for key, value in given.items() if key.startswith("ceph.")}
        self._cluster = rados.Rados(
            conffile=given["conf"], rados_id=given["user"], clustername=given["cluster"], conf=options
        )
        self._cluster.connect(timeout=float(options.get("client_mount_timeout", 120)))
        self.ioctx: Any = self._cluster.open_ioctx(given["pool"])
        self.ioctx.set_namespace(given.get("namespace", ""))

    def close(self) -> None:
        self.ioctx.close()
        self._cluster.shutdown()
