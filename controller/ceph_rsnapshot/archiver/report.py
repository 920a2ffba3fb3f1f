"""What a run did: typed, immutable, and the same for the table, the JSON document and the Python API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Literal, Optional

from pydantic import computed_field

from ceph_rsnapshot_common.errors import CephRsnapshotError, ErrorRecord, NothingToBackUp, from_record
from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.protocol.records import Listing

ImageResult = Literal["done", "skipped", "no-snapshot", "failed", "not-reached", "would-back-up"]
OrphanResult = Literal["rotated", "removed", "already-rotated", "kept", "failed", "would-rotate"]


class ImageReport(Record):
    """One image; amounts in bytes, ``seconds`` of the whole work on it.

    Attributes:
        result: ``done``; ``skipped`` (a day is this very snapshot already); ``no-snapshot`` (its backups stay);
            ``failed``; ``not-reached`` (the agent was lost before its turn); ``would-back-up`` (noop).
        size: of the image.
        kind: ``full``, ``increment`` (of ``base``) or ``unchanged`` (since ``base``).
        full_because: why it is a full one.
        changed: what was written, with what became zero; not known of staged backups.
        transferred: what crossed between the nodes.
        next_base: the snapshot that the next increment needs: it must be kept until then.
        verified: what was compared with the snapshot: ``changed`` (and a sample), ``full`` or ``none``.
        mismatch: a first attempt was thrown away because it differed from the snapshot: how.
        replaced: the day of the same night that it has replaced; then nothing was rotated.
        too_young: how many days beyond RETAIN_NUMBER are kept because of RETAIN_MIN_AGE.
    """

    pool: str
    image: str
    snapshot: str
    result: ImageResult
    size: int = 0
    transfer_mode: Optional[Literal["staged", "direct"]] = None
    kind: Optional[Literal["full", "increment", "unchanged"]] = None
    full_because: Optional[str] = None
    base: Optional[str] = None
    next_base: Optional[str] = None
    changed: Optional[int] = None
    transferred: int = 0
    verified: Optional[Literal["none", "changed", "full"]] = None
    mismatch: Optional[str] = None
    replaced: Optional[str] = None
    too_young: int = 0
    seconds: float = 0
    path: Optional[str] = None
    newest_snapshot: Optional[str] = None
    error: Optional[ErrorRecord] = None


class OrphanReport(Record):
    """A deleted image that has backups. ``result``: ``rotated``; ``removed`` (nothing was left of it);
    ``already-rotated`` (for this night); ``kept`` (as asked, or by ORPHAN_KEEP); ``failed``; ``would-rotate`` (noop).
    ``gone_on``: the date on which nothing will be left of it.
    """

    pool: str
    image: str
    result: OrphanResult
    gone_on: Optional[date] = None
    error: Optional[ErrorRecord] = None


class RunReport(Record):
    """A run. ``errors`` are those of pools and of the run itself; images and orphans have their own."""

    snapshot: str
    host: str
    started: datetime
    ended: datetime
    noop: bool = False
    images: tuple[ImageReport, ...] = ()
    orphans: tuple[OrphanReport, ...] = ()
    vanished: tuple[str, ...] = ()
    errors: tuple[ErrorRecord, ...] = ()
    conf_folder: Optional[str] = None

    def count(self, result: ImageResult) -> int:
        """How many images have this result."""
        return sum(image.result == result for image in self.images)

    @property
    def ok(self) -> bool:
        """Whether all was done."""
        return self.exit_code == 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 all done; 2, 3 or 4 if such an error ended the run; 1 if anything else failed."""
        failed = (
            self.count("failed") or self.count("not-reached") or any(each.result == "failed" for each in self.orphans)
        )
        return max([from_record(record).exit_code for record in self.errors], default=1 if failed else 0)


def report_of_error(host: str, error: CephRsnapshotError) -> RunReport:
    """The report of a run that ended before it could do anything."""
    now = datetime.now(timezone.utc)
    return RunReport(snapshot="", host=host, started=now, ended=now, errors=(error.record(),))


def nothing_to_back_up(
    images: Sequence[ImageReport], listings: Sequence[Listing], snapshot: str, image_re: str
) -> ErrorRecord | None:
    """The error of a run that found no snapshot at all, or None: a silent empty night is a lost one."""
    if any(image.result != "no-snapshot" for image in images):
        return None
    if not images:
        listed = sum(len(listing.names) for listing in listings)
        reason = f"no image matches {image_re} (the pools hold {listed})" if listed else "the pools hold no images"
        return NothingToBackUp(reason=f"nothing to back up: {reason}").record()
    found = [image.newest for listing in listings for image in listing.images if image.newest]
    # times are whole seconds; ids count up
    newest = max(found, key=lambda each: (each.created, each.id), default=None)
    hint = f"the newest that exists is {newest.name}" if newest else "they have no snapshots at all"
    reason = f"nothing to back up: not one of {len(images)} images has a snapshot {snapshot}; {hint}"
    return NothingToBackUp(reason=reason).record()


def error_record(error: Exception) -> ErrorRecord:
    """The record of any error that ended the work on one image."""
    if isinstance(error, CephRsnapshotError):
        return error.record()
    return ErrorRecord(code=type(error).__name__, message=f"{type(error).__name__}: {error}")
