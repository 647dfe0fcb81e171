"""What locks, counts and queues have in common: instances of one text, sections, several at once in real threads."""

from types import FunctionType

import pytest
from support.locks import run_threads
from support.mutants import PROTOCOL, twin

from benchframe.check.checker import Hunt, make_case
from benchframe.check.command import scenario
from benchframe.dialect import DialectError, cpu_relax, fetch_add, native
from benchframe.dialect.functions import instance, origin
from benchframe.mm.layout import rcu_read_lock, rcu_read_unlock
from benchframe.mm.locks import down_read, refcount, rwsem, seqcount, spin_lock, spinlock, waitqueue

# mypy: disable-error-code="no-untyped-def,no-untyped-call"


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
    with pytest.raises(DialectError, match="no field name lokked in the text; it has locked"):
        instance(spin_lock, {"lokked": "ptl"})
    with pytest.raises(DialectError, match="needs a @native function"):
        instance(len, {})


# ---- compiled, with real threads --------------------------------------------------------------------------------


ptl_like_lock, _, ptl_like_unlock = spinlock("mmap_cache")
_, read_begin, read_retry, write_begin, write_end = seqcount("hole_hint")
get_ref, put_ref = refcount("rss").refcount_inc_not_zero, refcount("rss").refcount_dec_and_test
wake_up = waitqueue("version").wake_up


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


def test_threads_counts() -> None:
    """Three threads: the pair is never seen torn, the lock loses nothing, the count comes back."""
    mm = run_threads([count_turns] * 3, 2000, rss=1)
    assert mm["start_brk"] == mm["brk"] == 3 * 2000
    assert mm["error"] == 0
    assert mm["rss"] == 1
    assert mm["hole_hint"] == 2 * 3 * 2000
    assert mm["mmap_cache"] == 0
