"""Grouping what is asked loses nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot.content.source_check import batches
from ceph_rsnapshot_common.content.ranges import Range, union

MIB = 1024 * 1024


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 20)), max_size=600))
def test_groups_keep_every_byte_in_order(scaled: list[Range]) -> None:
    ranges = list(union((offset * MIB, length * MIB // 3) for offset, length in scaled))
    groups = [group for batch in batches(ranges) for group in batch]
    assert all(sum(length for _, length in group) <= 4 * MIB and len(group) <= 256 for group in groups)
    assert list(union([each for group in groups for each in group])) == ranges
