"""Ranges never cover less than they were given, however few they may be; sampling and grouping lose nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_common.content.ranges import Range, Ranges, clipped, union

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
