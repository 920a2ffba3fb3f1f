"""The digests of a backup's content in a file beside it, ``<image>.digests``: 16 bytes for each block of 4 MiB.

A block of zeros has the digest 0, so that the file of a sparse image is sparse too. The root digest, of the whole file,
is in the manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ceph_rsnapshot_common.content.block_digests import BLOCK, Data, block_sums, combined
from ceph_rsnapshot_common.content.digest import digest

_HEADER = b"rbd-digests 1\n\0\0"
_ENTRY = 16
_CHUNK = 1024**2
_SHOWN = 5
HEADER_BYTES = 65536


class DigestFile:
    """An open file of digests; changes are kept for one block at a time, because they come in ascending order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._block = 0
        self._change = 0

    def add(self, offset: int, data: Data) -> None:
        """Content that was zeros (or nothing) so far; see `block_sums` for what ``offset`` may be."""
        for block, amount in block_sums(offset, data):
            self._note(block, amount)

    def remove(self, offset: int, data: Data) -> None:
        """Content that was there and is to be replaced."""
        for block, amount in block_sums(offset, data):
            self._note(block, -amount)

    def flush(self) -> None:
        """Write the change of the block that is being worked on."""
        if self._change:
            at = len(_HEADER) + self._block * _ENTRY
            before = int.from_bytes(os.pread(self._descriptor, _ENTRY, at), "big")
            os.pwrite(self._descriptor, combined(before, self._change).to_bytes(_ENTRY, "big"), at)
        self._change = 0

    def _note(self, block: int, amount: int) -> None:
        if block != self._block:
            self.flush()
        self._block = block
        self._change += amount


@contextmanager
def new(path: Path, size: int) -> Iterator[DigestFile]:
    """A file for an image of ``size`` bytes of zeros, to add its content to."""
    with open(path, "w+b", opener=_private) as file:
        file.write(_HEADER)
        file.truncate(file_size(size))
        file.flush()
        digests = DigestFile(file.fileno())
        yield digests
        digests.flush()


@contextmanager
def existing(path: Path) -> Iterator[DigestFile]:
    """An existing file, to replace content in."""
    with path.open("r+b") as file:
        digests = DigestFile(file.fileno())
        yield digests
        digests.flush()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def file_size(size: int) -> int:
    """Bytes of the file of digests of an image of ``size`` bytes."""
    return len(_HEADER) + -(-size // BLOCK) * _ENTRY


def root(descriptor: int) -> str:
    """The digest of an open file of digests."""
    return digest(_chunks(descriptor))


def of_header(descriptor: int) -> str:
    """The digest of how an open qcow2 begins: `qemu-img check` does not look at all of the header."""
    return digest([os.pread(descriptor, HEADER_BYTES, 0)])


def differences(first: int, second: int) -> Iterator[int]:
    """Offsets in the image of blocks whose digests differ between two open files of equal size."""
    for number, (ours, theirs) in enumerate(zip(_chunks(first), _chunks(second))):
        if ours != theirs:
            for at in range(0, len(ours), _ENTRY):
                if ours[at : at + _ENTRY] != theirs[at : at + _ENTRY]:
                    yield (number * _CHUNK + at - len(_HEADER)) // _ENTRY * BLOCK


def described(blocks: Sequence[int]) -> str:
    """`differences` as people read them."""
    places = ", ".join(map(str, blocks[:_SHOWN])) + (", ..." if blocks[_SHOWN:] else "")
    return f"content: {len(blocks)} blocks of {BLOCK} bytes are not as they were backed up, at {places}"


def entries(descriptor: int, first: int, count: int) -> list[int]:
    """The digests of ``count`` blocks from block ``first`` on."""
    data = os.pread(descriptor, count * _ENTRY, len(_HEADER) + first * _ENTRY)
    return [int.from_bytes(data[at : at + _ENTRY], "big") for at in range(0, len(data), _ENTRY)]


def _chunks(descriptor: int) -> Iterator[bytes]:
    at = 0
    while chunk := os.pread(descriptor, _CHUNK, at):
        yield chunk
        at += len(chunk)
