"""The configuration file: found, read, checked as a whole, and merged with the command line."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from ceph_rsnapshot_common.config.settings import Settings, option
from ceph_rsnapshot_common.errors import ConfigError, one_line
from ceph_rsnapshot_common.names import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SEARCH_PATH = (
    Path("ceph_rsnapshot.yaml"),
    Path("/home/ceph_rsnapshot/config/ceph_rsnapshot.yaml"),
    Path("/etc/ceph-rsnapshot/ceph_rsnapshot.yaml"),
)


@dataclass(frozen=True)
class Loaded:
    """Settings and where they come from: ``origins`` has ``file`` or ``flag`` for what is not a default."""

    settings: Settings
    path: Path | None
    origins: Mapping[str, str]


def load(path: str | Path | None = None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """Settings from ``path`` (or the first file of SEARCH_PATH that exists, or none), with ``flags`` over them.

    Raises:
        ConfigError: with every problem found: key, value, reason.
    """
    found = Path(path) if path else next((each for each in SEARCH_PATH if each.exists()), None)
    from_file, problems = _read(found) if found else ({}, [])
    values = {**from_file, **(flags or {})}
    origins = {**dict.fromkeys(from_file, "file"), **dict.fromkeys(flags or {}, "flag")}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += [_problem(item, origins) for item in error.errors()]
    if problems:
        raise ConfigError(path=found or "command line", problems="\n  ".join(["", *problems]))
    return Loaded(settings, found, origins)


class _UniqueKeys(yaml.SafeLoader):
    """YAML loaders silently keep the last of two equal keys; a backup program must not."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[str, str] = {}
    for key_node, _ in node.value:
        key = str(key_node.value).lower()
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key_node.value} is given twice", key_node.start_mark)
        seen[key] = key
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506  (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path=path, problems=f"can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(path=path, problems=f"is not valid YAML: {_yaml_reason(error)}") from None
    if document is None:
        return {}, []
    if not isinstance(document, dict):
        raise ConfigError(path=path, problems="must hold lines like 'KEY: value'")
    return _known(document)


def _yaml_reason(error: yaml.YAMLError) -> str:
    reason = one_line(str(error).replace('in "<unicode string>", ', ""))
    if "character '%'" in reason:
        reason += " (put values that begin with % in quotes)"
    return reason


def _known(document: Mapping[object, object]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    problems = []
    for key, value in document.items():
        name = str(key).lower()
        if name not in Settings.model_fields:
            hint = did_you_mean(name.upper(), map(str.upper, Settings.model_fields), most=1)
            problems.append(f"{key}: {_shown(value)}: unknown key{hint}")
        elif value is not None:
            # YAML reads an unquoted 2016-10-04 as a date
            values[name] = value.isoformat() if type(value) is datetime.date else value
    return values, problems


def _problem(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    flags = option(name).flags if name in Settings.model_fields else ()
    key = flags[-1] if origins.get(name) == "flag" and flags else name.upper()
    reason = error["msg"].replace("Value error, ", "").replace("Input should be", "must be")
    return f"{key}: {_shown(error['input'])}: {reason}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
