"""What comes from a ceph node is bounded while it comes: by what the agent told of it, and by the room for it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ceph_rsnapshot_common.errors import Cancelled, TransferFailed
from ceph_rsnapshot_common.files import space

_OVERHEAD_BYTES = 16 * 1024**2


@dataclass
class Arrival:
    """What rsnapshot's rsync brings into ``folder``.

    Attributes:
        longest: bytes that a file may have.
        basis: bytes of the older file that rsync looks for equal parts in.
        pid: rsnapshot's, as soon as it runs.
        stop: when set, it must end.
    """

    folder: Path
    longest: int
    basis: int
    pid: int = 0
    stop: threading.Event = field(init=False)

    def look(self) -> None:
        """rsync's --max-size looks at what the sender says of a file, not at what it sends.

        Of endless zeros nothing is written when rsync makes holes, so that also counts what is read.

        Raises:
            TransferFailed
        """
        read = most_read(self.pid) if self.pid else 0
        if _longest_in(self.folder) > self.longest or read > self.basis + 2 * self.longest + _OVERHEAD_BYTES:
            reason = f"the ceph node sends more than the {self.longest} bytes that it told of"
            raise TransferFailed(path=self.folder, reason=reason)


@contextmanager
def bounded(folder: Path, longest: int, basis: int, minimum: int) -> Iterator[Arrival]:
    """Watch ``folder`` while the block runs, which `Cancelled` must end when the result says ``stop``.

    Args:
        longest, basis: see `Arrival`.
        minimum: bytes that stay free.

    Raises:
        TransferFailed, NotEnoughSpace: why it was stopped.
    """
    arrival = Arrival(folder, longest, basis)
    with space.watched(folder.parent, minimum, threading.Event(), also=arrival.look) as watch:
        arrival.stop = watch.stop
        try:
            yield arrival
        except Cancelled as cancelled:
            raise (watch.error or cancelled) from None


def _longest_in(folder: Path) -> int:
    sizes = [0]
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(entry.stat(follow_symlinks=False).st_size)
    return max(sizes)


def most_read(pid: int) -> int:
    """Bytes that a process or one of its descendants has read: the one that has read the most.

    See rchar in https://docs.kernel.org/filesystems/proc.html (3.3); 0 for a process that has ended.
    """
    process = Path("/proc", str(pid))
    try:
        counts = dict(line.split(": ") for line in (process / "io").read_text(encoding="ascii").splitlines())
        children = (process / "task" / str(pid) / "children").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return max([int(counts["rchar"]), *(most_read(int(child)) for child in children)])
