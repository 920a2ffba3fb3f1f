"""The digest that both ends compare contents by."""

from __future__ import annotations

from collections.abc import Iterable

import xxhash


def digest(pieces: Iterable[bytes | bytearray | memoryview]) -> str:
    """XXH3 of 128 bits of the concatenated ``pieces``, as hexadecimal digits.

    It is to find what went wrong by mistake, not by malice; it is 20 times as fast as sha256, and faster than memory
    or any disk delivers (docs/performance.md).
    """
    state = xxhash.xxh3_128()
    for piece in pieces:
        state.update(piece)
    return state.hexdigest()
