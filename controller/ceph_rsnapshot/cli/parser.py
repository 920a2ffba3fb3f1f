"""The parser of ``ceph_rsnapshot`` and its subcommands; completion, man pages and `help` are made from it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, Callable

from ceph_rsnapshot_common.console.flags import add_config, add_option, formatter, keys_with_flags
from ceph_rsnapshot_common.console.flags import make_parser as _make

COMMANDS = (
    "backup",
    "list",
    "verify",
    "restore",
    "serve",
    "files",
    "hold",
    "release",
    "check",
    "settings",
    "completion",
    "help",
)
_DESCRIPTION = """\
Back up snapshots of Ceph RBD images to qcow2 files that rsnapshot keeps, and get the data back.
Without a command it backs up; the options are then those of the command backup.
"""
_EXAMPLES = """\
examples:
  ceph_rsnapshot                                   back up as the configuration file says
  ceph_rsnapshot -n                                only say what would be done
  ceph_rsnapshot -p rbd --image-re 'vm-[0-9]+$'    some images of one pool
  ceph_rsnapshot --transfer-mode direct            only what changed since the last backup crosses the network
  ceph_rsnapshot --snap-date '1 day ago'           yesterday's snapshots
  ceph_rsnapshot list --calendar                   which days there are, and which are missing
  ceph_rsnapshot restore rbd/vm-1 --to rbd/vm-1    the newest backup becomes an image again
  ceph_rsnapshot help restore                      more about a command

exit codes: 0 done; 1 something failed, or there was nothing to back up; 2 usage or configuration;
3 agent or Ceph unreachable; 4 another run holds the lock; 130, 143 ended by Ctrl-C, SIGTERM
"""


def make_parser() -> argparse.ArgumentParser:
    """The whole parser."""
    parser = _make("ceph_rsnapshot", _DESCRIPTION, _EXAMPLES, ())
    add_backup_options(parser)
    parser.set_defaults(run=_lazily("backup"))
    # older than the commands; kept working, not in the help
    parser.add_argument("--printsettings", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for add in _ADD:
        add(commands)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse ``argv``; options of backup are refused before another command."""
    arguments = parser.parse_args(argv)
    if arguments.command in (None, "backup"):
        return arguments
    own = {action.dest for action in command_parsers(parser)[arguments.command]._actions}
    for action in parser._actions:
        if action.dest in vars(arguments) and action.dest not in own | {"command"}:
            flag = (action.option_strings or [action.dest])[-1]
            parser.error(f"{flag} is an option of backup, not of {arguments.command}")
    return arguments


def add_backup_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of backup; those not given are absent from the result."""
    for key in keys_with_flags():
        add_option(parser, key)
    _switch(parser, "--force", "also back up again what a day already holds, and replace that day")
    _switch(parser, "--full", "make full backups, also where an increment would do")
    _switch(parser, "--rotate-many-orphans", "believe a listing that makes more than half of the known images orphans")
    _json(parser, "print the report as one JSON document on standard output")


def _switch(parser: Any, flag: str, text: str) -> None:
    parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)


def _json(parser: Any, text: str = "print one JSON document on standard output") -> None:
    _switch(parser, "--json", text)


def _lazily(name: str) -> Callable[[argparse.Namespace], int]:
    """Each command is imported when it runs: a night is thousands of short commands."""

    def run(arguments: argparse.Namespace) -> int:
        return int(importlib.import_module(f"ceph_rsnapshot.cli.{name}_cmd").run(arguments))

    return run


def _command(commands: Any, name: str, summary: str, examples: str, module: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=formatter,
    )
    add_config(parser, argparse.SUPPRESS)
    parser.set_defaults(run=_lazily(module or name))
    return parser


_WHICH = (
    "POOL, POOL/NAMESPACE or [POOL/[NAMESPACE/]]IMAGE; @SNAPSHOT or @daily.N may follow and names one day (without it "
    "all days are meant)"
)
_ONE = "[POOL/[NAMESPACE/]]IMAGE; @SNAPSHOT or @daily.N may follow and names the day (without it the newest)"


def _backup(commands: Any) -> None:
    add_backup_options(
        _command(
            commands,
            "backup",
            "back up the snapshots of the day (what is done without a command)",
            "  ceph_rsnapshot backup\n  ceph_rsnapshot backup --noop\n  ceph_rsnapshot backup --full -p rbd\n",
        )
    )


def _list(commands: Any) -> None:
    parser = _command(
        commands,
        "list",
        "list the backups that there are",
        "  ceph_rsnapshot list\n  ceph_rsnapshot list rbd/vm-1\n  ceph_rsnapshot list --calendar rbd\n"
        "  ceph_rsnapshot list --json rbd | jq '.[].folder'\n",
    )
    parser.add_argument("which", metavar="WHICH", nargs="?", help=_WHICH)
    _switch(parser, "--calendar", "a grid of images and days, so that a gap jumps out")
    _json(parser)


def _verify(commands: Any) -> None:
    parser = _command(
        commands,
        "verify",
        "verify finished backups: structure, and content against the digests made with them",
        "  ceph_rsnapshot verify rbd/vm-1\n  ceph_rsnapshot verify rbd/vm-1@daily.0 --source\n"
        "  ceph_rsnapshot verify --all --since-verified 7d\n",
    )
    parser.add_argument("which", metavar="WHICH", nargs="?", help=_WHICH)
    _switch(parser, "--all", "all backups of all images")
    parser.add_argument(
        "--since-verified",
        metavar="AGE",
        default=argparse.SUPPRESS,
        help="only backups that were not verified (and found good) for so long: 12h, 7d, 2w",
    )
    _switch(parser, "--source", "also compare with the snapshot through the agent, if Ceph still has it")
    _json(parser)


def _restore(commands: Any) -> None:
    parser = _command(
        commands,
        "restore",
        "restore a backup to a new RBD image, or to a file",
        "  ceph_rsnapshot restore rbd/vm-1 --to rbd/vm-1\n"
        "  ceph_rsnapshot restore rbd/vm-1@2026-01-31 --to rbd/vm-1-restored --data-pool rbd-data\n"
        "  ceph_rsnapshot restore rbd/vm-1@daily.3 --to-file /tmp/vm-1.raw --format raw\n",
    )
    parser.add_argument("which", metavar="WHICH", help=_ONE)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--to", metavar="POOL[/NAMESPACE]/NAME", help="image to create; an existing one is refused")
    target.add_argument("--to-file", metavar="PATH", help="file to create, without the cluster; never overwritten")
    parser.add_argument("--format", choices=("raw", "qcow2"), default="qcow2", help="of the file (default: qcow2)")
    parser.add_argument("--data-pool", metavar="POOL", help="data pool of the image (default: as it was)")
    _switch(parser, "--accept-damage", "restore what there is, also from a backup that is not as it was made")
    _json(parser)


def _serve(commands: Any) -> None:
    parser = _command(
        commands,
        "serve",
        "serve a backup read-only by NBD, for access to single files, until Ctrl-C",
        "  ceph_rsnapshot serve rbd/vm-1\n  ceph_rsnapshot serve rbd/vm-1@daily.3 --socket /run/vm-1.sock\n"
        "  ceph_rsnapshot serve rbd/vm-1 --port 10809\n",
    )
    parser.add_argument("which", metavar="WHICH", help=_ONE)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--socket", metavar="PATH", help="unix socket to listen on (default: one in a private folder)")
    where.add_argument("--port", metavar="N", type=int, help="TCP port of 127.0.0.1; EVERY local user can read it")


def _hold(commands: Any) -> None:
    parser = _command(
        commands,
        "hold",
        "keep a day beside the rotation until it is released: no rotation and no run removes it",
        "  ceph_rsnapshot hold rbd/vm-1@2026-01-31 --reason 'before the migration'\n  ceph_rsnapshot hold rbd/vm-1\n",
    )
    parser.add_argument("which", metavar="WHICH", help=_ONE)
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; `list` shows it")


def _release(commands: Any) -> None:
    parser = _command(
        commands,
        "release",
        "let a day go that was held; days in the rotation are not touched",
        "  ceph_rsnapshot release rbd/vm-1@2026-01-31\n",
        "hold",
    )
    parser.add_argument("which", metavar="WHICH", help=_ONE.replace("the newest", "the only one that is held"))


def _files(commands: Any) -> None:
    parser = _command(
        commands,
        "files",
        "look at the files in a backup, or copy them out, without mounting anything (needs python3-guestfs)",
        "  ceph_rsnapshot files rbd/vm-1 ls /etc\n"
        "  ceph_rsnapshot files rbd/vm-1@daily.3 get /etc/hostname /tmp/hostname\n"
        "  ceph_rsnapshot files rbd/vm-1 --file-system /dev/sda2 get /home /tmp/home\n",
    )
    parser.add_argument("which", metavar="WHICH", help=_ONE)
    parser.add_argument(
        "action", choices=("ls", "cat", "get"), help="list names, print a file, or copy a file or folder"
    )
    parser.add_argument("path", metavar="PATH", help="in the guest")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="new file or folder (default: its name, here)")
    parser.add_argument("--file-system", metavar="DEVICE", help="such as /dev/sda1 (default: as the guest mounts them)")


def _check(commands: Any) -> None:
    parser = _command(
        commands,
        "check",
        "see whether both nodes are ready for tonight, and what to do if not",
        "  ceph_rsnapshot check\n  ceph_rsnapshot check --json\n",
    )
    _json(parser)


def _settings(commands: Any) -> None:
    parser = _command(
        commands,
        "settings",
        "print the settings in effect and where each comes from: default, file or flag",
        "  ceph_rsnapshot settings\n  ceph_rsnapshot -c other.yaml settings --json\n",
    )
    for key in keys_with_flags():
        add_option(parser, key)
    _json(parser)


def _completion(commands: Any) -> None:
    parser = _command(
        commands,
        "completion",
        "print the completion script of a shell",
        "  ceph_rsnapshot completion bash > /etc/bash_completion.d/ceph_rsnapshot\n",
        "help",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _help(commands: Any) -> None:
    parser = _command(commands, "help", "print the help of a command", "  ceph_rsnapshot help restore\n", "help")
    parser.add_argument("topic", metavar="COMMAND", nargs="?", choices=COMMANDS, help=", ".join(COMMANDS))


_ADD = (_backup, _list, _verify, _restore, _serve, _files, _hold, _release, _check, _settings, _completion, _help)


def command_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands."""
    (action,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)
