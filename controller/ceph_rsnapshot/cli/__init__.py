"""The command ``ceph_rsnapshot``: one module for each subcommand, and nothing that the Python API can't do."""

from __future__ import annotations

import sys
from typing import NoReturn

from ceph_rsnapshot.cli.parser import make_parser, parse
from ceph_rsnapshot_common.console.entry import exit_with


def main() -> NoReturn:
    """Console script ``ceph_rsnapshot``."""
    parser = make_parser()

    def run() -> int:
        arguments = parse(parser, sys.argv[1:])
        try:
            return int(arguments.run(arguments))
        except SystemExit as error:  # whatever it came from: a command says how it went, or has failed
            raise RuntimeError("the command ended without an exit code of its own") from error

    exit_with(run, parser.prog)
