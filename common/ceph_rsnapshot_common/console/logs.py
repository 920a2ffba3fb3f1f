"""Logging of the commands: to standard error, and to a file where there is one."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

from ceph_rsnapshot_common.errors import PathNotUsable
from ceph_rsnapshot_common.files.folders import make_private
from ceph_rsnapshot_common.printable import printable_lines
from ceph_rsnapshot_common.process import commands

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def set_up(verbose: bool, sh_logging: bool, file: Path | None = None, quiet: bool = False) -> None:
    """Send this program's log to ``file`` and to standard error (there errors only, if ``quiet``).

    Raises:
        PathNotUsable: the log file can't be written.
    """
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_Printable("%(message)s" if quiet else _FORMAT))
    terminal.setLevel(logging.ERROR if quiet and not verbose else logging.NOTSET)
    handlers: list[logging.Handler] = [terminal]
    if file:
        handlers.append(_file_handler(file))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    level = logging.DEBUG if verbose else logging.INFO
    for package in ("ceph_rsnapshot", "ceph_rsnapshot_agent", "ceph_rsnapshot_common"):
        logging.getLogger(package).setLevel(level)
    logging.getLogger(commands.__name__).setLevel(logging.INFO if sh_logging else logging.WARNING)


class _Printable(logging.Formatter):
    """Names and messages of others act neither on the terminal nor on who reads the log."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _file_handler(file: Path) -> logging.Handler:
    make_private(file.parent, "LOG_BASE_PATH")
    try:
        # follows the name, so that logrotate can move the file away
        handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    except OSError as error:
        raise PathNotUsable(key="LOG_BASE_PATH", path=file, reason=error.strerror) from None
    handler.setFormatter(_Printable(_FORMAT))
    return handler
