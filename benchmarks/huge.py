"""What size alone costs: a sparse 10 TiB image with 1 GiB of data, against `rbd diff` of it and an image of 1 GiB.

python -m benchmarks.huge [--runs 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.scene import GIB, Scene, empty, make_image, opened
from benchmarks.watch import Peak, timed

_SIZE, _DATA = 10 * 1024 * GIB, GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many rounds")
    runs = parser.parse_args().runs
    with opened() as scene:
        make_image(scene.cluster, "huge", _SIZE, _DATA)
        make_image(scene.cluster, "small", _DATA, _DATA)
        medians = {name: _median(row, name, runs) for name, row in _rows(scene).items()}
        small, huge = _peak(scene, "small"), _peak(scene, "huge")
    both = medians["`rbd diff` of 10 TiB"] + medians["full, direct, 1 GiB image"]
    print("| | seconds |\n| --- | ---: |")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.1f} |")
    print(f"\n10 TiB, of `rbd diff` and 1 GiB together: {medians['full, direct, 10 TiB'] / both:.2f}")
    print(f"peak memory: 1 GiB image {small}; 10 TiB image {huge}")


def _rows(scene: Scene) -> dict[str, Callable[[], float]]:
    return {
        "`rbd diff` of 10 TiB": lambda: timed(["rbd", "--conf", str(scene.cluster.conf), "diff", "huge@d1"]),
        "full, direct, 1 GiB image": lambda: _full(scene, "small"),
        "full, direct, 10 TiB": lambda: _full(scene, "huge"),
        "full, direct, 10 TiB, FAST_DIFF": lambda: _full(scene, "huge", FAST_DIFF=True),
    }


def _median(row: Callable[[], float], name: str, runs: int) -> float:
    seconds = []
    for _ in range(runs):
        seconds.append(row())
        print(f"{name}: {seconds[-1]:.2f} s", file=sys.stderr)
    return statistics.median(seconds)


def _prepare(scene: Scene, image: str, **options: Any) -> None:
    empty(scene.base)
    scene.configure(image, TRANSFER_MODE="direct", **options)


def _full(scene: Scene, image: str, **options: Any) -> float:
    _prepare(scene, image, **options)
    return timed(scene.command())


def _peak(scene: Scene, image: str) -> Peak:
    _prepare(scene, image, FAST_DIFF=image == "huge")
    return scene.peak_of_a_backup()


if __name__ == "__main__":
    main()
