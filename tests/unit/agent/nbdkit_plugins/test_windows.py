"""Extents by window: whatever is asked, the answers cover the image once, in order, and are true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_agent.nbdkit_plugins.diff import Change, merged
from ceph_rsnapshot_agent.nbdkit_plugins.windows import Typed, Windows, typed, window_size

changes = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50), st.booleans()), max_size=12)
_ZERO, _GAP = 3, 1


def _kinds(pieces: list[Change]) -> dict[int, bool]:
    """What each changed byte is; data wins."""
    kinds: dict[int, bool] = {}
    for offset, length, exists in pieces:
        for position in range(offset, offset + length):
            kinds[position] = kinds.get(position, False) or exists
    return kinds


def _told(pieces: list[Typed]) -> dict[int, bool]:
    return {at: kind == 0 for start, length, kind in pieces if kind != _GAP for at in range(start, start + length)}


@given(changes)
def test_merged_is_ascending_and_loses_no_data(pieces: list[Change]) -> None:
    result = merged(pieces)
    kinds, now = _kinds(pieces), _kinds(result)
    assert now.keys() == kinds.keys()
    # what overlaps is read as data, which is always right
    assert all(now[position] for position, data in kinds.items() if data)
    ends = [offset + length for offset, length, _ in result]
    assert all(end <= following[0] for end, following in zip(ends, result[1:]))
    assert all(length > 0 for _, length, _ in result)


@given(changes, st.integers(0, 200), st.integers(1, 100))
def test_typed_is_contiguous_clipped_and_true(pieces: list[Change], offset: int, count: int) -> None:
    ascending = merged(pieces)
    result = typed(ascending, offset, offset + count, _ZERO, _GAP)
    position = offset
    for start, length, _ in result:
        assert start == position
        assert length > 0
        position += length
    assert position == offset + count
    wanted = {at: data for at, data in _kinds(ascending).items() if offset <= at < offset + count}
    assert _told(result) == wanted


@given(changes, st.integers(1, 40), st.integers(1, 260), st.integers(0, 3))
def test_a_walk_through_the_image_sees_every_change_and_asks_once(
    pieces: list[Change], window: int, size: int, ahead: int
) -> None:
    asked: list[tuple[int, int]] = []
    ascending = merged(pieces)

    def ask(offset: int, length: int) -> list[Change]:
        asked.append((offset, length))
        found = typed(ascending, offset, offset + length, _ZERO, _GAP)
        return [(start, count, kind == 0) for start, count, kind in found if kind != _GAP]

    walked = Windows(size, window, ask, ahead)
    for _ in range(2):  # qemu-img goes through an image twice
        assert _told(_walk(walked, size)) == {at: data for at, data in _kinds(ascending).items() if at < size}
    walked.close()
    assert all(offset % window == 0 and offset + length <= size for offset, length in asked)
    assert len(asked) == len(set(asked)) == -(-size // window)


def test_few_extents_are_kept() -> None:
    def ask(offset: int, length: int) -> list[Change]:
        return [(offset + at, 1, True) for at in range(0, length, 2)]

    windows = Windows(1000, 10, ask, ahead=2, kept=50)
    for _ in range(2):
        assert len(_told(_walk(windows, 1000))) == 500
        assert len(windows._known) <= 14
    windows.close()


def test_a_failed_question_is_asked_again() -> None:
    failures = [OSError("no answer")]

    def ask(offset: int, length: int) -> list[Change]:
        if failures:
            raise failures.pop()
        return [(offset, length, True)]

    windows = Windows(10, 10, ask, 0)
    with pytest.raises(OSError, match="no answer"):
        windows.between(0, 10, _ZERO, _GAP)
    assert windows.between(0, 10, _ZERO, _GAP) == [(0, 10, 0)]
    windows.close()


def test_windows_are_aligned_to_the_stripe_period() -> None:
    assert window_size(4 << 20, 1) == 2 << 30
    assert window_size(4 << 20, 5) % (20 << 20) == 0
    assert window_size(32 << 20, 100) == 3200 << 20


def _walk(windows: Windows, size: int) -> list[Typed]:
    position, found = 0, []
    while position < size:
        for piece in windows.between(position, size - position, _ZERO, _GAP):
            assert piece[0] == position
            position += piece[1]
            found.append(piece)
    return found
