"""A file from the ceph node is data, never a path: whatever its header names, nothing else is opened."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from ceph_rsnapshot.content import digest_file
from ceph_rsnapshot_common.protocol.manifest import read_manifest, render
from tests.cluster import foreign
from tests.cluster.ceph import MIB
from tests.cluster.faults import instead_of, small_disk
from tests.cluster.site import DAY, Site, contents

NEXT = "2026-01-02"
_SECRET = b"only root may read this" * 50000


@contextmanager
def _nobody_calls() -> Iterator[str]:
    """A port of this machine that must not be connected to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        yield str(listener.getsockname()[1])
        with pytest.raises(BlockingIOError):
            listener.accept()


@contextmanager
def _named(site: Site, kind: str) -> Iterator[str]:
    """What a foreign file names: a secret of the backup node, or a port of it."""
    secret = site.folder / "secret"
    secret.write_bytes(_SECRET)
    secret.chmod(0o600)
    with _nobody_calls() as port:
        yield port if kind == "backing_nbd" else str(secret)


def _changing(site: Site, command: str) -> dict[str, str]:
    """A ceph node that runs ``command`` on each finished qcow2, called $file, before it says what it has made."""
    script = f"""
"$real" "$@"; code=$?
if [ "$1" = check ]; then for file in $(find {site.temp} -name '*.partial'); do {command}; done; fi
exit $code"""
    return instead_of(site.folder, "qemu-img", script)


@pytest.fixture
def sparse(site: Site) -> Site:
    """An image that is empty but for its beginning."""
    site.pool.create("a", 0)
    with site.pool.image("a") as image:
        image.resize(16 * MIB)
        image.write(b"x" * MIB, 0)
    site.pool.snap("a", DAY)
    return site


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_staged_files_must_stand_alone(sparse: Site, kind: str) -> None:
    sparse.start_agent()
    sparse.backup()
    sparse.stop_agent()
    before = contents(sparse.root("a"))
    sparse.pool.write("a", seed=2)
    sparse.pool.snap("a", NEXT)
    with _named(sparse, kind) as name:
        sparse.start_agent(env=_changing(sparse, f'{sys.executable} {foreign.__file__} "$file" {kind} {name}'))
        report = sparse.backup("--snap-date", NEXT, code=1)["by_name"]["a"]
    assert (report["result"], report["error"]["code"]) == ("failed", "transfer-failed"), report
    assert foreign.KINDS[kind][1] in report["error"]["message"]
    assert contents(sparse.root("a")) == before
    assert sparse.leftovers() == []


def _landed(day: Path, kind: str, name: str) -> None:
    """As if it had come before headers were looked at: the manifest tells of the file as it is."""
    qcow, manifest_path = day / "a.qcow2", day / "a.json"
    foreign.KINDS[kind][0](qcow, name)
    manifest = read_manifest(manifest_path)
    assert manifest.digests
    with qcow.open("rb") as file:
        digests = manifest.digests.model_copy(update={"header": digest_file.of_header(file.fileno())})
    manifest_path.write_text(render(manifest.model_copy(update={"digests": digests})))


@pytest.mark.parametrize("kind", ["backing", "backing_nbd", "data_file"])
def test_a_foreign_file_on_the_disk_is_never_opened(sparse: Site, kind: str) -> None:
    sparse.configure(TRANSFER_MODE="direct")
    sparse.start_agent()
    sparse.backup()
    target, day = sparse.folder / "restored", sparse.root("a") / "daily.0"
    with _named(sparse, kind) as name:
        _landed(day, kind, name)
        before, says = contents(day), foreign.KINDS[kind][1]
        for more in ([], ["--accept-damage"]):
            done = sparse.run("ceph_rsnapshot", "restore", "a", "--to-file", str(target), *more, code=1)
            assert says in done.stderr and not target.exists()
            done = sparse.run("ceph_rsnapshot", "restore", "a", "--to", f"{sparse.pool}/b", *more, code=1)
            assert says in done.stderr
        done = sparse.run("ceph_rsnapshot", "serve", "a", "--socket", str(sparse.folder / "s"), code=1)
        assert says in done.stderr
        (found,) = sparse.verify("a", code=1)
        assert found["problems"][0].startswith("header: ") and says in found["problems"][0]
        assert [each["state"] for each in sparse.listed("a")] == ["failed"]
        sparse.pool.write("a", seed=2)
        sparse.pool.snap("a", NEXT)
        report = sparse.backup("--snap-date", NEXT)["by_name"]["a"]
        assert (report["kind"], report["result"]) == ("full", "done")
        assert sparse.same(day / "a.qcow2", "a", NEXT)
    assert {path: content for path, (_, content) in contents(sparse.root("a") / "daily.1").items()}.items() <= {
        path: content for path, (_, content) in before.items()
    }.items()
    assert _SECRET[:1000] not in (day / "a.qcow2").read_bytes()


@pytest.mark.parametrize("kind", ["backing_json", "backing_day", "data_file", "old_version"])
def test_a_foreign_file_is_no_base(sparse: Site, kind: str) -> None:
    """Also where no verification has found it before."""
    sparse.configure(TRANSFER_MODE="direct")
    sparse.start_agent()
    sparse.backup()
    with _named(sparse, kind) as name:
        _landed(sparse.root("a") / "daily.0", kind, name)
        sparse.pool.snap("a", NEXT)
        report = sparse.backup("--snap-date", NEXT)["by_name"]["a"]
    assert report["kind"] == "full" and foreign.KINDS[kind][1] in report["full_because"]


def _modes(site: Site, day: str) -> set[tuple[bool, int]]:
    folder = site.root("a") / day
    return {(path.is_dir(), path.stat().st_mode & 0o7777) for path in [folder, *folder.iterdir()]}


OURS = {(True, 0o700), (False, 0o600)}


@pytest.mark.parametrize("mode", ["06777", "0444", "0000"])
def test_modes_are_ours_whatever_the_ceph_node_sends(sparse: Site, mode: str) -> None:
    command = f'chmod {mode} "$file"; chmod {mode} "$(dirname "$file")"; chmod u+rwx "$(dirname "$file")"'
    sparse.start_agent(env=_changing(sparse, command))
    report = sparse.backup()["by_name"]["a"]
    day = sparse.root("a") / "daily.0"
    assert _modes(sparse, "daily.0") == OURS
    assert (day / "a.qcow2").stat().st_uid == os.geteuid()
    assert report["result"] == "done"
    assert (day / "a.qcow2").stat().st_mtime_ns == json.loads((day / "a.json").read_text())["qcow2_mtime_ns"]


def test_direct_days_have_our_modes_too(sparse: Site) -> None:
    sparse.configure(TRANSFER_MODE="direct")
    sparse.start_agent()
    for day in (DAY, NEXT, "2026-01-03"):
        if day != DAY:
            sparse.pool.snap("a", day)
        if day == NEXT:
            sparse.pool.write("a", seed=2)
            sparse.pool.unsnap("a", NEXT)
            sparse.pool.snap("a", NEXT)
        sparse.backup("--snap-date", day)
        assert _modes(sparse, "daily.0") == OURS
    kinds = [each["manifest"]["kind"] for each in sparse.listed("a")]
    assert kinds == ["unchanged", "increment", "full"]


def test_an_older_day_is_not_open_to_a_later_night(sparse: Site) -> None:
    """The ceph node sends the newest day's file again, which rsync links, with another mode; once the sync fails."""
    sparse.start_agent()
    sparse.backup()
    sparse.stop_agent()
    day = sparse.root("a") / "daily.0"
    before, modes = contents(day), _modes(sparse, "daily.0")
    sparse.pool.write("a", seed=2)
    sparse.pool.snap("a", NEXT)
    sparse.start_agent(env=_changing(sparse, f'cp -p {day}/a.qcow2 "$file"; chmod 04755 "$file"'))
    (sparse.folder / "failing").mkdir()
    failing = instead_of(sparse.folder / "failing", "rsync", '"$real" "$@"; exit 23')
    for env in (failing, None, None):
        error = sparse.backup("--snap-date", NEXT, code=1, env=env)["by_name"]["a"]["error"]
        assert error["code"] == ("rsnapshot-failed" if env else "content-differs")
        assert (contents(day), _modes(sparse, "daily.0")) == (before, modes)
        assert sparse.leftovers() == []


def _pulling(site: Site, script: str) -> dict[str, str]:
    """``script`` runs when rsync is to pull; it knows the $folder, its $file, and rsync as "$real" "${args[@]}"."""
    folder = site.temp / str(site.pool) / "a"
    begin = f'folder={folder}; file={folder}/a.qcow2; args=("$@"); [[ "$*" == *--delete* ]] || exec "$real" "$@"'
    return instead_of(site.folder, "rsync", f"{begin}\n{script}\n")


_MORE = """
cd "$folder"; ln -s /etc/passwd link; mkfifo fifo; mknod zero c 1 5; mkdir -p sub; echo x >sub/a.qcow2; echo x >more
ln -s . sub/up; echo x >$(printf 'n%.0s' {1..250}); echo x >a.digests; echo x >.rotating
"""
_WITHOUT = 'args=(); for each in "$@"; do case "$each" in {}) ;; *) args+=("$each");; esac; done\n'
_RUN = '"$real" "${args[@]}"'


def test_nothing_but_the_two_files_is_pulled(sparse: Site) -> None:
    sparse.start_agent()
    sparse.backup(env=_pulling(sparse, _MORE + _RUN))
    day = sparse.root("a") / "daily.0"
    assert sorted(path.name for path in day.iterdir()) == ["a.digests", "a.json", "a.qcow2"]
    assert (day / "a.digests").stat().st_size > 10


def test_what_comes_in_spite_of_the_filters_is_refused(sparse: Site) -> None:
    sparse.start_agent()
    script = _MORE + _WITHOUT.format("--include=*|--exclude=*") + _RUN
    report = sparse.backup(env=_pulling(sparse, script), code=1)
    assert report["by_name"]["a"]["error"]["code"] == "transfer-failed"
    assert not sparse.root("a").exists()


def test_a_link_in_place_of_the_file_is_not_followed(sparse: Site) -> None:
    sparse.start_agent()
    with _named(sparse, "backing") as secret:
        env = _pulling(sparse, f'ln -sf {secret} "$file"; "$real" "${{args[@]}}"')
        report = sparse.backup(env=env, code=1)
    assert report["by_name"]["a"]["error"]["code"] == "transfer-failed"
    assert not sparse.root("a").exists()


_LONGER = 'truncate -s 5T "$file"\n'


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (_LONGER + _RUN, ""),
        (_LONGER + _WITHOUT.format("--max-size=*") + _RUN, "more than"),
        (_LONGER + _WITHOUT.format("--max-size=*|--sparse") + _RUN, "more than"),
    ],
    ids=["told", "holes", "bytes"],
)
def test_an_endless_file_is_stopped(sparse: Site, script: str, says: str) -> None:
    """The last two do as a sender does that tells of less than it sends: rsync's own limit does not see it."""
    sparse.start_agent()
    started = time.monotonic()
    error = sparse.backup(env=_pulling(sparse, script), code=1)["by_name"]["a"]["error"]
    assert error["code"] == "transfer-failed" and says in error["message"]
    assert time.monotonic() - started < 60
    assert sparse.days("a") == [] and sparse.leftovers() == []


def test_free_space_of_the_backup_node_is_watched(site: Site) -> None:
    """Before the pull, and while it runs: here somebody else fills the disk."""
    base = site.folder / "small"
    site.configure(BACKUP_BASE_PATH=str(base), MIN_FREESPACE="20M")
    site.pool.create("a", 0)
    with site.pool.image("a") as image:
        image.resize(32 * MIB)
        image.write(os.urandom(32 * MIB), 0)
    site.pool.snap("a", DAY)
    site.start_agent()
    slowly = f'head -c 40M /dev/zero >{base}/other; "$real" --bwlimit=2M "${{args[@]}}"'
    for size, env in (("40M", None), ("90M", _pulling(site, slowly))):
        with small_disk(base, size):
            error = site.backup(env=env, code=1)["by_name"]["a"]["error"]
            assert error["code"] == "not-enough-space" and str(base) in error["message"]
            assert not list(base.rglob("*.qcow2*")) and not list(base.rglob(".sync"))


def test_a_local_agent_names_no_other_folder(sparse: Site) -> None:
    """One with another QCOW_TEMP_PATH than this node's configuration says."""
    config = sparse.folder / "other.yaml"
    config.write_text(yaml.safe_dump({**sparse.options, "QCOW_TEMP_PATH": str(sparse.folder / "other")}))
    sparse.start_agent(config=config)
    error = sparse.backup(code=1)["by_name"]["a"]["error"]
    assert error["code"] == "transfer-failed" and str(sparse.temp) in error["message"]
    assert sparse.days("a") == []
