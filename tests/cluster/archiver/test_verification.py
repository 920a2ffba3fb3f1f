"""What VERIFY compares, and when; what the comparison rests on; and that a loan of the agent ends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import rbd

from ceph_rsnapshot_agent.nbd import loan, nbdkit
from ceph_rsnapshot_common.config.load import load
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.records import ExportRequest
from tests.cluster.ceph import MIB
from tests.cluster.faults import instead_of
from tests.cluster.site import DAY, Site, contents, wait_until


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


def test_an_object_map_that_is_marked_invalid_is_not_asked(running: Site) -> None:
    """Enabling the feature on an image that has data makes an empty map, marked invalid."""
    maps = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
    running.pool.create("a", 64 * MIB, features=rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
    running.pool.snap("a", DAY)
    running.pool.write("a", seed=2)
    running.pool.snap("a", "2026-01-02")
    with running.pool.image("a") as image:
        image.update_features(maps, True)
        assert image.flags() & (rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID)
    running.configure(TRANSFER_MODE="direct", FAST_DIFF=True)
    for day, kind in ((DAY, "full"), ("2026-01-02", "increment")):
        assert running.backup("--snap-date", day)["by_name"]["a"]["kind"] == kind
        assert running.same(running.root("a") / "daily.0" / "a.qcow2", "a", day)


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
