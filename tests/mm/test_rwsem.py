"""rw_semaphore: every interleaving of small programs by the checker, and real threads compiled."""

from types import FunctionType
from typing import Any

import pytest
from support.locks import Programs, alone, outcomes, run_threads

from benchframe.dialect import DialectError, fetch_add, native
from benchframe.mm.locks import (
    ONE_LOOK,
    STEPS,
    WAITER,
    WRITER,
    mmap_down_read,
    mmap_down_read_trylock,
    mmap_down_write,
    mmap_down_write_trylock,
    mmap_downgrade_write,
    mmap_sem,
    mmap_up_read,
    mmap_up_write,
)

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

QUEUES = pytest.mark.parametrize("steps", [ONE_LOOK, STEPS], ids=["queue", "checker's steps"])
"""The queue's own text, and what the checker puts in its place."""


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


def test_rwsem_may_be_stolen() -> None:
    """A lock that nobody holds is taken past a queue: by a reader at once, by a writer that spins; one that is held is
    not."""
    assert alone(mmap_down_read, mmap_lock=2 * WAITER) == (0, {"mmap_lock": 2 * WAITER + 1})
    assert alone(mmap_down_write, mmap_lock=WAITER) == (0, {"mmap_lock": WAITER + WRITER})
    for function, before in (
        (mmap_down_read, WRITER + WAITER),
        (mmap_down_write, WRITER + WAITER),
        (mmap_down_write, 1),
    ):
        with pytest.raises(DialectError, match="deadlock"):
            alone(function, mmap_lock=before)
    # two writers beside a third: some end without all having queued, none is lost
    ends = outcomes(
        Programs([(writes,), (writes,), (writes,)], {"start_brk": 0, "brk": 0}, ONE_LOOK), "brk", "mmap_lock_tail"
    )
    assert {e[-2] for e in ends} == {3}
    assert {e[-1] for e in ends} == {0, 1, 2}


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


def test_threads_rwsem() -> None:
    """Three threads: no increment is lost, no reader sees half of one, nobody writes after a downgrade."""
    mm = run_threads([lock_turns] * 3, 2000)
    assert mm["start_brk"] == mm["brk"] == 2 * 3 * 2000
    assert mm["mmap_lock"] == 0
    assert mm["mmap_lock_tail"] == mm["mmap_lock_head"]
    # a reader may come between writes_then_reads and writes_back, so only the downgrades' own looks are exact
    assert 0 <= mm["rss"] <= 3 * 2000
    assert 0 < mm["nr_ptes"] <= 3 * 2000
