"""Extents by window: whatever is asked, the answers cover the image once, in order, and are true."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_agent.nbdkit.windows import Extent, Windows, merged, typed, window_size

extents = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=12)


def _bytes_of(pieces: list[Extent]) -> set[int]:
    return {position for offset, length in pieces for position in range(offset, offset + length)}


@given(extents)
def test_merged_is_ascending_disjoint_and_the_same_bytes(pieces: list[Extent]) -> None:
    result = merged(pieces)
    assert _bytes_of(result) == _bytes_of(pieces)
    assert all(first[0] + first[1] < second[0] for first, second in zip(result, result[1:]))
    assert all(length > 0 for _, length in result)


@given(extents, st.integers(0, 200), st.integers(1, 100))
def test_typed_is_contiguous_clipped_and_true(pieces: list[Extent], offset: int, count: int) -> None:
    result = typed(merged(pieces), offset, offset + count, 0, 3)
    position = offset
    for start, length, _ in result:
        assert start == position
        assert length > 0
        position += length
    assert position == offset + count
    data = {at for start, length, kind in result if kind == 0 for at in range(start, start + length)}
    assert data == _bytes_of(pieces) & set(range(offset, offset + count))


@given(extents, st.integers(1, 40), st.integers(1, 260))
def test_a_walk_through_the_image_sees_every_extent_once(pieces: list[Extent], window: int, size: int) -> None:
    asked: list[Extent] = []

    def allocated(offset: int, length: int) -> list[Extent]:
        asked.append((offset, length))
        return [
            (start, length) for start, length, kind in typed(merged(pieces), offset, offset + length, 0, 3) if kind == 0
        ]

    windows = Windows(size, window, allocated)
    position, data = 0, set()
    while position < size:
        for start, length, kind in windows.between(position, size - position, 0, 3):
            assert start == position
            position += length
            data |= set(range(start, start + length)) if kind == 0 else set()
    assert data == _bytes_of(pieces) & set(range(size))
    assert all(offset % window == 0 and offset + length <= size for offset, length in asked)
    assert len(asked) == len(set(asked)) == -(-size // window)


def test_windows_are_aligned_to_the_stripe_period() -> None:
    assert window_size(4 << 20, 1) == 1 << 30
    assert window_size(4 << 20, 5) % (20 << 20) == 0
    assert window_size(32 << 20, 100) == 3200 << 20
