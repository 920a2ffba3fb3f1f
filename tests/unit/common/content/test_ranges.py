"""Ranges never cover less than they were given, however few they may be; sampling and grouping lose nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot.archiver.verification import sample
from ceph_rsnapshot.content.source_check import batches
from ceph_rsnapshot_common.content.ranges import Range, Ranges, clipped, union

MIB = 1024 * 1024
many = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 30)), max_size=30)


def _bytes_of(ranges: list[Range]) -> set[int]:
    return {position for offset, length in ranges for position in range(offset, offset + length)}


@given(many)
def test_a_union_is_exact_and_ascending(ranges: list[Range]) -> None:
    result = list(union(ranges))
    assert _bytes_of(result) == _bytes_of(ranges)
    assert all(first[0] + first[1] < second[0] for first, second in zip(result, result[1:]))


@given(many, st.integers(1, 600))
def test_what_is_clipped_lies_in_the_image(ranges: list[Range], size: int) -> None:
    inside = _bytes_of(list(clipped(union(ranges), size)))
    assert inside == _bytes_of(ranges) & set(range(size))


@given(many, st.integers(1, 8))
def test_widened_ranges_are_whole_grains(ranges: list[Range], grain: int) -> None:
    whole = {position // grain for position in _bytes_of(ranges)}
    assert _bytes_of(list(union(ranges, grain=grain))) == {at for at in range(600) if at // grain in whole}


def test_too_many_ranges_become_coarser_and_cover_all() -> None:
    given_ranges = [(at * 8192, 512) for at in range(1000)]
    result = Ranges(given_ranges, limit=64)
    assert len(result) <= 64
    assert all(any(o <= offset and offset + n <= o + length for o, length in result) for offset, n in given_ranges)


@given(st.integers(0, 300 * MIB), st.integers(0, 4 * MIB))
def test_a_sample_lies_in_the_image(size: int, amount: int) -> None:
    pieces = list(sample(size, amount))
    assert all(offset % 65536 == 0 and 0 <= offset < max(1, size) for offset, _ in pieces)
    assert sum(length for _, length in pieces) == (size if size <= amount else -(-amount // 65536) * 65536)


def test_a_sample_may_take_any_piece() -> None:
    found = {offset for _ in range(300) for offset, _ in sample(20 * 65536, 5 * 65536)}
    assert found == {number * 65536 for number in range(20)}


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 20)), max_size=600))
def test_groups_keep_every_byte_in_order(scaled: list[Range]) -> None:
    ranges = list(union((offset * MIB, length * MIB // 3) for offset, length in scaled))
    groups = [group for batch in batches(ranges) for group in batch]
    assert all(sum(length for _, length in group) <= 4 * MIB and len(group) <= 256 for group in groups)
    assert list(union([each for group in groups for each in group])) == ranges
