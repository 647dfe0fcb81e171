"""The control of cold replays: known lines cost what a pointer chase says that their level costs.

A replay whose only event reads n lines, each found through the one before, must take n times the latency of the level
in which ``--caches`` says that it finds them. The latency is measured beside it, by a chase through a ring of lines
that fits into that level and into none before; for memory, through lines that were flushed. The known lines are some of
the ring's, so that TLB and memory's rows are used alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchframe.engine.caches import L2, LLC, MEMORY, Cache, Caches, Ring, Toucher, cpu_caches
from benchframe.errors import UsageError

COUNTS = (0, 1, 2, 4, 8, 16, 32)
"""How many lines the event reads."""
ROOM = 256 << 10
"""Bytes of the ring where no level is named."""
EVENTS, REPLAYS = 64, 8
STEPS, CHASES, LAPS = 2000, 16, 16
QUARTILE = 0.25
"""As :data:`benchframe.engine.cold.QUANTILE`, for the chase too: both see the same machine."""
WITHIN = 0.15
"""How far a ratio may be from 1."""


@dataclass(frozen=True)
class Found:
    """One state of the caches: ``level`` is the chase's ns per line in each round (empty where no level is named),
    ``lines`` those of a known line, ``by_count`` the medians for each of COUNTS but the first."""

    caches: Caches
    level: tuple[float, ...]
    lines: tuple[float, ...]
    by_count: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Known line to chase, by round."""
        return [line / level for line, level in zip(self.lines, self.level, strict=True)] if self.level else []

    @property
    def good(self) -> bool:
        """Whether the median ratio is within WITHIN of 1, or there is nothing to compare with."""
        return not self.level or abs(median(self.ratios) - 1) <= WITHIN


def ring_size(level: str, caches: Sequence[Cache]) -> int:
    """Bytes of a ring for ``level``: several times the level before, which does not always evict the oldest line. No
    more, so that a line is soon asked for again and others do not push it out of a shared cache. Raises UsageError if
    it does not fit into the level."""
    sizes = {cache.level: cache.size for cache in caches}
    if level == LLC and 2 * 8 * sizes[2] > sizes[max(sizes)]:
        raise UsageError("the last-level cache is too small beside L2 for a ring that fits into it alone")
    before, times = {L2: (1, 4), LLC: (2, 8), MEMORY: (2, 2)}.get(level, (0, 0))
    return times * sizes[before] if before else ROOM


def known_lines(
    states: Sequence[Caches], rounds: int, cpu: int = -1, done: Callable[[int], None] | None = None
) -> list[Found]:
    """Measure each of ``states``, in ``rounds`` that take turns. Raises UsageError and MemoryError."""
    caches = cpu_caches(cpu)
    rings = {s: Ring(ring_size(s.level, caches), COUNTS, seed=1) for s in states}
    touchers = {s: Toucher(s) for s in states}
    level: dict[Caches, list[float]] = {s: [] for s in states}
    cost: dict[Caches, list[list[float]]] = {s: [] for s in states}
    for number in range(rounds):
        for s in states:
            ring, toucher = rings[s], touchers[s]
            ns = _ns_per_cycle(ring)
            chases = _chases(ring, toucher)
            replays = [[ring.timed(toucher, count, EVENTS) for count in COUNTS] for _ in range(REPLAYS)]
            chases += _chases(ring, toucher)
            if s.level in (L2, LLC, MEMORY):
                level[s].append(float(np.quantile(chases, QUARTILE)) * ns)
            cycles = np.quantile(np.array(replays), QUARTILE, axis=0).mean(axis=1)
            cost[s].append(((cycles[1:] - cycles[0]) * ns).tolist())
        if done is not None:
            done(number)
    counts = np.array(COUNTS[1:])
    found = []
    for s in states:
        rows = np.array(cost[s])
        slopes = (rows @ counts / (counts @ counts)).tolist()
        found.append(Found(s, tuple(level[s]), tuple(slopes), tuple((np.median(rows, axis=0) / counts).tolist())))
    return found


def _chases(ring: Ring, toucher: Toucher) -> list[float]:
    """Cycles per line of CHASES chases through the ring, which is flushed before each if the state is that of memory.
    First LAPS untimed ones: a last-level cache learns whether what L2 evicts is asked for again."""
    ring.chase(LAPS * len(ring.lines))
    steps, found = min(STEPS, len(ring.lines)), []
    for _ in range(CHASES):
        if toucher.caches.level == MEMORY:
            toucher.flush(ring.lines)
        found.append(ring.chase(steps) / steps)
    return found


def _ns_per_cycle(ring: Ring) -> float:
    """By the wall clock, over some ms."""
    began, cycles = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < 0.005:
        cycles += ring.chase(10_000)
    return seconds * 1e9 / cycles


def text(found: Sequence[Found]) -> str:
    """A table with a row per state, and what it says."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    heads = ["caches", "ns/line by chase", "ns per known line", "ratio", *(str(count) for count in COUNTS[1:])]
    rows = []
    for one in found:
        ratio = ""
        if one.level:
            ratio = f"{median(one.ratios):.2f} [{min(one.ratios):.2f}, {max(one.ratios):.2f}]"
        chase = f"{median(one.level):.1f}" if one.level else ""
        each = (f"{ns:.1f}" for ns in one.by_count)
        rows.append([one.caches.label, chase, f"{median(one.lines):.1f}", ratio, *each])
    body = tabulate(rows, heads, "simple", colalign=["left", *["right"] * (len(heads) - 1)], disable_numparse=True)
    rounds = max((len(one.lines) for one in found), default=0)
    notes = [
        f"medians of {rounds} rounds; ratio: known line to chase, in brackets the lowest and the highest round.",
        "the last columns: ns per line if the event reads so many lines, each found through the one before.",
    ]
    for one in found:
        if not one.good:
            percent = f"{100 * WITHIN:.0f} %"
            notes.append(f"{one.caches.label}: a known line does not cost what its level costs, within {percent}.")
    return "\n".join([*(line.rstrip() for line in body.splitlines()), "", *notes, ""])
