"""`list` of 1,000 images with 14 days each; the manifests are those of a real backup, under other names.

python -m benchmarks.listing [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from datetime import timedelta
from pathlib import Path

from benchmarks.scene import MIB, Scene, empty, make_image, opened
from benchmarks.watch import timed
from ceph_rsnapshot_common.protocol.manifest import read_manifest, render

_IMAGES, _DAYS = 1000, 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="medians of so many rounds")
    runs = parser.parse_args().runs
    with opened() as scene:
        make_image(scene.cluster, "vm", 64 * MIB, 16 * MIB)
        scene.configure("vm", TRANSFER_MODE="direct")
        scene.backup()
        _multiply(scene)
        print("| | seconds |\n| --- | ---: |")
        for arguments in (["list"], ["list", "--calendar"], ["list", "--json"]):
            argv = scene.program(*arguments)
            print(f"| `{' '.join(arguments)}` | {statistics.median(timed(argv) for _ in range(runs)):.2f} |")


def _multiply(scene: Scene) -> None:
    """Days of many images, with all that is read of them; ``vm`` itself goes."""
    original = scene.folder / "original"
    shutil.move(scene.base / "rbd" / "vm" / "daily.0", original)
    pool = empty(scene.base) / "rbd"
    for number in range(_IMAGES):
        for day in range(_DAYS):
            _copy(original, pool / f"vm-{number}" / f"daily.{day}", f"vm-{number}", day)


def _copy(original: Path, folder: Path, image: str, day: int) -> None:
    folder.mkdir(parents=True)
    manifest = read_manifest(original / "vm.json")
    changed = {
        "image": image,
        "snapshot": f"d{_DAYS - day}",
        "snapshot_id": _DAYS - day,
        "snapshot_created": manifest.snapshot_created - timedelta(days=day),
    }
    (folder / f"{image}.json").write_text(render(manifest.model_copy(update=changed)))
    for suffix in ("qcow2", "digests"):
        source, target = original / f"vm.{suffix}", folder / f"{image}.{suffix}"
        # a file of its own, as large and as old: listing looks at no content
        with target.open("wb") as file:
            file.truncate(source.stat().st_size)
        os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))


if __name__ == "__main__":
    main()
