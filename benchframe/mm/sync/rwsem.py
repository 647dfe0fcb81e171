"""rw_semaphore: many readers or one writer (kernel/locking/rwsem.c, 5.3 on: the count holds readers and flags).

```
  count   63 ..... 33 | 32 writer | 31 .... 20 waiting | 19 ....... 0 readers
  tail, head          tickets of those who wait: first come, first served
```
Nobody in the way: one atomic operation to take, one to give back. Whoever finds a writer inside queues up, and so does
a reader that finds readers inside and *anyone waiting*: writers do not starve, and a task that takes the lock for read
twice deadlocks when a writer came between, as in the kernel. The queue is first come, first served; who is at its head
waits for the count alone, and a reader that got in lets the next one look at once, so readers that follow each other
enter together.

A lock that nobody holds may be taken past the queue (lock stealing): by a reader at once (5.11 on), by a writer while
it spins, before it queues (optimistic spinning, 3.16 on). Without it the lock would go from core to core by turns,
however long that takes: two threads that do nothing but mmap would be tens of times slower than one.

Differences to the kernel's: waiters look at memory (and give their core away) instead of sleeping; a writer spins for
so many looks, not for as long as the owner runs; no handoff bit, by which a waiter of 4 ms ends the stealing: the head
of the queue, which looks all the time, races with those who steal.

``down_read_any`` and ``down_write_any`` say the same without the queue's order, in as few steps as can be: the checker
puts them in the place of the queue in scenarios, and the tests hold both to the same rules.
"""

from typing import NamedTuple

from benchframe.dialect import READ_ONCE, cmpxchg, fetch_add, native, store_release, wait_then_add, wait_until
from benchframe.dialect.function import Native
from benchframe.dialect.instance import instances

READERS = (1 << 20) - 1
"""Mask of the readers inside."""
WAITER = 1 << 20
"""One who waits."""
WRITER = 1 << 32
"""The writer's bit."""
WAITERS = WRITER - WAITER
"""Mask of all who wait."""
IN_THE_WAY = WRITER | WAITERS
"""What sends a reader off the fast path (RWSEM_READ_FAILED_MASK)."""
INSIDE = READERS | WRITER
"""Mask of all who hold the lock (RWSEM_LOCK_MASK)."""
SPINS = 4000
"""Looks of a writer before it queues: a few microseconds, longer than most write sections."""


@native
def down_read(sem):
    """For reading. One atomic add if there is no writer and no queue, or nobody inside."""
    before = fetch_add(sem, "count", 1)
    if before & IN_THE_WAY and before & INSIDE:
        down_read_slow(sem)
    return 0


@native
def down_read_slow(sem):
    """Queue up; at the head only a writer inside is in the way."""
    fetch_add(sem, "count", WAITER - 1)
    ticket = fetch_add(sem, "tail", 1)
    wait_until(sem, "head", -1, ticket)
    wait_then_add(sem, "count", WRITER, 1 - WAITER)
    store_release(sem, "head", ticket + 1)
    return 0


@native
def down_read_any(sem):
    """down_read in one step: wait until there is neither writer nor queue."""
    wait_then_add(sem, "count", IN_THE_WAY, 1)
    return 0


@native
def down_read_trylock(sem):
    """For reading if that needs no waiting: 1, else 0."""
    seen = READ_ONCE(sem, "count")
    while not seen & IN_THE_WAY:
        old = cmpxchg(sem, "count", seen, seen + 1)
        if old == seen:
            return 1
        seen = old
    return 0


@native
def up_read(sem):
    """A reader leaves: one atomic add."""
    fetch_add(sem, "count", -1)
    return 0


@native
def down_write(sem):
    """For writing, alone. One compare-and-exchange if nobody is there."""
    if cmpxchg(sem, "count", 0, WRITER) != 0:
        down_write_slow(sem)
    return 0


@native
def down_write_slow(sem):
    """Spin; then queue up, which keeps new readers out, and at the head wait until all inside have left."""
    if rwsem_optimistic_spin(sem):
        return 0
    fetch_add(sem, "count", WAITER)
    ticket = fetch_add(sem, "tail", 1)
    wait_until(sem, "head", -1, ticket)
    wait_then_add(sem, "count", INSIDE, WRITER - WAITER)
    store_release(sem, "head", ticket + 1)
    return 0


@native
def rwsem_optimistic_spin(sem):
    """1 if the lock came free while a writer looked, and was got; whoever queues for it is passed."""
    looks = 0
    while looks < SPINS:
        if rwsem_try_write_lock_unqueued(sem):
            return 1
        looks += 1
    return 0


@native
def rwsem_try_write_lock_unqueued(sem):
    """1 if nobody was inside and nobody was faster."""
    seen = READ_ONCE(sem, "count")
    if seen & INSIDE:
        return 0
    return int(cmpxchg(sem, "count", seen, seen + WRITER) == seen)


@native
def down_write_any(sem):
    """down_write_slow without an order among those who wait."""
    fetch_add(sem, "count", WAITER)
    wait_then_add(sem, "count", INSIDE, WRITER - WAITER)
    return 0


@native
def down_write_trylock(sem):
    """For writing if nobody is there: 1, else 0."""
    return int(cmpxchg(sem, "count", 0, WRITER) == 0)


@native
def up_write(sem):
    """The writer leaves: one atomic add."""
    fetch_add(sem, "count", -WRITER)
    return 0


@native
def downgrade_write(sem):
    """The writer becomes a reader; nobody writes in between, other readers may join."""
    fetch_add(sem, "count", 1 - WRITER)
    return 0


@native
def rwsem_is_locked(sem):
    """Is anyone inside?"""
    return int((READ_ONCE(sem, "count") & INSIDE) != 0)


class Rwsem(NamedTuple):
    """The functions of one rw_semaphore; each takes the record that holds its words."""

    down_read: Native
    down_read_trylock: Native
    up_read: Native
    down_write: Native
    down_write_trylock: Native
    up_write: Native
    downgrade_write: Native
    rwsem_is_locked: Native


STEPS = {down_read: down_read_any, down_write_slow: down_write_any}
"""What the checker runs instead, once the queue itself has been checked."""
ONE_LOOK = {rwsem_optimistic_spin: rwsem_try_write_lock_unqueued}
"""What checks the queue itself: more looks than one come to the same."""


def rwsem(count: str, tail: str, head: str) -> Rwsem:
    """A rw_semaphore in three fields of a record.

    >>> rwsem("count", "tail", "head").down_read is down_read
    True
    """
    texts = (
        down_read,
        down_read_trylock,
        up_read,
        down_write,
        down_write_trylock,
        up_write,
        downgrade_write,
        rwsem_is_locked,
    )
    return Rwsem(*instances({"count": count, "tail": tail, "head": head}, *texts))
