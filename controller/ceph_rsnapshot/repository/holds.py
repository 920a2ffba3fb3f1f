"""Days that are held: kept beside the rotation in ``<image>/held/<snapshot>/`` until they are released.

No rotation, orphan rule or run touches them. A held day has its own copy of the files where the file system has
reflinks, and else the same files (hard links).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from pydantic import ValidationError

from ceph_rsnapshot.repository.layout import ImageFolder
from ceph_rsnapshot.repository.reflinks import share
from ceph_rsnapshot_common.errors import HoldExists
from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.files.image_files import ImageFiles
from ceph_rsnapshot_common.model import Record

_NOTE = "hold.json"


class Hold(Record):
    """Since when and why a day is held."""

    at: datetime
    reason: str = ""


def make(folder: ImageFolder, day: ImageFiles, snapshot: str, reason: str) -> Path:
    """Hold ``day``; returns the folder in which it is held.

    Raises:
        HoldExists: a day of this snapshot is held already.
        OSError: it could not be copied or linked; nothing is left of the attempt.
    """
    target = folder.held(snapshot)
    if target.folder.exists():
        raise HoldExists(what=target.folder)
    with _made(target) as making:
        for source, copy in ((day.qcow, making.qcow), (day.manifest, making.manifest), (day.digests, making.digests)):
            if source.exists():
                share(source, copy)
        note = Hold(at=datetime.now(timezone.utc), reason=reason)
        folders.write_durably(making.folder / _NOTE, note.model_dump_json() + "\n")
    return target.folder


def read(folder: Path) -> Hold | None:
    """The hold of a folder; None if it is none."""
    try:
        return Hold.model_validate_json((folder / _NOTE).read_bytes())
    except (OSError, ValidationError):
        return None


def release(day: Path, base: Path) -> None:
    """Let a held day go; ``base`` is BACKUP_BASE_PATH, up to which empty folders go."""
    aside = day.with_name(f".{day.name}.released")
    day.rename(aside)
    folders.sync_folder(aside.parent)
    shutil.rmtree(aside)
    folders.remove_empty(aside.parent, base)


@contextmanager
def _made(target: ImageFiles) -> Iterator[ImageFiles]:
    """A hidden folder that gets its name, and lasts, when the block has ended without an error."""
    making = ImageFiles(target.folder.with_name(f".{target.folder.name}.making"), target.stem)
    shutil.rmtree(making.folder, ignore_errors=True)
    making.folder.mkdir(mode=0o700, parents=True)
    try:
        yield making
        for path in making.folder.iterdir():
            folders.sync_file(path)
        folders.sync_folder(making.folder)
        making.folder.rename(target.folder)
        folders.sync_folder(target.folder.parent)
    finally:
        shutil.rmtree(making.folder, ignore_errors=True)
