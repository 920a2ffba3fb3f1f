"""The list of backups is right also while days move."""

from __future__ import annotations

import contextlib
import itertools
import threading

import ceph_rsnapshot
from ceph_rsnapshot.repository.catalog import Backup
from ceph_rsnapshot_common.errors import PathNotUsable
from tests.cluster.site import Site


def test_what_is_listed_while_days_move_is_always_of_one_day(backed_up: Site) -> None:
    """They move upwards only, as rsnapshot moves them."""
    root, ended = backed_up.root("a"), threading.Event()
    listed: list[Backup] = []

    def move() -> None:
        for number in itertools.count():
            if ended.wait(0.002):
                return
            (root / f"daily.{number}").rename(root / f"daily.{number + 1}")

    settings = ceph_rsnapshot.load_settings(backed_up.config_path)
    moving = threading.Thread(target=move)
    moving.start()
    try:
        for _ in range(150):
            with contextlib.suppress(PathNotUsable):  # on a slow machine: they kept changing, which is true
                listed += ceph_rsnapshot.list_backups(settings)
    finally:
        ended.set()
        moving.join()
    assert listed
    assert [each.problem for each in listed if each.problem] == []
