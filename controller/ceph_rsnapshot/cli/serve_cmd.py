"""``ceph_rsnapshot serve``."""

from __future__ import annotations

import argparse
import signal
import sys

from ceph_rsnapshot.api import serve
from ceph_rsnapshot.cli.begin import begin
from ceph_rsnapshot_common.console.entry import Interrupted
from ceph_rsnapshot_common.printable import printable


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, which are the way to end it and so no failure."""
    settings = begin(arguments)
    try:
        with serve(settings, arguments.which, socket=arguments.socket, port=arguments.port) as served:
            print(f"{printable(served.backup.name)} ({served.backup.day}) is served read-only at {served.uri}")
            if arguments.port is not None:
                print("EVERY local user can read it there; --socket, in a private folder, is for you alone.")
            for what, command in served.commands:
                print(f"  {what}:\n    {printable(command)}")
            print("Ctrl-C ends it.", flush=True)
            while True:
                signal.pause()
    except Interrupted:
        print("ended", file=sys.stderr)
        return 0
