"""The digest by which both nodes compare content."""

from __future__ import annotations

from collections.abc import Iterable

import xxhash


def digest(pieces: Iterable[bytes | bytearray | memoryview]) -> str:
    """XXH3 of 128 bits of the concatenated ``pieces``, as hexadecimal digits.

    It detects accidents, not malice; it is 20 times as fast as SHA-256, and faster than any disk
    (docs/performance.md).
    """
    state = xxhash.xxh3_128()
    for piece in pieces:
        state.update(piece)
    return state.hexdigest()
