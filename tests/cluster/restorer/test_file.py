"""`ceph_rsnapshot restore --to-file`: without a cluster, and never half a file."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.ceph import MIB
from tests.cluster.faults import instead_of
from tests.cluster.site import DAY, Site, wait_until


@pytest.mark.on_disk
@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_to_a_file_without_the_cluster(restorable: Site, file_format: str) -> None:
    odd = 9 * MIB + 513
    restorable.pool.create("odd", odd, seed=85)
    restorable.pool.snap("odd", DAY)
    restorable.backup()
    raw = restorable.pool.export("odd", DAY, restorable.folder / "original.raw")
    restorable.stop_agent()
    target = restorable.folder / "out" / "odd.img"
    target.parent.mkdir()
    arguments = ["restore", "odd", "--to-file", str(target), "--format", file_format]
    restorable.run("ceph_rsnapshot", *arguments)
    compare = ["qemu-img", "compare", "-f", file_format, "-F", "raw", str(target), str(raw)]
    assert subprocess.run(compare, check=False).returncode == 0
    if file_format == "raw":
        assert target.read_bytes() == raw.read_bytes()
    assert list(target.parent.iterdir()) == [target]
    before = target.read_bytes()
    assert "exists already" in restorable.run("ceph_rsnapshot", *arguments, code=1).stderr
    assert target.read_bytes() == before


def test_a_file_is_private_and_may_have_any_name(restorable: Site) -> None:
    done = restorable.run("ceph_rsnapshot", "restore", "--json", "a", "--to-file", "nbd:a 1.raw", "--format", "raw")
    target = Path(json.loads(done.stdout)["target"])
    assert target == restorable.folder / "nbd:a 1.raw"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.read_bytes() == restorable.pool.export("a", DAY, restorable.folder / "a.raw").read_bytes()


def test_to_a_file_system_without_hard_links(restorable: Site, tmp_path: Path) -> None:
    """FAT, say; and a file that is there already is not overwritten there either."""
    refuse = "def link(*_names, **_how):\n    raise PermissionError(1, 'Operation not permitted')\n"
    (tmp_path / "sitecustomize.py").write_text(f"import os\n{refuse}os.link = link\n")
    target, env = restorable.folder / "a.raw", {"PYTHONPATH": str(tmp_path)}
    arguments = ["restore", "a", "--to-file", str(target), "--format", "raw"]
    restorable.run("ceph_rsnapshot", *arguments, env=env)
    assert target.read_bytes() == restorable.pool.export("a", DAY, restorable.folder / "export.raw").read_bytes()
    target.write_bytes(b"precious")
    restorable.run("ceph_rsnapshot", *arguments, env=env, code=1)
    assert target.read_bytes() == b"precious"
    assert not list(restorable.folder.glob("*.partial"))


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGKILL])
def test_a_file_whose_restore_ended_early_leaves_nothing_for_long(big: Site, signum: int) -> None:
    """The terminal that closes; and what a killed one leaves goes with the next."""
    target, done = big.folder / "out" / "big.raw", big.folder / "converted"
    target.parent.mkdir()
    # a qemu-img that does not come to its end: the real one may be done before the signal is sent
    hanging = instead_of(big.folder, "qemu-img", f'"$real" "$@"\ntouch {done}\nexec sleep 1000')
    arguments = ["restore", "big", "--to-file", str(target), "--format", "raw"]
    process = big.start("ceph_rsnapshot", *arguments, env=hanging)
    wait_until(done.exists, "a partial file")
    (partial,) = target.parent.iterdir()
    assert partial.stat().st_mode & 0o777 == 0o600
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == (129 if signum == signal.SIGHUP else -9)
    assert list(target.parent.iterdir()) == ([] if signum == signal.SIGHUP else [partial])
    big.run("ceph_rsnapshot", *arguments)
    assert list(target.parent.iterdir()) == [target]
