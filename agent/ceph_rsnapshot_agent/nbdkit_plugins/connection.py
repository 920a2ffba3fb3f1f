"""What the two plugins share: one open image, its connection to Ceph, and the callbacks that are alike.

Standard library, nbdkit and rados only: nbdkit's Python plugins import this file.
"""

from __future__ import annotations

from typing import Any

import nbdkit
import rados


class Served:
    """Its methods are nbdkit's callbacks, by the names of https://libguestfs.org/nbdkit-python-plugin.3.html.

    A plugin extends it, and gives the methods of its one object to nbdkit as functions of the module.
    """

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.image: Any = None
        self.size = 0

    def config(self, key: str, value: str) -> None:
        """Take one parameter."""
        self.given[key] = value

    def thread_model(self) -> Any:
        """Requests come from many threads: librbd is safe."""
        return nbdkit.THREAD_MODEL_PARALLEL

    def after_fork(self) -> None:
        """Connect and open; not earlier, because librados has threads, which do not survive nbdkit's fork."""
        options = {key[len("ceph.") :]: value for key, value in self.given.items() if key.startswith("ceph.")}
        user, name = self.given["user"], self.given["cluster"]
        self._cluster = rados.Rados(conffile=self.given["conf"], rados_id=user, clustername=name, conf=options)
        self._cluster.connect(timeout=float(options.get("client_mount_timeout", 120)))
        self._ioctx = self._cluster.open_ioctx(self.given["pool"])
        self._ioctx.set_namespace(self.given.get("namespace", ""))
        self.image = self.open_image(self._ioctx)
        self.size = self.image.size()

    def open_image(self, ioctx: Any) -> Any:
        """The `rbd.Image` that is served."""
        raise NotImplementedError

    def cleanup(self) -> None:
        """Close what was opened."""
        if self.image:
            self.image.close()
            self._ioctx.close()
            self._cluster.shutdown()

    def open(self, _readonly: bool) -> None:
        """What all other callbacks get as their handle: nothing, there is one image for all clients."""

    def can_multi_conn(self, _handle: None) -> bool:
        """All clients see the same."""
        return True
