"""The kernel's locks and counters: spinlock, rwsem, seqcount, refcount, wait queue, mmap_lock."""

from typing import NamedTuple

from benchframe.dialect.functions import Native, instances, native
from benchframe.dialect.primitives import (
    READ_ONCE,
    WRITE_ONCE,
    cmpxchg_acquire,
    cmpxchg_relaxed,
    fetch_add,
    fetch_add_acquire,
    fetch_add_relaxed,
    fetch_add_release,
    load_acquire,
    smp_acquire__after_ctrl_dep,
    smp_mb,
    smp_rmb,
    smp_wmb,
    store_release,
    wait_then_add,
    wait_until,
    wait_while,
    wait_while_interruptible,
)

# ----------------------------------------------------------------------------------------------------------------------
# The begin and end of a wait for a VMA's lock (include/linux/lockdep.h: lock_contended, lock_acquired).
#
# A protocol calls them around a wait, after it has found that it must wait: nothing in runs of one thread, which never
# wait, and in checks; a build for threads adds up how often and how long (:mod:`benchframe.mm.smp`).


@native
def lock_contended(mm):
    """A VMA's lock is contended. Returns the value to pass to :func:`lock_acquired`."""
    return 0


@native
def lock_acquired(mm, since):
    """The wait that began at ``since`` is over."""
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# A spinlock in one word: 0 free, 1 held (include/linux/spinlock.h). A waiter yields its core: no kernel thread does,
# but here threads may outnumber cores.


@native
def spin_lock(lock):
    """Wait until it is free, then take it. One compare-and-exchange if it is free."""
    wait_then_add(lock, "locked", -1, 1)
    return 0


@native
def spin_trylock(lock):
    """Take it without waiting: 1 if it was free, else 0."""
    return int(cmpxchg_acquire(lock, "locked", 0, 1) == 0)


@native
def spin_unlock(lock):
    """Release it: one store."""
    store_release(lock, "locked", 0)
    return 0


class Spinlock(NamedTuple):
    """The functions of one spinlock; each takes the record that contains it."""

    spin_lock: Native
    spin_trylock: Native
    spin_unlock: Native


def spinlock(locked: str) -> Spinlock:
    """A spinlock in field ``locked`` of a record.

    >>> spinlock("ptl").spin_lock.__doc__
    'Wait until it is free, then take it. One compare-and-exchange if it is free.'
    """
    return Spinlock(*instances({"locked": locked}, spin_lock, spin_trylock, spin_unlock))


# ----------------------------------------------------------------------------------------------------------------------
# A sequence count: odd during a write (include/linux/seqlock.h). Readers write nothing and may have to retry.
#
# Orderings are the kernel's: the writer has an smp_wmb behind the odd number and one before the even
# (raw_write_seqcount_ begin and _end), the reader an acquire (6.13; smp_rmb before) and an smp_rmb before it looks
# again.
#
# The writer is alone, by a lock of its own. A reader copies what it needs between begin and retry and believes it
# only if the number is still the same.


@native
def raw_read_seqcount(seq):
    """The number as it is, possibly odd: for readers that rather give up than wait."""
    return load_acquire(seq, "sequence")


@native
def read_seqcount_begin(seq):
    """An even number; waits during a write."""
    seen = load_acquire(seq, "sequence")
    while seen & 1:
        wait_until(seq, "sequence", 1, 0)
        seen = load_acquire(seq, "sequence")
    return seen


@native
def read_seqcount_retry(seq, start):
    """1 if the data read since ``start`` must not be used."""
    smp_rmb()
    return int(READ_ONCE(seq, "sequence") != start)


@native
def write_seqcount_begin(seq):
    """Make the number odd, before changing anything."""
    WRITE_ONCE(seq, "sequence", READ_ONCE(seq, "sequence") + 1)
    smp_wmb()
    return 0


@native
def write_seqcount_end(seq):
    """Make the number even, after changing everything."""
    smp_wmb()
    WRITE_ONCE(seq, "sequence", READ_ONCE(seq, "sequence") + 1)
    return 0


class Seqcount(NamedTuple):
    """The functions of one sequence count; each takes the record that contains it."""

    raw_read_seqcount: Native
    read_seqcount_begin: Native
    read_seqcount_retry: Native
    write_seqcount_begin: Native
    write_seqcount_end: Native


def seqcount(sequence: str) -> Seqcount:
    """A sequence count in field ``sequence`` of a record.

    >>> seqcount("vm_sequence").read_seqcount_retry.__name__
    'read_seqcount_retry'
    """
    texts = (raw_read_seqcount, read_seqcount_begin, read_seqcount_retry, write_seqcount_begin, write_seqcount_end)
    return Seqcount(*instances({"sequence": sequence}, *texts))


# ----------------------------------------------------------------------------------------------------------------------
# A reference count that never leaves zero again (include/linux/refcount.h).
#
# ``refcount_inc_not_zero`` is what makes a lookup without a lock safe: who finds an object by a stale pointer learns
# that it is dying, if its memory is still there to ask (RCU, or a slab that is type-safe by RCU).
#
# Orderings are those of refcount.h (6.12): increments order nothing, since whoever takes one more reference either has
# one already or found the object by a pointer that something else orders. A decrement is a release, and the one that
# comes to zero an acquire too, so that what every user did comes before the free. ``_acquire`` and ``_release`` (6.15)
# are for objects whose memory may be reused at once: nothing else orders them.


@native
def refcount_read(object):
    """The count."""
    return READ_ONCE(object, "refs")


@native
def refcount_set(object, count):
    """Set the count of an object that no other task knows yet."""
    WRITE_ONCE(object, "refs", count)
    return 0


@native
def refcount_set_release(object, count):
    """Set the count after all other stores: a task that takes a reference sees the object complete (6.15)."""
    store_release(object, "refs", count)
    return 0


@native
def refcount_inc(object):
    """Increment; the caller already has a reference."""
    fetch_add_relaxed(object, "refs", 1)
    return 0


@native
def refcount_add_not_zero(object, count):
    """Add ``count`` unless the count is zero; returns the count before."""
    old = READ_ONCE(object, "refs")
    while old != 0:
        seen = cmpxchg_relaxed(object, "refs", old, old + count)
        if seen == old:
            return old
        old = seen
    return 0


@native
def refcount_inc_not_zero(object):
    """Increment unless zero; returns the count before, so 0 means failure."""
    return refcount_add_not_zero(object, 1)


@native
def refcount_inc_not_zero_acquire(object):
    """The same, before all later accesses of the task (6.15): for objects that change while their count is zero, and
    are looked at once they are held."""
    old = READ_ONCE(object, "refs")
    while old != 0:
        seen = cmpxchg_acquire(object, "refs", old, old + 1)
        if seen == old:
            return old
        old = seen
    return 0


@native
def refcount_inc_not_zero_limited_acquire(object, limit):
    """Increment unless the count is zero or would exceed ``limit``; returns the count before, 0 for zero, -1 for the
    limit (__refcount_inc_not_zero_limited_acquire, 6.15)."""
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
    """Decrement; returns the count after. A release."""
    return fetch_add_release(object, "refs", -1) - 1


@native
def refcount_dec_and_test(object):
    """Decrement: 1 if that was the last reference."""
    return refcount_sub_and_test(object, 1)


@native
def refcount_sub_and_test(object, count):
    """Subtract ``count``: 1 if nothing is left."""
    if fetch_add_release(object, "refs", -count) == count:
        smp_acquire__after_ctrl_dep()
        return 1
    return 0


class Refcount(NamedTuple):
    """The functions of one reference count; each takes the record that contains it."""

    refcount_read: Native
    refcount_set: Native
    refcount_set_release: Native
    refcount_inc: Native
    refcount_add_not_zero: Native
    refcount_inc_not_zero: Native
    refcount_inc_not_zero_acquire: Native
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
        refcount_inc_not_zero_acquire,
        refcount_inc_not_zero_limited_acquire,
        refcount_dec_return,
        refcount_dec_and_test,
        refcount_sub_and_test,
    )
    return Refcount(*instances({"refs": refs}, *texts))


# ----------------------------------------------------------------------------------------------------------------------
# A wait queue: only wake_up wakes its sleepers (include/linux/wait.h).
#
# ``wait_until`` looks at a condition itself; on a wait queue the condition is looked at only after a wake-up. So one
# that never comes, or comes before the sleeper has queued, is a sleeper for ever: the checker calls it a deadlock.
# wait_event as the kernel expands it:
#
# ```
#     since = prepare_to_wait(q)             queue first,
#     while condition does not hold:         then look,
#         if schedule(q, since): break       then sleep (schedule_interruptible gives 1 for a signal)
#         since = wake_ups(q)                look again only after taking note of the wake-ups so far
#     finish_wait(q)
# ```
# The word: sleepers in bits 0 to 15, wake-ups so far above. ``wake_up`` wakes all.

SLEEPERS = (1 << 16) - 1
"""Mask of the number of sleepers."""
WAKE_UP = 1 << 16
"""The increment for one wake-up."""


@native
def prepare_to_wait(queue):
    """Queue up; a full barrier. Returns what :func:`schedule` needs: the number of wake-ups so far."""
    return fetch_add(queue, "queue", 1) & ~SLEEPERS


@native
def wake_ups(queue):
    """The number of wake-ups so far: call it before checking the condition again."""
    return load_acquire(queue, "queue") & ~SLEEPERS


@native
def schedule(queue, since):
    """Sleep until a wake-up comes after ``since``: 0."""
    wait_while(queue, "queue", ~SLEEPERS, since)
    return 0


@native
def schedule_interruptible(queue, since):
    """As schedule, but returns 1 if a signal came first."""
    return wait_while_interruptible(queue, "queue", ~SLEEPERS, since)


@native
def finish_wait(queue):
    """Leave the queue."""
    fetch_add(queue, "queue", -1)
    return 0


@native
def waitqueue_active(queue):
    """Whether any task sleeps. The caller needs a barrier, or the answer may be stale."""
    return int((READ_ONCE(queue, "queue") & SLEEPERS) != 0)


@native
def wake_up(queue):
    """Wake all current sleepers. A full barrier, like the kernel's lock of the queue: a task that queues afterwards
    sees the stores before. Costs the barrier and a load if no task sleeps."""
    smp_mb()
    if READ_ONCE(queue, "queue") & SLEEPERS:
        fetch_add(queue, "queue", WAKE_UP)
    return 0


class Waitqueue(NamedTuple):
    """The functions of one wait queue; each takes the record that contains it."""

    prepare_to_wait: Native
    wake_ups: Native
    schedule: Native
    schedule_interruptible: Native
    finish_wait: Native
    waitqueue_active: Native
    wake_up: Native


def waitqueue(queue: str) -> Waitqueue:
    """A wait queue in field ``queue`` of a record.

    >>> waitqueue("cache_wait").wake_up.__name__
    'wake_up'
    """
    texts = (prepare_to_wait, wake_ups, schedule, schedule_interruptible, finish_wait, waitqueue_active, wake_up)
    return Waitqueue(*instances({"queue": queue}, *texts))


# ----------------------------------------------------------------------------------------------------------------------
# rw_semaphore: many readers or one writer (kernel/locking/rwsem.c, 5.3 on: the count holds readers and flags).
#
# ```
#   count   63 ..... 33 | 32 writer | 31 .... 20 waiting | 19 ....... 0 readers
#   tail, head          tickets of those who wait: first come, first served
# ```
# Without contention: one atomic operation to take, one to release. Whoever finds a writer inside queues up, and so
# does a reader that finds readers inside and *anyone waiting*: writers do not starve, and a task that takes the lock
# for read twice deadlocks when a writer came between, as in the kernel. The queue is first come, first served; who is
# at its head waits for the count alone, and a reader that got in lets the next one look at once, so readers that
# follow each other enter together.
#
# A lock that nobody holds may be taken past the queue (lock stealing): by a reader at once (5.11 on), by a writer while
# it spins, before it queues (optimistic spinning, 3.16 on). Without it the lock would go from core to core by turns,
# however long that takes: two threads that do nothing but mmap would be tens of times slower than one.
#
# Differences to the kernel's: waiters look at memory (and give their core away) instead of sleeping; a writer spins
# for so many looks, not for as long as the owner runs; no handoff bit, by which a waiter of 4 ms ends the stealing:
# the head of the queue, which looks all the time, races with those who steal.
#
# Taking the lock is an acquire, giving it back a release, as there (rwsem_read_trylock, __up_read, ...).
#
# ``down_read_any`` and ``down_write_any`` say the same without the queue's order, in as few steps as can be: the
# checker puts them in the place of the queue in scenarios, and the tests hold both to the same rules.

READERS = (1 << 20) - 1
"""Mask of the number of readers that hold the lock."""
WAITER = 1 << 20
"""The increment for one waiter."""
WRITER = 1 << 32
"""The writer's bit."""
WAITERS = WRITER - WAITER
"""Mask of the number of waiters."""
IN_THE_WAY = WRITER | WAITERS
"""The bits that send a reader to the slow path (RWSEM_READ_FAILED_MASK)."""
INSIDE = READERS | WRITER
"""Mask of all holders of the lock (RWSEM_LOCK_MASK)."""
SPINS = 4000
"""Polls of a writer before it queues: a few microseconds, longer than most write sections."""


@native
def down_read(sem):
    """Take it for reading. One atomic add if there is no writer and no queue, or if the lock is free."""
    before = fetch_add_acquire(sem, "count", 1)
    if before & IN_THE_WAY and before & INSIDE:
        down_read_slow(sem)
    return 0


@native
def down_read_slow(sem):
    """Queue up; at the head of the queue, wait only for a writer that holds the lock."""
    fetch_add(sem, "count", WAITER - 1)
    ticket = fetch_add(sem, "tail", 1)
    wait_until(sem, "head", -1, ticket)
    wait_then_add(sem, "count", WRITER, 1 - WAITER)
    store_release(sem, "head", ticket + 1)
    return 0


@native
def down_read_any(sem):
    """down_read in one step: wait until there is neither a writer nor a queue."""
    wait_then_add(sem, "count", IN_THE_WAY, 1)
    return 0


@native
def down_read_trylock(sem):
    """Take it for reading if that needs no waiting: 1, else 0."""
    seen = READ_ONCE(sem, "count")
    while not seen & IN_THE_WAY:
        old = cmpxchg_acquire(sem, "count", seen, seen + 1)
        if old == seen:
            return 1
        seen = old
    return 0


@native
def up_read(sem):
    """Release a read lock: one atomic add."""
    fetch_add_release(sem, "count", -1)
    return 0


@native
def down_write(sem):
    """Take it for writing. One compare-and-exchange if it is free."""
    if cmpxchg_acquire(sem, "count", 0, WRITER) != 0:
        down_write_slow(sem)
    return 0


@native
def down_write_slow(sem):
    """Spin; then queue up, which keeps new readers out, and at the head wait until all holders have left."""
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
    """1 if the lock came free while the writer spun, and the writer got it, ahead of the queue."""
    looks = 0
    while looks < SPINS:
        if rwsem_try_write_lock_unqueued(sem):
            return 1
        looks += 1
    return 0


@native
def rwsem_try_write_lock_unqueued(sem):
    """1 if the lock was free and this writer got it."""
    seen = READ_ONCE(sem, "count")
    if seen & INSIDE:
        return 0
    return int(cmpxchg_acquire(sem, "count", seen, seen + WRITER) == seen)


@native
def down_write_any(sem):
    """down_write_slow without an order among the waiters."""
    fetch_add(sem, "count", WAITER)
    wait_then_add(sem, "count", INSIDE, WRITER - WAITER)
    return 0


@native
def down_write_trylock(sem):
    """Take it for writing if it is free: 1, else 0."""
    return int(cmpxchg_acquire(sem, "count", 0, WRITER) == 0)


@native
def up_write(sem):
    """Release a write lock: one atomic add."""
    fetch_add_release(sem, "count", -WRITER)
    return 0


@native
def downgrade_write(sem):
    """The writer becomes a reader; no other writer comes in between, other readers may join."""
    fetch_add_release(sem, "count", 1 - WRITER)
    return 0


@native
def rwsem_is_locked(sem):
    """Whether any task holds the lock."""
    return int((READ_ONCE(sem, "count") & INSIDE) != 0)


class Rwsem(NamedTuple):
    """The functions of one rw_semaphore; each takes the record that contains it."""

    down_read: Native
    down_read_trylock: Native
    up_read: Native
    down_write: Native
    down_write_trylock: Native
    up_write: Native
    downgrade_write: Native
    rwsem_is_locked: Native


STEPS = {down_read: down_read_any, down_write_slow: down_write_any}
"""The simpler functions that the checker runs instead, once the queue itself has been checked."""
ONE_LOOK = {rwsem_optimistic_spin: rwsem_try_write_lock_unqueued}
"""The replacements that check the queue itself: spinning longer makes no difference there."""


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


# ----------------------------------------------------------------------------------------------------------------------
# mmap_lock: the rw_semaphore of every mm (include/linux/mmap_lock.h). ``sem`` of these functions is the mm itself.

mmap_sem = rwsem("mmap_lock", "mmap_lock_tail", "mmap_lock_head")
"""The functions over mm_struct's own words."""
mmap_down_read = mmap_sem.down_read
mmap_down_read_trylock = mmap_sem.down_read_trylock
mmap_up_read = mmap_sem.up_read
mmap_down_write = mmap_sem.down_write
mmap_down_write_trylock = mmap_sem.down_write_trylock
mmap_up_write = mmap_sem.up_write
mmap_downgrade_write = mmap_sem.downgrade_write
