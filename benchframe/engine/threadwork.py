"""A worker process that measures threads: the same protocol as for one thread, other figures.

A value is one measurement of ``min_time`` seconds. A figure is the wall time per operation with all threads at work
(the inverse of their throughput), so that cells of all thread counts compare by the same rules.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchframe.engine.crew import Stuck
from benchframe.engine.job import FIGURES, Job, Outcome, finite
from benchframe.engine.placement import usable
from benchframe.engine.threaded import Scaling, ThreadSession, WrongAfter, latencies

if TYPE_CHECKING:
    import pyperf  # type: ignore[import-untyped]

WARM = 8
"""The warm-up lasts a value's time divided by this."""
INNER_LOOPS = 1_000_000
"""pyperf's raw values are seconds per so many operations: it wants one number for all processes of a cell."""
MAX_POINTS = 2000
"""Buckets of one histogram that a result file keeps; there are fewer."""


def perform_threads(runner: pyperf.Runner, job: Job, session: ThreadSession) -> Outcome:
    """Check, warm up, measure, then counts and histograms if asked. A wrong or stuck crew is an outcome, no error."""
    verdict = session.verify()
    if not verdict.ok:
        return Outcome("wrong", " ".join(verdict.what.split()), event=verdict.event)
    args = runner.args
    runner.metadata.update(job.metadata)
    taken: list[Scaling] = []
    walls: list[float] = []

    def value(_loops: int) -> float:
        began = time.perf_counter()
        taken.append(session.measure(args.min_time))
        walls.append(time.perf_counter() - began)
        return taken[-1].seconds

    args.loops, args.calibrate_loops = 1, False
    try:
        began = time.perf_counter()
        session.measure(args.min_time / WARM)
        warm = time.perf_counter() - began
        with contextlib.redirect_stdout(io.StringIO()):
            timed = runner.bench_time_func("replay", value)
        assert timed is not None
        counts = finite(session.counts()) if job.extras else None
        histograms = session.histograms() if job.extras else {}
        problem = session.at_rest()
    except (WrongAfter, Stuck) as error:
        return Outcome("wrong", " ".join(str(error).split()))
    if problem:
        return Outcome("wrong", " ".join(f"after the threads ended: {problem}".split()))
    first = args.warmups
    return Outcome(
        "ok",
        loops=1,
        suite=_suite(timed, taken, first, session),
        counts=counts,
        latencies=[asdict(row) for row in latencies(histograms)] if job.extras else None,
        timer_overhead_ns=session.timer_overhead_ns if job.extras else 0.0,
        threads={
            "threads": session.threads,
            "cores": usable(),
            "ordered": int(session.program.ordered),
            "address_spaces": session.program.mms,
            "histograms": {name: h.points()[:MAX_POINTS] for name, h in histograms.items()},
        }
        if job.extras
        else None,
        measured=sum(walls[first:]),
        timed=sum(s.seconds for s in taken[first:]),
        warmup=warm + sum(walls[:first]),
    )


def _suite(timed: pyperf.Benchmark, taken: Sequence[Scaling], warmups: int, session: ThreadSession) -> dict[str, Any]:
    """One pyperf benchmark per figure, what belongs to the threads in its runs' metadata."""
    import json

    import pyperf

    run = timed.get_runs()[0]
    kept = taken[warmups:]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    extra: dict[str, str | int | float] = {
        "benchframe_threads": session.threads,
        "benchframe_thread_rates": ",".join(f"{mean([s.rates[i] for s in kept]):.6g}" for i in range(session.threads)),
        "benchframe_lock_share": mean([s.lock_share for s in kept]),
        "benchframe_barrier_share": mean([s.barrier_share for s in kept]),
        "benchframe_order_share": mean([s.order_share for s in kept]),
        "benchframe_fairness": mean([s.fairness for s in kept]),
        "benchframe_slowest": mean([s.slowest for s in kept]),
        "benchframe_lock_waits": sum(s.lock_waits for s in kept),
        **{f"benchframe_{lock}_share": mean([s.other_locks[lock][0] for s in kept]) for lock in kept[0].other_locks},
        **{f"benchframe_{lock}_waits": sum(s.other_locks[lock][1] for s in kept) for lock in kept[0].other_locks},
    }
    extra = {k: v for k, v in extra.items() if not isinstance(v, float) or math.isfinite(v)}
    benchmarks = []
    for figure in FIGURES:
        if not all(figure in s.figures for s in taken):
            continue
        seconds = [s.figures[figure] * 1e-9 for s in taken]
        metadata = {**run.get_metadata(), **extra, "name": figure, "inner_loops": INNER_LOOPS}
        warm = [(1, s) for s in seconds[:warmups]]
        runs = [pyperf.Run(seconds[warmups:], warm, metadata=metadata, collect_metadata=False)]
        benchmarks.append(pyperf.Benchmark(runs))
    buffer = io.StringIO()
    pyperf.BenchmarkSuite(benchmarks).dump(buffer)
    data: dict[str, Any] = json.loads(buffer.getvalue())
    return data
