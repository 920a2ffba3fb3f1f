"""How far long work is, in one shape: backups, verifications, restores and the agent's jobs all tell it so."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Watches the work on one thing."""

    def __call__(self, stage: str, done: int = 0, total: int = 0, /) -> None:
        """``done`` of ``total`` bytes (of a listing: images) of this stage; both 0 if the stage has no measure."""


class ProgressByName(Protocol):
    """Watches the work on one thing after another; `named` makes a `Progress` of it."""

    def __call__(self, name: str, stage: str, done: int, total: int, /) -> None:
        """As `Progress`, with the name of the thing."""


def named(progress: ProgressByName, name: str) -> Progress:
    """The `Progress` of the thing called ``name``."""
    return lambda stage, done=0, total=0: progress(name, stage, done, total)


def unwatched(*_: object) -> None:
    """A `Progress` or `ProgressByName` for work that nobody watches."""
