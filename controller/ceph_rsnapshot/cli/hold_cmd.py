"""``ceph_rsnapshot hold`` and ``release``."""

from __future__ import annotations

import argparse

from ceph_rsnapshot.api import hold, release
from ceph_rsnapshot.cli.begin import begin
from ceph_rsnapshot_common.printable import printable


def run(arguments: argparse.Namespace) -> int:
    """Hold a day, or let it go."""
    settings = begin(arguments)
    if arguments.command == "release":
        gone = release(settings, arguments.which)
        print(f"{printable(gone.name)} is no longer held")
        return 0
    copy = hold(settings, arguments.which, reason=arguments.reason)
    print(f"{printable(copy.name)} is held in {copy.folder} until it is released")
    return 0
