"""Digests of blocks: sums of their pieces."""

from __future__ import annotations

from ceph_rsnapshot_common.content.block_digests import PIECE, block_sums


def test_pieces_that_were_swapped_are_found() -> None:
    pieces = [bytes([number]) * PIECE for number in (1, 2)]
    assert list(block_sums(0, pieces[0] + pieces[1])) != list(block_sums(0, pieces[1] + pieces[0]))
