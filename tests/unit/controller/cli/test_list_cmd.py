"""`ceph_rsnapshot list` of a large repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ceph_rsnapshot_common.protocol.manifest import render
from tests import SCRIPTS
from tests.manifests import MANIFEST


def test_many_images_are_listed(tmp_path: Path) -> None:
    for image in range(300):
        folder = tmp_path / "rbd" / f"vm-{image}" / "daily.0"
        folder.mkdir(parents=True)
        changed = MANIFEST.model_copy(update={"image": f"vm-{image}", "qcow2_file_size": 3})
        (folder / f"vm-{image}.json").write_text(render(changed))
        (folder / f"vm-{image}.qcow2").write_bytes(b"qfi")
    config = tmp_path / "c.yaml"
    config.write_text(f"BACKUP_BASE_PATH: {tmp_path}\n")
    done = subprocess.run([str(SCRIPTS / "ceph_rsnapshot"), "-c", str(config), "list"], capture_output=True, check=True)
    assert done.stdout.count(b"daily.0") == 300
