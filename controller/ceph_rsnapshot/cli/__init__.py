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
        return int(arguments.run(arguments))

    exit_with(run, parser.prog)
