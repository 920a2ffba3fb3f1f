"""When a run last did all that it was to do, in a file beside the log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from ceph_rsnapshot_common.files import folders
from ceph_rsnapshot_common.model import Record

_NAME = "last_good_run.json"


class LastRun(Record):
    """A run that did all; ``snapshot`` is the name of that night."""

    ended: datetime
    snapshot: str


def note(folder: Path, run: LastRun) -> None:
    """Remember it in ``folder``, LOG_BASE_PATH."""
    folders.write_durably(folder / _NAME, run.model_dump_json() + "\n")


def read(folder: Path) -> LastRun | None:
    """None if there was none, as far as is known."""
    try:
        return LastRun.model_validate_json((folder / _NAME).read_bytes())
    except (OSError, ValidationError):
        return None
