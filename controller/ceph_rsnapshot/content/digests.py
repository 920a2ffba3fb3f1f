"""The digests of what an image file holds now."""

from __future__ import annotations

from pathlib import Path

from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.nbd.handle import Connection, data_extents
from ceph_rsnapshot.nbd.read_ahead import read_ahead
from ceph_rsnapshot_common.content.block_digests import PIECE
from ceph_rsnapshot_common.content.ranges import Ranges, clipped
from ceph_rsnapshot_common.progress import Progress


def write_digests(handle: Connection, size: int, target: Path, progress: Progress, stage: str) -> None:
    """Make the file ``target`` of digests of the first ``size`` bytes of an NBD export.

    Args:
        progress: gets ``stage``, the bytes read and those to read.

    Raises:
        NbdFailed: reading failed.
    """
    present = Ranges(data_extents(handle, 0, size), grain=PIECE)
    done = 0
    with digest_file.new(target, size) as making:
        for offset, content in read_ahead(handle, clipped(present, size)):
            making.add(offset, content)
            done += len(content)
            progress(stage, done, present.bytes)
