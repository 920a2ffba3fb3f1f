"""Locks that name their holder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ceph_rsnapshot_common.errors import (
    LockHeld,
)
from ceph_rsnapshot_common.files import locks


def test_lock_is_exclusive_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.hold(path):
        with pytest.raises(LockHeld, match=str(path)), locks.hold(path):
            pass
        assert locks.holder(path).isdigit()
    with locks.hold(path, remove=True):
        pass
    assert not path.exists()
