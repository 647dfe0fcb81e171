"""Locks, counts and queues: every interleaving of small programs by the checker, and real threads compiled."""

import threading
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from check_mutants import PROTOCOL, twin
from synckit import Programs, alone, outcomes

from benchframe.check.command import scenario
from benchframe.check.hunt import Hunt, make_case
from benchframe.dialect import DialectError, cpu_relax, fetch_add, native
from benchframe.dialect.instance import instance, origin
from benchframe.mm.layout import mm_struct
from benchframe.mm.rcu import rcu_read_lock, rcu_read_unlock
from benchframe.mm.sync.mmap_lock import (
    mmap_down_read,
    mmap_down_read_trylock,
    mmap_down_write,
    mmap_down_write_trylock,
    mmap_downgrade_write,
    mmap_sem,
    mmap_up_read,
    mmap_up_write,
)
from benchframe.mm.sync.refcount import refcount
from benchframe.mm.sync.rwsem import STEPS, WAITER, WRITER, down_read, rwsem
from benchframe.mm.sync.seqcount import seqcount
from benchframe.mm.sync.spinlock import spin_lock, spinlock
from benchframe.mm.sync.waitqueue import waitqueue

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

QUEUES = pytest.mark.parametrize("steps", [None, STEPS], ids=["queue", "checker's steps"])
"""The queue's own text, and what the checker puts in its place."""


# ---- rw_semaphore -----------------------------------------------------------------------------------------------


@native
def writes(mm):
    """Two words that belong together."""
    mmap_down_write(mm)
    mm.start_brk = mm.start_brk + 1
    mm.brk = mm.brk + 1
    mmap_up_write(mm)
    return 0


@native
def reads(mm):
    """1 if they were seen apart."""
    mmap_down_read(mm)
    torn = int(mm.start_brk != mm.brk)
    mmap_up_read(mm)
    return torn


@native
def reads_twice(mm):
    """Takes the lock for read inside read."""
    mmap_down_read(mm)
    mmap_down_read(mm)
    mmap_up_read(mm)
    mmap_up_read(mm)
    return 0


@native
def tries_to_read(mm):
    """What down_read_trylock said."""
    got = mmap_down_read_trylock(mm)
    if got:
        mmap_up_read(mm)
    return got


@native
def writes_then_reads(mm):
    """Writes, downgrades, and sees that nobody wrote since: 1 if somebody did."""
    mmap_down_write(mm)
    mm.start_brk = mm.start_brk + 1
    mine = mm.start_brk
    mmap_downgrade_write(mm)
    changed = int(mm.start_brk != mine)
    mmap_up_read(mm)
    return changed


@QUEUES
def test_rwsem_excludes(steps: Any) -> None:
    """Two writers and a reader: no increment is lost, nothing is seen half done, the words end as they began."""
    programs = Programs([(writes,), (writes,), (reads,)], {"start_brk": 0, "brk": 0}, steps)
    ends = outcomes(programs, "start_brk", "brk", "mmap_lock", "mmap_lock_tail", "mmap_lock_head")
    assert {e[:-2] for e in ends} == {("done", 0, 0, 0, 2, 2, 0)}
    assert all(e[-2] == e[-1] for e in ends)


@QUEUES
def test_rwsem_reader_twice_deadlocks_with_a_writer(steps: Any) -> None:
    """A waiting writer keeps new readers out, also one that is inside already; without a writer it may come twice."""
    kinds = {end[0] for end in outcomes(Programs([(reads_twice,), (writes,)], {}, steps))}
    assert kinds == {"done", "deadlock"}
    assert outcomes(Programs([(reads_twice,), (reads,)], {}, steps)) == {("done", 0, 0)}


@QUEUES
def test_rwsem_downgrade(steps: Any) -> None:
    """Between writing and reading nobody else writes, but readers may join."""
    programs = Programs([(writes_then_reads,), (writes_then_reads,), (reads,)], {}, steps)
    assert {(*e[:3], e[-1]) for e in outcomes(programs, "mmap_lock")} == {("done", 0, 0, 0)}


@QUEUES
def test_rwsem_trylock(steps: Any) -> None:
    """A try beside a writer may fail or not, and leaves nothing behind."""
    ends = outcomes(Programs([(tries_to_read,), (writes,)], {}, steps), "mmap_lock")
    assert ends == {("done", 0, 0, 0), ("done", 1, 0, 0)}


@pytest.mark.parametrize(
    ("function", "before", "result", "after"),
    [
        (mmap_down_read_trylock, 0, 1, 1),
        (mmap_down_read_trylock, 3, 1, 4),
        (mmap_down_read_trylock, WRITER, 0, WRITER),
        (mmap_down_read_trylock, 1 + WAITER, 0, 1 + WAITER),
        (mmap_down_write_trylock, 0, 1, WRITER),
        (mmap_down_write_trylock, 1, 0, 1),
        (mmap_down_write_trylock, WRITER, 0, WRITER),
        (mmap_downgrade_write, WRITER, 0, 1),
        (mmap_downgrade_write, WRITER + WAITER, 0, 1 + WAITER),
        (mmap_sem.rwsem_is_locked, 0, 0, 0),
        (mmap_sem.rwsem_is_locked, WAITER, 0, WAITER),
        (mmap_sem.rwsem_is_locked, 1, 1, 1),
    ],
)
def test_rwsem_words(function: FunctionType, before: int, result: int, after: int) -> None:
    """Each operation on each state of the count."""
    assert alone(function, mmap_lock=before) == (result, {"mmap_lock": after})


@pytest.mark.parametrize("before", [WRITER, 1 + WAITER])
def test_rwsem_alone_would_wait(before: int) -> None:
    """One task that finds a writer, or a queue that nobody serves, is told so."""
    with pytest.raises(DialectError, match="deadlock"):
        alone(mmap_down_write, mmap_lock=before)


# ---- spinlock ---------------------------------------------------------------------------------------------------

version_lock, version_trylock, version_unlock = spinlock("version")


@native
def spins(mm):
    """An increment under a spinlock."""
    version_lock(mm)
    mm.brk = mm.brk + 1
    version_unlock(mm)
    return 0


@native
def spins_if_free(mm):
    """The same if it is free."""
    if not version_trylock(mm):
        return 0
    mm.brk = mm.brk + 1
    version_unlock(mm)
    return 1


def test_spinlock() -> None:
    """No increment is lost; a try succeeds or leaves no trace."""
    ends = outcomes(Programs([(spins,), (spins,), (spins_if_free,)], {"brk": 0}), "brk", "version")
    assert ends == {("done", 0, 0, 0, 2, 0), ("done", 0, 0, 1, 3, 0)}


# ---- seqcount ---------------------------------------------------------------------------------------------------

_, seq_begin, seq_retry, seq_write_begin, seq_write_end = seqcount("version")
raw_seq = seqcount("version").raw_read_seqcount


@native
def seq_writes(mm):
    """Two words under an odd number."""
    seq_write_begin(mm)
    mm.start_brk = mm.start_brk + 1
    mm.brk = mm.brk + 1
    seq_write_end(mm)
    return 0


@native
def seq_reads(mm):
    """Reads until nobody wrote meanwhile; 1 if the words were apart then."""
    start = seq_begin(mm)
    first = mm.start_brk
    second = mm.brk
    while seq_retry(mm, start):
        cpu_relax()
        start = seq_begin(mm)
        first = mm.start_brk
        second = mm.brk
    return int(first != second)


@native
def seq_reads_once(mm):
    """Looks once: 2 given up, 1 torn, 0 good."""
    start = raw_seq(mm)
    if start & 1:
        return 2
    first = mm.start_brk
    second = mm.brk
    if seq_retry(mm, start):
        return 2
    return int(first != second)


@native
def seq_believes(mm):
    """Forgets to look again."""
    seq_begin(mm)
    first = mm.start_brk
    return int(first != mm.brk)


def test_seqcount() -> None:
    """Who looks again never believes a torn pair; who gives up is sometimes told to; who does neither is fooled."""
    words = {"start_brk": 0, "brk": 0}
    assert {e[2] for e in outcomes(Programs([(seq_writes,), (seq_reads,)], words))} == {0}
    assert {e[2] for e in outcomes(Programs([(seq_writes,), (seq_reads_once,)], words))} == {0, 2}
    assert {e[2] for e in outcomes(Programs([(seq_writes,), (seq_believes,)], words))} == {0, 1}


# ---- refcount ---------------------------------------------------------------------------------------------------

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


# ---- waitqueue --------------------------------------------------------------------------------------------------

queue = waitqueue("version")
prepare_to_wait, wake_ups, finish_wait, wake_up = (
    queue.prepare_to_wait,
    queue.wake_ups,
    queue.finish_wait,
    queue.wake_up,
)
schedule, schedule_interruptible = queue.schedule, queue.schedule_interruptible


@native
def waits(mm):
    """wait_event(brk != 0)."""
    since = prepare_to_wait(mm)
    while mm.brk == 0:
        schedule(mm, since)
        since = wake_ups(mm)
    finish_wait(mm)
    return mm.brk


@native
def waits_interruptible(mm):
    """wait_event_interruptible(brk != 0): -1 if a signal came first."""
    result = 0
    since = prepare_to_wait(mm)
    while mm.brk == 0 and result == 0:
        if schedule_interruptible(mm, since):
            result = -1
        since = wake_ups(mm)
    finish_wait(mm)
    return result


@native
def looks_then_queues(mm):
    """The classic mistake: a wake-up between the look and the queue is lost."""
    if mm.brk == 0:
        since = prepare_to_wait(mm)
        schedule(mm, since)
        finish_wait(mm)
    return mm.brk


@native
def tells(mm):
    """Store, then wake."""
    mm.brk = 1
    wake_up(mm)
    return 0


@native
def wakes_first(mm):
    """Wake, then store."""
    wake_up(mm)
    mm.brk = 1
    return 0


@native
def tells_nobody(mm):
    """The wake-up is forgotten: a condition that becomes true wakes nobody."""
    mm.brk = 1
    return 0


@pytest.mark.parametrize(
    ("sleeper", "waker", "ends"),
    [
        (waits, tells, {"done"}),
        (looks_then_queues, tells, {"done", "deadlock"}),
        (waits, wakes_first, {"done", "deadlock"}),
        (waits, tells_nobody, {"done", "deadlock"}),
    ],
)
def test_waitqueue(sleeper: FunctionType, waker: FunctionType, ends: set[str]) -> None:
    """Queue, look, sleep beside store, wake: right. Every other order loses a wake-up in some interleaving."""
    assert {end[0] for end in outcomes(Programs([(sleeper,), (waker,)], {"brk": 0}))} == ends


def test_waitqueue_wakes_all() -> None:
    """Two sleepers, one wake-up; the queue is empty afterwards."""
    ends = outcomes(Programs([(waits,), (waits,), (tells,)], {"brk": 0}), "version")
    assert {(e[0], e[-1] & 0xFFFF) for e in ends} == {("done", 0)}


def test_waitqueue_signal() -> None:
    """A signal ends an interruptible sleep, and none without one is ended so."""
    assert {e[1] for e in outcomes(Programs([(waits_interruptible,), (tells,)], {"brk": 0}, signal=0))} == {0, -1}
    assert {e[1] for e in outcomes(Programs([(waits_interruptible,), (tells,)], {"brk": 0}))} == {0}


# ---- RCU --------------------------------------------------------------------------------------------------------


@native
def get_nested(mm, task, addr):
    """The repaired twin's lookup inside another section."""
    rcu_read_lock(mm, task)
    vma = GET(mm, task, addr)
    rcu_read_unlock(mm, task)
    return vma


@native
def get_unbalanced(mm, task, addr):
    """Ends a section that nobody began."""
    rcu_read_unlock(mm, task)
    return GET(mm, task, addr)


GET = PROTOCOL["vma_get"]


@pytest.mark.parametrize(("get", "kinds"), [(get_nested, set()), (get_unbalanced, {"unbalanced"})])
def test_rcu_sections_nest(get: FunctionType, kinds: set[str]) -> None:
    """An inner section's end does not end the outer one; an end without a beginning is an error."""
    import time

    from benchframe.registry import load
    from benchframe.strategy import resolve

    strategy = resolve(twin("nested", vma_get=get), load().strategies)
    verdict = Hunt(make_case(scenario("lookup-munmap"), strategy)).run(time.monotonic() + 60)
    assert {finding.kind for finding in verdict.findings} == kinds


# ---- instances --------------------------------------------------------------------------------------------------


def test_instances() -> None:
    """Same names, same object; its text and lines are the original's; a misspelt name is refused with the names."""
    assert rwsem("count", "tail", "head").down_read is down_read
    assert spinlock("ptl").spin_lock is spinlock("ptl").spin_lock
    made = spinlock("ptl").spin_lock
    assert origin(made) == (spin_lock, {"locked": "ptl"})
    assert (made.__name__, made.__code__.co_firstlineno) == ("spin_lock", spin_lock.__code__.co_firstlineno)
    with pytest.raises(DialectError, match="no word lokked in the text; it has locked"):
        instance(spin_lock, {"lokked": "ptl"})
    with pytest.raises(DialectError, match="needs a @native function"):
        instance(len, {})


# ---- compiled, with real threads --------------------------------------------------------------------------------


@native
def lock_turns(mm, turns):
    """Writers, downgraders, readers and triers take turns."""
    i = 0
    while i < turns:
        writes(mm)
        fetch_add(mm, "rss", writes_then_reads(mm))
        writes_back(mm)
        fetch_add(mm, "rss", reads(mm))
        fetch_add(mm, "nr_ptes", tries_to_read(mm))
        i += 1
    return 0


@native
def writes_back(mm):
    """Makes the two words equal again after writes_then_reads."""
    mmap_down_write(mm)
    mm.brk = mm.brk + 1
    mmap_up_write(mm)
    return 0


@native
def count_turns(mm, turns):
    """A seqcount written under a spinlock and read without, a reference count, a wait queue nobody sleeps on."""
    i = 0
    while i < turns:
        get_ref(mm)
        ptl_like_lock(mm)
        write_begin(mm)
        mm.start_brk = mm.start_brk + 1
        mm.brk = mm.brk + 1
        write_end(mm)
        ptl_like_unlock(mm)
        fetch_add(mm, "error", sees_torn(mm))
        wake_up(mm)
        put_ref(mm)
        i += 1
    return 0


ptl_like_lock, _, ptl_like_unlock = spinlock("mmap_cache")
_, read_begin, read_retry, write_begin, write_end = seqcount("hole_hint")


@native
def sees_torn(mm):
    """seq_reads over another word."""
    start = read_begin(mm)
    first = mm.start_brk
    second = mm.brk
    while read_retry(mm, start):
        cpu_relax()
        start = read_begin(mm)
        first = mm.start_brk
        second = mm.brk
    return int(first != second)


@native
def sleeps_by_turns(mm, turns):
    """Waits until brk is even, makes it odd, wakes."""
    i = 0
    while i < turns:
        since = prepare_to_wait(mm)
        while mm.brk & 1:
            schedule(mm, since)
            since = wake_ups(mm)
        finish_wait(mm)
        fetch_add(mm, "brk", 1)
        wake_up(mm)
        i += 1
    return 0


@native
def wakes_by_turns(mm, turns):
    """Waits until brk is odd, makes it even, wakes."""
    i = 0
    while i < turns:
        since = prepare_to_wait(mm)
        while not mm.brk & 1:
            schedule(mm, since)
            since = wake_ups(mm)
        finish_wait(mm)
        fetch_add(mm, "brk", 1)
        wake_up(mm)
        i += 1
    return 0


def run_threads(functions: list[FunctionType], turns: int, **words: int) -> Any:
    """Each function compiled, in a thread of its own, on one mm; the mm afterwards."""
    from benchframe.dialect.backend import compile_unit
    from benchframe.dialect.loader import Unit

    units = {f: Unit(f.__name__, compile_unit(f, 2, mm_struct, None, {}), 2) for f in dict.fromkeys(functions)}
    mm = np.zeros(2, mm_struct.dtype)
    for word, value in words.items():
        mm[0][word] = value
    threads = [threading.Thread(target=units[f], args=(mm.ctypes.data, turns)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a waiter was never let go"
    return mm[0]


def test_threads_rwsem() -> None:
    """Three threads: no increment is lost, no reader sees half of one, nobody writes after a downgrade."""
    mm = run_threads([lock_turns] * 3, 2000)
    assert mm["start_brk"] == mm["brk"] == 2 * 3 * 2000
    assert mm["mmap_lock"] == 0
    assert mm["mmap_lock_tail"] == mm["mmap_lock_head"]
    # a reader may come between writes_then_reads and writes_back, so only the downgrades' own looks are exact
    assert 0 <= mm["rss"] <= 3 * 2000
    assert 0 < mm["nr_ptes"] <= 3 * 2000


def test_threads_counts() -> None:
    """Three threads: the pair is never seen torn, the lock loses nothing, the count comes back."""
    mm = run_threads([count_turns] * 3, 2000, rss=1)
    assert mm["start_brk"] == mm["brk"] == 3 * 2000
    assert mm["error"] == 0
    assert mm["rss"] == 1
    assert mm["hole_hint"] == 2 * 3 * 2000
    assert mm["mmap_cache"] == 0


def test_threads_waitqueue() -> None:
    """Two threads that wake each other, with a third that only wakes: nobody sleeps for ever."""
    mm = run_threads([sleeps_by_turns, wakes_by_turns], 1000)
    assert mm["brk"] == 2000
    assert mm["version"] & 0xFFFF == 0
