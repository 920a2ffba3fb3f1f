"""``help`` and ``completion``: both are made from the parser."""

from __future__ import annotations

import argparse

from ceph_rsnapshot.cli.parser import command_parsers, make_parser


def run(arguments: argparse.Namespace) -> int:
    """Print the help of a command, or the completion script of a shell."""
    parser = make_parser()
    if arguments.command == "completion":
        import shtab

        print(shtab.complete(parser, arguments.shell))
        return 0
    topic = arguments.topic
    print((command_parsers(parser)[topic] if topic else parser).format_help(), end="")
    return 0
