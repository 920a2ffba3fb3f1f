"""What a terminal shows."""

from __future__ import annotations

import os
import pty
import re
import subprocess

from tests import SCRIPTS
from tests.cluster.ceph import MIB
from tests.cluster.site import DAY, Site


def test_progress_and_table_on_a_terminal(running: Site) -> None:
    # so that it takes longer than a refresh: nbdkit lets two seconds' worth pass at once
    running.configure(TRANSFER_MODE="direct", BANDWIDTH_LIMIT="4M")
    running.pool.create("a", 60 * MIB)
    running.pool.fill("a", 12 * MIB)
    running.pool.snap("a", DAY)
    text = _on_a_terminal(running, columns=100)
    assert "backing up" in text
    assert f"{running.pool}/a: copying" in text
    assert re.search(r"\d/1 images", text)
    assert re.search(r"│ *pool\d+/a +│", text)
    assert "Traceback" not in text


def _on_a_terminal(site: Site, columns: int) -> str:
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "TMPDIR": str(site.folder / "tmp")}
    argv = [str(SCRIPTS / "ceph_rsnapshot"), "-c", str(site.config_path)]
    process = subprocess.Popen(argv, stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    output = b""
    try:
        while chunk := os.read(leader, 65536):
            output += chunk
    except OSError:
        pass  # Linux's way to say that the other side has closed
    assert process.wait(60) == 0
    return output.decode()
