"""A stream replayed by real threads: which thread replays what, the threads, the checks and the measurement."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.session import COUNTERS, Correctness, Histogram, Latency, prepare
from benchframe.errors import FAILED, BenchframeError, EngineError
from benchframe.events import LIFE, UNKNOWN, Kind
from benchframe.mm import kmem
from benchframe.mm.defaults import count_event
from benchframe.mm.hooks import ALL, hook_entry, hook_mask
from benchframe.mm.layout import mm_struct
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.replay import mapping_event
from benchframe.mm.smp import BUCKETS, CLASSES, QUEUE_LIMIT
from benchframe.mm.smp_replay import CLOCK, COST, DRAIN, RUN, thread_entry
from benchframe.mm.validate import Validating, ValidationError
from benchframe.runner import Note, allocating, unit_store
from benchframe.units import Units, UnitSpec
from benchframe.verify import expected, first_difference

if TYPE_CHECKING:
    from benchframe.mm.machine import Machine, Parameters
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace


# ----------------------------------------------------------------------------------------------------------------------
# The work of each thread of a threaded run, from a stream: events by thread, expected answers, order.
#
# Two kinds of stream. One *made for threads* (``meta.limits["threads"]``): each task keeps to areas of its own, so that
# every answer is known whatever the others do. A *recorded* one: its mapping operations take place in the recorded
# order; faults and lookups wait for the mapping operations that stand before them, and for nothing else. So a fault may
# come late, after another thread has unmapped its page: that is a miss, not an error.

Array = npt.NDArray[Any]


class ProgramError(BenchframeError):
    """This number of threads cannot replay the stream; one line says why and what to do."""


@dataclass(frozen=True)
class Work:
    """One thread's part: events [first, last), replayed as TASK ``task``; ``barrier`` is the event before which all
    threads meet, -1 for none."""

    task: int
    first: int
    last: int
    barrier: int


@dataclass(frozen=True)
class Program:
    """``records``: the setup, then each thread's events. ``ret``, ``vm_start``, ``vm_end``: the expected answers.

    ``after``, ``number``: see ORDER in :mod:`benchframe.mm.smp`; used only if ``ordered``. ``layout`` is the oracle's
    at the end. ``mms`` counts address spaces.
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
    """The number of tasks that have events after the setup."""
    return len(np.unique(trace.events["task"][trace.setup :]))


def make_program(trace: Trace, threads: int, parameters: Parameters) -> Program:
    """``trace`` for ``threads`` real threads; if it was made for a number of threads, for that number.

    Asks the oracle (its answers are cached on disk). Raises ProgramError. O(n log n).
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
    """The events without each mm's last EXIT, so that the final state can be inspected."""
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
    """The recorded tasks distributed over the threads: the busiest first, each to the thread with the least work so
    far."""
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


# ----------------------------------------------------------------------------------------------------------------------
# Runs compiled code in real threads: Python threads that release the GIL until they end.

PATIENCE = 30.0
"""Seconds to wait for the threads to stop, when none of them makes progress, before the run is declared stuck."""
LOCKS = {"table": ("ptl_waits", "ptl_cycles"), "vma": ("vma_waits", "vma_cycles")}
"""Locks besides mmap_lock, by class, and the fields that count the waits for them: page-table locks, and locks of
VMAs."""


def mapping(strategy: Strategy) -> UnitSpec:
    """The unit of runs with threads that strategies with the same allocator share."""
    name = "mapping-threads" if strategy.allocator is None else f"mapping-threads-{strategy.name}"
    return UnitSpec(name, mapping_event, None, kmem.threads(allocating(strategy)))


def specs(strategy: Strategy) -> list[UnitSpec]:
    """The units that only ``strategy`` needs for runs with threads."""
    binding, replace = {**strategy.binding, "count": count_event}, kmem.threads(allocating(strategy))
    return [
        UnitSpec(f"hooks-threads-{strategy.name}", hook_entry, binding, replace),
        UnitSpec(f"threads-{strategy.name}", thread_entry, binding, replace),
    ]


_NUMBER = {h.name: i for i, h in enumerate(ALL)}


class Stuck(BenchframeError):
    """The threads did not end: a deadlock, a livelock or a lost wake-up. They are left running."""


@dataclass(frozen=True)
class Lap:
    """One start of all threads: operations, cycles and waits per thread. ``seconds`` is wall time, ``ns`` one cycle."""

    seconds: float
    ns: float
    threads: Array
    together: bool = False
    """Rates over the whole lap, not over each thread's own time: a recorded thread ends when its events do."""
    waits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """For each class of LOCKS: how often threads waited for such a lock, and the cycles spent waiting, all threads
    together."""

    @property
    def rates(self) -> Array:
        """Operations per second of each thread."""
        total = sum(self.threads[name] for name in FIGURES.values())
        return np.asarray(total / np.maximum(self.spans, 1e-9))

    @property
    def spans(self) -> Array:
        """Seconds of each thread from its start to the end of what is counted."""
        began: Any = self.threads["began"]
        own = np.asarray((self.threads["ended"] - began) * self.ns * 1e-9)
        if self.together:
            own[:] = (self.threads["ended"].max() - began.min()) * self.ns * 1e-9
        return own

    def rate(self, field: str) -> float:
        """``field`` (faults, lookups, mappings, walks) per second, all threads together."""
        return float((self.threads[field] / np.maximum(self.spans, 1e-9)).sum())

    def share(self, field: str) -> float:
        """The share of the threads' time spent in ``field`` (lock_cycles, barrier_cycles, order_cycles), or waiting for
        a class of LOCKS."""
        span = float((self.threads["ended"] - self.threads["began"]).sum())
        spent = self.waits.get(field, (0, 0))[1] if field in LOCKS else float(self.threads[field].sum())
        return min(1.0, spent / span) if span > 0 else 0.0


def _pin(crowd: Sequence[threading.Thread]) -> None:
    """A CPU for each thread, if there are enough, as in will-it-scale: otherwise two threads may share one CPU while
    another idles. If the system does not allow it, the scheduler decides."""
    with contextlib.suppress(OSError, AttributeError):
        cpus = sorted(os.sched_getaffinity(0))
        if len(crowd) <= len(cpus):
            for one, cpu in zip(crowd, cpus, strict=False):
                os.sched_setaffinity(one.native_id or 0, {cpu})


class CrewRunner(Validating):
    """``strategy``'s threaded build on a machine's memory (``Sizes.threads`` must be set).

    Raises DialectError if it cannot be compiled.
    """

    def __init__(self, strategy: Strategy, units: Units | None = None, note: Note | None = None) -> None:
        self.strategy = strategy
        self.units = units or unit_store()
        self._hooks, self._entry = (self.units.get(spec, note) for spec in specs(strategy))
        self._mapping = self.units.get(mapping(strategy), note)
        self.allocator = allocating(strategy)
        self._machine: Machine | None = None
        self._root = 0

    # ---- one thread: the interface that Machine needs ----------------------------------------------------------------

    def attach(self, machine: Machine) -> None:
        """Write the entry points into the machine's first mm."""
        mm = machine.mm(0)
        mm["hook_entry"], mm["mapping_entry"] = self._hooks.address, self._mapping.address
        mm["hook_mask"] = hook_mask(self.strategy.binding)
        self._machine, self._root = machine, machine.root
        crew = machine.arrays["crew_base"][0]
        crew["gp_started"] = crew["gp_completed"] = 1
        crew["last_task"] = machine.sizes.tasks

    def replay(self, first: int, last: int) -> None:
        """Events [first, last), by one thread, without answers."""
        crew, t = self._records(1)
        t["first"], t["last"], t["rounds"], t["barrier"] = first, last, 1, -1
        t["checks"] = t["samples"] = t["ordered"] = 0
        assert self._machine is not None
        self._machine.arrays["thread_base"]["leader"] = 1
        crew["go"], crew["stop"] = 1, 0
        self._entry(self._root, 1, RUN)
        crew["go"] = crew["ready"] = 0

    def _records(self, task: int) -> tuple[Any, Any]:
        assert self._machine is not None
        return self._machine.arrays["crew_base"][0], self._machine.arrays["thread_base"][task]

    # ---- many --------------------------------------------------------------------------------------------------------

    def run(
        self,
        works: Sequence[Work],
        *,
        seconds: float = 0.0,
        rounds: int = 0,
        checks: bool = False,
        samples: bool = False,
        ordered: bool = False,
    ) -> Lap:
        """Start one thread per work; stop after ``seconds`` (each finishes its round) or ``rounds``.

        Raises Stuck if they do not end, OSError or RuntimeError if the system cannot start a thread.
        """
        assert self._machine is not None
        crew = self._machine.arrays["crew_base"][0]
        for name in ("go", "stop", "ready", "arrived", "stopped", "mapped"):
            crew[name] = 0
        for name in itertools.chain.from_iterable(LOCKS.values()):
            self._machine.arrays["crew_base"][name] = 0
        crew["parties"] = len(works)
        threads = self._machine.arrays["thread_base"]
        for work in works:
            t = threads[work.task]
            for name in t.dtype.names:
                if name not in ("pages", "nr_pages", "rcu_seen", "leader"):
                    t[name] = 0
            played = np.unique(self._machine.arrays["event_base"]["task"][work.first : work.last]) + 1
            threads["leader"][played] = work.task
            t["first"], t["last"], t["barrier"] = work.first, work.last, work.barrier
            t["rounds"] = rounds or 1 << 62
            t["checks"], t["samples"], t["ordered"] = checks, samples, ordered
        crowd = [threading.Thread(target=self._entry, args=(self._root, w.task, RUN), daemon=True) for w in works]
        for one in crowd:
            one.start()
        _pin(crowd)
        while int(crew["ready"]) < len(works):
            time.sleep(0.0002)
        start, began = self.clock(), time.perf_counter()
        crew["go"] = 1
        if seconds:
            time.sleep(seconds)
            crew["stop"] = 1
        self._join(crowd, works, limited=not seconds)
        wall, cycles = time.perf_counter() - began, self.clock() - start
        crew["go"] = 0
        spent = self._machine.arrays["crew_base"]
        waits = {lock: (int(spent[often].sum()), int(spent[long].sum())) for lock, (often, long) in LOCKS.items()}
        own = threads[[w.task for w in works]].copy()
        return Lap(wall, 1e9 * wall / max(cycles, 1), own, ordered, waits)

    def _join(self, crowd: Sequence[threading.Thread], works: Sequence[Work], limited: bool) -> None:
        """Wait for all; raises Stuck if nothing changes for PATIENCE seconds (with fixed counts: ten times that)."""
        deadline = time.perf_counter() + PATIENCE * (10 if limited else 1)
        for one in crowd:
            one.join(max(0.0, deadline - time.perf_counter()))
        left = [work.task - 1 for one, work in zip(crowd, works, strict=True) if one.is_alive()]
        if left:
            names = ", ".join(map(str, left))
            raise Stuck(f"thread {names} of {len(works)} waits for ever: a deadlock, a livelock or a lost wake-up")

    def clock(self) -> int:
        """The cycle counter."""
        return self._entry(self._root, 1, CLOCK)

    def clock_cost(self) -> float:
        """The cycles of a clock reading: the median of 101."""
        return float(np.median([self._entry(self._root, 1, COST) for _ in range(101)]))

    def drain(self) -> int:
        """With every thread at rest: free what waits for RCU, and each task's frames. Returns the number of records
        that still wait: 0."""
        assert self._machine is not None
        return self._entry(self._root, self._machine.sizes.mms, DRAIN)

    def ask(self, name: str, number: int, *arguments: int) -> int:
        """Call a hook of the strategy in trace mm ``number``, while every thread is at rest."""
        filled = [*arguments, 0, 0, 0, 0][:4]
        return self._hooks(self._root + number * mm_struct.size, _NUMBER[name], *filled)


# ----------------------------------------------------------------------------------------------------------------------
# The threaded session: one strategy, one stream, N real threads: verified, then measured.
#
# A *lap* is one start of all threads. A stream that was made for threads goes round until it is told to stop; a
# recorded one is played once per lap, from the same saved state each time. After every lap the address space must be
# right: validate_mm, no holder, no memory waiting for RCU, the oracle's layout. Before anything is measured, one lap
# compares every answer.

FIGURES = {"fault": "faults", "lookup": "lookups", "mapping": "mappings", "walk": "walks"}
"""From a figure to the field that counts its operations, in the order of a histogram's classes."""
CHECK_ROUNDS = 3
"""Rounds of the lap that verifies answers."""
SAMPLE_SECONDS = 0.2
LAP_WALL, LEAST_LAPS = 10, 20
"""A value of a recorded stream may take this many times its own time, with at least this many laps."""


@dataclass(frozen=True)
class Scaling:
    """The result of all threads: operations per second, in total and of each thread; shares are parts of their time.

    ``figures``: ns of wall time per operation, all threads together; ``seconds``: wall time; ``operations`` by figure.
    """

    seconds: float
    figures: dict[str, float]
    operations: dict[str, int]
    rates: tuple[float, ...]
    lock_share: float
    barrier_share: float
    order_share: float
    lock_waits: int
    other_locks: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """By class (LOCKS): the share of the threads' time spent waiting for such locks, and how often."""

    @property
    def fairness(self) -> float:
        """Jain's index of the threads' rates: 1 if all are equal, 1/n if one thread does everything."""
        rates = np.asarray(self.rates)
        square = float((rates**2).sum())
        return float(rates.sum()) ** 2 / (len(rates) * square) if square else math.nan

    @property
    def slowest(self) -> float:
        """The slowest thread's rate divided by the fastest's."""
        return min(self.rates) / max(self.rates) if self.rates and max(self.rates) > 0 else math.nan


class CrewSession:
    """What sessions of real and of simulated threads share: the program, the address spaces at its beginning, and what
    must hold when every thread has ended. Raises EngineError if there is nothing to play."""

    runner: CrewRunner
    machine: Machine

    def __init__(self, strategy: Strategy, trace: Trace, threads: int) -> None:
        self.strategy, self.trace = strategy, trace
        self.parameters = Parameters.of(trace.meta.limits)
        try:
            self.program = make_program(trace, threads, self.parameters)
        except ProgramError as error:
            raise EngineError(str(error)) from error
        self.threads = len(self.program.works)
        self.checked = self.missed = 0

    def set_up(self, runner: CrewRunner, layout_seed: int = 0) -> None:
        """Allocate the address spaces, place events and known answers, and play what comes before the threads. Raises
        EngineError."""
        self.runner = runner
        try:
            slabs = self.strategy.slabs
            self.machine = Machine(runner, self._sizes(), self.parameters, slabs, layout_seed=layout_seed)
        except MemoryError as error:
            raise EngineError(f"not enough memory for this trace: {error}") from error
        program, arrays = self.program, self.machine.arrays
        for number in program.boots:
            self.machine.boot(number)
        arrays["event_base"][: len(program.records)] = program.records
        for name in ("ret", "vm_start", "vm_end"):
            arrays["answer_base"][name][: len(program.records)] = getattr(program, name)
        arrays["order_base"]["after"][: len(program.records)] = program.after
        arrays["order_base"]["number"][: len(program.records)] = program.number
        runner.replay(0, program.setup)
        self.machine.raise_if_full()
        runner.drain()
        for counter in COUNTERS.values():
            arrays["task_base"][counter] = 0
        self._saved = self.machine.save()

    def _sizes(self) -> Sizes:
        sizes = Sizes.of(self.program.records)
        waiting = 2 * QUEUE_LIMIT * sizes.mms  # what RCU has not given back yet
        one = (self.program.records["kind"] == Kind.MMAP) | (self.program.records["kind"] == Kind.MPROTECT)
        return Sizes(
            mms=sizes.mms,
            tasks=sizes.tasks,
            vmas=sizes.vmas + 64 * self.threads + int(one.sum()) + waiting,
            tables=sizes.tables + waiting,
            pages=sizes.pages + 1024 * (sizes.tasks + 2),
            files=sizes.files + 64,
            events=sizes.events,
            threads=True,
        )

    def at_rest(self) -> str:
        """What is wrong with the address spaces now that every thread has ended; empty if nothing is."""
        left = self.runner.drain()
        if left:
            return f"{left} records still wait for RCU"
        try:
            self.machine.raise_if_full()
            self.runner.validate(self.machine)
        except (MemoryError, ValidationError) as error:
            return str(error).splitlines()[0]
        top = int(self.machine.arrays["slab_base"]["top"][0])
        held = np.flatnonzero(self.machine.arrays["vma_base"]["cache_access"][:top])
        if len(held):
            return f"VMA #{held[0]} is still held, and {len(held) - 1} others"
        return first_difference(self.machine, self.program.layout)

    def judge(self, threads: Any) -> Correctness:
        """For THREAD records of threads that compared every answer: whether all were right and the address space at
        rest is valid."""
        self.checked, self.missed = int(threads["checked"].sum()), int(threads["missed"].sum())
        wrong = threads[threads["wrong"] > 0]
        if len(wrong):
            return Correctness(False, self._describe(wrong[0], int(wrong["wrong"].sum())), int(wrong[0]["wrong_event"]))
        problem = self.at_rest()
        return Correctness(not problem, f"after the threads ended: {problem}" if problem else "")

    def _describe(self, t: Any, count: int) -> str:
        index = int(t["wrong_event"])
        event, program = self.program.records[index], self.program
        return (
            f"{count} wrong with {self.threads} threads, one is event {index} of thread {int(event['task'])} "
            f"({Kind(int(event['kind'])).name} {int(event['addr']):#x} len {int(event['len']):#x}): "
            f"{self.strategy.name} says {int(t['wrong_ret'])} in {int(t['wrong_start']):#x}-{int(t['wrong_end']):#x}, "
            f"right is {int(program.ret[index])} in "
            f"{int(program.vm_start[index]):#x}-{int(program.vm_end[index]):#x}"
        )


class ThreadSession(CrewSession):
    """``strategy`` and ``trace`` for ``threads`` real threads in this process.

    Raises EngineError (nothing to play, memory), DialectError. ``note`` is called with each unit that has to be
    compiled.
    """

    def __init__(
        self,
        strategy: Strategy,
        trace: Trace,
        threads: int,
        *,
        layout_seed: int = 0,
        note: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(strategy, trace, threads)
        self.set_up(CrewRunner(strategy, note=note), layout_seed)
        self._clean = True
        self._verdict: Correctness | None = None
        self._clock_cost = self.runner.clock_cost()

    # ---- laps --------------------------------------------------------------------------------------------------------

    def lap(self, *, seconds: float = 0.0, rounds: int = 0, checks: bool = False, samples: bool = False) -> Lap:
        """One start of all threads. A recorded stream is replayed once from the saved state, whatever the arguments
        are.

        Raises Stuck.
        """
        ordered = self.program.ordered
        if ordered or not self._clean:
            self.runner.drain()  # as when the state was saved: tasks hold no frames, nothing waits for RCU
            self.machine.restore(self._saved)
            self._clean = True
        if ordered:
            self.machine.arrays["order_base"]["done"] = 0
            seconds, rounds = 0.0, 1
        return self.runner.run(
            self.program.works, seconds=seconds, rounds=rounds, checks=checks, samples=samples, ordered=ordered
        )

    def verify(self) -> Correctness:
        """One lap that compares every answer, then :meth:`at_rest`. The verdict is cached. Stuck threads give a wrong
        verdict."""
        if self._verdict is None:
            try:
                lap = self.lap(rounds=CHECK_ROUNDS, checks=True)
            except Stuck as error:
                self._verdict = Correctness(False, str(error))
                return self._verdict
            self._verdict = self.judge(lap.threads)
        return self._verdict

    # ---- figures -----------------------------------------------------------------------------------------------------

    def measure(self, seconds: float) -> Scaling:
        """Laps that together last ``seconds`` or more. Laps of a recorded stream may be far shorter than their start;
        then as many as fit in LAP_WALL times that. Raises EngineError if a lap left an invalid address space, and
        Stuck."""
        verdict = self.verify()
        if not verdict.ok:
            raise EngineError(f"not timed, because an answer is wrong: {verdict.what}")
        began = time.perf_counter()
        laps = [self.lap(seconds=seconds)]
        spent = float(laps[0].spans.max())
        while self.program.ordered and spent < seconds:
            if len(laps) >= LEAST_LAPS and time.perf_counter() - began > LAP_WALL * seconds:
                break
            laps.append(self.lap())
            spent += float(laps[-1].spans.max())
        problem = self.at_rest()
        if problem:
            raise WrongAfter(f"after the threads ended: {problem}")
        return scaling(laps)

    def counts(self) -> dict[str, float]:
        """Lookups, hits, retries and fallbacks of the last lap, and the findings of the last check."""
        tasks = self.machine.arrays["task_base"]
        for counter in COUNTERS.values():
            tasks[counter] = 0
        lap = self.lap(rounds=CHECK_ROUNDS)
        found: dict[str, float] = {name: int(tasks[field].sum()) for name, field in COUNTERS.items()}
        found["misses"] = found["lookups"] - found["hits"]
        found["hit_rate"] = found["hits"] / found["lookups"] if found["lookups"] else math.nan
        found.update(
            faults=int(lap.threads["faults"].sum()),
            mapping_ops=int(lap.threads["mappings"].sum()),
        )
        found.update(lock_waits=int(lap.threads["lock_waits"].sum()), checked=self.checked, late_misses=self.missed)
        found.update({f"{lock}_waits": often for lock, (often, _) in lap.waits.items()})
        found["rcu_reclaims"] = int(self.machine.arrays["crew_base"]["reclaims"].sum())
        found["rcu_peak"] = int(self.machine.arrays["crew_base"]["queued_peak"].max())
        self.runner.drain()
        return found

    def histograms(self, seconds: float = SAMPLE_SECONDS) -> dict[str, Histogram]:
        """Durations of single operations by figure, from a separate lap that reads the clock around each."""
        counts = self.machine.arrays["histogram_base"]["count"]
        counts[:] = 0
        lap = self.lap(seconds=seconds, samples=True)
        self.runner.drain()
        merged = counts.reshape(-1, CLASSES, BUCKETS).sum(axis=0)
        return {
            figure: Histogram(merged[number].copy(), lap.ns, self._clock_cost)
            for number, figure in enumerate(FIGURES)
            if merged[number].any()
        }

    @property
    def timer_overhead_ns(self) -> float:
        """The cost of reading the clock around an operation."""
        start = self.runner.clock()
        began = time.perf_counter()
        while time.perf_counter() - began < 0.005:
            pass
        ns = 1e9 * (time.perf_counter() - began) / max(1, self.runner.clock() - start)
        return self._clock_cost * ns


class WrongAfter(EngineError):
    """The answers were right, but the threads left an invalid address space."""

    exit_code = FAILED


def scaling(laps: list[Lap]) -> Scaling:
    """Several laps as one: rates are means weighted by time."""
    seconds = [float(lap.spans.max()) for lap in laps]
    weight = np.asarray(seconds) / max(sum(seconds), 1e-12)
    rate = {
        f: float(sum(w * lap.rate(field) for w, lap in zip(weight, laps, strict=True))) for f, field in FIGURES.items()
    }
    rates = sum(w * lap.rates for w, lap in zip(weight, laps, strict=True))
    total = sum(rate.values())
    figures = {name: 1e9 / value for name, value in {**rate, "replay": total}.items() if value > 0}
    return Scaling(
        seconds=sum(seconds),
        figures=figures,
        operations={f: int(sum(lap.threads[field].sum() for lap in laps)) for f, field in FIGURES.items()},
        rates=tuple(np.asarray(rates).tolist()),
        lock_share=float(sum(w * lap.share("lock_cycles") for w, lap in zip(weight, laps, strict=True))),
        barrier_share=float(sum(w * lap.share("barrier_cycles") for w, lap in zip(weight, laps, strict=True))),
        order_share=float(sum(w * lap.share("order_cycles") for w, lap in zip(weight, laps, strict=True))),
        lock_waits=int(sum(lap.threads["lock_waits"].sum() for lap in laps)),
        other_locks={
            lock: (
                float(sum(w * lap.share(lock) for w, lap in zip(weight, laps, strict=True))),
                sum(lap.waits.get(lock, (0, 0))[0] for lap in laps),
            )
            for lock in LOCKS
        },
    )


def latencies(histograms: dict[str, Histogram]) -> list[Latency]:
    """Rows for the tail table, all threads together."""
    return [h.latency(figure) for figure, h in histograms.items()]
