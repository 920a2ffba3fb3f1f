"""The name of the snapshot of the day, as date(1) makes it."""

from __future__ import annotations

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import CommandFailed, ConfigError
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands


def snapshot_name(settings: Settings) -> str:
    """What ``date --date=SNAP_DATE +SNAP_NAMING_DATE_FORMAT`` prints; once per run, so that midnight does no harm.

    Raises:
        ConfigError: date(1) doesn't understand SNAP_DATE, or the result can't be the name of a snapshot.
    """
    date = commands.find_tool("date", Node.BACKUP)
    try:
        result = commands.run([date, f"--date={settings.snap_date}", f"+{settings.snap_naming_date_format}"])
    except CommandFailed as error:
        raise ConfigError(path="SNAP_DATE", problems=f'"{settings.snap_date}": {error}') from None
    name = result.stdout.rstrip("\n")
    if not name or not name.isprintable() or "/" in name or "@" in name:
        reason = f'"{settings.snap_naming_date_format}": gives {name!r}, which can\'t be the name of a snapshot'
        raise ConfigError(path="SNAP_NAMING_DATE_FORMAT", problems=reason)
    return name
