"""A stream replayed natively on one CPU: verify it against the oracle, time it, and say why fast paths were left.

Fallbacks to mmap_lock are counted by what was true of the address. Nothing is added to compiled code: the counted build
replays the stream event by event, which shows the events that fell back, and the oracle tells what the address was in
right before each. So a reason is a state of the VMA, not a line of the strategy, and the same for all strategies. In a
replay nobody else is at work: a writer, a VMA that was detached and a race lost never occur; should one fall back
without a reason known here, it is counted as ``other``.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.errors import EngineError
from benchframe.events import LIFE, Kind
from benchframe.mm.layout import mm_struct
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.smp import BUCKETS, SUB
from benchframe.mm.validate import ValidationError
from benchframe.oracle import Replayer
from benchframe.oracle.rules import VM_GROWSDOWN, VM_SHARED, VM_WRITE
from benchframe.runner import NativeRunner, unit_store
from benchframe.verify import differs, expected, first_difference, is_lookup, limits, rules, wrong_answers

if TYPE_CHECKING:
    from benchframe.oracle.space import Area
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

# ----------------------------------------------------------------------------------------------------------------------
# Which replays were made while the machine was undisturbed.
#
# A program on the other hardware thread of the core, or another guest of the host, makes everything half as slow again
# for milliseconds to seconds. The timed replay of a strategy alternates with the *control*, the replay with known
# answers: it is the same code for every strategy and contains none of the strategy's own. So the control shows when the
# machine was disturbed, independently of what is measured. A replay counts if the controls before and after it were
# undisturbed; the others are discarded, and the result records how many. A slow strategy is never discarded for being
# slow.

SLACK = 0.03
"""A control is undisturbed if it is at most this much above the undisturbed level: undisturbed ones are within 2 % of
each other."""
STRETCH = 1.05
"""A process whose own undisturbed level is above that of an earlier one by more than this was disturbed throughout.
Layouts change it by 2 %."""
FEW = 10
"""With fewer replays than this none is discarded: they are long, and each sees a mixture."""
MIN_QUIET = 5
MIN_SHARE = 0.05
"""Fewer undisturbed replays than this, or a smaller share, count as none: a few that look undisturbed amid disturbance
occur by chance. Then all replays count, disturbed as they are, and the process records this."""
ENOUGH, SUFFICE = 0.5, 200
"""Replays are added until this share of the requested number was undisturbed, or so many, ..."""
MOST = 2.0
"""... or until this many times the requested number were made. (Medians of 100 undisturbed replays mostly differ by 0.3
to 1.4 % within a process, the means of processes by 1 to 3 %. Mapping calls of sqlite-index under pmdcache have two
levels: 4 to 7 % with fewer than 200.)"""

Array = npt.NDArray[Any]


class Quiet:
    """The undisturbed level of a session's control, in cycles; ``known`` is that of an earlier process of the cell (0:
    none). It only falls."""

    def __init__(self, known: float = 0.0) -> None:
        self._known = known
        self._own = 0.0

    @property
    def own(self) -> float:
        """The level found by this process; 0 before it saw FEW replays."""
        return self._own

    @property
    def level(self) -> float:
        """The level to use: this process's own, unless it is too far above the earlier one."""
        if self._known and self._own > self._known * STRETCH:
            return self._known * STRETCH
        return self._own

    def see(self, control: Array) -> None:
        """Update the level from the controls of a batch of replays, in order of time."""
        if len(control) >= FEW:
            low = float(np.quantile(control, 0.05))
            self._own = min(self._own, low) if self._own else low

    def choose(self, control: Array) -> Array:
        """Which replays count: booleans, in order. The control before each replay is the one after the previous
        replay."""
        if len(control) < FEW or not self.level:
            return np.ones(len(control), dtype=np.bool_)
        quiet = control <= self.level * (1 + SLACK)
        chosen: Array = np.array(quiet)
        chosen[1:] &= quiet[:-1]
        return chosen


def believable(quiet: int, taken: int) -> bool:
    """Whether ``quiet`` undisturbed replays of ``taken`` are enough for a value.

    >>> believable(5, 100), believable(5, 101), believable(3, 3)
    (True, False, True)
    """
    return quiet >= min(taken, max(MIN_QUIET, MIN_SHARE * taken))


def batches(loops: int, most: float = MOST) -> tuple[int, int, int]:
    """(replays per further batch, undisturbed ones that suffice, maximum of replays) for ``loops`` requested replays.

    >>> batches(100), batches(1000)
    ((25, 50, 200), (250, 200, 2000))
    """
    return max(1, loops // 4), max(1, min(int(ENOUGH * loops), SUFFICE)), max(loops, int(most * loops))


# ----------------------------------------------------------------------------------------------------------------------
# Tail latency: percentiles and a compact histogram of single operations.


@dataclass(frozen=True)
class Latency:
    """Percentiles in ns of ``n`` operations of one ``figure`` (lookup, fault, mapping) and ``outcome`` (all, hit or
    miss).

    The clock's own cost is subtracted from each sample, which can leave 0 for operations shorter than the clock's step.
    ``bins``: the distribution as (bin, operations) in the order of bins, only for outcome ``all``; see
    :func:`bin_edge`.
    """

    figure: str
    outcome: str
    n: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    bins: tuple[tuple[int, int], ...] = ()


BINS_PER_OCTAVE = 8
"""Bins of a histogram between a time and its double: each is 9 % wide."""


def bin_edge(number: int) -> float:
    """The upper edge in ns of histogram bin ``number``; bin 0 begins at 0, each other bin where the previous one ends.

    The edges are powers of two of eighths of an octave (as in HdrHistogram, a constant relative width), so that some
    hundred bins cover 1 ns to 100 us.

    >>> bin_edge(0), bin_edge(8), round(bin_edge(9), 2)
    (1.0, 2.0, 2.18)
    """
    return float(2.0 ** (number / BINS_PER_OCTAVE))


def histogram(ns: npt.NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """(bin, operations) of each non-empty bin for the times ``ns`` (>= 0), in order. O(n log n).

    >>> histogram(np.array([0.0, 1.0, 1.9, 2.0]))
    ((0, 2), (8, 2))
    """
    numbers = np.ceil(BINS_PER_OCTAVE * np.log2(np.maximum(ns, 1.0)) - 1e-9).astype(np.int64)
    found, count = np.unique(numbers, return_counts=True)
    return tuple(zip(found.tolist(), count.tolist(), strict=True))


def summarise(samples: npt.NDArray[Any], kinds: npt.NDArray[Any], cost: float, ns: float) -> list[Latency]:
    """Latency rows for the figures that occur: ``samples`` (cycles, hit) for the event ``kinds``; ``cost`` in cycles,
    ``ns`` per cycle."""
    figures = {
        "fault": kinds == Kind.FAULT,
        "lookup": kinds == Kind.LOOKUP,
        "mapping": (kinds != Kind.FAULT) & (kinds != Kind.LOOKUP),
    }
    rows = []
    spent = np.maximum(samples["cycles"] - cost, 0) * ns
    for figure, mask in figures.items():
        outcomes = {"all": mask}
        if figure != "mapping":
            outcomes.update(hit=mask & (samples["hit"] > 0), miss=mask & (samples["hit"] == 0))
        for outcome, chosen in outcomes.items():
            values = spent[chosen]
            if len(values):
                p50, p90, p99, p999 = np.percentile(values, (50, 90, 99, 99.9)).tolist()
                bins = histogram(values) if outcome == "all" else ()
                rows.append(Latency(figure, outcome, len(values), p50, p90, p99, p999, float(values.max()), bins))
    return rows


# ----------------------------------------------------------------------------------------------------------------------
# Log-linear histograms of cycle counts, after HdrHistogram: fixed memory, a relative error below 1/16, any tail.


def edges() -> Array:
    """Lower edge in cycles of each bucket, and one more: BUCKETS + 1 values. The inverse of mm.smp_replay.bucket_of."""
    number = np.arange(BUCKETS + 1)
    octave, part = number // SUB, number % SUB
    return np.where(octave == 0, part, (SUB + part).astype(np.int64) << np.maximum(octave - 1, 0))


@dataclass(frozen=True)
class Histogram:
    """``counts`` per bucket; ``ns`` is one cycle, ``cost`` the cycles of the clock included in each value."""

    counts: Array
    ns: float
    cost: float = 0.0

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """The times in ns below which these shares of the operations are: the middle of the bucket, minus the clock's
        cost."""
        below = np.cumsum(self.counts)
        edge = edges()
        middle = (edge[:-1] + edge[1:] - 1) / 2
        wanted = np.ceil(np.asarray(shares) * below[-1])
        found = np.searchsorted(below, np.maximum(wanted, 1))
        values: list[float] = (np.maximum(middle[found] - self.cost, 0) * self.ns).tolist()
        return values

    def latency(self, figure: str) -> Latency:
        """As a row of the tail table."""
        p50, p90, p99, p999, top = self.quantiles((0.5, 0.9, 0.99, 0.999, 1.0))
        return Latency(figure, "all", int(self.counts.sum()), p50, p90, p99, p999, top)

    def points(self) -> list[tuple[float, int]]:
        """(lower edge in ns, count) of each non-empty bucket, for the result file."""
        edge = np.maximum(edges()[:-1] - self.cost, 0) * self.ns
        return [(round(float(edge[i]), 2), int(self.counts[i])) for i in np.flatnonzero(self.counts)]


# ----------------------------------------------------------------------------------------------------------------------
# A trace's events prepared for the model: which mms to boot first, and which EXIT is an mm's last.


@dataclass(frozen=True)
class Stream:
    """``records``: the events, EXIT rows marked (len 1: the mm ends). ``boots``: mms without EXEC or FORK."""

    records: Array
    boots: list[int]

    def class_runs(self, first: int) -> tuple[int, int, int]:
        """The number of runs of consecutive faults, lookups, and mapping operations from event ``first`` on: how often
        the replay reads its clock."""
        kind = self.records["kind"][first:]
        classes = np.where(kind == Kind.FAULT, 0, np.where(kind == Kind.LOOKUP, 1, 2))
        starts = np.concatenate(([True], classes[1:] != classes[:-1]))
        return tuple(int(np.count_nonzero(starts & (classes == c))) for c in range(3))  # type: ignore[return-value]


def prepare(events: Array, tasks: dict[int, set[int]] | None = None) -> Stream:
    """The stream of ``events`` (dtype EVENT). A task belongs to an mm from its first event there to its EXIT; an mm
    ends with the EXIT of its last task, as benchframe.oracle.replayer has it.

    A stream that comes in batches passes the same ``tasks`` (mm to its living tasks, at first empty) with each.
    """
    records = events.copy()
    kind, mm = records["kind"], records["mm"]
    boots, alive = _walk(records, {} if tasks is None else tasks)
    records["len"][kind == Kind.EXIT] = 0
    for row in alive:
        records["len"][row] = 1
    present = set(np.unique(mm).tolist())
    return Stream(records, sorted((boots & present) - {0}))


def _walk(records: Array, tasks: dict[int, set[int]]) -> tuple[set[int], list[int]]:
    """(mms never born by EXEC or FORK before use, rows of final EXITs)."""
    pair = records["mm"].astype(np.int64) << 32 | records["task"].astype(np.int64)
    appear = np.unique(pair, return_index=True)[1]
    special = np.isin(records["kind"], LIFE).nonzero()[0]
    boots: set[int] = set()
    last: list[int] = []
    for row in np.union1d(appear, special).tolist():
        event = records[row]
        mm, task, kind = int(event["mm"]), int(event["task"]), int(event["kind"])
        if kind == Kind.EXEC:
            tasks[mm] = {task}
            continue
        if mm not in tasks:
            tasks[mm] = set()
            boots.add(mm)
        tasks[mm].add(task)
        if kind == Kind.FORK:
            tasks[int(event["addr"])] = {int(event["len"])}
        elif kind == Kind.THREAD:
            tasks[mm].add(int(event["len"]))
        elif kind == Kind.EXIT:
            tasks[mm].discard(task)
            if not tasks[mm]:
                last.append(row)
    return boots, last


# ----------------------------------------------------------------------------------------------------------------------
# Replaying a trace that does not fit into memory: batch by batch on one machine; each batch is verified, then dropped.
#
# A batch is replayed once, timed; with ``verify`` the answers are taken too (the counted build: its rate is lower) and
# compared with the oracle, which is fed the same batches. Memory is bounded by a batch and the address spaces.

ROOM = Sizes(mms=1 << 20, tasks=1 << 20, vmas=1 << 21, tables=1 << 18, pages=1 << 23, files=1 << 16)
"""Capacities if the length of the stream is not known; unused memory is never touched."""


@dataclass
class Progress:
    """The progress of a streamed replay. ``seconds`` is the time inside the native replay."""

    events: int = 0
    seconds: float = 0.0
    wrong: int = 0
    first_wrong: str = ""

    @property
    def rate(self) -> float:
        """Events a second inside the replay."""
        return self.events / self.seconds if self.seconds else 0.0


class StreamReplay:
    """One strategy and a stream that comes in batches of at most ``rows`` events; ``lived_under`` are the limits in its
    trace's metadata.

    Raises DialectError (does not compile) and MemoryError (a slab of ROOM is full).
    """

    def __init__(
        self,
        strategy: Strategy,
        rows: int = 1 << 20,
        *,
        verify: bool = False,
        lived_under: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.strategy, self.parameters = strategy, Parameters.of(lived_under)
        self.runner = NativeRunner(strategy, unit_store())
        self.machine = Machine(self.runner, replace(ROOM, events=rows), self.parameters, strategy.slabs)
        self.oracle = Replayer(rules(self.parameters), limits(self.parameters)) if verify else None
        self.progress = Progress()
        self._tasks: dict[int, set[int]] = {}

    def run(self, batches: Iterable[Array]) -> Progress:
        """Replay all ``batches`` (arrays of EVENT)."""
        for events in batches:
            self.feed(events)
        return self.progress

    def feed(self, events: Array) -> None:
        """Replay one batch."""
        stream = prepare(events, self._tasks)
        for number in stream.boots:
            self.machine.boot(number)
        count = len(events)
        self.machine.arrays["event_base"][:count] = stream.records
        began = time.perf_counter()
        if self.oracle is None:
            self.runner.timed(0, count)
        else:
            self.runner.replay(0, count)
        self.progress.seconds += time.perf_counter() - began
        self.machine.raise_if_full()
        if self.oracle is not None:
            self._judge(events)
        self.progress.events += count

    def _judge(self, events: Array) -> None:
        assert self.oracle is not None
        right = self.oracle.feed(events)
        ours = self.machine.arrays["answer_base"][: len(events)]
        wrong = wrong_answers(events, ours, right.ret, right.vm_start, right.vm_end)
        if wrong.any() and not self.progress.first_wrong:
            row = int(np.argmax(wrong))
            wanted = (int(right.ret[row]), int(right.vm_start[row]), int(right.vm_end[row]))
            number = self.progress.events + row
            self.progress.first_wrong = differs(number, events[row], ours[row], wanted, self.strategy.name)
        self.progress.wrong += int(np.count_nonzero(wrong))


# ----------------------------------------------------------------------------------------------------------------------
# The native engine: one strategy on one trace, verified against the oracle, then timed.
#
# Four figures of a replay, each per operation:
#
# lookup   what the strategy's lookup costs in place: the time of all faults and lookups less that of the same replay
#          with the answers known beforehand (``known``), per fault or lookup
# fault    a page fault: lookup and the fault's own work, so that hits and the cost of keeping a cache both count
# mapping  a mapping operation (mmap, munmap, mprotect, mremap, brk, madvise, fork ...)
# replay   an event of any kind
#
# Each figure of a measurement is the median over its replays, without those that the machine disturbed as the replay
# with known answers tells (benchframe.engine.session): one that was interrupted does not count.
#
# The clock (rdtsc between lfences) is read only where the class of event changes; its own cost is measured and taken
# off. Every timed replay starts from the same saved state, restored outside the timed part.

COUNTERS = {"lookups": "nr_lookups", "hits": "nr_hits", "retries": "nr_retries", "fallbacks": "nr_fallbacks"}
"""The counters of a task, and the field of TASK for each."""


@dataclass(frozen=True)
class Correctness:
    """Whether every answer is right. If not, ``what`` says which is wrong; ``event`` is its index (-1: none in
    particular)."""

    ok: bool
    what: str = ""
    event: int = -1


@dataclass(frozen=True)
class Times:
    """One call of :meth:`Session.measure`. ``seconds`` is the wall time inside measured loops; ``*_ns`` is ns per
    operation, NaN where the trace has no such operation. ``taken`` replays were made, which may be more than the
    requested ``loops``; the ``quiet`` (undisturbed) ones count, all if there are none. ``replays`` are their clock
    readings, for :meth:`Session.settle`."""

    loops: int
    seconds: float
    lookup_ns: float
    fault_ns: float
    mapping_ns: float
    replay_ns: float
    taken: int
    quiet: int
    replays: tuple[Array, Array] | None = field(default=None, repr=False, compare=False)


class Session:
    """``strategy`` and ``trace`` ready to run in this process.

    Raises EngineError (no events, memory), DialectError (the strategy does not compile). ``note`` is called with the
    name of each unit that has to be compiled. ``layout_seed`` shuffles the places of VMA records (0: in order of
    allocation). ``control`` is the undisturbed level of the control that an earlier process of the cell found, in
    cycles (0: none).
    """

    def __init__(
        self,
        strategy: Strategy,
        trace: Trace,
        *,
        layout_seed: int = 0,
        control: float = 0.0,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.strategy, self.trace = strategy, trace
        self.parameters = Parameters.of(trace.meta.limits)
        self.first, self.last = int(trace.setup), len(trace.events)
        if self.first >= self.last:
            raise EngineError("the trace has no events after its setup: there is nothing to measure")
        self.runner = NativeRunner(strategy, unit_store(), note)
        self._events = prepare(trace.events)
        try:
            self.machine = Machine(
                self.runner,
                Sizes.of(trace.events),
                self.parameters,
                strategy.slabs,
                layout_seed=layout_seed,
                huge=True,
            )
        except MemoryError as error:
            raise EngineError(f"not enough memory for this trace: {error}") from error
        for number in self._events.boots:
            self.machine.boot(number)
        self.machine.arrays["event_base"][:] = self._events.records
        self.runner.replay(0, self.first)
        self.machine.raise_if_full()
        self._setup_answers = self.machine.arrays["answer_base"][: self.first].copy()
        mm = self.machine.mm(0)
        for name in ("fault", "lookup", "mapping", "clock", "switches", "cursor"):
            mm[f"replay_{name}"] = 0
        self._saved = self.machine.save()
        first = mm_struct.offset("replay_fault") // 8
        self._clocks = self.machine.arrays["mm_base"].view(np.int64)[mm_struct.size // 8 :][first : first + 4]
        self._known: Array | None = None
        self._quiet = Quiet(control)
        self._verdict: Correctness | None = None
        kind = trace.events["kind"][self.first :]
        self.n_faults = int(np.count_nonzero(kind == Kind.FAULT))
        self.n_bare = int(np.count_nonzero(kind == Kind.LOOKUP))
        self.n_lookups = self.n_faults + self.n_bare
        self.n_events = self.last - self.first
        self.n_mapping = self.n_events - self.n_lookups
        self._runs = self._events.class_runs(self.first)

    # ---- right before fast -------------------------------------------------------------------------------------------

    def verify(self) -> Correctness:
        """Replay everything once and compare every answer with the oracle's, then run validate_mm. The verdict is
        cached."""
        if self._verdict is None:
            self._verdict = self._verify()
        return self._verdict

    def _verify(self) -> Correctness:
        ret, vm_start, vm_end, layout = expected(self.trace.events, self.parameters)
        self.restore()
        self.runner.replay(self.first, self.last)
        try:
            self.machine.raise_if_full()
        except MemoryError as error:
            return Correctness(False, str(error))
        answers = self.machine.arrays["answer_base"].copy()
        answers[: self.first] = self._setup_answers
        wrong = wrong_answers(self.trace.events, answers, ret, vm_start, vm_end)
        if wrong.any():
            index = int(np.argmax(wrong))
            right = (int(ret[index]), int(vm_start[index]), int(vm_end[index]))
            told = differs(index, self.trace.events[index], answers[index], right, self.strategy.name)
            return Correctness(False, told, index)
        try:
            self.runner.validate(self.machine)
        except ValidationError as error:
            return Correctness(False, f"after the replay: {error}")
        difference = first_difference(self.machine, layout)
        if difference:
            return Correctness(False, f"after the replay: {difference}")
        self._known = answers[self.first :][self._asks]
        return Correctness(True)

    @property
    def _asks(self) -> Array:
        """Which timed events look up a VMA: those to which a replay with known answers tells one."""
        kind, addr = (self._events.records[name][self.first :] for name in ("kind", "addr"))
        inside = is_lookup(kind) & (addr >= 0) & (addr < self.parameters.task_size)
        mask: Array = inside | (kind == Kind.LOOKUP)
        return mask

    # ---- timing ------------------------------------------------------------------------------------------------------

    def measure(self, loops: int, most: float = MOST) -> Times:
        """``loops`` replays with the strategy and as many with known answers, alternating; up to ``most`` times as many
        if the machine is disturbed. Raises EngineError if :meth:`verify` was not ok."""
        verdict = self.verify()
        if not verdict.ok or self._known is None:
            raise EngineError(f"not timed, because an answer is wrong: {verdict.what}")
        self.runner.load()  # or a replay that is timed would wait for its unit
        self.machine.arrays["answer_base"][: len(self._known)] = self._known
        more, enough, limit = batches(loops, most)
        full, known = self._replays(loops)
        while self._quiet.choose(known[:, 3]).sum() < enough and len(full) + more <= limit:
            further = self._replays(more)
            full, known = np.concatenate((full, further[0])), np.concatenate((known, further[1]))
        return self._times(loops, full, known)

    def settle(self, times: Times) -> Times:
        """``times`` evaluated with the undisturbed level known now: before the first undisturbed replay all others
        looked undisturbed."""
        return self._times(times.loops, *times.replays) if times.replays else times

    def _times(self, loops: int, full: Array, known: Array) -> Times:
        """The figures of replays and their controls, of the undisturbed ones only if there are any."""
        replays, chosen = (full, known), self._quiet.choose(known[:, 3])
        quiet, taken = int(chosen.sum()), len(full)
        if not believable(quiet, taken):
            quiet = 0
        seconds = float(full[:, 4].sum() + known[:, 4].sum())
        # the median is not affected by replays that were interrupted between the two clocks; their sums are
        ns = 1e9 * float(np.median(np.concatenate((full[:, 4] / full[:, 3], known[:, 4] / known[:, 3]))))
        if quiet:
            full, known = full[chosen], known[chosen]
        fault, _, mapping, total = np.median(full[:, :4], axis=0).tolist()
        in_place = float(np.median(full[:, :2].sum(axis=1) - known[:, :2].sum(axis=1)))
        clock = [self._clock_cost * runs for runs in self._runs]

        def per(cycles: float, count: int) -> float:
            return cycles * ns / count if count else math.nan

        return Times(
            loops=loops,
            seconds=seconds,
            lookup_ns=per(in_place, self.n_lookups),
            fault_ns=per(fault - clock[0], self.n_faults),
            mapping_ns=per(mapping - clock[2], self.n_mapping),
            replay_ns=per(total - sum(clock), self.n_events),
            taken=taken,
            quiet=quiet,
            replays=replays,
        )

    @property
    def control(self) -> float:
        """The undisturbed level of the control as this process found it, in cycles; 0 if there are too few replays."""
        return self._quiet.own

    def _replays(self, loops: int) -> tuple[Array, Array]:
        """``loops`` timed replays and as many controls, alternating, one row each; updates the undisturbed level."""
        full, known = np.zeros((loops, 5)), np.zeros((loops, 5))
        for loop in range(loops):
            self._one(self.runner.timed, full[loop])
            self._one(self.runner.known, known[loop])
        self._quiet.see(known[:, 3])
        return full, known

    def _one(self, run: Callable[[int, int], int], row: Array) -> None:
        """One replay from the saved state; ``row`` gets the cycles in faults, lookups, mapping, all, and the
        seconds."""
        self.restore()
        began = time.perf_counter()
        run(self.first, self.last)
        row[4] = time.perf_counter() - began
        row[:4] = self._clocks

    def restore(self) -> None:
        """Back to the state after the setup, which has every replay_* field at zero."""
        self.machine.restore(self._saved)

    @cached_property
    def _clock_cost(self) -> float:
        return self._measure_clock()

    def _measure_clock(self, readings: int = 101) -> float:
        """The cycles of one clock reading: the mean of the middle half of empty replays. Some clocks advance by 26
        cycles at once, so that a median would be two or three of these steps by chance."""
        mm, costs = self.machine.mm(0), []
        for _ in range(readings):
            mm["replay_clock"] = 0
            self.runner.timed(self.first, self.first)
            costs.append(float(mm["replay_clock"]))
        return float(np.mean(np.sort(costs)[readings // 4 : readings - readings // 4]))

    # ---- passes that are not timed -----------------------------------------------------------------------------------

    def latencies(self) -> list[Latency]:
        """Percentiles of single operations, from a separate pass that reads the clock around each."""
        for _ in range(2):  # the first pass warms caches and branch predictors
            self.restore()
            began = time.perf_counter()
            start = self._cycles()
            self.runner.sample(self.first, self.last)
            cycles = self._cycles() - start
            seconds = time.perf_counter() - began
        samples = self.machine.arrays["sample_base"][self.first : self.last]
        kinds = self.trace.events["kind"][self.first :]
        self.timer_overhead_ns = self._clock_cost * seconds * 1e9 / max(cycles, 1)
        return summarise(samples, kinds, self._clock_cost, seconds * 1e9 / max(cycles, 1))

    def _cycles(self) -> int:
        """Sum of the sampled cycles so far is not a clock: read one through an empty replay's end."""
        mm = self.machine.mm(0)
        mm["replay_clock"] = 0
        self.runner.timed(self.first, self.first)
        return int(mm["clock_now"])

    def counts(self) -> dict[str, float]:
        """Lookups, hits and the like of one replay, by the counted build."""
        self.restore()
        tasks, mms = self.machine.arrays["task_base"], self.machine.arrays["mm_base"]
        for name in COUNTERS.values():
            tasks[name] = 0
        before = {name: int(mms[name].sum()) for name in ("nr_invalidations", "nr_splits", "nr_merges")}
        self.runner.replay(self.first, self.last)
        found: dict[str, float] = {name: int(tasks[field].sum()) for name, field in COUNTERS.items()}
        found["misses"] = found["lookups"] - found["hits"]
        found["hit_rate"] = found["hits"] / found["lookups"] if found["lookups"] else math.nan
        for name, old in before.items():
            found[name.removeprefix("nr_")] = int(mms[name].sum()) - old
        arenas = self.machine.arrays["slab_base"]
        found.update(
            faults=self.n_faults,
            mapping_ops=self.n_mapping,
            events=self.n_events,
            vmas_peak=int(arenas["peak"][0]),
            page_tables_peak=int(arenas["peak"][1]),
            pages_peak=int(arenas["peak"][2]),
        )
        return found


REASONS = {
    "outside": "no VMA holds the address",
    "stack": "below a stack, which has to grow",
    "file": "in a VMA of a file, or of shared memory",
    "no anon_vma": "in a private VMA that has no anon_vma yet; its first write prepares one",
    "file, no anon_vma": "in a writable private VMA of a file without anon_vma: both",
    "other": "none of these: the strategy's own reason, such as an empty cache",
}
"""What each name means."""


def reason(area: Area | None, addr: int) -> str:
    """What is true of ``addr``; ``area`` is its VMA, or the next one above."""
    if area is None:
        return "outside"
    if addr < area.vm_start:
        return "stack" if area.vm_flags & VM_GROWSDOWN else "outside"
    lacks = not area.vm_flags & VM_SHARED and not area.anon_vma
    if area.anonymous:
        return "no anon_vma" if lacks else "other"
    return "file, no anon_vma" if lacks and area.vm_flags & VM_WRITE else "file"


def fallbacks(session: Session) -> Counter[str]:
    """Fallbacks of one replay of the timed part, by REASONS. The answers must be right. Some 20 us an event."""
    rows = _fell_back(session)
    found: Counter[str] = Counter()
    replayer = Replayer(rules(session.parameters), limits(session.parameters))
    events = session.trace.events

    def look(row: int) -> None:
        addr, mm = int(events[row]["addr"]), int(events[row]["mm"])
        found[reason(replayer.space(mm).find_vma(addr), addr)] += rows[row]

    replayer.feed(events, sorted(rows), look)
    return found


def _fell_back(session: Session) -> dict[int, int]:
    """Row to the fallbacks of its event."""
    session.restore()
    events = session.trace.events
    found = {}
    quick = np.isin(events["kind"], (Kind.FAULT, Kind.LOOKUP))
    counters = session.machine.arrays["task_base"]["nr_fallbacks"]
    at = session.first
    for row in (session.first + np.flatnonzero(quick[session.first :])).tolist():
        if at < row:
            session.runner.replay(at, row)
        who = int(events["task"][row]) + 1
        before = int(counters[who])
        session.runner.replay(row, row + 1)
        if more := int(counters[who]) - before:
            found[row] = more
        at = row + 1
    return found
