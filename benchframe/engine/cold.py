"""A stream replayed natively with caches as a program leaves them, on one CPU."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.caches import LINE, MEMORY, Caches, Toucher
from benchframe.engine.session import MOST, Latency, Session, Times, summarise
from benchframe.errors import EngineError
from benchframe.events import Kind
from benchframe.mm.layout import mm_struct
from benchframe.verify import is_lookup

# The timed unit is the one of a warm replay, called for one event at a time: then it reads the clock around that event
# alone, and what happens between two calls is outside the clock. So nothing is compiled for a cold replay. Both the
# full replay and the one with known answers are done so: touching and reading the clock cancel in the difference.
#
# What an event answered is in ANSWER after each call, so every timed answer is compared with the checked replay's.
#
# Touching takes microseconds where a lookup takes nanoseconds. So of a long stream only some events are timed, the same
# in both replays, in every process of a round, and for all strategies; the others are replayed as they are.

Array = npt.NDArray[Any]

LINES = 1 << 22
"""Lines that one replay may touch in all, about: some 30 ms."""
FEWEST, ENOUGH = 256, 2048
"""A replay times at least (if the stream has them) and at most this many faults and lookups."""
REPLAYS = 4
"""Fewest replays over which an event's time is taken."""
QUANTILE = 0.25
"""An event's time in cycles is this quantile over the replays: one that was interrupted takes milliseconds, and while
something else uses the core everything takes half as long again."""
MAPPING_SHARE = 4
"""... and a mapping call for each so many of them."""
COLUMN = 512
"""At most so many faults and lookups are timed for the column beside a warm run's figures, which may cost little."""


def chosen_events(kinds: Array, most: int, seed: int) -> Array:
    """Which events of a stream with these kinds are timed: indices, in order. Of faults and lookups ``most``, of
    mapping calls a fraction: one from each of as many stretches of equal length, at a place drawn by ``seed``. O(n).

    >>> kinds = np.array([Kind.FAULT] * 6 + [Kind.MMAP] * 2)
    >>> chosen_events(kinds, 6, 0).tolist(), len(chosen_events(kinds, 3, 0))
    ([0, 1, 2, 3, 4, 5, 7], 4)
    """
    rng = np.random.default_rng(seed)
    quick = is_lookup(kinds)
    parts = [
        _one_of_each(np.flatnonzero(mask), count, rng)
        for mask, count in ((quick, most), (~quick, max(1, most // MAPPING_SHARE)))
    ]
    return np.sort(np.concatenate(parts))


def _one_of_each(rows: Array, count: int, rng: np.random.Generator) -> Array:
    if len(rows) <= count:
        return rows
    edges = np.linspace(0, len(rows), count + 1).astype(np.int64)
    chosen: Array = rows[rng.integers(edges[:-1], edges[1:])]
    return chosen


@dataclass(frozen=True)
class Pass:
    """One replay: ``cycles`` of each timed event with one clock reading, its ``seconds`` with all that is touched, and
    ``ns`` per cycle."""

    cycles: Array
    seconds: float
    ns: float


class ColdSession(Session):
    """As ``session``, whose machine it shares, but before each timed event other memory is touched, as ``caches`` says.
    Times are those of the timed events, drawn by ``seed``: of faults and lookups at most ``most``."""

    def __init__(self, session: Session, caches: Caches, seed: int = 0, most: int = ENOUGH) -> None:
        vars(self).update(vars(session))  # nothing is compiled, allocated or verified a second time
        self.caches = caches
        self._toucher = Toucher(caches)
        kinds = self.trace.events["kind"][self.first :]
        lines = max(1, caches.touched // LINE)
        rows = chosen_events(kinds, min(max(LINES // lines, FEWEST), most), seed)
        self.chosen: Array = rows + self.first
        """The timed events."""
        chosen_kinds = kinds[rows]
        quick = is_lookup(chosen_kinds)
        self._is = {"fault": chosen_kinds == Kind.FAULT, "lookup": quick, "mapping": ~quick}
        self._asked: Array = (np.cumsum(self._asks) - self._asks)[rows]
        self._wanted: Array = np.zeros(0, np.int64)
        self._before: Array = np.zeros(0, np.int64)
        self._lines: Array = np.zeros(0, np.int64)
        self._latest: Pass | None = None

    # ---- right before fast -------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        """Keep the answers of a replay that :meth:`verify` has checked, for comparison with those of timed ones."""
        self.restore()
        self.runner.replay(self.first, self.last)
        answers = self.machine.arrays["answer_base"][self.first :]
        quick = is_lookup(self.trace.events["kind"][self.first :])
        # what one_event returns: a fault's or lookup's VMA, or the fault's code; else the call's result
        results = np.where(quick & (answers["ret"] >= 0), answers["vma"], answers["ret"])
        rows = self.chosen - self.first
        self._wanted = results[rows]
        sums = np.concatenate(([0], np.cumsum(results)))
        self._before = sums[rows] - np.concatenate(([0], sums[rows[:-1] + 1]))
        if self.caches.level == MEMORY:
            self._lines = self.machine.lines()

    # ---- timing ------------------------------------------------------------------------------------------------------

    @property
    def timed_lookups(self) -> int:
        """The number of faults and lookups that are timed."""
        return int(np.count_nonzero(self._is["lookup"]))

    def measure(self, loops: int, most: float = MOST, *, seconds: float = 0.0) -> Times:
        """``loops`` replays with the strategy and as many with known answers, alternating; at least REPLAYS, and more
        until ``seconds`` have passed. A figure is the mean over the timed events of each one's lower quartile
        (QUANTILE). Raises EngineError if :meth:`verify` was not ok, or if a timed event answered something else than
        the checked one."""
        verdict = self.verify()
        if not verdict.ok or self._known is None:
            raise EngineError(f"not timed, because an answer is wrong: {verdict.what}")
        if not len(self._wanted):
            self._take_answers()
        self.machine.arrays["answer_base"][: len(self._known)] = self._known
        began = time.perf_counter()
        passes: list[tuple[Pass, Pass]] = []
        while len(passes) < max(loops, REPLAYS) or time.perf_counter() - began < seconds:
            passes.append((self._pass(False), self._pass(True)))
        loops = len(passes)
        full, known = (np.quantile([both[i].cycles for both in passes], QUANTILE, axis=0) for i in (0, 1))
        self._latest = passes[-1][0]
        lookup, fault, mapping, quick = self._means(full, known)
        clock, ns = self._clock_cost, median(one.ns for both in passes for one in both)
        parts = ((self.n_lookups, quick - clock), (self.n_mapping, mapping - clock))
        return Times(
            loops=loops,
            seconds=sum(one.seconds for both in passes for one in both),
            lookup_ns=lookup * ns,
            fault_ns=(fault - clock) * ns,
            mapping_ns=(mapping - clock) * ns,
            replay_ns=sum(count * cycles for count, cycles in parts if count) * ns / self.n_events,
            taken=loops,
            quiet=loops,
        )

    def settle(self, times: Times) -> Times:
        """``times`` itself: no replay is set aside."""
        return times

    @property
    def control(self) -> float:
        """0, which is unknown: the times of a cold replay with known answers are those of memory, and differ between
        layouts by more than a disturbance does."""
        return 0.0

    def _means(self, full: Array, known: Array) -> tuple[float, float, float, float]:
        """Cycles per lookup (the difference), fault, mapping call, and fault or lookup; NaN where there are none."""

        def mean(values: Array, which: str) -> float:
            return float(values[self._is[which]].mean()) if self._is[which].any() else math.nan

        quick = mean(full, "lookup")
        return quick - mean(known, "lookup"), mean(full, "fault"), mean(full, "mapping"), quick

    def _pass(self, known: bool) -> Pass:
        """One replay from the saved state up to the last timed event, with the strategy or with known answers."""
        self.restore()
        answers = self.machine.arrays["answer_base"]["ret"]
        mms = self.machine.root + self._events.records["mm"][self.chosen].astype(np.int64) * mm_struct.size
        firsts = np.concatenate(([self.first], self.chosen[:-1] + 1))
        plan = np.column_stack((firsts, self.chosen, mms, mms, mms, mms * 0))
        if known:
            plan[:, 3] = self.machine.root + mm_struct.offset("replay_cursor")
            plan[:, 4] = answers.ctypes.data + self._asked * answers.strides[0]
        run, clocks = self.runner.address("known" if known else "timed"), int(self._clocks.ctypes.data)
        start, began = self._cycles(), time.perf_counter()
        self._toucher.replay(run, self.machine.root, clocks, plan, self._lines)
        seconds = time.perf_counter() - began
        alone = self.chosen[answers[self.chosen] != self._wanted]
        together = firsts[(firsts < self.chosen) & (answers[firsts] != self._before)]
        wrong = np.concatenate((alone, together))
        cycles = self._cycles() - start  # overwrites an answer
        if len(wrong):
            what = "of a timed replay answers something else than the checked one"
            raise EngineError(f"{self.strategy.name}: event {wrong.min()} {what}")
        return Pass(plan[:, 5].astype(np.float64), seconds, seconds * 1e9 / max(cycles, 1))

    # ---- passes that are not timed -----------------------------------------------------------------------------------

    def latencies(self) -> list[Latency]:
        """Percentiles of the timed events, of the last replay that was measured; hits and misses as in a warm one."""
        if self._latest is None:
            self.measure(1)
        assert self._latest is not None
        self.restore()
        self.runner.sample(self.first, self.last)
        samples = self.machine.arrays["sample_base"][self.chosen]
        samples["cycles"] = self._latest.cycles
        self.timer_overhead_ns = self._clock_cost * self._latest.ns
        return summarise(samples, self.trace.events["kind"][self.chosen], self._clock_cost, self._latest.ns)
