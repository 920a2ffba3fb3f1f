"""What others have named or said is shown without acting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_common.printable import printable, printable_lines


@given(st.text(st.characters()))
def test_nothing_acts_on_the_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert all(line.isprintable() for line in printable_lines(text).split("\n"))
    printable(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vm-1 é 日本", "vm-1 é 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\u202eb", "a\\u202eb"),
        ("a\r\nb", "a\\r\\nb"),
        ("\ud800", "\\ud800"),
    ],
)
def test_how_it_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_line_begins_as_one_of_ours() -> None:
    assert printable_lines("one\n2026-01-01 ERROR two") == "one\n    2026-01-01 ERROR two"
