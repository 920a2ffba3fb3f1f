"""The units of systemd."""

from __future__ import annotations

import subprocess

from tests import ROOT


def test_units_are_accepted_by_systemd() -> None:
    units = [*(ROOT / "agent" / "systemd").iterdir(), *(ROOT / "controller" / "systemd").iterdir()]
    assert sorted(unit.suffix for unit in units) == [".service"] * 3 + [".timer"] * 2
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
