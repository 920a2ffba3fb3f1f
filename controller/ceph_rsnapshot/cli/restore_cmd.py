"""``ceph_rsnapshot restore``."""

from __future__ import annotations

import argparse
import sys

from ceph_rsnapshot.api import restore
from ceph_rsnapshot.cli.begin import begin
from ceph_rsnapshot.cli.output.bars import bar
from ceph_rsnapshot.restorer.result import Restored
from ceph_rsnapshot_common.printable import printable
from ceph_rsnapshot_common.sizes import format_size


def run(arguments: argparse.Namespace) -> int:
    """Restore, and say how to go on."""
    given = vars(arguments)
    settings = begin(arguments)
    with bar(sys.stderr) as show:
        done = restore(
            settings,
            arguments.which,
            to=arguments.to,
            to_file=arguments.to_file,
            file_format=arguments.format,
            data_pool=arguments.data_pool,
            accept_damage=bool(given.get("accept_damage")),
            progress=show,
        )
    if given.get("json"):
        print(done.model_dump_json(indent=2))
    else:
        _print(done)
    return 0


def _print(done: Restored) -> None:
    backup = done.backup
    compared = "" if done.damage else " and compared with the backup"
    print(f"{printable(backup.name)} ({backup.day}) was restored to {printable(done.target)}{compared}:")
    print(f"  {format_size(done.size)}, of which {format_size(done.written)} were written, in {done.seconds:.1f} s")
    for damage in done.damage:
        print(f"DAMAGED: {printable(damage)}")
    if done.image_id and not done.next_steps:
        print("It has the name and place of the original, and no snapshots.")
    if done.next_steps:
        print("To put it into the place of the original, when nothing uses that any more:")
        for step in done.next_steps:
            print(f"  {printable(step)}")
