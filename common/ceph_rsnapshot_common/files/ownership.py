"""Whose a folder or a file is. No link is ever followed: it may lead to what somebody else chose."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from shlex import quote


def not_ours(path: Path) -> str:
    """Why what lies in a folder can't be believed, with what to do; nothing if it is ours (or root's) alone."""
    status, reason = _folder_status(path)
    if status is None:
        return reason
    if status.st_uid not in (0, os.geteuid()):
        return f"{_belongs(status)}: see what is in it, then chown {_name(os.geteuid())} {quote(str(path))}"
    if status.st_mode & 0o022:
        return f"other users can write there: chmod go-w {quote(str(path))} (or 0700), or choose another folder"
    return ""


def not_safe_to_share(path: Path) -> str:
    """Why no folder of ours can be made in a folder for all, as /tmp; nothing if one can."""
    status, reason = _folder_status(path)
    if status is None:
        return reason
    if status.st_uid not in (0, os.geteuid()):
        return f"{_belongs(status)}, who could put another folder in place of ours: choose another one"
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return f"other users can rename what is there: chmod +t {quote(str(path))}, or choose another folder"
    return ""


def is_own_file(path: Path) -> bool:
    """Whether ``path`` itself is a plain file of this user, under this name only.

    Raises:
        OSError: it can't be looked at.
    """
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def is_plain(path: Path, base: Path) -> bool:
    """Whether no part of ``path`` below ``base`` is a link."""
    return path.resolve() == base.resolve() / path.relative_to(base)


def _folder_status(path: Path) -> tuple[os.stat_result | None, str]:
    """The status of a folder that was opened without following a link, or why there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            return None, f"is a link, and links are not followed: name the folder itself ({path.resolve()})"
        return None, str(error.strerror)
    try:
        return os.fstat(descriptor), ""
    finally:
        os.close(descriptor)


def _belongs(status: os.stat_result) -> str:
    return f"belongs to another user ({_name(status.st_uid)})"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
