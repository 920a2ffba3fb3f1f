"""The command line has what the table of options and the list of commands promise."""

from __future__ import annotations

from ceph_rsnapshot.cli.parser import COMMANDS, command_parsers, make_parser
from ceph_rsnapshot_common.config.settings import option
from ceph_rsnapshot_common.console.flags import keys_with_flags


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
