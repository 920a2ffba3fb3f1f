"""Command line flags, made from the table of options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from ceph_rsnapshot_common import __version__
from ceph_rsnapshot_common.config.settings import Settings, option

formatter = argparse.RawDescriptionHelpFormatter
"""Keeps the lines of descriptions and examples as they are."""


def make_parser(prog: str, description: str, epilog: str, keys: Iterable[str]) -> argparse.ArgumentParser:
    """A parser with ``-c``, ``--version`` and the flags of the options ``keys``.

    Flags that are not given are absent from the result, so that the configuration file's value holds.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog, formatter_class=formatter)
    add_config(parser, None)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for key in keys:
        add_option(parser, key)
    return parser


def add_config(parser: argparse.ArgumentParser, default: Any) -> None:
    """The flag that names the configuration file."""
    parser.add_argument("-c", "--config", metavar="CONFIG", default=default, help="configuration file (YAML)")


def add_option(parser: argparse.ArgumentParser, key: str) -> None:
    """The flags of option ``key``; a true or false option becomes a switch that turns it on."""
    of = option(key)
    kind: dict[str, Any] = {"metavar": of.metavar} if of.metavar else {"action": "store_const", "const": True}
    description = Settings.model_fields[key].description
    text = f"{description} [{key.upper()}]".replace("%", "%%").replace("`", "")
    parser.add_argument(*of.flags, dest=key, default=argparse.SUPPRESS, help=text, **kind)


def keys_with_flags() -> list[str]:
    """The options that have a flag, in the table's order."""
    return [key for key in Settings.model_fields if option(key).flags]


def options_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given on the command line, by option."""
    return {key: value for key, value in vars(arguments).items() if key in Settings.model_fields}
