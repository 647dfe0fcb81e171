"""What each thread of a threaded run is to do, from a stream: events by thread, expected answers, order.

Two kinds of stream. One *made for threads* (``meta.limits["threads"]``): each task keeps to areas of its own, so that
every answer is known whatever the others do. A *recorded* one: its mapping operations take place in the recorded
order; faults and lookups wait for the mapping operations that stand before them, and for nothing else. So a fault may
come late, after another thread has unmapped its page: that is a miss, not an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.stream import prepare
from benchframe.errors import BenchframeError
from benchframe.events import LIFE, UNKNOWN, Kind
from benchframe.verify import expected

if TYPE_CHECKING:
    from benchframe.mm.machine import Parameters
    from benchframe.trace.format import Trace

Array = npt.NDArray[Any]


class ProgramError(BenchframeError):
    """The stream cannot be played by that many threads; one line says why and what to do."""


@dataclass(frozen=True)
class Work:
    """One thread's part: events [first, last), played as TASK ``task``; ``barrier`` is the event before which all
    threads meet, -1 for none."""

    task: int
    first: int
    last: int
    barrier: int


@dataclass(frozen=True)
class Program:
    """``records``: the setup, then each thread's events. ``ret``, ``vm_start``, ``vm_end``: what each must answer.

    ``after``, ``number``: see ORDER in :mod:`benchframe.mm.crew`; only looked at if ``ordered``. ``layout`` is the
    oracle's at the end. ``mms`` counts address spaces.
    """

    records: Array
    setup: int
    works: tuple[Work, ...]
    ordered: bool
    ret: Array
    vm_start: Array
    vm_end: Array
    after: Array
    number: Array
    layout: Array
    boots: tuple[int, ...]
    tasks: int
    mms: int


def recorded_threads(trace: Trace) -> int:
    """How many tasks have events after the setup."""
    return len(np.unique(trace.events["task"][trace.setup :]))


def make_program(trace: Trace, threads: int, parameters: Parameters) -> Program:
    """``trace`` for ``threads`` real threads; for as many as it was made for, if it was.

    Asks the oracle (its answers are kept on disk). Raises ProgramError. O(n log n).
    """
    made_for = trace.meta.limits.get("threads", 0)
    if made_for:
        threads = made_for
    events = _without_the_end(trace)
    setup = trace.setup
    if not made_for and (np.isin(events["kind"], (Kind.FORK,)).any() or np.unique(events["mm"]).size > 1):
        raise ProgramError("the trace has several address spaces; `benchframe trace split` makes one trace of each")
    thread_of = _made(events, setup, threads) if made_for else _recorded(events, setup, threads)
    ret, vm_start, vm_end, layout = expected(events, parameters)
    prepared = prepare(events)
    order = np.concatenate([np.arange(setup), setup + np.argsort(thread_of, kind="stable")])
    slot_of = np.empty_like(order)
    slot_of[order] = np.arange(len(order))

    records = prepared.records[order]
    mapping = (events["kind"] != Kind.FAULT) & (events["kind"] != Kind.LOOKUP)
    mapping[:setup] = False
    last_mapping = np.maximum.accumulate(np.where(mapping, np.arange(len(events)), -1))
    before = np.concatenate([[-1], last_mapping[:-1]])
    after = np.where(before >= 0, slot_of[before], -1)
    number = np.cumsum(mapping) - mapping
    known = ~np.isin(events["kind"], LIFE)
    counts = np.bincount(thread_of, minlength=threads)
    firsts = setup + np.concatenate([[0], np.cumsum(counts)[:-1]])
    every = trace.meta.limits.get("barrier", -1) if made_for else -1
    works = tuple(
        Work(
            int(records["task"][first]) + 1,
            int(first),
            int(first + count),
            int(first + every) if threads > 1 and 0 <= every < count else -1,
        )
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
    )
    return Program(
        records=records,
        setup=setup,
        works=works,
        ordered=not made_for,
        ret=np.where(known, ret, UNKNOWN)[order],
        vm_start=vm_start[order],
        vm_end=vm_end[order],
        after=after[order],
        number=number[order],
        layout=layout,
        boots=tuple(prepared.boots),
        tasks=trace.tasks,
        mms=trace.mms,
    )


def _without_the_end(trace: Trace) -> Array:
    """The events without each mm's last EXIT: what is left at the end can be looked at."""
    events = np.asarray(trace.events)
    marked = prepare(events).records
    kept: Array = events[~((marked["kind"] == Kind.EXIT) & (marked["len"] > 0))]
    return kept


def _made(events: Array, setup: int, threads: int) -> Array:
    thread_of: Array = np.array(events["task"][setup:], np.int64)
    if np.unique(thread_of).tolist() != list(range(threads)):
        raise ProgramError(f"the stream was made for {threads} threads, but its tasks are not 0 to {threads - 1}")
    return thread_of


def _recorded(events: Array, setup: int, threads: int) -> Array:
    """The recorded tasks spread over the threads: the busiest first, each to the thread with the least so far."""
    tasks, counts = np.unique(events["task"][setup:], return_counts=True)
    if threads > len(tasks):
        raise ProgramError(
            f"the trace has {len(tasks)} recorded thread{'s' * (len(tasks) > 1)}, {threads} were asked for; "
            "threads of a recording can be put together, not multiplied"
        )
    load = [0] * threads
    place: dict[int, int] = {}
    for task, count in sorted(zip(tasks.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])):
        thread = load.index(min(load))
        place[task] = thread
        load[thread] += count
    found: Array = np.array([place[task] for task in events["task"][setup:].tolist()], np.int64)
    return found
