"""What VERIFY compares, and when; what the comparison rests on; and that a loan of the agent ends by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import rbd

import ceph_rsnapshot_agent.nbdkit_plugins
from tests.cluster.ceph import MIB
from tests.cluster.faults import instead_of
from tests.cluster.site import DAY, Site, contents

EARLIER = "2025-12-31"

_PLUGIN = Path(ceph_rsnapshot_agent.nbdkit_plugins.__file__).parent

_TOO_FEW = """
_ask_all = Diff.__call__
Diff.__call__ = lambda self, offset, length: _ask_all(self, offset, length)[::2]
"""

_TOO_FEW_INCREMENTS = """
_ask_all = Diff.__call__
Diff.__call__ = lambda self, *range: _ask_all(self, *range)[:: 2 if self._base else 1]
"""


def _days(site: Site, count: int, **options: object) -> Iterator[str]:
    """What was verified on each of so many days."""
    site.configure(TRANSFER_MODE="direct", **options)
    for number in range(1, count + 1):
        site.pool.write("a", seed=number)
        site.pool.snap("a", f"2026-01-0{number}")
        yield site.backup("--snap-date", f"2026-01-0{number}")["by_name"]["a"]["verified"]


def test_a_full_comparison_every_third_day(running: Site) -> None:
    running.pool.create("a", 16 * MIB)
    verified = list(_days(running, 7, VERIFY_FULL_EVERY=3))
    first = verified.index("full")
    assert first < 3
    assert [day for day, how in enumerate(verified) if how == "full"] == list(range(first, 7, 3))
    assert set(verified) == {"full", "changed"}


@pytest.mark.parametrize(("verify", "expected"), [("none", "none"), ("full", "full")])
def test_always_or_never(running: Site, verify: str, expected: str) -> None:
    running.pool.create("a", 16 * MIB)
    assert list(_days(running, 3, VERIFY=verify, VERIFY_FULL_EVERY=2)) == [expected] * 3


@pytest.mark.parametrize(("verify", "found"), [("full", True), ("changed", True), ("none", False)])
def test_a_comparison_of_a_full_backup_finds_what_was_written_where_ceph_has_nothing(
    running: Site, tmp_path: Path, verify: str, found: bool
) -> None:
    """Another byte where Ceph has nothing: all that the qcow2 holds is compared, and not only what Ceph lists."""
    with running.pool.ioctx() as ioctx:
        rbd.RBD().create(ioctx, "a", 64 * MIB, old_format=False)
    with running.pool.image("a") as image:
        image.write(b"x" * (MIB - 32768), 0)  # the rest of the last cluster is nowhere in Ceph
    running.pool.snap("a", DAY)
    script = (
        '"$real" "$@" || exit $?\n'
        'for last; do :; done; f="$last/a.qcow2"; [ -f "$f" ] || exit 0\n'
        'touch -r "$f" "$f.time"; qemu-io -f qcow2 -c "write -P 1 1047552 512" "$f" >/dev/null\n'
        'touch -r "$f.time" "$f"; rm "$f.time"'
    )
    instead = instead_of(tmp_path, "rsync", script)
    running.configure(VERIFY=verify, VERIFY_SAMPLE=0, VERIFY_FULL_EVERY=0, QCOW_CLUSTER_SIZE="64K")
    report = running.backup(code=1 if found else 0, env=instead)["by_name"]["a"]
    assert (report["error"] is not None) == found
    if found:
        assert report["error"]["code"] == "content-differs"
        assert running.days("a") == []


def test_without_the_bindings_nothing_is_touched(running: Site, tmp_path: Path) -> None:
    running.pool.create("a", MIB)
    running.pool.snap("a", DAY)
    running.backup()
    before = contents(running.root("a"))
    (tmp_path / "nbd.py").write_text("raise ImportError('No module named libnbdmod')\n")
    running.configure(TRANSFER_MODE="direct")
    done = running.run("ceph_rsnapshot", "--force", env={"PYTHONPATH": str(tmp_path)}, code=1)
    assert "python3-libnbd" in done.stderr
    assert contents(running.root("a")) == before


def _plant(folder: Path, code: str) -> dict[str, str]:
    """An environment whose nbdkit runs a copy of the plugin with ``code`` at the end of its diff.py."""
    copy = folder / "faulty"
    shutil.copytree(_PLUGIN, copy)
    with (copy / "diff.py").open("a") as file:
        file.write(code)
    return instead_of(folder, "nbdkit", f'from={_PLUGIN} to={copy}\nexec "$real" "${{@/$from/$to}}"')


@pytest.mark.parametrize("kind", ["increment", "full"])
def test_too_few_extents_are_noticed_by_the_sample(site: Site, tmp_path: Path, kind: str) -> None:
    """Every second change is not reported. The sample (here 4 of 64 MiB) finds it; a full backup is made instead."""
    site.configure(TRANSFER_MODE="direct", VERIFY_SAMPLE="4M", VERIFY_FULL_EVERY=0)
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", EARLIER)
    site.start_agent()
    site.backup("--snap-date", EARLIER)
    before = contents(site.root("a") / "daily.0")
    with site.pool.image("a") as image:
        for offset in range(0, 64 * MIB, 128 * 1024):
            image.write(os.urandom(64 * 1024), offset)
    site.pool.snap("a", DAY)
    site.stop_agent()
    site.start_agent(env=_plant(tmp_path, _TOO_FEW))
    # the full one, which is made in the same run, comes from the same lying plugin: so it is not believed either
    report = site.backup(*(["--full"] if kind == "full" else []), code=1)
    assert report["by_name"]["a"]["error"]["code"] == "content-differs"
    assert contents(site.root("a") / "daily.0") == before
    assert site.days("a") == ["daily.0"]
    site.stop_agent()
    site.start_agent()
    assert site.backup()["by_name"]["a"]["kind"] == "increment"
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")
    assert contents(site.root("a") / "daily.1") == before


def test_a_mismatch_makes_a_full_backup_in_the_same_run(site: Site, tmp_path: Path) -> None:
    site.configure(TRANSFER_MODE="direct", VERIFY_SAMPLE="4M", VERIFY_FULL_EVERY=0)
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", EARLIER)
    site.start_agent(env=_plant(tmp_path, _TOO_FEW_INCREMENTS))
    site.backup("--snap-date", EARLIER)
    with site.pool.image("a") as image:
        for offset in range(0, 64 * MIB, 128 * 1024):
            image.write(os.urandom(64 * 1024), offset)
    site.pool.snap("a", DAY)
    done = site.backup()
    report = done["by_name"]["a"]
    assert (report["result"], report["kind"]) == ("done", "full")
    assert "differs from the snapshot" in report["mismatch"]
    assert "a first attempt differed" in report["full_because"]
    assert "thrown away" in done["stderr"]
    assert site.same(site.root("a") / "daily.0" / "a.qcow2", "a")


def test_verification_off_does_not_notice(site: Site, tmp_path: Path) -> None:
    """The counter-proof: with VERIFY none the same fault gets through, so that it is the check that finds it."""
    site.configure(TRANSFER_MODE="direct", VERIFY="none")
    site.pool.create("a", 64 * MIB)
    site.pool.snap("a", DAY)
    site.start_agent(env=_plant(tmp_path, _TOO_FEW))
    site.backup()
    assert not site.same(site.root("a") / "daily.0" / "a.qcow2", "a")


def test_corruption_on_the_way_in_staged_mode(running: Site, tmp_path: Path) -> None:
    """rsync that delivers other bytes than it was given: found between sync and rotation, and nothing rotates."""
    running.pool.create("a", 8 * MIB)
    running.pool.snap("a", DAY)
    script = (
        '"$real" "$@" || exit $?\n'
        'for last; do :; done; f="$last/a.qcow2"; [ -f "$f" ] || exit 0\n'
        'touch -r "$f" "$f.time"; printf x | dd of="$f" bs=1 seek=$((0x50001)) conv=notrunc 2>/dev/null\n'
        'touch -r "$f.time" "$f"; rm "$f.time"'
    )
    error = running.backup(code=1, env=instead_of(tmp_path, "rsync", script))["by_name"]["a"]["error"]
    assert error["code"] == "content-differs"
    assert running.days("a") == []
    running.backup()
    assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a")
    assert (
        subprocess.run(["qemu-img", "check", "-q", running.root("a") / "daily.0" / "a.qcow2"], check=False).returncode
        == 0
    )
