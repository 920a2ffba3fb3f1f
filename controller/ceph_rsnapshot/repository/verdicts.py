"""What verifications have found, in ``.verified.json`` beside an image's days: days themselves are never changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime

from pydantic import ValidationError

from ceph_rsnapshot.repository.layout import HELD, ImageFolder, readable_manifest
from ceph_rsnapshot_common.files import folders, locks
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.protocol.manifest import Manifest, is_sealed, sealed

NAME = ".verified.json"
_LOCK = ".verified.lock"
_PATIENCE_SECONDS = 30.0


class Verdict(Record):
    """The last verification of one backup.

    Attributes:
        at: when it ended.
        ok: whether the backup was found good.
        against_source: whether it was compared with the snapshot in Ceph too.
        problems: what is wrong, each naming the part that it is about.
    """

    at: datetime
    ok: bool
    against_source: bool = False
    problems: tuple[str, ...] = ()


class _Verdicts(Record):
    verdicts: dict[str, Verdict]


class VerdictsUnreadable(ValueError):
    """There are verdicts, but they can't be relied on: a backup that was found bad might pass for a good one."""


def key(manifest: Manifest, held: bool = False) -> str:
    """What a backup is known by; no two of an image have ended at the same time, but for a day and its held copy."""
    return f"{'held ' if held else ''}{manifest.ended.isoformat()}"


def read(folder: ImageFolder) -> dict[str, Verdict]:
    """The verdicts on an image's backups, by `key`.

    Raises:
        VerdictsUnreadable: the file is damaged, or can't be read.
    """
    path = folder.path / NAME
    try:
        text = path.read_bytes()
        if not is_sealed(text):
            raise VerdictsUnreadable(f"{path}: it was changed since it was written")
        return _Verdicts.model_validate_json(text).verdicts
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise VerdictsUnreadable(f"{path}: {error}") from None


def write(folder: ImageFolder, verdicts: Mapping[str, Verdict]) -> None:
    """Add ``verdicts`` to those that are there; those on backups that have gone are forgotten.

    Raises:
        LockHeld: another verification writes there, and does not end.
        OSError: the file can't be written.
    """
    if not folder.path.is_dir():
        return  # the image's last day has gone meanwhile
    with ExitStack() as stack:
        mark = folder.path / _LOCK
        locks.hold_patiently(stack, lambda: locks.hold(mark, remove=True), _PATIENCE_SECONDS, lambda _: True)
        keys = {key(manifest) for number in folder.numbers() if (manifest := readable_manifest(folder.day(number)))}
        keys |= {key(manifest, held=True) for manifest in _held(folder)}
        kept = {each: verdict for each, verdict in {**_known(folder), **verdicts}.items() if each in keys}
        folders.write_durably(folder.path / NAME, sealed(_Verdicts(verdicts=kept).model_dump_json(indent=2)))


def _held(folder: ImageFolder) -> Iterator[Manifest]:
    for path in (folder.path / HELD).glob("[!.]*"):
        manifest = readable_manifest(ImageFiles(path, folder.path.name))
        if manifest:
            yield manifest


def _known(folder: ImageFolder) -> dict[str, Verdict]:
    """What can't be read is found out anew by the verifications to come."""
    try:
        return read(folder)
    except VerdictsUnreadable:
        return {}


def remove(folder: ImageFolder) -> None:
    """For an image of which no backup is left."""
    for name in (NAME, _LOCK):
        (folder.path / name).unlink(missing_ok=True)
