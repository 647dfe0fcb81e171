"""A spinlock in one word: 0 free, 1 held (include/linux/spinlock.h). A waiter yields its core: no kernel thread does,
but here threads may outnumber cores."""

from typing import NamedTuple

from benchframe.dialect import cmpxchg_acquire, native, store_release, wait_then_add
from benchframe.dialect.function import Native
from benchframe.dialect.instance import instances


@native
def spin_lock(lock):
    """Wait until nobody holds it, take it. One compare-and-exchange if free."""
    wait_then_add(lock, "locked", -1, 1)
    return 0


@native
def spin_trylock(lock):
    """1 if it was free and is now ours, else 0."""
    return int(cmpxchg_acquire(lock, "locked", 0, 1) == 0)


@native
def spin_unlock(lock):
    """Release it: one store."""
    store_release(lock, "locked", 0)
    return 0


class Spinlock(NamedTuple):
    """The functions of one spinlock; each takes the record that holds its word."""

    spin_lock: Native
    spin_trylock: Native
    spin_unlock: Native


def spinlock(locked: str) -> Spinlock:
    """A spinlock in field ``locked`` of a record.

    >>> spinlock("ptl").spin_lock.__doc__
    'Wait until nobody holds it, take it. One compare-and-exchange if free.'
    """
    return Spinlock(*instances({"locked": locked}, spin_lock, spin_trylock, spin_unlock))
