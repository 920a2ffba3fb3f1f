"""How qemu's programs get an image file: by a descriptor, with driver and no backing file named, after a look at it.

Nothing that stands in the file decides what else is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot_common.content.qcow2_header import READ_BYTES, HeaderRefused, check_header
from ceph_rsnapshot_common.errors import Qcow2Refused


@dataclass(frozen=True)
class ImageFile:
    """An open file; ``name`` is what a program of qemu that gets ``pass_fds`` takes for a file name, without a format.

    See "json:" in https://www.qemu.org/docs/master/system/qemu-block-drivers.html
    """

    descriptor: int
    file_format: str

    @property
    def name(self) -> str:
        """A file name in JSON, with driver and no backing file."""
        file = {"driver": "file", "filename": f"/proc/self/fd/{self.descriptor}"}
        alone = {"backing": None} if self.file_format == "qcow2" else {}
        return "json:" + json.dumps({"driver": self.file_format, **alone, "file": file})

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """What the program must inherit."""
        return (self.descriptor,)


@contextmanager
def opened(
    path: Path, file_format: str = "qcow2", *, writable: bool = False, size: int | None = None
) -> Iterator[ImageFile]:
    """Open ``path`` for qemu; a qcow2 must stand for itself. ``size`` as in `see_that_it_stands_alone`.

    Raises:
        Qcow2Refused: it does not, or can't be read.
    """
    try:
        descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise Qcow2Refused(path=path, reason=error.strerror) from None
    try:
        if file_format == "qcow2":
            see_that_it_stands_alone(descriptor, path, size)
        yield ImageFile(descriptor, file_format)
    finally:
        os.close(descriptor)


def see_that_it_stands_alone(descriptor: int, path: Path, size: int | None = None) -> None:
    """Judge an open qcow2 by its header; ``size``: bytes of the image that it should hold, None: any.

    Raises:
        Qcow2Refused
    """
    try:
        check_header(os.pread(descriptor, READ_BYTES, 0), os.fstat(descriptor).st_size, size)
    except HeaderRefused as error:
        raise Qcow2Refused(path=path, reason=error) from None
    except OSError as error:
        raise Qcow2Refused(path=path, reason=error.strerror) from None
