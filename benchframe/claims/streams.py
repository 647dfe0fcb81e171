"""Loads of published figures that no shipped workload stands for: ``@threads`` and ``@brk``."""

from __future__ import annotations

import numpy as np

from benchframe import stream
from benchframe.events import Kind
from benchframe.trace.format import Trace

THREADS = 80
ARENA = 64
"""Pages of a thread's arena; each page is looked up in turn."""
HEAP = 1 << 40


def threads(seed: int = 1, events: int = 40_000) -> Trace:
    """ebizzy with 80 threads, as the vmacache commit ran it: each thread copies into memory of its own.

    malloc gives each thread an arena, so a thread's faults go through one VMA, page after page, and the scheduler
    mixes the threads: who runs next is random. Only lookups: ebizzy's arenas are not unmapped.
    """
    rng = np.random.default_rng(seed)
    layout = stream.tiles(THREADS + 2, ARENA, gap=1)
    born = stream.rows(Kind.THREAD, np.zeros(THREADS - 1, np.int64), np.arange(1, THREADS))
    who = rng.integers(0, THREADS, events)
    turn = np.zeros(events, np.int64)
    for task in range(THREADS):
        mine = who == task
        turn[mine] = np.arange(int(mine.sum()))
    timed = stream.lookup(layout.vm_start[who] + turn % ARENA * stream.PAGE)
    timed["task"] = who
    return stream.build([*layout.setup(), layout.tables(), born], timed, map_count=layout.map_count)


def brk(events: int = 20_000, vmas: int = 60) -> Trace:
    """will-it-scale's brk1: the break goes up by a page and down again, in an address space of ordinary size."""
    layout = stream.tiles(vmas, 4, gap=1)
    at = np.array([HEAP, HEAP + stream.PAGE])
    once = stream.rows(Kind.BRK, np.array([HEAP + 2 * stream.PAGE, HEAP + stream.PAGE]))
    setup = [*layout.setup(), layout.tables(), stream.rows(Kind.BRK, at)]
    return stream.build(setup, np.tile(once, events // 2), map_count=layout.map_count + 2)
