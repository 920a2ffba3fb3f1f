"""Names become paths, and two names never the same one."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceph_rsnapshot_common.names import (
    MAX_ENCODED,
    Pool,
    decode,
    did_you_mean,
    encode,
    image_folder,
    parse_image,
    parse_pool,
)

PLAIN = set(string.ascii_letters + string.digits + "._-")
names = st.text(st.characters(blacklist_characters="/@\0", blacklist_categories=["Cs"]), min_size=1, max_size=96)


@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_two_names_never_share_a_component(two: list[str]) -> None:
    assert encode(two[0]) != encode(two[1])


@given(names)
def test_a_component_is_plain_and_tells_its_name(name: str) -> None:
    component = encode(name)
    assert set(component) <= PLAIN | {"%"}
    assert len(component) <= MAX_ENCODED
    assert not component.startswith(".")
    assert not component.endswith("..")
    if "%-" not in component:
        assert decode(component) == name


@pytest.mark.parametrize("name", ["vm-1", "disk.0", "a_b", "UPPER", "-dash", "a.", "daily.0"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert encode(name) == name


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("é", "%C3%A9"),
        ("a~", "a%7E"),
        ("..", "%2E."),
        ("a..", "a.%2E"),
        (".sync", "%2Esync"),
    ],
)
def test_other_names_are_percent_encoded(name: str, component: str) -> None:
    assert encode(name) == component


def test_long_names_are_cut_and_stay_different() -> None:
    one, other = "日" * 96, "日" * 95 + "月"
    assert encode(one) != encode(other)
    assert len(encode(one)) <= MAX_ENCODED
    assert decode(encode(one)) == encode(one)


image_names = st.one_of(names, st.sampled_from(["daily.0", "daily.1", "ns", "a", ".sync", "daily%2E0", "_delete.12"]))
pools = st.builds(Pool, pool=st.sampled_from(["p", "q"]), namespace=st.sampled_from(["", "ns", "a"]))


@given(st.lists(st.tuples(pools, image_names), min_size=2, max_size=2, unique=True))
def test_two_images_never_share_a_folder(two: list[tuple[Pool, str]]) -> None:
    assert image_folder(*two[0]) != image_folder(*two[1])


def test_an_image_of_a_namespace_is_never_a_rotation_folder_of_its_namesake() -> None:
    inner = Pool(pool="p", namespace="ns")
    image = image_folder(Pool(pool="p"), "ns")
    for name in ("daily.0", "weekly.13", "_delete.12", ".sync", ".rotating"):
        assert image_folder(inner, name) not in [image / name]


def test_pools() -> None:
    assert parse_pool("rbd") == Pool(pool="rbd")
    assert str(parse_pool(" rbd/tenant ")) == "rbd/tenant"
    for text in ("", "/", "a/", "/b", "a/b/c", "a@b", "a\nb"):
        with pytest.raises(ValueError, match=".+"):
            parse_pool(text)


def test_images_are_written_with_and_without_pool_and_snapshot() -> None:
    inner = Pool(pool="rbd", namespace="tenant")
    assert parse_image("vm-1") == (None, "vm-1", "")
    assert parse_image("rbd/vm 1@2016-10-04") == (Pool(pool="rbd"), "vm 1", "2016-10-04")
    assert parse_image("rbd/tenant/vm@a@b") == (inner, "vm", "a@b")
    assert [parse_image(text)[1] for text in ("", "rbd/", "@day")] == ["", "", ""]
    with pytest.raises(ValueError, match="not a pool"):
        parse_image("a/b/c/vm")


def test_near_names_are_suggested_once_each() -> None:
    assert did_you_mean("vm-1", ["vm-12", "vm-12", "web"]) == "; did you mean vm-12?"
    assert did_you_mean("vm-1", ["web"]) == ""
