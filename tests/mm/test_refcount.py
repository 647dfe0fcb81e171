"""refcount: every interleaving of users and of the one who destroys."""

import pytest
from support.locks import Programs, alone, outcomes

from benchframe.dialect import native
from benchframe.mm.locks import refcount

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

refs = refcount("rss")
get_ref, put_ref, get_limited = (
    refs.refcount_inc_not_zero,
    refs.refcount_dec_and_test,
    refs.refcount_inc_not_zero_limited_acquire,
)


@native
def uses(mm):
    """Takes a reference if there still is one, uses the object, gives it back: 2 if it was the last, 1 if not."""
    if not get_ref(mm):
        return 0
    if mm.brk != 7:
        return -1
    if put_ref(mm):
        mm.brk = 0
        return 2
    return 1


@native
def drops(mm):
    """Gives the first reference back; the last one destroys the object."""
    if put_ref(mm):
        mm.brk = 0
        return 2
    return 1


def test_refcount() -> None:
    """Nobody uses a destroyed object, it is destroyed exactly once, and a dead one is not revived."""
    words = {"rss": 1, "brk": 7}
    ends = outcomes(Programs([(uses,), (uses,), (drops,)], words), "rss", "brk")
    assert {(e[0], e[-2], e[-1]) for e in ends} == {("done", 0, 0)}
    assert all(sum(result == 2 for result in e[1:4]) == 1 and -1 not in e for e in ends)
    assert any(e[1] == 0 for e in ends)


@pytest.mark.parametrize(("before", "limit", "result", "after"), [(0, 9, 0, 0), (1, 9, 1, 2), (9, 9, -1, 9)])
def test_refcount_limited(before: int, limit: int, result: int, after: int) -> None:
    """Zero stays zero, the limit is kept, else one more."""
    assert alone(get_limited, limit, rss=before) == (result, {"rss": after})
