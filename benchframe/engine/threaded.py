"""The threaded session: one strategy, one stream, N real threads: checked, then measured.

A *lap* is one start of all threads. A stream that was made for threads goes round until it is told to stop; a
recorded one is played once per lap, from the same saved state each time. After every lap the address space must be
right: validate_mm, no holder, no memory waiting for RCU, the oracle's layout. Before anything is measured, one lap
compares every answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchframe.engine.crew import LOCKS, CrewRunner, Lap, Stuck
from benchframe.engine.histogram import Histogram
from benchframe.engine.latency import Latency
from benchframe.engine.native import COUNTERS, Verdict
from benchframe.engine.program import ProgramError, make_program
from benchframe.errors import FAILED, EngineError
from benchframe.events import Kind
from benchframe.mm.crew import BUCKETS, CLASSES
from benchframe.mm.grace import QUEUE_LIMIT
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.validate import ValidationError
from benchframe.verify import first_difference

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.format import Trace

FIGURES = {"fault": "faults", "lookup": "lookups", "mapping": "mappings"}
"""Figure to the field that counts its operations, in the order of a histogram's classes."""
CHECK_ROUNDS = 3
"""Rounds of the lap that compares answers."""
SAMPLE_SECONDS = 0.2
LAP_WALL, LEAST_LAPS = 10, 20
"""A value of a recorded stream may take so many times its own time, with so many laps at least."""


@dataclass(frozen=True)
class Scaling:
    """What threads did together: operations per second, in all and of each thread; shares are parts of their time.

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
    """By class (LOCKS of engine.crew): part of the threads' time that went into waiting for such locks, how often."""

    @property
    def fairness(self) -> float:
        """Jain's index of the threads' rates: 1 if all are equal, 1/n if one thread does everything."""
        rates = np.asarray(self.rates)
        square = float((rates**2).sum())
        return float(rates.sum()) ** 2 / (len(rates) * square) if square else math.nan

    @property
    def slowest(self) -> float:
        """The slowest thread's rate over the fastest's."""
        return min(self.rates) / max(self.rates) if self.rates and max(self.rates) > 0 else math.nan


class ThreadSession:
    """``strategy`` and ``trace`` for ``threads`` real threads in this process.

    Raises EngineError (nothing to play, memory), DialectError. ``note`` is told each unit that has to be compiled.
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
        self.strategy, self.trace = strategy, trace
        limit = int(trace.meta.limits.get("max_map_count", Parameters().max_map_count))
        self.parameters = Parameters(max_map_count=limit)
        try:
            self.program = make_program(trace, threads, self.parameters)
        except ProgramError as error:
            raise EngineError(str(error)) from error
        self.threads = len(self.program.works)
        self.runner = CrewRunner(strategy, note=note)
        try:
            self.machine = Machine(self.runner, self._sizes(), self.parameters, strategy.slabs, layout_seed=layout_seed)
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
        self.runner.replay(0, program.setup)
        self.machine.raise_if_full()
        self.runner.drain()
        for counter in COUNTERS.values():
            arrays["task_base"][counter] = 0
        self._saved = self.machine.save()
        self._clean = True
        self._verdict: Verdict | None = None
        self.checked = self.missed = 0
        self._clock_cost = self.runner.clock_cost()

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

    # ---- laps -------------------------------------------------------------------------------------------------------

    def lap(self, *, seconds: float = 0.0, rounds: int = 0, checks: bool = False, samples: bool = False) -> Lap:
        """One start of the crew. A recorded stream is played once from the saved state, whatever is asked for.

        Raises Stuck.
        """
        ordered = self.program.ordered
        if ordered or not self._clean:
            self.runner.drain()  # the saved state was saved so: no frames with tasks, nothing waiting for RCU
            self.machine.restore(self._saved)
            self._clean = True
        if ordered:
            self.machine.arrays["order_base"]["done"] = 0
            seconds, rounds = 0.0, 1
        return self.runner.run(
            self.program.works, seconds=seconds, rounds=rounds, checks=checks, samples=samples, ordered=ordered
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

    def verify(self) -> Verdict:
        """One lap that compares every answer, then :meth:`at_rest`. Remembered. Stuck threads are a wrong verdict."""
        if self._verdict is None:
            try:
                lap = self.lap(rounds=CHECK_ROUNDS, checks=True)
            except Stuck as error:
                self._verdict = Verdict(False, str(error))
                return self._verdict
            self._verdict = self.judge(lap)
        return self._verdict

    def judge(self, lap: Lap) -> Verdict:
        """Of a lap with checks: is every answer right, and the address space at rest?"""
        self.checked, self.missed = int(lap.threads["checked"].sum()), int(lap.threads["missed"].sum())
        wrong = lap.threads[lap.threads["wrong"] > 0]
        if len(wrong):
            return Verdict(False, self._describe(wrong[0], int(wrong["wrong"].sum())), int(wrong[0]["wrong_event"]))
        problem = self.at_rest()
        return Verdict(not problem, f"after the threads ended: {problem}" if problem else "")

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

    # ---- figures ----------------------------------------------------------------------------------------------------

    def measure(self, seconds: float) -> Scaling:
        """Laps that together last ``seconds`` or more; of a recorded stream, whose laps may be far shorter than what
        it takes to begin one, as many as fit in LAP_WALL times that. Raises EngineError if a lap left something wrong,
        and Stuck."""
        verdict = self.verify()
        if not verdict.ok:
            raise EngineError(f"not timed, since an answer is wrong: {verdict.what}")
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
        """Lookups, hits, retries and fallbacks of the last lap, and what the last check found."""
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
        """Lengths of single operations by figure, from a lap of its own with the clock read around each."""
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
        """What reading the clock around an operation costs."""
        start = self.runner.clock()
        began = time.perf_counter()
        while time.perf_counter() - began < 0.005:
            pass
        ns = 1e9 * (time.perf_counter() - began) / max(1, self.runner.clock() - start)
        return self._clock_cost * ns


class WrongAfter(EngineError):
    """The answers were right, but the threads left the address space broken."""

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
