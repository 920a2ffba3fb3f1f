"""Exports and their loans."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ceph_rsnapshot_agent.nbd import loan, nbdkit
from ceph_rsnapshot_common.config.load import load
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import ExportRequest
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site, wait_until


def test_another_python_comes_first_on_the_path(site: Site) -> None:
    """pyenv, conda: the Python in nbdkit takes its library from beside the first python3 of PATH."""
    other = site.folder / "other"
    for path in (other / "bin" / "python3", other / f"lib/python3.{sys.version_info.minor}" / "os.py"):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    site.start_agent(env={"PATH": f"{other / 'bin'}:{os.environ['PATH']}"})
    site.pool.create("a", MIB)
    site.pool.snap("a", DAY)
    site.backup("--transfer-mode", "direct")
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")


def test_a_loan_that_is_not_renewed_ends(site: Site) -> None:
    site.pool.create("a", MIB)
    site.pool.snap("a", DAY)
    with site.pool.image("a") as image:
        snapshot = next(iter(image.list_snaps()))
        request = ExportRequest(
            pool=Pool(pool=site.pool.name), image="a", image_id=image.id(), snapshot=DAY, snapshot_id=snapshot["id"]
        )
    (site.folder / "run").mkdir(mode=0o700)
    settings = load(site.config_path, {}).settings
    lent = loan.Loan.started(nbdkit.serve(settings, request, str(site.folder / "run" / "nbd_")), lease=3)
    address = Path(lent.socket)
    assert address.is_socket()
    wait_until(lambda: not lent.open, "the end of the loan")
    assert not address.parent.exists()
    lent.close()
