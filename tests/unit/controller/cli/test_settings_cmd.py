"""Printed settings are a configuration file."""

from __future__ import annotations

from pathlib import Path

import yaml

from ceph_rsnapshot.cli.settings_cmd import text_of
from ceph_rsnapshot_common.config.load import load
from ceph_rsnapshot_common.config.settings import Settings


def test_printed_settings_are_a_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('POOL: [a, b/c]\nEXTRA_LONG_ARGS: "foo,bar=1"\nSNAP_NAMING_DATE_FORMAT: "%d %m"\n')
    loaded = load(path)
    printed = tmp_path / "printed.yaml"
    printed.write_text(text_of(loaded, as_json=False))
    assert load(printed).settings == loaded.settings
    assert len(yaml.safe_load(printed.read_text())) == len(Settings.model_fields)
