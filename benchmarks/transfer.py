"""Full and incremental backups of an 8 GiB image with 2 GiB of data, as ratios to the old pipeline in the same run.

    python -m benchmarks.transfer [--runs 3] [--only TEXT]

The table that it prints is that of docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.scene import GIB, MIB, Scene, change_image, empty, make_image, opened
from benchmarks.watch import Counter, timed
from demo.file_system import mounted

_SIZE, _DATA, _PIECES = 8 * GIB, 2 * GIB, 320
_OLD_CONF = """\
config_version\t1.2
snapshot_root\t{root}/
cmd_rsync\t/usr/bin/rsync
cmd_ssh\t/usr/bin/ssh
ssh_args\t{ssh_args}
retain\tdaily\t3
rsync_short_args\t-a
rsync_long_args\t--delete --numeric-ids --relative --delete-excluded --sparse
lockfile\t{root}/pid
backup\t{host}:{qcow}/./\t./
"""


class Benchmark:
    """Each method is one row: it prepares, measures, and returns the seconds."""

    def __init__(self, scene: Scene, xfs: Path, ext4: Path) -> None:
        self.scene, self.xfs, self.ext4 = scene, xfs, ext4
        self.rbd = ["--conf", str(scene.cluster.conf)]

    def reference(self) -> float:
        """The old pipeline: qemu-img on the ceph node, rsnapshot over ssh, rm."""
        old = empty(self.ext4 / "old")
        qcow = empty(self.scene.folder / "old")
        server, conf = self.scene.server, self.scene.folder / "old.conf"
        conf.write_text(_OLD_CONF.format(root=old, ssh_args=" ".join(server.ssh_args), host=server.host, qcow=qcow))
        source = f"rbd:rbd/vm@d1:conf={self.scene.cluster.conf}"
        return timed(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, str(qcow / "vm.qcow2")],
            ["rsnapshot", "-c", str(conf), "daily"],
            ["rm", str(qcow / "vm.qcow2")],
        )

    def full(self, mode: str, where: str, **options: Any) -> float:
        self.scene.base = empty(getattr(self, where) / "backups")
        self.scene.configure("vm", TRANSFER_MODE=mode, **options)
        return timed(self.scene.command())

    def increment(self, where: str) -> float:
        """Day 2 after day 1."""
        self.full("direct", where)
        self.scene.configure("vm", TRANSFER_MODE="direct", SNAP_NAMING_DATE_FORMAT="d2")
        os.sync()
        return timed(self.scene.command())

    def unchanged(self) -> float:
        """Day 3 after `increment`."""
        self.scene.configure("vm", TRANSFER_MODE="direct", SNAP_NAMING_DATE_FORMAT="d3")
        return timed(self.scene.command())

    def rbd_export(self) -> float:
        return self._floor(["rbd", *self.rbd, "export", "--no-progress", "vm@d1"])

    def rbd_export_diff(self) -> float:
        return self._floor(["rbd", *self.rbd, "export-diff", "--no-progress", "--from-snap", "d1", "vm@d2"])

    def tuned_qemu_img(self) -> float:
        source = f"rbd:rbd/vm@d1:conf={self.scene.cluster.conf}"
        return self._floor(
            ["qemu-img", "convert", "-m", "16", "-W", "-t", "none", "-T", "none", "-f", "raw", "-O", "qcow2", source]
        )

    def crossed(self) -> int:
        """Bytes through ssh of the second day, both ways, everything included."""
        self.full("direct", "xfs")
        counter = Counter(self.scene.server.port)
        arguments = list(self.scene.server.ssh_args)
        arguments[arguments.index("-p") + 1] = str(counter.port)
        # the same host key, at another port
        arguments += ["-o", f"HostKeyAlias=[127.0.0.1]:{self.scene.server.port}"]
        self.scene.configure("vm", arguments, TRANSFER_MODE="direct", SNAP_NAMING_DATE_FORMAT="d2")
        subprocess.run(self.scene.command(), check=True, capture_output=True)
        return counter.bytes

    def stored(self) -> int:
        """Bytes of disk that the second day takes on XFS."""
        self.full("direct", "xfs")
        before = _used(self.xfs)
        self.scene.configure("vm", TRANSFER_MODE="direct", SNAP_NAMING_DATE_FORMAT="d2")
        subprocess.run(self.scene.command(), check=True, capture_output=True)
        return _used(self.xfs) - before

    def memory(self) -> str:
        """Peak of agent, nbdkit, controller and qemu-nbd together in a full backup."""
        self.scene.base = empty(self.xfs / "backups")
        self.scene.configure("vm", TRANSFER_MODE="direct")
        return str(self.scene.peak_of_a_backup())

    def _floor(self, argv: list[str]) -> float:
        to = self.ext4 / "floor"
        to.unlink(missing_ok=True)
        seconds = timed([*argv, str(to)])
        to.unlink()
        return seconds


def _used(path: Path) -> int:
    """Bytes in use; XFS counts what is still to be allocated until it is written."""
    subprocess.run(["sync", "-f", str(path)], check=True)
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def rows(bench: Benchmark) -> dict[str, Callable[[], float]]:
    return {
        "old pipeline (reference)": bench.reference,
        "full, staged": lambda: bench.full("staged", "ext4"),
        "full, staged, `VERIFY: none`": lambda: bench.full("staged", "ext4", VERIFY="none"),
        "full, direct": lambda: bench.full("direct", "ext4"),
        "full, direct, `VERIFY: none`": lambda: bench.full("direct", "ext4", VERIFY="none"),
        "increment, direct, ext4 (no reflinks)": lambda: bench.increment("ext4"),
        "increment, direct, XFS": lambda: bench.increment("xfs"),
        "unchanged, direct, XFS": bench.unchanged,
        "`rbd export`": bench.rbd_export,
        "`rbd export-diff`": bench.rbd_export_diff,
        "`qemu-img convert -m 16 -W -t none -T none`": bench.tuned_qemu_img,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many rounds")
    parser.add_argument("--only", default="", help="rows whose name holds this text, and the reference")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        scene = stack.enter_context(opened())
        make_image(scene.cluster, "vm", _SIZE, _DATA)
        change_image(scene.cluster, "vm", _SIZE, _DATA, _PIECES)
        xfs = stack.enter_context(mounted(scene.folder, "xfs", 12 * GIB))
        ext4 = stack.enter_context(mounted(scene.folder, "ext4", 16 * GIB))
        _run(Benchmark(scene, xfs, ext4), arguments.runs, arguments.only)


def _run(bench: Benchmark, runs: int, only: str) -> None:
    chosen = {name: row for name, row in rows(bench).items() if only in name or "reference" in name}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(runs):
        for name, measure in chosen.items():
            seconds[name].append(measure())
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = next(iter(medians.values()))
    print("| | seconds | of the reference |\n| --- | ---: | ---: |")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {median / reference:.3f} |")
    changed = _PIECES * 65536
    crossed, stored = bench.crossed(), bench.stored()
    print(
        f"\nsecond day, {changed / MIB:.0f} MiB changed: through ssh {crossed / MIB:.2f}, stored {stored / MIB:.2f} MiB"
    )
    print(f"peak memory of a full backup: {bench.memory()}")


if __name__ == "__main__":
    main()
