"""A restore is read back in parts of bounded data, of whatever size; holes cost next to nothing."""

from __future__ import annotations

import random
from pathlib import Path

from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot.restorer.image import windows
from ceph_rsnapshot_common.content.block_digests import BLOCK


def _windows(path: Path, blocks: int, data: list[int]) -> list[tuple[int, int]]:
    with digest_file.new(path, blocks * BLOCK) as making:
        for block in data:
            making.add(block * BLOCK, b"x" * 100)
    with path.open("rb") as file:
        return list(windows(file.fileno(), blocks))


def test_every_block_is_in_one_part(tmp_path: Path) -> None:
    randomly = random.Random(1)
    for number in range(20):
        blocks = randomly.randrange(1, 20_000)
        data = sorted(randomly.sample(range(blocks), randomly.randrange(0, min(blocks, 500))))
        found = _windows(tmp_path / str(number), blocks, data)
        assert [block for first, count in found for block in range(first, first + count)] == list(range(blocks))
        assert all(sum(first <= block < first + count for block in data) <= 64 for first, count in found)


def test_an_empty_image_of_4_tib_takes_few_parts(tmp_path: Path) -> None:
    assert len(_windows(tmp_path / "empty", 4 * 1024**4 // BLOCK, [])) == 256
    assert _windows(tmp_path / "none", 0, []) == []
