"""Settings that follow from each other, and that can't be changed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ceph_rsnapshot_common.config.settings import Settings


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


def test_limits_are_one_or_more() -> None:
    limits = ("max_connections", "max_jobs", "max_connection_jobs", "max_exports", "max_connection_exports")
    for key in (*limits, "read_threads", "max_base_notes", "hello_timeout"):
        with pytest.raises(ValidationError):
            Settings(**{key: 0})  # type: ignore[arg-type]
    assert Settings(restore_max_size="1T").restore_max_size == 1024**4  # type: ignore[arg-type]
    assert Settings().restore_max_size == 64 * 1024**4


def test_a_wait_always_ends() -> None:
    assert Settings().idle_timeout == 600
    for bad in (0, -1, True, 0.5):
        with pytest.raises(ValidationError):
            Settings(idle_timeout=bad)  # type: ignore[arg-type]
