"""``ceph_rsnapshot settings``: the settings in effect, and where each comes from."""

from __future__ import annotations

import argparse
import json

from ceph_rsnapshot.api import explain_settings
from ceph_rsnapshot_common.config.load import Loaded
from ceph_rsnapshot_common.console.flags import options_given


def run(arguments: argparse.Namespace) -> int:
    """Print them as YAML, or as JSON."""
    loaded = explain_settings(arguments.config, **options_given(arguments))
    print(text_of(loaded, bool(vars(arguments).get("json"))), end="")
    return 0


def text_of(loaded: Loaded, as_json: bool) -> str:
    """The settings as YAML that may be used as a configuration file, or as JSON."""
    if as_json:
        origins = {key: _origin(loaded, key) for key in type(loaded.settings).model_fields}
        return json.dumps({**loaded.settings.model_dump(mode="json"), "origins": origins}, indent=2) + "\n"
    lines = [f"# from {loaded.path or 'no file: defaults and flags only'}\n"]
    for key, value in loaded.settings.written().items():
        text = json.dumps(value, ensure_ascii=False)
        lines.append(f"{key.upper()}: {text}  # {_origin(loaded, key)}\n")
    return "".join(lines)


def _origin(loaded: Loaded, key: str) -> str:
    return loaded.origins.get(key, "default")
