"""Single values: sizes, options, arguments for rsnapshot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_common.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("5G", 5 * 1024**3), ("500M", 500 * 1024**2), ("1.5 KiB", 1536), ("7", 7), ("7B", 7), ("2t", 2 * 1024**4)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "5GB", "-1", "1e3", "5 5", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.50 KiB"), (20 * 1024**2, "20.0 MiB"), (1000 * 1024, "0.98 MiB")],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**60))
def test_shown_sizes_are_short_and_true(size: int) -> None:
    text = format_size(size)
    number, unit = text.split()
    assert len(number) <= 7
    scale = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[unit]
    assert float(number) * scale == pytest.approx(size, rel=0.006)
