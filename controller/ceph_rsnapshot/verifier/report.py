"""What a verification found."""

from __future__ import annotations

from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot_common.model import Record


class Verified(Record):
    """The verification of one backup.

    Attributes:
        problems: what is wrong; each begins with the part that it is about: ``manifest``, ``qcow2``, ``header``,
            ``digests``, ``content`` or ``source``. Empty: it is good, as far as could be checked.
        notes: what could not be checked or noted, and why.
        undecided: it should have been compared with the snapshot, and that was not possible.
        gone: it has rolled off before it could be verified.
        against_source: whether it was compared with the snapshot in Ceph.
    """

    backup: Backup
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    against_source: bool = False
    undecided: bool = False
    gone: bool = False
    seconds: float = 0

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


class VerifyReport(Record):
    """The verification of several backups, in the order in which they were verified."""

    backups: tuple[Verified, ...]

    @property
    def ok(self) -> bool:
        """Whether all are good, as far as that was asked for."""
        return all(each.ok and not each.undecided for each in self.backups)
