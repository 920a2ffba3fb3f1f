"""What a check of both nodes found."""

from __future__ import annotations

from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.protocol.records import CheckItem


class CheckReport(Record):
    """The list of what was looked at, in the order in which a backup needs it."""

    items: tuple[CheckItem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return all(item.ok for item in self.items)
