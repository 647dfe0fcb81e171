"""A reference count that stays at zero once it is there (include/linux/refcount.h).

``refcount_inc_not_zero`` is what makes a lookup without a lock safe: who finds an object by a stale pointer learns that
it is dying, if its memory is still there to ask (RCU, or a slab that is type-safe by RCU).

Orderings are those of refcount.h (6.12): increments order nothing, since whoever takes one more reference either has
one already or found the object by a pointer that something else orders. A decrement is a release, and the one that
comes to zero an acquire too, so that what every user did comes before the free. ``_acquire`` and ``_release`` (6.15)
are for objects whose memory may be reused at once: nothing else orders them.
"""

from typing import NamedTuple

from benchframe.dialect import (
    READ_ONCE,
    WRITE_ONCE,
    cmpxchg_acquire,
    cmpxchg_relaxed,
    fetch_add_relaxed,
    fetch_add_release,
    native,
    smp_acquire__after_ctrl_dep,
    store_release,
)
from benchframe.dialect.function import Native
from benchframe.dialect.instance import instances


@native
def refcount_read(object):
    """The count."""
    return READ_ONCE(object, "refs")


@native
def refcount_set(object, count):
    """Set it: nobody else knows the object."""
    WRITE_ONCE(object, "refs", count)
    return 0


@native
def refcount_set_release(object, count):
    """Set it after everything else: who takes a reference sees the object complete (6.15)."""
    store_release(object, "refs", count)
    return 0


@native
def refcount_inc(object):
    """One more; the caller has one already."""
    fetch_add_relaxed(object, "refs", 1)
    return 0


@native
def refcount_add_not_zero(object, count):
    """``count`` more, unless it is zero: the count before."""
    old = READ_ONCE(object, "refs")
    while old != 0:
        seen = cmpxchg_relaxed(object, "refs", old, old + count)
        if seen == old:
            return old
        old = seen
    return 0


@native
def refcount_inc_not_zero(object):
    """One more, unless it is zero: the count before, so 0 means no."""
    return refcount_add_not_zero(object, 1)


@native
def refcount_inc_not_zero_limited_acquire(object, limit):
    """One more, unless it is zero or would exceed ``limit``: the count before; 0 it was zero, -1 the limit
    (__refcount_inc_not_zero_limited_acquire, 6.15)."""
    old = READ_ONCE(object, "refs")
    while old != 0:
        if old + 1 > limit:
            return -1
        seen = cmpxchg_acquire(object, "refs", old, old + 1)
        if seen == old:
            return old
        old = seen
    return 0


@native
def refcount_dec_return(object):
    """One less: the count after. A release."""
    return fetch_add_release(object, "refs", -1) - 1


@native
def refcount_dec_and_test(object):
    """One less: 1 if that was the last."""
    return refcount_sub_and_test(object, 1)


@native
def refcount_sub_and_test(object, count):
    """``count`` less: 1 if nothing is left."""
    if fetch_add_release(object, "refs", -count) == count:
        smp_acquire__after_ctrl_dep()
        return 1
    return 0


class Refcount(NamedTuple):
    """The functions of one count; each takes the record that holds it."""

    refcount_read: Native
    refcount_set: Native
    refcount_set_release: Native
    refcount_inc: Native
    refcount_add_not_zero: Native
    refcount_inc_not_zero: Native
    refcount_inc_not_zero_limited_acquire: Native
    refcount_dec_return: Native
    refcount_dec_and_test: Native
    refcount_sub_and_test: Native


def refcount(refs: str) -> Refcount:
    """A reference count in field ``refs`` of a record.

    >>> refcount("vm_refcnt").refcount_inc_not_zero.__name__
    'refcount_inc_not_zero'
    """
    texts = (
        refcount_read,
        refcount_set,
        refcount_set_release,
        refcount_inc,
        refcount_add_not_zero,
        refcount_inc_not_zero,
        refcount_inc_not_zero_limited_acquire,
        refcount_dec_return,
        refcount_dec_and_test,
        refcount_sub_and_test,
    )
    return Refcount(*instances({"refs": refs}, *texts))
