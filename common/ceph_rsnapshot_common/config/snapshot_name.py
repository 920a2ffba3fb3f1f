"""The night that a run is for: the name of its snapshots and the time that it means, as date(1) makes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timezone

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CommandFailed, ConfigError
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands


@dataclass(frozen=True)
class Night:
    """What SNAP_DATE means on this node; nothing that another node says changes it.

    Attributes:
        snapshot: name of the snapshots to back up.
        at: the time that SNAP_DATE means.
    """

    snapshot: str
    at: datetime

    @property
    def date(self) -> date:
        """Its day, in local time."""
        return self.at.astimezone().date()


def night_of(settings: Settings) -> Night:
    """What ``date --date=SNAP_DATE`` makes of SNAP_NAMING_DATE_FORMAT; asked once a run, so that midnight is harmless.

    Raises:
        ConfigError: date(1) doesn't understand SNAP_DATE, or the result can't be the name of a snapshot.
    """
    argv = [commands.find_tool("date", Node.BACKUP), f"--date={settings.snap_date}"]
    try:
        result = commands.run([*argv, f"+%s {settings.snap_naming_date_format}"])
    except CommandFailed as error:
        raise ConfigError(path="SNAP_DATE", problems=f'"{settings.snap_date}": {error}') from None
    seconds, _, name = result.stdout.rstrip("\n").partition(" ")
    if not name or not name.isprintable() or "/" in name or "@" in name:
        reason = f'"{settings.snap_naming_date_format}": gives {name!r}, which can\'t be the name of a snapshot'
        raise ConfigError(path="SNAP_NAMING_DATE_FORMAT", problems=reason)
    return Night(name, datetime.fromtimestamp(int(seconds), timezone.utc))


def snapshot_name(settings: Settings) -> str:
    """The name alone; raises as `night_of`."""
    return night_of(settings).snapshot
