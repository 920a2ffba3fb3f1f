"""What the pools hold: the agent tells names and describes images; which of them count is decided on this node."""

from __future__ import annotations

import re
from collections.abc import Callable

from ceph_rsnapshot.remote.client import AgentClient
from ceph_rsnapshot_common.errors import AgentLied
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.progress import Progress, unwatched
from ceph_rsnapshot_common.protocol import calls
from ceph_rsnapshot_common.protocol.records import DescribeRequest, Listing, ListRequest

Chooser = Callable[[str], object]
"""Whether an image of this name is to be backed up."""


def chooser(image_re: str) -> Chooser:
    """By IMAGE_RE, which no other node evaluates."""
    return re.compile(image_re).match


def list_pool(
    client: AgentClient, pool: Pool, snapshot: str, chooses: Chooser, progress: Progress = unwatched
) -> Listing:
    """All names of the pool, and in detail the images that are chosen.

    Raises:
        PoolNotFound, PoolUnreadable, ClusterUnreachable: the pool's list could not be had.
        AgentLied: what came is not what was asked for.
    """
    named = client.run(calls.LIST, ListRequest(pool=pool), progress)
    images = tuple(filter(chooses, named.names))
    wanted = DescribeRequest(pool=pool, snapshot_name=snapshot, images=images)
    described = client.run(calls.DESCRIBE, wanted, progress)
    if described.fsid != named.fsid:
        raise AgentLied(call=calls.DESCRIBE.name, asked=f"fsid {named.fsid}", came=described.fsid)
    return Listing(**dict(described), names=named.names)
