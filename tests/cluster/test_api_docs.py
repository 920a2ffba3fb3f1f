"""The examples of docs/api.md run as they stand there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from demo.ceph_cluster import CephCluster
from tests import ROOT
from tests.cluster.ceph import MIB, TestPool
from tests.cluster.site import DAY, Site

DOCS = ROOT / "docs" / "api.md"


def test_the_examples_run(cluster: CephCluster, connection: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pool = TestPool(cluster, connection, "rbd")
    pool.create("vm-1", 8 * MIB, seed=90)
    pool.snap("vm-1", DAY)
    site = Site(pool)
    try:
        site.configure(ALLOW_RESTORE=True)
        site.start_agent()
        text = DOCS.read_text().replace("/etc/ceph-rsnapshot/ceph_rsnapshot.yaml", str(site.config_path))
        text = text.replace("/tmp/vm-1.raw", str(site.folder / "vm-1.raw"))
        names: dict[str, Any] = {}
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for block in blocks:
            exec(block, names)  # noqa: S102
        said = capsys.readouterr().out
        assert len(blocks) == 8
        assert "rbd vm-1 done" in said and "target-exists" in said and "nbd+unix:///" in said
        raw = pool.export("vm-1", DAY, site.folder / "export.raw")
        assert (site.folder / "vm-1.raw").read_bytes() == raw.read_bytes()
        assert names["done"].image_id
    finally:
        site.close()
        for image in ("vm-1", "vm-1-restored"):
            pool.remove(image)
