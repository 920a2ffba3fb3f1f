"""Landlock: this process, and what it becomes, gives up every file but a few. https://docs.kernel.org/userspace-api/landlock.html"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import Union

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVS = 38
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
# all that each version of the kernel's interface knows to refuse
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}

Place = Union[int, str]


def confine(readable: Sequence[Place], executable: Sequence[Place]) -> bool:
    """From now on only these can be read or run, with what is below them, and nothing can be written or made.

    Files that are open stay so. Tells whether it is so: a kernel before 5.13, or without Landlock, changes nothing.

    Args:
        readable: open folders, or paths; what does not exist is left out.
        executable: may be read too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    attributes = struct.pack("=Q", _KNOWN[min(version, max(_KNOWN))])
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    _allow(libc, rules, executable, _EXECUTE | _READ_FILE | _READ_DIR)
    _allow(libc, rules, readable, _READ_FILE | _READ_DIR)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    confined: int = libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)
    return confined == 0


def _allow(libc: ctypes.CDLL, rules: int, places: Iterable[Place], access: int) -> None:
    for place in places:
        try:
            descriptor = os.open(place, os.O_PATH) if isinstance(place, str) else os.dup(place)
        except FileNotFoundError:
            continue
        of_files = access if stat.S_ISDIR(os.fstat(descriptor).st_mode) else access & ~_READ_DIR
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", of_files, descriptor), 0)
        os.close(descriptor)
