"""Arguments in rsnapshot's configuration."""

from __future__ import annotations

from ceph_rsnapshot.repository.rsnapshot import quoted


def test_quotes() -> None:
    assert quoted(["a", "b c", "d'e", 'f"g h']) == """a "b c" "d'e" 'f"g h'"""
