"""wait queue: every interleaving of sleepers and wakers by the checker, and real threads compiled."""

from types import FunctionType

import pytest
from support.locks import Programs, outcomes, run_threads

from benchframe.dialect import fetch_add, native
from benchframe.mm.locks import waitqueue

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

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


def test_threads_waitqueue() -> None:
    """Two threads that wake each other, with a third that only wakes: nobody sleeps for ever."""
    mm = run_threads([sleeps_by_turns, wakes_by_turns], 1000)
    assert mm["brk"] == 2000
    assert mm["version"] & 0xFFFF == 0
