"""Manifests: any change is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_common.protocol.manifest import ManifestUnreadable, parse_manifest, sealed
from tests.manifests import MANIFEST


@given(st.data())
def test_any_flipped_bit_of_a_manifest_is_found(data: st.DataObject) -> None:
    text = bytearray(sealed(MANIFEST.model_dump_json(indent=2)).encode())
    assert parse_manifest(bytes(text), Path("m")) == MANIFEST
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ManifestUnreadable):
        parse_manifest(bytes(text), Path("m"))
