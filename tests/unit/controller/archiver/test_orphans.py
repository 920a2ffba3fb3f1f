"""Which listings make orphans, and which are not believed."""

from __future__ import annotations

import pytest

from ceph_rsnapshot.archiver.orphans import judge
from ceph_rsnapshot_common.errors import OrphansSuspicious
from ceph_rsnapshot_common.names import Pool

POOL = Pool(pool="rbd")


def _names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.mark.parametrize(("known", "new"), [(10, 0), (10, 1), (10, 5), (2, 2), (3, 2), (6, 3), (1, 1)])
def test_believed(known: int, new: int) -> None:
    judge(POOL, _names(known), _names(new), (), listing_empty=False)


@pytest.mark.parametrize(("known", "new"), [(10, 6), (5, 3), (3, 3), (1000, 501)])
def test_not_believed(known: int, new: int) -> None:
    with pytest.raises(OrphansSuspicious) as caught:
        judge(POOL, _names(known), _names(new), (), listing_empty=False)
    assert (caught.value.data["known"], caught.value.data["new"]) == (str(known), str(new))


@pytest.mark.parametrize(("known", "new"), [(1, 1), (0, 0), (2, 1)])
def test_an_empty_listing_is_never_believed(known: int, new: int) -> None:
    with pytest.raises(OrphansSuspicious):
        judge(POOL, _names(known), _names(new), (), listing_empty=True)


def test_half_of_what_is_left_each_night_is_all() -> None:
    """Three of ten went in the last nights: three more are more than half together, and not one more is none."""
    judge(POOL, _names(10), _names(3), _names(3), listing_empty=False)
    with pytest.raises(OrphansSuspicious):
        judge(POOL, _names(10), _names(6), _names(3), listing_empty=False)
