"""The units of systemd."""

from __future__ import annotations

import subprocess
import sys

import pytest

from demo import child
from tests import ROOT, SCRIPTS
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


def test_units_are_accepted_by_systemd() -> None:
    units = [*(ROOT / "agent" / "systemd").iterdir(), *(ROOT / "controller" / "systemd").iterdir()]
    assert sorted(unit.suffix for unit in units) == [".service"] * 3 + [".timer"] * 2
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "tenths"),
    [
        ("agent/systemd/ceph-rsnapshot-agent.service", 15),
        ("controller/systemd/ceph-rsnapshot.service", 35),
        ("controller/systemd/ceph-rsnapshot-verify.service", 35),
    ],
)
def test_units_are_closed(unit: str, tenths: int) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={tenths}", str(ROOT / unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


# as far as it goes without systemd: PR_SET_MDWE in prctl(2); a kernel before 6.3 refuses it
_CLOSED = """
import ctypes, os, sys
print("prctl", ctypes.CDLL(None).prctl(65, 1, 0, 0, 0))
caps = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
os.execvp("setpriv", ["setpriv", *caps, "--", *sys.argv[1:]])
"""


@pytest.mark.parametrize("mode", ["staged", "direct"])
def test_the_agent_needs_no_capability_and_no_writable_code(site: Site, mode: str) -> None:
    site.pool.create("a", 4 * MIB)
    site.pool.snap("a", DAY)
    agent = [sys.executable, "-c", _CLOSED, str(SCRIPTS / "ceph_rsnapshot_agent"), "-c", str(site.config_path)]
    site.agent = child.start(agent, site.agent_log)
    child.wait_ready(site.agent, lambda: "listening on" in site.agent_log.read_text(), site.agent_log)
    site.backup("--transfer-mode", mode)
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")
