"""A run: list the pools, back up each image, rotate the orphans, and say what was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from ceph_rsnapshot import run_folder
from ceph_rsnapshot.archiver import orphans
from ceph_rsnapshot.archiver.context import Context, RunOptions
from ceph_rsnapshot.archiver.image import backup_image, initial_report
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.report import ImageReport, OrphanReport, OrphanResult, RunReport, nothing_to_back_up
from ceph_rsnapshot.archiver.task import identity
from ceph_rsnapshot.remote.client import AgentClient
from ceph_rsnapshot.remote.connection import AgentConnection
from ceph_rsnapshot.remote.listing import chooser, list_pool
from ceph_rsnapshot.repository import last_run
from ceph_rsnapshot.repository.last_run import LastRun
from ceph_rsnapshot.repository.layout import ImageFolder, folder_of
from ceph_rsnapshot.repository.nights import Kept, standing
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.config.snapshot_name import Night
from ceph_rsnapshot_common.errors import (
    AgentLied,
    AgentUnreachable,
    CephRsnapshotError,
    ClusterUnreachable,
    DateNotForward,
    ErrorRecord,
    OrphansSuspicious,
    PoolNotFound,
    PoolUnreadable,
)
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.records import Image, Listing


@dataclass
class _Findings:
    """What a run has found out so far."""

    started: datetime
    listings: list[Listing] = field(default_factory=list)
    known: dict[Pool, orphans.Known] = field(default_factory=dict)
    images: list[ImageReport] = field(default_factory=list)
    orphans: list[OrphanReport] = field(default_factory=list)
    errors: list[ErrorRecord] = field(default_factory=list)

    def report(self, settings: Settings, snapshot: str, conf_folder: str | None) -> RunReport:
        return RunReport(
            snapshot=snapshot,
            host=settings.ceph_host,
            started=self.started,
            ended=datetime.now(timezone.utc),
            noop=settings.noop,
            images=tuple(self.images),
            orphans=tuple(self.orphans),
            vanished=tuple(f"{listing.pool}/{name}" for listing in self.listings for name in listing.vanished),
            errors=tuple(self.errors),
            conf_folder=conf_folder,
        )


def run(context: Context, started: datetime, observer: Observer) -> RunReport:
    """Back up all that the settings of ``context`` name; see `ceph_rsnapshot.backup`."""
    settings, findings = context.settings, _Findings(started)
    snapshot = context.night.snapshot
    _list_pools(settings, snapshot, context.agent.client(), findings, observer)
    _back_up_images(context, findings, observer)
    found_something = _expect_something(settings, snapshot, findings)
    for listing in findings.listings:
        _rotate_orphans(context, listing, findings, found_something)
    report = findings.report(settings, snapshot, str(context.conf_folder) if settings.keeps_conf else None)
    if report.ok:
        last_run.note(settings.log_base_path, LastRun(ended=report.ended, snapshot=snapshot))
    return report


def look_only(
    settings: Settings, options: RunOptions, night: Night, started: datetime, observer: Observer
) -> RunReport:
    """NOOP: list, and say what would be done; nothing is made, locked or changed."""
    findings, snapshot = _Findings(started), night.snapshot
    with run_folder.made() as folder, AgentConnection(settings, folder) as agent:
        _list_pools(settings, snapshot, agent.client(), findings, observer)
    for listing, image in _every_image(findings):
        findings.images.append(_would_do(settings, options, night, listing, image))
    _expect_something(settings, snapshot, findings)
    for listing in findings.listings:
        result: OrphanResult = "kept" if settings.no_rotate_orphans else "would-rotate"
        found = _orphans(settings, listing, night, findings, options.rotate_many_orphans)
        findings.orphans += orphans.reports(settings, listing, found, night, result)
    return findings.report(settings, snapshot, None)


def _would_do(settings: Settings, options: RunOptions, night: Night, listing: Listing, image: Image) -> ImageReport:
    report, folder = initial_report(listing, image), folder_of(settings, listing.pool, image.name)
    if image.snapshot is None or not folder.path.is_dir():
        return report
    try:
        place = standing(folder, identity(listing, image, image.snapshot), night, image.name)
    except DateNotForward as error:
        return report.model_copy(update={"result": "failed", "error": error.record()})
    kept = isinstance(place, Kept) and not options.force
    return report.model_copy(update={"result": "skipped"}) if kept else report


def _list_pools(
    settings: Settings, snapshot: str, client: AgentClient, findings: _Findings, observer: Observer
) -> None:
    """List every pool; one that can't be listed, or not be believed, is an error of that pool, and the others go on."""
    chooses = chooser(settings.image_re)
    for pool in settings.pool:
        try:
            listing = list_pool(client, pool, snapshot, chooses, partial(_show_listing, observer, pool))
        except (PoolNotFound, PoolUnreadable, AgentLied) as error:
            findings.errors.append(error.record())
        else:
            findings.listings.append(listing)
            findings.known[pool] = orphans.known_before(settings, pool)
    try:
        _agree(settings, findings.listings)
    except AgentLied as error:
        findings.errors.append(error.record())
        findings.listings.clear()


def _agree(settings: Settings, listings: list[Listing]) -> None:
    """See that all listings are of one cluster, and that no two images share a folder. Raises: AgentLied."""
    for listing in listings[1:]:
        if listing.fsid != listings[0].fsid:
            raise AgentLied(call=calls.LIST.name, asked=f"fsid {listings[0].fsid} of all pools", came=listing.fsid)
    folders: dict[Path, str] = {}
    for listing in listings:
        for image in listing.images:
            name, folder = f"{listing.pool}/{image.name}", folder_of(settings, listing.pool, image.name).path
            if folder in folders:
                came = f"{name}, whose folder is that of {folders[folder]}"
                raise AgentLied(call=calls.LIST.name, asked="images of one folder each", came=came)
            folders[folder] = name


def _show_listing(observer: Observer, pool: Pool, _stage: str, done: int = 0, total: int = 0) -> None:
    observer.listing(pool, done, total)


def _every_image(findings: _Findings) -> list[tuple[Listing, Image]]:
    return [(listing, image) for listing in findings.listings for image in listing.images]


def _back_up_images(context: Context, findings: _Findings, observer: Observer) -> None:
    every = _every_image(findings)
    observer.run_begins(sum(image.snapshot is not None for _, image in every))
    lost = False
    for listing, image in every:
        if lost:
            findings.images.append(initial_report(listing, image).model_copy(update={"result": "not-reached"}))
            continue
        report = backup_image(context, listing, image, observer)
        findings.images.append(report)
        lost = report.error is not None and _is_lost(context, report.error, findings)


def _is_lost(context: Context, error: ErrorRecord, findings: _Findings) -> bool:
    """Whether the run is over: Ceph is away, or the agent; one that was restarted takes the next image."""
    if error.code == ClusterUnreachable.code:
        findings.errors.append(error)
        return True
    if error.code == AgentUnreachable.code:
        try:
            context.agent.client()
        except CephRsnapshotError as still:
            findings.errors.append(still.record())
            return True
    return False


def _expect_something(settings: Settings, snapshot: str, findings: _Findings) -> bool:
    """Whether there was anything to back up; it is an error if not."""
    nothing = nothing_to_back_up(findings.images, findings.listings, snapshot, settings.image_re)
    if nothing and findings.listings:
        findings.errors.append(nothing)
    return nothing is None


def _rotate_orphans(context: Context, listing: Listing, findings: _Findings, found_something: bool) -> None:
    settings, night, accept_many = context.settings, context.night, context.options.rotate_many_orphans
    found = _orphans(settings, listing, night, findings, accept_many)
    # a night on which nothing has the snapshot (a wrong date, say) is no night that orphans should lose a day for
    if settings.no_rotate_orphans or not (found_something or accept_many):
        findings.orphans += orphans.reports(settings, listing, found, night, "kept")
    else:
        findings.orphans += orphans.rotate_all(context, listing, found)


def _orphans(
    settings: Settings, listing: Listing, night: Night, findings: _Findings, accept_many: bool
) -> dict[str, ImageFolder]:
    known = findings.known[listing.pool]
    try:
        return orphans.find(settings, listing, known, night, accept_many or settings.no_rotate_orphans)
    except OrphansSuspicious as error:
        findings.errors.append(error.record())
        return {}
