"""rsnapshot's configuration for any names, paths and settings that come through: nothing of them becomes a line."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ceph_rsnapshot.archiver.staged import check_folder
from ceph_rsnapshot.repository.layout import folder_of
from ceph_rsnapshot.repository.rsnapshot import Source, render
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import TransferFailed
from ceph_rsnapshot_common.names import Pool, image_folder

_KEYS = [
    *("config_version", "snapshot_root", "no_create_root", "cmd_rsync", "cmd_ssh", "ssh_args", "retain", "verbose"),
    *("loglevel", "logfile", "lockfile", "sync_first", "link_dest", "rsync_short_args", "rsync_long_args", "backup"),
]
mean = st.sampled_from(
    ["\t", "\n", "\nbackup\t/etc/\t./", "'", '"', " ", "#", "`id`", "$(id)", "..", "../", "%", "\\", ":"]
)
texts = st.lists(st.one_of(mean, st.text(max_size=5)), max_size=4).map("".join)
printable = texts.map(lambda text: "".join(each for each in text if each.isprintable()))
paths = st.lists(printable, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@st.composite
def configured(draw: st.DrawFn) -> tuple[Settings, Pool, str, Source]:
    """What the validation lets through."""
    image = draw(texts.filter(lambda text: text and "/" not in text))
    pool = Pool(pool=draw(texts.filter(bool)), namespace=draw(texts))
    try:
        made = Settings(
            backup_base_path=draw(paths),  # type: ignore[arg-type]
            log_base_path=draw(paths),  # type: ignore[arg-type]
            extra_long_args=draw(st.lists(printable, max_size=2)),  # type: ignore[arg-type]
            ssh_args=draw(printable),
            retain_interval=draw(st.one_of(st.just("daily"), texts)),
            retain_number=draw(st.integers(0, 99)),
        )
        folder = str(Path(draw(texts.map("/".__add__)), image_folder(pool, image)))
        check_folder(folder, None, image_folder(pool, image))
    except (ValidationError, TransferFailed):
        assume(False)
    args = ("-o", "ControlPath=/run/x y/s", *shlex.split(made.ssh_args))
    return made, pool, image, Source(folder, "user@host", args, bandwidth_limit=draw(st.integers(0, 2**40)), longest=5)


def _split(text: str, nested: bool = False) -> list[str]:
    """As rsnapshot's split_long_args_with_quotes does, and (``nested``) rsync with what it gets for --rsh."""
    found, quote = [""], ""
    for each in text:
        if each in " \t\n" and not quote:
            found.append("")
        elif each in "'\"" and not quote:
            quote = each
        elif each == quote:
            quote = ""
        else:
            assert nested or each not in "'\"", f"nested quotes: {text}"
            found[-1] += each
    assert not quote, f"unbalanced quotes: {text}"
    return found


@given(configured())
@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_it_says_the_same_again(given_: tuple[Settings, Pool, str, Source]) -> None:
    made, pool, image, source = given_
    folder = folder_of(made, pool, image)
    text = render(made, folder, source, made.log_base_path / "x.log", made.retain_number)
    assert text.endswith("\n")
    lines = [line.split("\t") for line in text[:-1].split("\n")]
    found = {key: values for key, *values in lines}
    assert [line[0] for line in lines] == _KEYS
    assert found["snapshot_root"] == [f"{folder.path}/"]
    assert found["retain"] == [made.retain_interval, str(made.retain_number)]
    assert found["logfile"] == [str(made.log_base_path / "x.log")]
    assert found["backup"] == [f"user@host:{source.folder}/./", "./"]
    (ssh_args,), (long_args,) = found["ssh_args"], found["rsync_long_args"]
    assert _split(ssh_args, nested=True) == list(source.ssh_args)
    extra = [f"--{argument}" for argument in made.extra_long_args]
    assert _split(long_args)[-len(extra) :] == extra or not extra
    name = folder.path.name
    filters = [each for each in _split(long_args)[: -len(extra) or None] if "clude" in each]
    assert filters == ["--delete-excluded", f"--include=/{name}.qcow2", f"--include=/{name}.json", "--exclude=*"]


@given(configured())
@settings(max_examples=24, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_rsnapshot_accepts_it(
    tmp_path_factory: pytest.TempPathFactory, given_: tuple[Settings, Pool, str, Source]
) -> None:
    """Its own configtest is the judge. It wants the snapshot root to be there: so that lies in a folder of the test."""
    made, pool, image, source = given_
    tmp = tmp_path_factory.mktemp("conf")
    base = Path(f"{tmp}{made.backup_base_path}")
    below = made.model_copy(update={"backup_base_path": base, "log_base_path": tmp})
    folder = folder_of(below, pool, image)
    folder.path.mkdir(parents=True)
    conf = tmp / "rsnapshot.conf"
    conf.write_text(render(below, folder, source, tmp / "log", below.retain_number), encoding="utf-8")
    done = subprocess.run(["rsnapshot", "-c", str(conf), "configtest"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Syntax OK"), done.stderr


@pytest.mark.parametrize(
    ("folder", "local"),
    [
        ("/etc", False),
        ("/etc", True),
        ("/qcow/rbd/b", True),
        ("/other/rbd/a", True),
        ("/qcow/rbd/a/", True),
        ("/qcow/./rbd/a", True),
        ("/qcow/x/../rbd/a", True),
        ("/x/rbd/b", False),
        ("/x/../rbd/a", False),
        ("/x../rbd/a", False),
        ("/x/./rbd/a", False),
        ("/x//rbd/a", False),
        ("/x/rbd/a/.", False),
        ("//x/rbd/a", False),
        ("x/rbd/a", False),
        ("rbd/a", False),
        ("", False),
        ("/x\t/etc\t./\n/rbd/a", False),
    ],
)
def test_an_agent_names_no_folder_but_that_of_the_image(folder: str, local: bool) -> None:
    image = image_folder(Pool(pool="rbd"), "a")
    check_folder("/qcow/rbd/a" if local else "/any/where/rbd/a", Path("/qcow") if local else None, image)
    with pytest.raises(TransferFailed):
        check_folder(folder, Path("/qcow") if local else None, image)
