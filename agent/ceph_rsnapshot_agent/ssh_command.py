"""All that the backup node's ssh key may run here: `true`, and rsync sending the folder of one image.

sshd runs this in place of whatever was asked for (ForceCommand in sshd_config(5), ``command=`` in sshd(8)). The words
are judged one by one against what the controller's rsync sends; no shell ever sees them.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ceph_rsnapshot_agent import landlock
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CommandRefused
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process.commands import find_tool

_SENDER = ["rsync", "--server", "--sender"]
# at the end the client's version and abilities, which only look like -e: maybe_add_e_option in
# https://github.com/RsyncProject/rsync/blob/master/compat.c. None of the letters follows links or writes.
_LETTERS = re.compile(r"-[DIRSWcgnopqrtvxz]*(e\d*\.[A-Za-z]*)?", re.ASCII)
_OPTIONS = re.compile(
    r"--(numeric-ids|inplace|whole-file|no-W|no-r|old-compress|new-compress"
    r"|(bwlimit|timeout|compress-level|checksum-seed|block-size|max-alloc|modify-window)=-?\d+[KMG]?"
    r"|(compress-choice|checksum-choice)=[a-z0-9,/]+)",
    re.ASCII,
)
# what names.encode makes; a leading dot is never one of ours (.claims)
_COMPONENT = re.compile(r"[\w%-][\w.%-]*", re.ASCII)
_LIBRARIES = ("/usr", "/lib", "/lib64", "/bin")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")


def run(settings: Settings, command: str) -> None:
    """Do what the other side asked sshd for; of rsync, it does not return.

    Raises:
        CommandRefused: it is neither of the two.
        ToolMissing: rsync is not installed.
    """
    if command == "true":
        return
    options, parts = permitted(command, settings.qcow_temp_path)
    _send(options, _folder(settings.qcow_temp_path, parts))


def permitted(command: str, base: Path) -> tuple[list[str], list[str]]:
    """The options of a permitted rsync, and the folder that it sends, as components below ``base``.

    Raises:
        CommandRefused: with the first word that is not.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CommandRefused(reason=error) from None
    if words[:3] != _SENDER:
        raise CommandRefused(reason=f"{command[:100]!r} is neither true nor rsync --server --sender")
    *options, dot, path = words[3:] if len(words) > 4 else ["", "", ""]
    if dot != ".":
        raise CommandRefused(reason="rsync may send one folder at a time")
    for option in options:
        if not (_LETTERS.fullmatch(option) or _OPTIONS.fullmatch(option)):
            raise CommandRefused(reason=f"the option {option[:100]!r} of rsync is not one that a backup needs")
    return options, _components(path, f"{base}/")


def _components(path: str, base: str) -> list[str]:
    parts = path[len(base) : -len("/./")].split("/")
    inside = path.startswith(base) and path.endswith("/./")
    if not inside or not 2 <= len(parts) <= 3 or not all(map(_COMPONENT.fullmatch, parts)):
        raise CommandRefused(reason=f"{path[:200]!r} is not the folder of an image below {base}")
    return parts


def _folder(base: Path, parts: Sequence[str]) -> int:
    """The open folder; no link is followed below ``base``."""
    here = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        above = here
        try:
            here = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            raise CommandRefused(reason=f"{base / '/'.join(parts)}: {error.strerror}") from None
        finally:
            os.close(above)
    return here


def _send(options: Sequence[str], folder: int) -> NoReturn:
    """Become rsync in ``folder``, whose name it no longer needs."""
    rsync = find_tool("rsync", Node.CEPH)
    # the client's filter rules may name any file for rsync to read (dir-merge in rsync(1)), and some versions quote it
    landlock.confine(readable=[folder, *_SYSTEM_FILES], executable=[rsync, *_LIBRARIES])
    os.fchdir(folder)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python had changed
    os.execve(  # noqa: S606  the words are judged
        rsync, [*_SENDER, *options, ".", "./"], {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    )
