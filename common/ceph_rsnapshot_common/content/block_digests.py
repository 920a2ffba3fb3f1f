"""Digests of an image's content: one of 128 bits for each block of 4 MiB, whatever the file is that holds it.

The digest of a block is the sum, modulo 2**128, of the XXH3 digests of its pieces of 64 KiB; a piece of zeros adds
nothing. So zeros need no reading, and who changes one piece replaces its part of the sum without reading the rest of
the block. That matters beyond speed: to hash the whole block again would give rot in the rest of it a valid digest.

It is to find what went wrong by mistake (rot, a lost write, a bug), not by malice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Union

import xxhash

PIECE = 64 * 1024
"""Bytes of a piece."""

BLOCK = 4 * 1024**2
"""Bytes of a block."""

_PIECES = BLOCK // PIECE
_MODULUS = 1 << 128

Data = Union[bytes, bytearray, memoryview]


def block_sums(offset: int, data: Data) -> Iterator[tuple[int, int]]:
    """What ``data`` adds to the digests of the blocks that it lies in: their numbers and summands.

    Args:
        offset: where in the image it begins: at a piece. It ends at one too, or at the end of the image.
    """
    view = memoryview(data)
    end = offset + len(view)
    while offset < end:
        stop = min(end, (offset // BLOCK + 1) * BLOCK)
        yield offset // BLOCK, _sum(view[: stop - offset], offset % BLOCK // PIECE)
        view = view[stop - offset :]
        offset = stop


def combined(first: int, *others: int) -> int:
    """The sum of summands; negative ones are taken away."""
    return (first + sum(others)) % _MODULUS


def _sum(view: memoryview, first_piece: int) -> int:
    """The place of a piece in its block is the seed, so that two pieces that were swapped are noticed."""
    total = 0
    for number, at in enumerate(range(0, len(view), PIECE), first_piece):
        piece = view[at : at + PIECE]
        found: int = xxhash.xxh3_128_intdigest(piece, seed=number)
        if found != _of_zeros(number, len(piece)):
            total += found
    return total % _MODULUS


@cache  # 64 seeds, and one length more for the end of each image
def _of_zeros(number: int, length: int) -> int:
    return int(xxhash.xxh3_128_intdigest(bytes(length), seed=number))
