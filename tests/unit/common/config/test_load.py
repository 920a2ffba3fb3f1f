"""The table of options, the command line, the file and the reference agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from ceph_rsnapshot_common.config.load import load
from ceph_rsnapshot_common.errors import ConfigError
from tests import ROOT


@pytest.mark.parametrize("sample", ["agent", "controller"])
def test_the_samples_are_valid(sample: str) -> None:
    assert load(ROOT / sample / "ceph_rsnapshot.yaml.sample").origins


def test_flags_go_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("Pool: [a, b/c]\nretain_number: 5\nSNAP_DATE: 2016-10-04\nMIN_FREESPACE: 500M\nCEPH_CONF:\n")
    loaded = load(path, {"retain_number": 7})
    assert [str(pool) for pool in loaded.settings.pool] == ["a", "b/c"]
    assert loaded.settings.retain_number == 7
    assert loaded.settings.snap_date == "2016-10-04"
    assert loaded.settings.min_freespace == 500 * 1024**2
    assert loaded.settings.ceph_conf is None
    assert (loaded.origins["retain_number"], loaded.origins["pool"]) == ("flag", "file")
    assert "verbose" not in loaded.origins


def test_the_first_file_that_exists_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ceph_rsnapshot.yaml").write_text("RETAIN_NUMBER: 9\n")
    assert load().settings.retain_number == 9


def test_a_nested_key_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("POOL:\n  name: rbd\n")
    with pytest.raises(ConfigError, match="POOL"):
        load(path)
