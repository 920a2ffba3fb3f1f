"""What a transfer hands on: a file that is ready to become day 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ceph_rsnapshot.archiver.plan import Plan
from ceph_rsnapshot.content.source_check import SourceCheck
from ceph_rsnapshot.remote.client import Pending
from ceph_rsnapshot.repository.rsnapshot import Source
from ceph_rsnapshot_common.content.ranges import Range
from ceph_rsnapshot_common.protocol.manifest import Manifest
from ceph_rsnapshot_common.protocol.records import Closed, ExportName


@dataclass(frozen=True)
class NewDay:
    """A file that is ready to become day 0, and what is needed to examine its content.

    Attributes:
        plan: how it was made, which may not be how it was planned.
        manifest: as it lies beside the file where rsnapshot takes it.
        source: where rsnapshot takes it.
        qcow: the file to examine.
        digests: the file of its digests, which the examination makes (of an unchanged image: which is there).
        written: what was written into it (of an increment), or what the snapshot holds as far as it is known.
        sample: the comparison of a sample that has begun, of an increment.
        closing: the end of the export that it came by: what was copied counts only if that says so.
    """

    plan: Plan
    manifest: Manifest
    source: Source
    qcow: Path
    digests: Path
    written: Iterable[Range] = ()
    sample: SourceCheck | None = None
    closing: Pending[ExportName, Closed] | None = None
