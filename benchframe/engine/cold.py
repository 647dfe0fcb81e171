"""A stream replayed natively with caches as a program leaves them, on one CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.caches import LINE, MEMORY, Caches, Toucher
from benchframe.engine.session import MOST, Latency, Quiet, Session, Times, batches, believable, summarise
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
LEAST, UNTIL = 10, 64
"""On a disturbed machine replays are made until so many are undisturbed, or until there are UNTIL, also if fewer were
asked for: how many fit into a value's time was found by the first process of a cell, which may have been disturbed,
too. Fewer, and less than half, count as none: of values with 5 undisturbed replays the spread is 6 %, with 10 it is 4
%."""
READINGS = 31
"""Readings of the clock in each replay, which tell what a reading costs."""
SLACK = 0.1
"""A control is undisturbed if it is at most this much above the undisturbed level. The loop takes some hundred cycles,
and some clocks advance by 26 at once."""
NEAR, CALM = 16, 0.9
"""An event is undisturbed if the controls before it and before the next one are, and this share of those of the events
up to NEAR before and after it. What disturbs comes for milliseconds, hundreds of events. Between them, while the other
program waits for memory, single controls are undisturbed, but the caches that both share are not."""
COVERED, SOME = 0.9, 0.25
"""Fewer events than this with an undisturbed replay count as none: the mean would be that of other events. Fewer than
the second share are not used by themselves either, nor events with fewer than two such replays on average."""
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


def timed_events(kinds: Array, caches: Caches, most: int, seed: int) -> Array:
    """Those of a cold replay in state ``caches``: fewer, the more is touched before each."""
    return chosen_events(kinds, min(max(LINES // max(1, caches.touched // LINE), FEWEST), most), seed)


def _one_of_each(rows: Array, count: int, rng: np.random.Generator) -> Array:
    if len(rows) <= count:
        return rows
    edges = np.linspace(0, len(rows), count + 1).astype(np.int64)
    chosen: Array = rows[rng.integers(edges[:-1], edges[1:])]
    return chosen


def smaller_of_two(values: Sequence[Array], counted: Sequence[Array]) -> Array:
    """The mean over all pairs of readings of the smaller of the two, for each column of ``values`` (rows of equal
    length), over the rows in which it is ``counted``; NaN if there are fewer than two. O(n log n).

    An event's time: one that was interrupted takes milliseconds, and the largest reading has no weight. It is expected
    to be the same however often is read, where the mean of a lower half falls: each cell finds for itself how many
    replays a value takes, and takes more where the machine is disturbed. A mean, because some clocks advance by 26
    cycles at once: a quantile would jump with them.

    >>> no, yes = np.array([False, False]), np.array([True, False])
    >>> smaller_of_two([np.array([1.0, 1.0]), np.array([5.0, 3.0]), np.array([6.0, 3.0])], [no, yes, yes]).tolist()
    [5.0, nan]
    """
    used = np.array(counted)
    ordered = np.sort(np.where(used, np.array(values), np.inf), axis=0)
    n = used.sum(axis=0)
    larger = np.maximum(n - 1 - np.arange(len(ordered))[:, None], 0)
    pairs = n * (n - 1) / 2
    sums = (larger * np.where(larger > 0, ordered, 0.0)).sum(axis=0)
    found: Array = np.divide(sums, pairs, out=np.full(len(n), np.nan), where=pairs > 0)
    return found


def undisturbed(control: Array, level: float) -> Array:
    """Which events of a replay were undisturbed, by the controls before each in cycles, and the level of undisturbed
    ones: booleans. O(n).

    >>> quick, slow = [338.0] * 20, [520.0] * 20
    >>> undisturbed(np.array([*quick, *slow, *quick]), 338.0).nonzero()[0].tolist()
    [0, 1, 2, 3, 4, 5, 54, 55, 56, 57, 58, 59]
    """
    good = control <= level * (1 + SLACK)
    before, places = np.concatenate(([0], np.cumsum(good))), np.arange(len(good))
    first, end = np.maximum(places - NEAR, 0), np.minimum(places + NEAR + 1, len(good))
    calm: Array = good & (before[end] - before[first] >= CALM * (end - first))
    calm[:-1] &= good[1:]
    return calm


@dataclass(frozen=True)
class Pass:
    """One replay: ``cycles`` of each timed event with one clock reading, those of the ``control`` before each, its
    ``seconds`` with all that is touched, ``ns`` per cycle, and the cycles of a ``clock`` reading then."""

    cycles: Array
    control: Array
    seconds: float
    ns: float
    clock: float


@dataclass(frozen=True)
class ColdTimes(Times):
    """One call of :meth:`ColdSession.measure`, with its replays for :meth:`ColdSession.settle`."""

    passes: tuple[tuple[Pass, Pass], ...] = field(default=(), repr=False, compare=False)


class ColdSession(Session):
    """As ``session``, whose machine it shares, but before each timed event other memory is touched, as ``caches`` says.
    Times are those of the timed events, drawn by ``seed``: of faults and lookups at most ``most``. ``control`` is the
    undisturbed level of the control that an earlier process found, in cycles (0: none). ``toucher``: of ``caches``, if
    there is one already."""

    def __init__(
        self,
        session: Session,
        caches: Caches,
        seed: int = 0,
        most: int = ENOUGH,
        control: float = 0.0,
        toucher: Toucher | None = None,
    ) -> None:
        vars(self).update(vars(session))  # nothing is compiled, allocated or verified a second time
        self._quiet = Quiet(control)
        self.caches = caches
        self._toucher = toucher or Toucher(caches)
        kinds = self.trace.events["kind"][self.first :]
        rows = timed_events(kinds, caches, most, seed)
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
        """``loops`` replays with the strategy and as many with known answers, alternating; at least REPLAYS, more until
        ``seconds`` have passed, and up to ``most`` times as many, or UNTIL, if the machine is disturbed (not with a
        ``most`` of 1). A figure is the mean over the timed events of :func:`smaller_of_two` readings. Raises
        EngineError if :meth:`verify` was not ok, or if a timed event answered something else than the checked one."""
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
        _, enough, limit = batches(loops, most)
        if most > 1 and self._undisturbed(passes) < CALM * loops:
            enough, limit = max(enough, LEAST), max(limit, UNTIL)
        while self._undisturbed(passes) < enough and len(passes) < limit:
            passes.append((self._pass(False), self._pass(True)))
        self._latest, self._clock_cost = passes[-1][0], min(one.clock for one in passes[-1])
        return self._evaluated(loops, passes)

    def settle(self, times: Times) -> Times:
        """``times`` evaluated with the undisturbed level known now: before the first undisturbed event all others
        looked undisturbed."""
        return self._evaluated(times.loops, times.passes) if isinstance(times, ColdTimes) else times

    @property
    def control(self) -> float:
        """The undisturbed level of the control as this process found it, in cycles; 0 if there are too few events."""
        return self._quiet.own

    def _evaluated(self, loops: int, passes: Sequence[tuple[Pass, Pass]]) -> ColdTimes:
        """The figures of these replays, of the undisturbed events only if there are enough. Else of all: of a few that
        look undisturbed amid disturbance, in one replay each, one that was interrupted would decide the mean."""
        full, known = (self._typical([both[i] for both in passes]) for i in (0, 1))
        lost = np.isnan(full) | np.isnan(known)
        covered, calm = 1 - float(lost.mean()), self._undisturbed(passes)
        if covered >= SOME and calm >= 2 * covered:
            full, known = np.where(lost, np.nan, full), np.where(lost, np.nan, known)
        else:
            every = [np.ones(len(lost), dtype=np.bool_)] * len(passes)
            full, known = (smaller_of_two([both[i].cycles for both in passes], every) for i in (0, 1))
        lookup, fault, mapping, quick = self._means(full, known)
        clocks = [np.array([one.clock]) for both in passes for one in both]
        clock = float(smaller_of_two(clocks, [np.ones(1, np.bool_)] * len(clocks))[0])
        ns = median(one.ns for both in passes for one in both)
        parts = ((self.n_lookups, quick - clock), (self.n_mapping, mapping - clock))
        quiet = round(calm)
        enough = believable(quiet, len(passes)) and quiet >= min(len(passes) // 2, LEAST)
        return ColdTimes(
            loops=loops,
            seconds=sum(one.seconds for both in passes for one in both),
            lookup_ns=lookup * ns,
            fault_ns=(fault - clock) * ns,
            mapping_ns=(mapping - clock) * ns,
            replay_ns=sum(count * cycles for count, cycles in parts if count) * ns / self.n_events,
            taken=len(passes),
            quiet=quiet if enough and covered >= COVERED else 0,
            passes=tuple(passes),
        )

    def _undisturbed(self, passes: Sequence[tuple[Pass, Pass]]) -> float:
        """How many replays the undisturbed events amount to."""
        return sum(float(self._calm(one).mean()) for both in passes for one in both) / 2

    def _calm(self, one: Pass) -> Array:
        """Which events of a replay were undisturbed: booleans. All are before the level is known."""
        if not self._quiet.level:
            return np.ones(len(one.control), dtype=np.bool_)
        return undisturbed(one.control, self._quiet.level)

    def _typical(self, passes: Sequence[Pass]) -> Array:
        """Each event's time over the replays in which it was undisturbed; NaN if that were fewer than two."""
        return smaller_of_two([one.cycles for one in passes], [self._calm(one) for one in passes])

    def _means(self, full: Array, known: Array) -> tuple[float, float, float, float]:
        """Cycles per lookup (the difference), fault, mapping call, and fault or lookup; NaN where there are none."""

        def mean(values: Array, which: str) -> float:
            some = values[self._is[which]]
            return float(np.mean(some[~np.isnan(some)])) if np.isfinite(some).any() else math.nan

        quick = mean(full, "lookup")
        return quick - mean(known, "lookup"), mean(full, "fault"), mean(full, "mapping"), quick

    def _pass(self, known: bool) -> Pass:
        """One replay from the saved state up to the last timed event, with the strategy or with known answers."""
        self.restore()
        answers = self.machine.arrays["answer_base"]["ret"]
        mms = self.machine.root + self._events.records["mm"][self.chosen].astype(np.int64) * mm_struct.size
        firsts = np.concatenate(([self.first], self.chosen[:-1] + 1))
        plan = np.column_stack((firsts, self.chosen, mms, mms, mms, mms * 0, mms * 0))
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
        self._quiet.see(plan[:, 6])
        clock = self._measure_clock(READINGS)
        if len(wrong):
            what = "of a timed replay answers something else than the checked one"
            raise EngineError(f"{self.strategy.name}: event {wrong.min()} {what}")
        return Pass(plan[:, 5].astype(np.float64), plan[:, 6], seconds, seconds * 1e9 / max(cycles, 1), clock)

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
