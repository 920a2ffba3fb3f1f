"""Digests of blocks: sums of their pieces, so that parts can be replaced; any change of content is seen."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot_common.content.block_digests import BLOCK, PIECE

SIZE = 3 * BLOCK + 5 * PIECE + 777


def _content(seed: int) -> bytearray:
    """Random pieces with zeros between them."""
    randomly = random.Random(seed)
    content = bytearray(SIZE)
    for number in range(0, SIZE // PIECE, 3):
        content[number * PIECE : number * PIECE + 1000] = randomly.randbytes(1000)
    content[-300:] = randomly.randbytes(300)
    return content


def _digests(path: Path, content: bytes | bytearray, chunk: int) -> bytes:
    with digest_file.new(path, len(content)) as making:
        for at in range(0, len(content), chunk):
            making.add(at, content[at : at + chunk])
    return path.read_bytes()


@pytest.mark.parametrize("chunk", [PIECE, 7 * PIECE, BLOCK, 2 * BLOCK])
def test_how_it_is_read_makes_no_difference(tmp_path: Path, chunk: int) -> None:
    assert _digests(tmp_path / "a", _content(1), chunk) == _digests(tmp_path / "b", _content(1), SIZE // PIECE * PIECE)


def test_zeros_need_not_be_read(tmp_path: Path) -> None:
    content = _content(2)
    content[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    with digest_file.new(tmp_path / "a", SIZE) as making:
        making.add(0, content[:BLOCK])
        making.add(2 * BLOCK, content[2 * BLOCK :])
    assert (tmp_path / "a").read_bytes() == _digests(tmp_path / "b", content, PIECE)
    assert (tmp_path / "a").stat().st_size == digest_file.file_size(SIZE)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_and_placed(tmp_path_factory: pytest.TempPathFactory, at: int, change: int) -> None:
    folder = tmp_path_factory.mktemp("digests")
    content = _content(3)
    _digests(folder / "a", content, BLOCK)
    content[at] ^= change
    _digests(folder / "b", content, BLOCK)
    with (folder / "a").open("rb") as first, (folder / "b").open("rb") as second:
        assert list(digest_file.differences(first.fileno(), second.fileno())) == [at // BLOCK * BLOCK]
        assert digest_file.root(first.fileno()) != digest_file.root(second.fileno())


def test_replacing_is_the_same_as_making_anew(tmp_path: Path) -> None:
    old, new = _content(4), _content(4)
    new[5 * PIECE : 6 * PIECE] = random.Random(5).randbytes(PIECE)
    new[2 * BLOCK : 2 * BLOCK + 9 * PIECE] = bytes(9 * PIECE)  # became zero
    new[-700:] = random.Random(6).randbytes(700)
    _digests(tmp_path / "a", old, BLOCK)
    last = SIZE // PIECE * PIECE
    with digest_file.existing(tmp_path / "a") as changing:
        for start, end in [(5 * PIECE, 6 * PIECE), (2 * BLOCK, 2 * BLOCK + 9 * PIECE), (last, SIZE)]:
            changing.remove(start, old[start:end])
            changing.add(start, new[start:end])
    assert (tmp_path / "a").read_bytes() == _digests(tmp_path / "b", new, BLOCK)


def test_rot_in_the_rest_of_a_block_does_not_get_a_valid_digest(tmp_path: Path) -> None:
    good = _content(7)
    _digests(tmp_path / "a", good, BLOCK)
    rotten = bytearray(good)
    rotten[10] ^= 1
    with digest_file.existing(tmp_path / "a") as changing:
        changing.remove(3 * PIECE, rotten[3 * PIECE : 4 * PIECE])
        changing.add(3 * PIECE, bytes(PIECE))
    rotten[3 * PIECE : 4 * PIECE] = bytes(PIECE)
    assert (tmp_path / "a").read_bytes() != _digests(tmp_path / "b", rotten, BLOCK)
