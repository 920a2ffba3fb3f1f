"""A command to run."""

from __future__ import annotations

import sys


def python(code: str) -> list[str]:
    """The command that runs a piece of Python."""
    return [sys.executable, "-c", code]
