"""Single values: sizes, options, arguments for rsnapshot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot.repository.rsnapshot import Source, quoted, render
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("5G", 5 * 1024**3), ("500M", 500 * 1024**2), ("1.5 KiB", 1536), ("7", 7), ("7B", 7), ("2t", 2 * 1024**4)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "5GB", "-1", "1e3", "5 5", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.50 KiB"), (20 * 1024**2, "20.0 MiB"), (1000 * 1024, "0.98 MiB")],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**60))
def test_shown_sizes_are_short_and_true(size: int) -> None:
    text = format_size(size)
    number, unit = text.split()
    assert len(number) <= 7
    scale = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[unit]
    assert float(number) * scale == pytest.approx(size, rel=0.006)


def test_extra_long_args_mean_long_arguments() -> None:
    assert Settings(extra_long_args="foo, bar=1").extra_long_args == ("foo", "bar=1")  # type: ignore[arg-type]
    for bad in ("a\tb", "a\nb", "--foo", "append", "x='a\"b'", "dry-run"):
        with pytest.raises(ValidationError):
            Settings(extra_long_args=bad)  # type: ignore[arg-type]


def test_keepconf_follows_temp_conf_dir_unless_said_otherwise() -> None:
    folder = "/somewhere"
    assert not Settings().keeps_conf
    assert Settings(temp_conf_dir=folder).keeps_conf  # type: ignore[arg-type]
    assert not Settings(temp_conf_dir=folder, keepconf=False).keeps_conf  # type: ignore[arg-type]
    assert Settings(keepconf=True).keeps_conf


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().verbose = True


@pytest.mark.parametrize("argument", ["plain", "with space", "it's", 'say "x"', "a  b"])
def test_rsnapshot_accepts_the_configuration(tmp_path: Path, argument: str) -> None:
    """rsnapshot's own configtest is the judge."""
    root = tmp_path / "base with space" / "rbd" / "a%20b"
    root.mkdir(parents=True)
    settings = Settings(
        backup_base_path=str(tmp_path / "base with space"),  # type: ignore[arg-type]
        extra_long_args=f"rsync-path={argument}",  # type: ignore[arg-type]
    )
    source = Source("/var/lib/x y/rbd/a%20b", "user@host", ("-i", f"/key {argument}"))
    conf = tmp_path / "conf"
    conf.write_text(render(settings, ImageFolder(root, "daily"), source, tmp_path / "log"))
    done = subprocess.run(["rsnapshot", "-c", str(conf), "configtest"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Syntax OK"), done.stderr


def test_quotes() -> None:
    assert quoted(["a", "b c", "d'e", 'f"g h']) == """a "b c" "d'e" 'f"g h'"""
