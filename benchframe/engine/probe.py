"""Measure many cells in one process, for studies that sweep a parameter; a round is a process, its cells shuffled.

A run starts a process per cell and round, which costs half a second each. A study of some fifty points would spend
minutes on start-ups, so here one process measures every point for a short time, in its own order, after checking each
one's answers; the next round is a new process with another order. The statistical unit is still the process, paired by
round. Cells of one process share code placement and the heap, and so do the cells to which they are compared.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.engine.job import FIGURES, Job, spool
from benchframe.errors import FAILED, BenchframeError

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

VALUES = 5
"""Timings of a cell in one process; their median represents the process, so that a short disturbance does not
matter."""


class ProbeError(BenchframeError):
    """A study cannot continue: a wrong answer, a crash, a timeout; one line says which cell and why."""

    exit_code = FAILED


@dataclass(frozen=True)
class Point:
    """One cell of a study: a strategy on a stream with one layout seed. ``stream`` indexes the study's streams.

    ``threads``: this many real threads replay it, on all CPUs; then a figure is the wall time per operation of all
    together. 0: a single replay, on the study's CPU. ``caches``: the state in which each event finds the caches, as
    text (:mod:`benchframe.engine.caches`).
    """

    strategy: str
    stream: int
    layout_seed: int = 0
    threads: int = 0
    caches: str = ""


@dataclass(frozen=True)
class Study:
    """What to measure. ``seconds`` is the clock time of one value; ``cpu`` -1: not pinned."""

    strategies: Mapping[str, Strategy]
    streams: Sequence[Trace]
    points: Sequence[Point]
    seconds: float = 0.02
    cpu: int = -1
    plugins: Sequence[str] = ()
    blocked: Sequence[str] = ()
    timeout: float = 600.0

    def measure(
        self, rounds: int, seed: int, done: Callable[[int], None] | None = None
    ) -> list[list[dict[str, float]]]:
        """``found[round][point]``: ns per operation by figure, without figures that the stream lacks. ``done`` is
        called after each round. Strategies must be compiled. Raises ProbeError and OSError."""
        from benchframe.units import strategy_digest

        digests = {name: strategy_digest(strategy) for name, strategy in self.strategies.items()}
        found = []
        with tempfile.TemporaryDirectory(prefix="benchframe-study-") as scratch:
            folder = Path(scratch)
            spooled = [spool(stream, folder) for stream in self.streams]
            jobs = []
            for point in self.points:
                events, meta = spooled[point.stream]
                jobs.append(
                    Job(
                        strategy=point.strategy,
                        digest=digests[point.strategy],
                        events=str(events),
                        trace_meta=str(meta),
                        setup=self.streams[point.stream].setup,
                        layout_seed=point.layout_seed,
                        extras=False,
                        threads=point.threads,
                        caches=point.caches,
                        plugins=tuple(self.plugins),
                        blocked=tuple(self.blocked),
                    )
                )
            for number in range(rounds):
                order = self.order(seed, number)
                found.append(self._process(folder, jobs, order))
                if done is not None:
                    done(number)
        return found

    def order(self, seed: int, number: int) -> list[int]:
        """The points in the order of round ``number``: streams are shuffled, and within a stream its points, which are
        compared with each other and therefore measured next to each other."""
        rng = random.Random(f"benchframe study {seed} {number}")
        streams: dict[int, list[int]] = {}
        for index, point in enumerate(self.points):
            streams.setdefault(point.stream, []).append(index)
        groups = list(streams.values())
        rng.shuffle(groups)
        for group in groups:
            rng.shuffle(group)
        return [index for group in groups for index in group]

    def _process(self, folder: Path, jobs: Sequence[Job], order: Sequence[int]) -> list[dict[str, float]]:
        from benchframe.engine.job import worker_command, worker_environment

        file = folder / "probe.json"
        request = {
            "jobs": [asdict(job) for job in jobs],
            "order": list(order),
            "seconds": self.seconds,
            "cpu": self.cpu,
        }
        file.write_text(json.dumps(request), encoding="utf-8")
        try:
            done = subprocess.run(
                [*worker_command("benchframe.engine.probe"), str(file)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=worker_environment(),
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProbeError(f"a round took longer than {self.timeout:g} s; use fewer points or fewer events") from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ProbeError(f"a process of the study ended with exit code {done.returncode}: {last}")
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise ProbeError("a process of the study ended without an answer") from None
        if "wrong" in answer:
            raise ProbeError(answer["wrong"])
        rows: list[dict[str, float]] = answer["points"]
        return rows


def main(argv: Sequence[str] | None = None) -> int:
    """One round, in its own process: reads the request file, prints one JSON object."""
    from benchframe.engine.worker import ChangedSource, die_with_parent, open_session

    request = json.loads(Path((argv or sys.argv[1:])[0]).read_text(encoding="utf-8"))
    jobs = [
        Job(**{**job, "plugins": tuple(job["plugins"]), "blocked": tuple(job["blocked"])}) for job in request["jobs"]
    ]
    if jobs:
        die_with_parent(jobs[0].parent)
    every = os.sched_getaffinity(0) if request["cpu"] >= 0 else set()
    rows: list[dict[str, float] | None] = [None] * len(jobs)
    for number in request["order"]:
        job = jobs[number]
        if every:
            os.sched_setaffinity(0, every if job.threads else {request["cpu"]})
        try:
            session: Any = open_session(job)
        except ChangedSource as error:
            print(json.dumps({"wrong": str(error)}))
            return 0
        verdict = session.verify()
        if not verdict.ok:
            text = f"{job.strategy} gives a wrong answer, so it is not timed: {' '.join(str(verdict.what).split())}"
            print(json.dumps({"wrong": text}))
            return 0
        rows[number] = (timed_threads if job.threads else timed)(session, request["seconds"])
    print(json.dumps({"points": rows}, allow_nan=False))
    return 0


def timed(session: Any, seconds: float) -> dict[str, float]:
    """The median of VALUES timings of ``seconds`` each, per figure; of the undisturbed ones, if there are any. A figure
    at or below zero because of noise is left out."""
    first = session.measure(1)
    loops = max(1, math.ceil(seconds / max(first.seconds, 1e-6)))
    session.measure(max(1, loops // 4))
    taken = [session.settle(t) for t in [session.measure(loops, most=1) for _ in range(VALUES)]]
    taken = [t for t in taken if t.quiet] or taken
    found = {name: statistics.median(getattr(t, f"{name}_ns") for t in taken) for name in FIGURES}
    return {name: value for name, value in found.items() if math.isfinite(value) and value > 0}


def timed_threads(session: Any, seconds: float) -> dict[str, float]:
    """As :func:`timed`, with real threads: the wall time per operation while all of them work."""
    session.measure(seconds)
    taken = [session.measure(seconds).figures for _ in range(VALUES)]
    found = {name: statistics.median(t.get(name, math.nan) for t in taken) for name in FIGURES}
    return {name: value for name, value in found.items() if math.isfinite(value) and value > 0}
