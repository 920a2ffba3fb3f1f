"""Samples lie in the image, and may be any part of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot.archiver.verification import sample

MIB = 1024 * 1024


@given(st.integers(0, 300 * MIB), st.integers(0, 4 * MIB))
def test_a_sample_lies_in_the_image(size: int, amount: int) -> None:
    pieces = list(sample(size, amount))
    assert all(offset % 65536 == 0 and 0 <= offset < max(1, size) for offset, _ in pieces)
    assert sum(length for _, length in pieces) == (size if size <= amount else -(-amount // 65536) * 65536)


def test_a_sample_may_take_any_piece() -> None:
    found = {offset for _ in range(300) for offset, _ in sample(20 * 65536, 5 * 65536)}
    assert found == {number * 65536 for number in range(20)}
