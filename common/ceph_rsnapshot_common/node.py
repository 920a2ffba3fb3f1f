"""The two nodes."""

from __future__ import annotations

from enum import Enum


class Node(str, Enum):
    """Where a program runs, or an option counts; its text is what messages and the reference say."""

    CEPH = "ceph"
    BACKUP = "backup"

    __str__ = str.__str__  # also in f-strings and templates, which differ from one Python to the next
