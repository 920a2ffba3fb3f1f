"""The files of one image in one folder: their names, wherever the folder is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageFiles:
    """Paths, whether they exist or not; ``stem`` is the name of the files without suffix."""

    folder: Path
    stem: str

    @property
    def qcow(self) -> Path:
        """The image's content."""
        return self.folder / f"{self.stem}.qcow2"

    @property
    def partial(self) -> Path:
        """The qcow2 while it is written."""
        return self.folder / f"{self.stem}.qcow2.partial"

    @property
    def manifest(self) -> Path:
        """What the qcow2 is; see `ceph_rsnapshot_common.protocol.manifest`."""
        return self.folder / f"{self.stem}.json"

    @property
    def digests(self) -> Path:
        """Digests of the content, one for each block."""
        return self.folder / f"{self.stem}.digests"
