"""Checks of single configuration values; each returns the value to use or raises ValueError with the reason."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from ceph_rsnapshot_common.names import Pool, parse_pool
from ceph_rsnapshot_common.sizes import parse_size

_HOST = re.compile(r"(?:[A-Za-z0-9._][A-Za-z0-9._-]*@)?[A-Za-z0-9._\[:][A-Za-z0-9._:\]-]*")
_WORD = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")
# the words that rsnapshot 1.4.5 keeps for itself, in its @reserved_words; intervals are \w+ there:
# https://github.com/rsnapshot/rsnapshot/blob/master/rsnapshot-program.pl
_RSNAPSHOT_WORDS = frozenset(
    "archive check-config-version configtest diff delete du get-latest-snapshot help history list print-config "  # noqa: SIM905
    "restore rollback sync upgrade-config-file version version-only".split()
)
# rsync --inplace and its kin would rewrite the older days, which are hard links to the same file:
# https://download.samba.org/pub/rsync/rsync.1
_FORBIDDEN_RSYNC = (
    "inplace",
    "append",
    "append-verify",
    "write-devices",
    "remove-source-files",
    "dry-run",
    "list-only",
)
_CONTROL = "must not hold a tab, a newline or another control character (rsnapshot's configuration can't)"


def absolute_path(value: object) -> object:
    """An absolute path that rsnapshot takes, as a `Path`."""
    if not isinstance(value, (str, Path)):
        return value
    text = str(value)
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    if not text.isprintable():
        raise ValueError(_CONTROL)
    if "/.." in text or "../" in f"{text}/":
        raise ValueError("must not hold '..' (rsnapshot refuses it)")
    return Path(text)


def size(value: object) -> object:
    """Bytes; a text as `sizes.parse_size` reads it."""
    return parse_size(value) if isinstance(value, str) else value


def cluster_size(value: int) -> int:
    """What qemu-img takes: bytes."""
    if not 512 <= value <= 2 * 1024**2 or value & (value - 1):
        raise ValueError("must be a power of two from 512 to 2M")
    return value


def line(value: str) -> str:
    """One line of text."""
    if not value or not value.isprintable():
        raise ValueError("must be one line of text")
    return value


def host(value: str) -> str:
    """``[user@]host`` or an ssh alias; nothing that ssh could take for an option."""
    if not _HOST.fullmatch(value):
        raise ValueError("must be a host, user@host or an ssh alias")
    return value


def word(value: str) -> str:
    """The name of a cephx user or cluster."""
    if not _WORD.fullmatch(value):
        raise ValueError("may hold letters, digits, '.', '_' and '-' only")
    if value.startswith("client."):
        raise ValueError("must be given without 'client.'")
    return value


def file_name(value: str) -> str:
    """A name without a folder."""
    if not value or "/" in value or not value.isprintable() or value in (".", ".."):
        raise ValueError("must be a file name without '/' and control characters")
    return value


def path_prefix(value: str) -> str:
    """The beginning of a file name, with an absolute folder before it if there is a slash."""
    return str(absolute_path(value)) if "/" in value else file_name(value)


def pools(value: object) -> object:
    """A list, or a comma-separated text, as a tuple; each pool once."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("must be a pool, pool/namespace, or a list of them")
    return tuple(dict.fromkeys(_pool(item) for item in value))


def _pool(item: object) -> Pool:
    if isinstance(item, Pool):
        return item
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not a string: put it in quotes")
    return parse_pool(item)


def rsync_long_args(value: object) -> object:
    """A list, or a comma-separated text, as a tuple."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a string such as 'foo,bar=1'")
    return tuple(_long_arg(item) for item in value if item != "")


def _long_arg(item: object) -> str:
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not a string")
    argument = item.strip(" ")
    if not argument.isprintable():
        raise ValueError(f"{item!r} {_CONTROL}")
    if argument.startswith("-") or not argument:
        raise ValueError(f"{item!r}: give long arguments without the dashes")
    if "'" in argument or '"' in argument:
        raise ValueError(f"{item!r} holds a quote: rsnapshot can't pass it on")
    if argument.partition("=")[0] in _FORBIDDEN_RSYNC:
        raise ValueError(f"--{argument} is refused: it would change older backups or make none")
    return argument


def arguments(value: str) -> str:
    """A line that `shlex.split` can split into arguments."""
    if not value.isprintable():
        raise ValueError(_CONTROL)
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"can't be split into arguments: {error}") from None
    return value


def ssh_arguments(value: str) -> str:
    """`arguments` that rsnapshot can pass on to rsync, and rsync to ssh."""
    for each in shlex.split(arguments(value)):
        if not each or ("'" in each and '"' in each):
            raise ValueError(f"{each!r} is empty or holds both kinds of quotes: rsnapshot can't pass it on")
    return value


def regular_expression(value: str) -> str:
    """One for Python's `re`."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


def interval(value: str) -> str:
    """A name that rsnapshot takes in a retain line."""
    if not re.fullmatch(r"\w+", value, re.ASCII):
        raise ValueError("may hold letters, digits and '_' only (rsnapshot's rule)")
    if value in _RSNAPSHOT_WORDS:
        raise ValueError("is a word that rsnapshot keeps for itself")
    return value


def retain_number(value: int) -> int:
    """How many days are kept."""
    if value < 2:
        raise ValueError("must be 2 or more (rsnapshot's rotation with sync_first fails with 1)")
    return value


def days(value: object) -> object:
    """A number of days, or such as ``30d`` and ``4w``."""
    match = re.fullmatch(r"(\d{1,6})\s*([dw]?)", value.strip()) if isinstance(value, str) else None
    if match:
        return int(match[1]) * (7 if match[2] == "w" else 1)
    if type(value) is not int or not 0 <= value < 10**6:
        raise ValueError("must be a number of days, such as 30 or 30d")
    return value


def seconds(value: int) -> int:
    """A time limit."""
    if value < 1:
        raise ValueError("must be 1 second or more")
    return value
