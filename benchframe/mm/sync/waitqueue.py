"""A wait queue: who sleeps is woken by wake_up and by nothing else (include/linux/wait.h).

``wait_until`` looks at a condition itself; on a wait queue the condition is looked at only after a wake-up. So one
that never comes, or comes before the sleeper has queued, is a sleeper for ever: the checker calls it a deadlock.
wait_event as the kernel expands it:

```
    since = prepare_to_wait(q)             queue first,
    while condition does not hold:         then look,
        if schedule(q, since): break       then sleep (schedule_interruptible gives 1 for a signal)
        since = wake_ups(q)                look again only after taking note of the wake-ups so far
    finish_wait(q)
```
The word: sleepers in bits 0 to 15, wake-ups so far above. ``wake_up`` wakes all.
"""

from typing import NamedTuple

from benchframe.dialect import (
    READ_ONCE,
    fetch_add,
    load_acquire,
    native,
    smp_mb,
    wait_while,
    wait_while_interruptible,
)
from benchframe.dialect.function import Native
from benchframe.dialect.instance import instances

SLEEPERS = (1 << 16) - 1
"""Mask of those who wait."""
WAKE_UP = 1 << 16
"""One wake-up."""


@native
def prepare_to_wait(queue):
    """Queue up; a full barrier. Gives what :func:`schedule` needs: the wake-ups so far."""
    return fetch_add(queue, "queue", 1) & ~SLEEPERS


@native
def wake_ups(queue):
    """The wake-ups so far: call it before looking at the condition again."""
    return load_acquire(queue, "queue") & ~SLEEPERS


@native
def schedule(queue, since):
    """Sleep until there has been a wake-up after ``since``: 0."""
    wait_while(queue, "queue", ~SLEEPERS, since)
    return 0


@native
def schedule_interruptible(queue, since):
    """As schedule, or 1 because a signal came first."""
    return wait_while_interruptible(queue, "queue", ~SLEEPERS, since)


@native
def finish_wait(queue):
    """Leave the queue."""
    fetch_add(queue, "queue", -1)
    return 0


@native
def waitqueue_active(queue):
    """Does anyone sleep? Without a barrier of the caller's the answer may be old."""
    return int((READ_ONCE(queue, "queue") & SLEEPERS) != 0)


@native
def wake_up(queue):
    """Wake all who sleep now. A full barrier, as the kernel's lock of the queue is: what was stored before is seen by
    whoever queues after. Costs that and a load if nobody sleeps."""
    smp_mb()
    if READ_ONCE(queue, "queue") & SLEEPERS:
        fetch_add(queue, "queue", WAKE_UP)
    return 0


class Waitqueue(NamedTuple):
    """The functions of one wait queue; each takes the record that holds its word."""

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
