"""Names and paths: two names never share a path, and none leaves the base, whatever the names are."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from hypothesis import example, given
from hypothesis import strategies as st

from ceph_rsnapshot_common.names import MAX_ENCODED, Pool, decode, encode, image_folder

_special = st.sampled_from(
    ["..", ".", "daily.0", "daily.1", ".sync", "a%2Eb", "%", "/", "../../etc", "x" * 300, "\0", "é"]
)
_names = st.one_of(st.text(min_size=1, max_size=300), _special)
_places = st.tuples(st.builds(Pool, pool=_names, namespace=st.one_of(st.just(""), _names)), _names)


@given(_names)
def test_a_component_is_one_component(name: str) -> None:
    component = encode(name)
    assert component not in ("", ".", "..")
    assert "/" not in component
    assert "\0" not in component
    assert component.isascii()
    assert not component.startswith(".")
    assert len(component) <= MAX_ENCODED
    assert "%-" in component or decode(component) == name


@given(_places, _places)
@example((Pool(pool="a", namespace="b"), "daily.0"), (Pool(pool="a", namespace="b"), "daily%2E0"))
@example((Pool(pool="a", namespace="b"), "c"), (Pool(pool="a"), "b"))
def test_two_images_never_share_a_folder(one: tuple[Pool, str], other: tuple[Pool, str]) -> None:
    assert (image_folder(*one) == image_folder(*other)) == (one == other)


@given(_places)
def test_no_folder_is_outside_the_base(place: tuple[Pool, str]) -> None:
    path = PurePosixPath("/base") / image_folder(*place)
    assert str(path) == os.path.normpath(path)
    assert path.parts[:2] == ("/", "base")
    assert len(path.parts) in (4, 5)
