"""Which listings make orphans, and which are not believed."""

from __future__ import annotations

import pytest

from ceph_rsnapshot.archiver.orphans import judge
from ceph_rsnapshot_common.errors import OrphansSuspicious
from ceph_rsnapshot_common.names import Pool

POOL = Pool(pool="rbd")


@pytest.mark.parametrize(("known", "new"), [(10, 0), (10, 1), (10, 5), (2, 2), (3, 2), (6, 3), (1, 1)])
def test_believed(known: int, new: int) -> None:
    judge(POOL, map(str, range(known)), map(str, range(new)), listing_empty=False)


@pytest.mark.parametrize(("known", "new"), [(10, 6), (5, 3), (3, 3), (1000, 501)])
def test_not_believed(known: int, new: int) -> None:
    with pytest.raises(OrphansSuspicious) as caught:
        judge(POOL, map(str, range(known)), map(str, range(new)), listing_empty=False)
    assert (caught.value.data["known"], caught.value.data["new"]) == (str(known), str(new))


@pytest.mark.parametrize(("known", "new"), [(1, 1), (0, 0), (2, 1)])
def test_an_empty_listing_is_never_believed(known: int, new: int) -> None:
    with pytest.raises(OrphansSuspicious):
        judge(POOL, map(str, range(known)), map(str, range(new)), listing_empty=True)
