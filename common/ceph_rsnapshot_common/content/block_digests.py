"""Digests of an image's content, whatever file holds it: 128 bits for each block of 4 MiB.

The digest of a block is the sum, modulo 2**128, of the XXH3 digests of its pieces of 64 KiB; a piece of zeros adds
nothing. So zeros need not be read, and when one piece changes, its part of the sum is replaced without reading the rest
of the block. That is not only faster: hashing the whole block again would give rot in the rest of it a valid digest.

The digests detect accidents (rot, a lost write, a bug), not malice.
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
    """What ``data`` adds to the digests of the blocks that it covers: pairs of block number and summand.

    Args:
        offset: where in the image ``data`` begins: on a piece boundary. It must end on one too, or at the image's end.
    """
    view = memoryview(data)
    end = offset + len(view)
    while offset < end:
        stop = min(end, (offset // BLOCK + 1) * BLOCK)
        yield offset // BLOCK, _sum(view[: stop - offset], offset % BLOCK // PIECE)
        view = view[stop - offset :]
        offset = stop


def combined(first: int, *others: int) -> int:
    """The sum of summands; negative ones are subtracted."""
    return (first + sum(others)) % _MODULUS


def _sum(view: memoryview, first_piece: int) -> int:
    """The seed is the piece's position in its block, so that swapped pieces are noticed."""
    total = 0
    for number, at in enumerate(range(0, len(view), PIECE), first_piece):
        piece = view[at : at + PIECE]
        found: int = xxhash.xxh3_128_intdigest(piece, seed=number)
        if found != _of_zeros(number, len(piece)):
            total += found
    return total % _MODULUS


@cache  # 64 seeds, and one more length for the end of each image
def _of_zeros(number: int, length: int) -> int:
    return int(xxhash.xxh3_128_intdigest(bytes(length), seed=number))
