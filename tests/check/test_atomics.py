"""Retrying loops as one step: the same answers and words at the end as the loops, in every interleaving."""

import time
from collections.abc import Sequence

import pytest
from support.locks import Programs, Task, outcomes

from benchframe.api import native
from benchframe.check.memory import one_step
from benchframe.check.search import Explorer
from benchframe.kernel import fetch_add, refcount, rwsem
from benchframe.mm.locks import ONE_LOOK

REFS = refcount("start_brk")
inc_not_zero, inc_acquire, inc_limited, dec = (
    REFS.refcount_inc_not_zero,
    REFS.refcount_inc_not_zero_acquire,
    REFS.refcount_inc_not_zero_limited_acquire,
    REFS.refcount_dec_return,
)
SEM = rwsem("mmap_lock", "mmap_lock_tail", "mmap_lock_head")
try_read, leave, write_lock, write_unlock = SEM.down_read_trylock, SEM.up_read, SEM.down_write, SEM.up_write


@native
def takes_and_puts(mm):  # type: ignore[no-untyped-def]
    """A reference for a while: what was there before, and what was left."""
    before = inc_not_zero(mm)
    if before == 0:
        return -1
    return 10 * before + dec(mm)


@native
def acquires_and_puts(mm):  # type: ignore[no-untyped-def]
    """The same by an acquire."""
    before = inc_acquire(mm)
    if before == 0:
        return -1
    return 10 * before + dec(mm)


@native
def takes_limited(mm, limit):  # type: ignore[no-untyped-def]
    """A reference unless there are ``limit``."""
    return inc_limited(mm, limit)


@native
def drops(mm):  # type: ignore[no-untyped-def]
    """The first reference goes."""
    return dec(mm)


@native
def shuts_out(mm):  # type: ignore[no-untyped-def]
    """A writer's offset, as vma_enter_locked adds it."""
    fetch_add(mm, "start_brk", 100)
    return fetch_add(mm, "start_brk", -100)


@native
def reads_if_free(mm):  # type: ignore[no-untyped-def]
    """Looks at two words under the lock if it can be had at once: 0 or 2 if they agree, -1 without the lock."""
    if not try_read(mm):
        return -1
    first = mm.brk
    second = mm.start_brk
    leave(mm)
    return first + second


@native
def writes(mm):  # type: ignore[no-untyped-def]
    """Both words under the lock."""
    write_lock(mm)
    mm.brk = 1
    mm.start_brk = 1
    write_unlock(mm)
    return 0


PROGRAMS: dict[str, tuple[Sequence[Task], dict[str, int]]] = {
    "two take": ([(takes_and_puts,), (takes_and_puts,)], {"start_brk": 1}),
    "take and drop": ([(acquires_and_puts,), (drops,)], {"start_brk": 1}),
    "limited": ([(takes_limited, 2), (takes_limited, 2), (drops,)], {"start_brk": 1}),
    "shut out": ([(takes_limited, 99), (takes_limited, 99), (shuts_out,)], {"start_brk": 1}),
    "trylock": ([(reads_if_free,), (reads_if_free,), (writes,)], {"brk": 0, "start_brk": 0}),
}


def executions(programs: Programs) -> int:
    """How many executions a whole search makes."""
    return Explorer(programs.world).explore(lambda run: True, time.monotonic() + 60).executions


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_step_says_the_same(name: str) -> None:
    """Every end of the loops is an end of the steps and the other way round; the steps need no more executions."""
    tasks, words = PROGRAMS[name]
    loops, steps = Programs(tasks, words, ONE_LOOK), Programs(tasks, words, {**ONE_LOOK, **one_step()})
    shown = [*words, "mmap_lock"]
    assert outcomes(loops, *shown) == outcomes(steps, *shown)
    assert executions(steps) <= executions(loops)


def test_readers_commute() -> None:
    """Two readers of a rw_semaphore alone: one order is enough."""
    assert executions(Programs([(reads_if_free,), (reads_if_free,)], {"brk": 0, "start_brk": 0}, one_step())) == 1
