"""Plain tables that fit a terminal: rich needs milliseconds for each row, and a table may have 14,000."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len, set_cell_size

_CODES = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33"}


@dataclass(frozen=True)
class Column:
    """``drop``: in a narrow terminal, columns with the highest number are left out first; 0 always stays."""

    name: str
    right: bool = False
    drop: int = 0


@dataclass(frozen=True)
class Paint:
    """Colours, or none."""

    colours: bool

    def __call__(self, text: str, style: str) -> str:
        return f"\033[{_CODES[style]}m{text}\033[0m" if self.colours and style else text


def paint(stream: TextIO) -> Paint:
    """Colours on a terminal only, and not with NO_COLOR (https://no-color.org)."""
    return Paint(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def width(stream: TextIO) -> int | None:
    """Columns of the terminal; None if ``stream`` is not one: nothing is cut then."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def marks(stream: TextIO) -> bool:
    """Whether ``stream`` can show more than ASCII."""
    return "utf" in (stream.encoding or "").lower()


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], limit: int | None, indent: int = 0
) -> Iterator[list[str]]:
    """The header and the rows as padded cells, of which those that don't fit into ``limit`` columns are left out.

    The caller joins them (with two spaces, or what `gap` says) and may paint single cells.
    """
    sizes = [max([cell_len(column.name), *(cell_len(row[at]) for row in rows)]) for at, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while limit is not None and indent + sum(sizes[at] + 1 for at in shown) - 1 > limit:
        droppable = [at for at in shown if columns[at].drop]
        if not droppable:
            break
        shown.remove(max(droppable, key=lambda at: columns[at].drop))
    if limit is not None and shown:
        others = sum(sizes[at] + 1 for at in shown[1:])
        sizes[shown[0]] = min(sizes[shown[0]], max(8, limit - indent - others))
    for row in [[column.name for column in columns], *rows]:
        yield [_cell(row[at], sizes[at], columns[at].right) for at in shown]


def gap(cells: Sequence[str], limit: int | None, indent: int = 0) -> str:
    """Two spaces between columns, or one where two don't fit."""
    needed = indent + sum(map(cell_len, cells)) + 2 * (len(cells) - 1)
    return "  " if limit is None or needed <= limit else " "


def wrapped(text: str, limit: int | None) -> list[str]:
    """``text`` in lines of at most ``limit`` columns."""
    return textwrap.wrap(text, limit) if limit else [text]


def fitted(text: str, size: int) -> str:
    """``text`` in ``size`` columns; a cut is marked."""
    if cell_len(text) <= size:
        return text
    return set_cell_size(text, size - 1) + ("…" if marks(sys.stdout) else "~")


def _cell(text: str, size: int, right: bool) -> str:
    cut = fitted(text, size)
    padding = " " * (size - cell_len(cut))
    return padding + cut if right else cut + padding
