"""A file system of a chosen kind in a file, mounted as long as it is needed (needs root)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAKE = {
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1"],
}


@contextmanager
def mounted(folder: Path, kind: str, size: int) -> Iterator[Path]:
    """An empty ``xfs`` (with reflinks) or ``ext4`` (without) of ``size`` bytes at ``<folder>/<kind>``."""
    image, at = folder / f"{kind}.img", folder / kind
    with image.open("wb") as file:
        file.truncate(size)
    at.mkdir()
    subprocess.run([*_MAKE[kind], str(image)], check=True)
    # direct: nothing is cached twice
    attach = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", device, str(at)], check=True)
        try:
            yield at
        finally:
            subprocess.run(["umount", str(at)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        image.unlink()
