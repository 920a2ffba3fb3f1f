"""The table of options, the command line, the file and the reference agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import ceph_rsnapshot
from ceph_rsnapshot.archiver.report import RunReport
from ceph_rsnapshot.cli.parser import COMMANDS, command_parsers, make_parser
from ceph_rsnapshot.cli.settings_cmd import text_of
from ceph_rsnapshot_common.config.load import load
from ceph_rsnapshot_common.config.reference import reference
from ceph_rsnapshot_common.config.settings import Settings, option
from ceph_rsnapshot_common.console.flags import keys_with_flags
from ceph_rsnapshot_common.errors import ConfigError
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import Listing

ROOT = Path(__file__).parents[4]


def test_the_reference_is_up_to_date() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "configuration.md").read_text() == reference()


def test_every_option_is_in_the_reference_with_its_flags() -> None:
    text = reference()
    for key, field in Settings.model_fields.items():
        assert f"| `{key.upper()}` |" in text
        assert all(f"`{flag}`" in text for flag in option(key).flags)
        assert field.description


def test_every_flag_of_the_table_is_on_the_command_line() -> None:
    options = {flag for action in make_parser()._actions for flag in action.option_strings}
    wanted = {flag for key in keys_with_flags() for flag in option(key).flags}
    assert wanted <= options
    named = "-c -p -v -k -e -n --host --image-re --snap-date --noop --no-rotate-orphans --printsettings --json --force"
    assert set(named.split()) <= options


def test_every_command_has_a_help_with_examples() -> None:
    parsers = command_parsers(make_parser())
    assert tuple(parsers) == COMMANDS
    for name, parser in parsers.items():
        assert f"\n  ceph_rsnapshot {name}" in parser.format_help()


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


def test_printed_settings_are_a_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('POOL: [a, b/c]\nEXTRA_LONG_ARGS: "foo,bar=1"\nSNAP_NAMING_DATE_FORMAT: "%d %m"\n')
    loaded = load(path)
    printed = tmp_path / "printed.yaml"
    printed.write_text(text_of(loaded, as_json=False))
    assert load(printed).settings == loaded.settings
    assert len(yaml.safe_load(printed.read_text())) == len(Settings.model_fields)


def test_a_nested_key_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("POOL:\n  name: rbd\n")
    with pytest.raises(ConfigError, match="POOL"):
        load(path)


def _subclasses(base: type[Any]) -> set[type[Any]]:
    below = {each for each in base.__subclasses__() if each.__module__.startswith("ceph_rsnapshot")}
    return below.union(*map(_subclasses, below))


def test_annotations_of_models_work_on_python_3_9() -> None:
    """pydantic evaluates them, and Python 3.9 has no ``X | None``."""
    models = _subclasses(BaseModel)
    assert {Settings, Manifest, Listing, RunReport} <= models
    for model in models:
        assert not [text for text in vars(model).get("__annotations__", {}).values() if " | " in str(text)], model


def test_no_module_hides_a_function_of_the_api() -> None:
    """Importing ``package.name`` sets the attribute ``name`` of the package."""
    modules = {path.stem for path in (ROOT / "controller" / "ceph_rsnapshot").iterdir()}
    assert not modules & set(ceph_rsnapshot.__all__)
