"""Where a new day of an image goes: on top, in the place of a day of the same night, or nowhere.

It goes by this node's own clock and notes: whatever a ceph node says, a night takes at most one day of an image, and
days only go forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Union

from ceph_rsnapshot.repository.layout import ImageFolder, complete_manifest, readable_manifest
from ceph_rsnapshot_common.config.snapshot_name import Night
from ceph_rsnapshot_common.errors import DateNotForward
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol.manifest import Identity, Manifest


@dataclass(frozen=True)
class OnTop:
    """A rotation makes it day 0."""


@dataclass(frozen=True)
class InPlaceOf:
    """It replaces the day of this number, which is of the same night; nothing is rotated."""

    number: int


@dataclass(frozen=True)
class Kept:
    """The day of this number holds this very snapshot already."""

    number: int


Standing = Union[OnTop, InPlaceOf, Kept]


def standing(folder: ImageFolder, identity: Identity, night: Night, image: str) -> Standing:
    """Where the snapshot ``identity``, called as ``night`` says, goes.

    Raises:
        DateNotForward: newer days are there; says how to catch up.
    """
    if _holds(folder, 0, identity):
        return Kept(0)
    days = {number: manifest for number in folder.numbers() if (manifest := readable_manifest(folder.day(number)))}
    for number, manifest in days.items():
        if manifest.identity == identity and _holds(folder, number, identity):
            return Kept(number)
    same = min((number for number, manifest in days.items() if _is_of(manifest, night)), default=None)
    if same == 0:
        return InPlaceOf(0)
    newest = max(days.values(), key=_at, default=None)
    if same is not None:
        reason = f"{folder.interval}.{same} is of that date already, and newer days lie above it"
    elif newest and (night.date, night.at) < (_day(_at(newest)), _at(newest)):
        there = f"{newest.snapshot}, {_day(_at(newest))}"
        advice = "days only go forward: to catch up, begin with the oldest date that is missing (--snap-date)"
        reason = f"its date ({night.date}) is before that of the newest backup ({there}); {advice}"
    else:
        return OnTop()
    pool = Pool(pool=identity.pool, namespace=identity.namespace)
    raise DateNotForward(pool=pool, image=image, snapshot=night.snapshot, reason=reason)


def _holds(folder: ImageFolder, number: int, identity: Identity) -> bool:
    manifest = complete_manifest(folder.day(number))
    return manifest is not None and manifest.identity == identity


def _is_of(manifest: Manifest, night: Night) -> bool:
    """A name may come again (those of weekdays), and so may a date (with hours in the name)."""
    return manifest.snapshot == night.snapshot and _day(_at(manifest)) == night.date


def _at(manifest: Manifest) -> datetime:
    """The time that it is of; backups of earlier versions have no night."""
    return manifest.night or manifest.snapshot_created


def _day(at: datetime) -> date:
    return at.astimezone().date()
