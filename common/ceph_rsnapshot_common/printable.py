"""Text of others (names, messages) as a person may see it: nothing of it acts on the terminal, or looks like a line of
ours.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line, with all that is not printable escaped: ``\\x1b``, ``\\u202e``.

    That is control characters (C0, C1, DEL), those that change the direction of writing, other invisible ones, and
    halves of surrogate pairs. JSON is exact without it, and must not be passed through here.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def printable_lines(text: str) -> str:
    """As `printable`, but line breaks stay, and what follows one is indented: no line of it begins as one of ours."""
    return "\n    ".join(map(printable, text.split("\n")))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
