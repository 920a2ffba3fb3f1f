"""Getting 2 GiB back, and verifying them, as ratios to the plain tools in the same run.

    python -m benchmarks.restore [--runs 3]

The tables that it prints are those of docs/performance.md.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.scene import GIB, Scene, empty, make_image, opened
from benchmarks.watch import timed
from ceph_rsnapshot_common.content.block_digests import BLOCK, block_sums

_SIZE, _DATA = 8 * GIB, 2 * GIB
_PARALLEL = 3


class Benchmark:
    """Each method is one row: it prepares, measures, and returns the seconds."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.qcow = scene.base / "rbd" / "vm" / "daily.0" / "vm.qcow2"
        self.rbd = ["rbd", "--conf", str(scene.cluster.conf)]

    def convert(self) -> float:
        """qemu-img straight into a new image, on the ceph node, as one would type it."""
        return self._convert([])

    def tuned_convert(self) -> float:
        """The same with all that makes it faster."""
        return self._convert(["-n", "--target-is-zero", "-W", "-m", "16"])

    def _convert(self, how: list[str]) -> float:
        self._remove("new")
        target = f"rbd:rbd/new:conf={self.scene.cluster.conf}"
        create = [[*self.rbd, "create", "--size", f"{_SIZE}B", "new"]] if how else []
        return timed(*create, ["qemu-img", "convert", *how, "-f", "qcow2", "-O", "raw", str(self.qcow), target])

    def restore(self) -> float:
        """The whole command, over ssh, reading back included."""
        self._remove("new")
        return timed(self.scene.command("restore", "rbd/vm", "--to", "rbd/new"))

    def restore_on_one_node(self) -> float:
        """The same without ssh, as on the ceph node."""
        self.scene.configure("vm", TRANSFER_MODE="direct", CEPH_HOST="localhost")
        seconds = self.restore()
        self.scene.configure("vm", TRANSFER_MODE="direct")
        return seconds

    def restores_at_once(self) -> float:
        """Several at once: seconds of each, in effect."""
        names = [f"new{number}" for number in range(_PARALLEL)]
        self._remove(*names)
        started = time.monotonic()
        running = [
            subprocess.Popen(self.scene.command("restore", "rbd/vm", "--to", f"rbd/{name}"), stdout=subprocess.DEVNULL)
            for name in names
        ]
        if any(process.wait() for process in running):
            sys.exit("a restore failed")
        seconds = (time.monotonic() - started) / _PARALLEL
        self._remove(*names)
        return seconds

    def backup(self) -> float:
        empty(self.scene.base)
        return timed(self.scene.command())

    def cat(self, cold: bool) -> float:
        self._cache(cold)
        return timed(["sh", "-c", f"cat {self.qcow} > /dev/null"])

    def verify(self, cold: bool) -> float:
        self._cache(cold)
        return timed(self.scene.command("verify", "rbd/vm"))

    @staticmethod
    def hashing() -> float:
        """What the digests add to a reading that takes place anyway."""
        blocks = [random.Random(number).randbytes(BLOCK) for number in range(16)]
        started = time.monotonic()
        for number in range(_DATA // BLOCK):
            list(block_sums(number * BLOCK, blocks[number % len(blocks)]))
        return time.monotonic() - started

    def _remove(self, *names: str) -> None:
        for name in names:
            subprocess.run([*self.rbd, "rm", "--no-progress", name], check=False, capture_output=True)

    def _cache(self, cold: bool) -> None:
        subprocess.run(["sync"], check=True)
        if cold:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        else:
            self.qcow.read_bytes()[:0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many rounds")
    runs = parser.parse_args().runs
    with opened() as scene:
        make_image(scene.cluster, "vm", _SIZE, _DATA)
        scene.configure("vm", TRANSFER_MODE="direct")
        found = _measure(Benchmark(scene), runs)
    _print(found, ("convert into rbd:", "convert into rbd:, tuned"), _RESTORES)
    _print(found, ("cat, from the disk",), ["cat, from the disk", "verify, from the disk"])
    _print(found, ("cat, from the page cache",), ["cat, from the page cache", "verify, from the page cache"])
    print(f"\nhashing for the digests: {found['hashing'] / found['backup']:.3f} of a full backup")


def _measure(benchmark: Benchmark, runs: int) -> dict[str, float]:
    """Medians; one round after the other, so that a slow moment of the machine meets all rows."""
    rows: dict[str, Callable[[], float]] = {
        "backup": benchmark.backup,
        "hashing": benchmark.hashing,
        "convert into rbd:": benchmark.convert,
        "convert into rbd:, tuned": benchmark.tuned_convert,
        "restore": benchmark.restore,
        "restore, without ssh": benchmark.restore_on_one_node,
        f"each of {_PARALLEL} restores at once": benchmark.restores_at_once,
        "cat, from the disk": lambda: benchmark.cat(cold=True),
        "verify, from the disk": lambda: benchmark.verify(cold=True),
        "cat, from the page cache": lambda: benchmark.cat(cold=False),
        "verify, from the page cache": lambda: benchmark.verify(cold=False),
    }
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(runs):
        for name, row in rows.items():
            found[name].append(row())
            print(f"{name}: {found[name][-1]:.2f} s", file=sys.stderr)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


_RESTORES = [
    "convert into rbd:",
    "convert into rbd:, tuned",
    "restore",
    "restore, without ssh",
    f"each of {_PARALLEL} restores at once",
]


def _print(found: dict[str, float], references: Sequence[str], rows: Sequence[str]) -> None:
    """A table: seconds, and the speed as a share of that of each reference."""
    print("| | seconds |" + "".join(f" speed, of {name} |" for name in references))
    print("| --- | ---: |" + " ---: |" * len(references))
    for row in rows:
        shares = "".join(f" {found[name] / found[row]:.2f} |" for name in references)
        print(f"| {row} | {found[row]:.2f} |{shares}")
    print()


if __name__ == "__main__":
    main()
