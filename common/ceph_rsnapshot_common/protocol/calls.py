"""The calls that an agent answers, in one table for both ends: the name on the wire, what it takes and what it gives.

Records cross as JSON text; jobs are named by a short text. To add a call: a line here, a line in the agent's
`rpc.service`, and a check of the answer in the controller's `remote.answers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from ceph_rsnapshot_common.model import Record
from ceph_rsnapshot_common.protocol.records import (
    BlockDigests,
    BlockRequest,
    CheckRequest,
    Checks,
    Closed,
    Described,
    DescribeRequest,
    DigestRequest,
    Digests,
    Exported,
    ExportName,
    ExportRequest,
    Extents,
    Hello,
    ImageName,
    JobStatus,
    LandedRequest,
    ListRequest,
    Names,
    Nothing,
    Opened,
    RestoreOpened,
    RestoreRequest,
    SnapshotRequest,
)

Takes = TypeVar("Takes")
Gives = TypeVar("Gives")
_Request = TypeVar("_Request", bound=Record)
_Result = TypeVar("_Result", bound=Record)


@dataclass(frozen=True)
class Call(Generic[Takes, Gives]):
    """A call that is answered at once."""

    name: str
    takes: type[Takes]
    gives: type[Gives]


@dataclass(frozen=True)
class Job(Generic[_Request, _Result]):
    """Long work: the call gives the name of a job, which is polled; a job that is done has a ``gives``."""

    name: str
    takes: type[_Request]
    gives: type[_Result]


HELLO = Call("hello", Nothing, Hello)
RENEW = Call("renew", ExportName, Nothing)
LANDED = Call("landed", LandedRequest, Nothing)
REMOVE_QCOW = Call("remove_qcow", ImageName, bool)

POLL = Call("poll", str, JobStatus)
RESULT = Call("result", str, Record)
CANCEL = Call("cancel", str, Nothing)

LIST = Job("start_list", ListRequest, Names)
DESCRIBE = Job("start_describe", DescribeRequest, Described)
EXPORT = Job("start_export", ExportRequest, Exported)
OPEN = Job("start_open", ExportRequest, Opened)
CLOSE = Job("start_close", ExportName, Closed)
EXTENTS = Job("start_extents", SnapshotRequest, Extents)
DIGESTS = Job("start_digests", DigestRequest, Digests)
CHECK = Job("start_check", CheckRequest, Checks)

# refused unless ALLOW_RESTORE is set, and then for images that this connection has made
RESTORE = Job("start_restore", RestoreRequest, RestoreOpened)
WRITTEN = Job("start_written", ExportName, Closed)
BLOCK_DIGESTS = Job("start_block_digests", BlockRequest, BlockDigests)
FINISH = Job("start_finish", ExportName, Nothing)
ABORT = Job("start_abort", ExportName, Nothing)
