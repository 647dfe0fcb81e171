"""A worker process: one cell of a run, measured under pyperf."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import io
import json
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, cast

from benchframe.engine.job import COLD, FIGURES, Job, Outcome, close_gaps, finite, scatter, unspool, usable
from benchframe.engine.threads import Scaling, Stuck, ThreadSession, WrongAfter, latencies
from benchframe.errors import BenchframeError

if TYPE_CHECKING:
    import pyperf  # type: ignore[import-untyped]

    from benchframe.engine.caches import Toucher
    from benchframe.engine.threads import ThreadSession
    from benchframe.registry import Registry


# ----------------------------------------------------------------------------------------------------------------------
# A worker process that measures threads: the same protocol as for one thread, but other figures.
#
# A value is one measurement of ``min_time`` seconds. A figure is the wall time per operation with all threads at work
# (the inverse of their throughput), so that cells of all thread counts compare by the same rules.

WARM = 8
"""The warm-up takes a value's time divided by this."""
INNER_LOOPS = 1_000_000
"""pyperf's raw values are seconds per this many operations: it needs one number for all processes of a cell."""
MAX_POINTS = 2000
"""The most buckets of one histogram that a result file stores; in practice there are fewer."""


LONGER, TRIES = 4.0, 3
"""A sample in which nothing ended is followed by one so many times as long, at most so often."""


def sample(session: ThreadSession, seconds: float) -> Scaling:
    """A measurement of ``seconds``. On a busy machine a thread may get no CPU for as long: if no lookup, fault or
    mapping call came to its end, a longer one."""
    found = session.measure(seconds)
    for _ in range(TRIES):
        if any(figure in found.figures for figure in FIGURES[:3]):
            break
        seconds *= LONGER
        found = session.measure(seconds)
    return found


def perform_threads(runner: pyperf.Runner, job: Job, session: ThreadSession) -> Outcome:
    """Verify, warm up, measure, then counts and histograms if requested. Wrong answers and stuck threads are an
    outcome, not an error."""
    verdict = session.verify()
    if not verdict.ok:
        return Outcome("wrong", " ".join(verdict.what.split()), event=verdict.event)
    args = runner.args
    runner.metadata.update(job.metadata)
    taken: list[Scaling] = []
    walls: list[float] = []

    def value(_loops: int) -> float:
        began = time.perf_counter()
        taken.append(sample(session, args.min_time))
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
        suite=_threads_suite(timed, taken, first, session),
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


def _threads_suite(
    timed: pyperf.Benchmark, taken: Sequence[Scaling], warmups: int, session: ThreadSession
) -> dict[str, Any]:
    """One pyperf benchmark per figure, with the threads' results in its runs' metadata."""
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
    if not benchmarks:
        raise RuntimeError(
            f"in one of {len(taken)} samples no operation came to its end: the machine is too busy; run again when it "
            "is calm"
        )
    buffer = io.StringIO()
    pyperf.BenchmarkSuite(benchmarks).dump(buffer)
    data: dict[str, Any] = json.loads(buffer.getvalue())
    return data


# ----------------------------------------------------------------------------------------------------------------------
# One worker process: ``--worker --job FILE ...``, a pyperf worker.
#
# pyperf parses its own worker options, pins the process and times the whole replay (``Runner.bench_time_func``). One
# replay yields four figures at once (:class:`~benchframe.engine.session.Times`), so the figures of every call are kept
# aside and become four pyperf benchmarks with the same metadata. The strategy is verified first: a wrong one is never
# timed.

_PR_SET_PDEATHSIG = 1
P = ParamSpec("P")


class TimesLike(Protocol):
    """The result of one measured call: see :class:`benchframe.engine.session.Times`."""

    seconds: float
    lookup_ns: float
    fault_ns: float
    mapping_ns: float
    replay_ns: float
    loops: int
    taken: int
    quiet: int


class SessionLike(Protocol):
    """What the worker needs of :class:`benchframe.engine.session.Session`."""

    n_lookups: int
    n_faults: int
    n_mapping: int
    n_events: int
    timer_overhead_ns: float

    @property
    def control(self) -> float: ...
    def verify(self) -> Any: ...
    def measure(self, loops: int, most: float = ...) -> Any: ...
    def settle(self, times: Any) -> Any: ...
    def counts(self) -> dict[str, float]: ...
    def latencies(self) -> list[Any]: ...


Opener = Callable[[Job], "SessionLike | ThreadSession"]


class ChangedSource(BenchframeError):
    """The source of the strategy or of the model has changed since the run began."""


@cache
def _known(plugins: tuple[str, ...], blocked: tuple[str, ...]) -> Registry:
    from benchframe import registry

    return registry.load([Path(p) for p in plugins], blocked)


@cache
def _toucher(caches: str) -> Toucher:
    """Its memory is only read, so workers share it."""
    from benchframe.engine.caches import Toucher, from_text

    return Toucher(from_text(caches))


def prepare(job: Job) -> None:
    """In the server: import and load what the workers of its round need."""
    from benchframe.engine import cold, session  # noqa: F401
    from benchframe.runner import KNOWN_REPLAY, mapping, unit_store
    from benchframe.units import code_digest

    strategy = _known(job.plugins, job.blocked).strategy(job.strategy)
    code_digest()
    unit_store().missing([KNOWN_REPLAY, mapping(strategy)])  # loads what is there
    for state in {job.caches, job.cold} - {""}:
        _toucher(state)


def open_session(job: Job) -> SessionLike | ThreadSession:
    """The native engine's session for ``job``. Raises ChangedSource, UnknownName or EngineError."""
    from benchframe.engine.session import Session
    from benchframe.units import code_digest, strategy_digest

    strategy = _known(job.plugins, job.blocked).strategy(job.strategy)
    if strategy_digest(strategy) != job.digest:
        raise ChangedSource(f"strategy {job.strategy} was edited during the run")
    if job.model and code_digest() != job.model:
        raise ChangedSource("benchframe's own model was edited during the run")
    close_gaps()
    if job.threads:
        from benchframe.engine.threads import ThreadSession

        return ThreadSession(strategy, unspool(job), job.threads, layout_seed=job.layout_seed)
    if job.caches:
        from benchframe.engine.caches import from_text
        from benchframe.engine.cold import ColdSession

        warm = Session(strategy, unspool(job), layout_seed=job.layout_seed)
        state = from_text(job.caches)
        cold: SessionLike = ColdSession(warm, state, job.layout_seed, control=job.control, toucher=_toucher(job.caches))
        return cold
    session: SessionLike = Session(strategy, unspool(job), layout_seed=job.layout_seed, control=job.control)
    return session


def perform(runner: pyperf.Runner, job: Job, opener: Opener, addresses: str) -> Outcome:
    """Verify, calibrate if requested, time, then take counts and latencies if requested."""
    args = runner.args
    try:
        session = opener(job)
    except ChangedSource as error:
        return Outcome("skipped", str(error))
    if job.threads:
        return perform_threads(runner, job, cast("ThreadSession", session))
    session = cast("SessionLike", session)
    verdict = session.verify()
    if not verdict.ok:
        return Outcome("wrong", " ".join(str(verdict.what).split()), event=int(verdict.event))
    meter = Meter(session, job.patient)
    runner.metadata.update({**job.metadata, "benchframe_addresses": addresses})
    if args.calibrate_loops:
        args.calibrate_loops, args.loops = False, meter.calibrate(args.min_time)
    else:
        meter.replay(max(1, args.loops // WARM))
    before = len(meter.taken)
    timed = _bench(runner, "replay", meter, session)
    first = before + args.warmups
    values = meter.settled(first, args.loops)
    taken = [*meter.taken[before:first], *values]
    made = sum(times.taken for times in meter.taken[first:])
    suite = _suite(timed, taken, args.warmups, session, made)
    if job.cold:
        _add_cold(suite, session, job, args.min_time)
    cost, message = _cost(session, job.cost)
    return Outcome(
        "ok",
        message,
        loops=args.loops,
        suite=_as_data(suite),
        counts=finite(_counts(session)) if job.extras else None,
        latencies=_rows(session) if job.extras else None,
        cost=cost,
        timer_overhead_ns=float(session.timer_overhead_ns) if job.extras else 0.0,
        measured=sum(meter.walls[first:]),
        timed=sum(times.seconds for times in meter.taken[first:]),
        warmup=sum(meter.walls[:first]),
        control=session.control,
        restless=not any(times.quiet for times in values),
    )


class Meter:
    """Calls ``session.measure`` and keeps each result (``taken``) and its duration (``walls``, s)."""

    def __init__(self, session: SessionLike, patient: bool = True) -> None:
        self.session, self.patient = session, patient
        self.taken: list[TimesLike] = []
        self.walls: list[float] = []

    def replay(self, loops: int) -> float:
        """Called by pyperf: ``loops`` replays; returns the clock time in seconds that they took."""
        began = time.perf_counter()
        times = self.session.measure(loops) if self.patient else self.session.measure(loops, 1.0)
        self.walls.append(time.perf_counter() - began)
        self.taken.append(times)
        return float(times.seconds * times.loops / times.taken)

    def calibrate(self, seconds: float) -> int:
        """How many replays take ``seconds`` on the clock, at the shortest time seen of one. Doubles their number until
        a share of WARM has passed, which warms up as well."""
        loops = 1
        while self.replay(loops) < seconds / WARM:
            loops *= 2
        return max(1, math.ceil(seconds / min(times.seconds / times.taken for times in self.taken)))

    def settled(self, first: int, loops: int) -> list[TimesLike]:
        """The values from call ``first`` on, evaluated with the final undisturbed level. If ``patient``, each value
        without an undisturbed replay is replaced by a further measurement, at most as many as there were values."""
        wanted = len(self.taken) - first
        for _ in range(wanted if self.patient else 0):
            values = [self.session.settle(times) for times in self.taken[first:]]
            if sum(times.quiet > 0 for times in values) >= wanted:
                break
            self.replay(loops)
        values = [self.session.settle(times) for times in self.taken[first:]]
        quiet = [times for times in values if times.quiet > 0]
        return quiet[:wanted] if quiet else values[:wanted]


def _bench(runner: pyperf.Runner, name: str, meter: Meter, session: SessionLike) -> pyperf.Benchmark:
    """pyperf's timing of replays; its output is suppressed, the parent reports."""
    with contextlib.redirect_stdout(io.StringIO()):
        bench = runner.bench_time_func(name, meter.replay, inner_loops=max(1, session.n_events))
    assert bench is not None
    return bench


def _suite(
    timed: pyperf.Benchmark, taken: Sequence[TimesLike], warmups: int, session: SessionLike, made: int
) -> pyperf.BenchmarkSuite:
    """One pyperf benchmark per figure that this trace has; values are seconds per operation.

    ``inner_loops`` is the number of operations in one replay, so pyperf's raw values are the seconds really spent in
    the figure's operations, and its warnings about too short values stay valid. ``made`` replays were made for the
    values, including those of discarded values.
    """
    import pyperf

    run = timed.get_runs()[0]
    loops = run.get_loops()
    counts = (session.n_lookups, session.n_faults, session.n_mapping, session.n_events)
    operations = dict(zip(FIGURES, counts, strict=True))
    counted = taken[warmups:]
    quiet = {
        "benchframe_control": float(session.control),
        "benchframe_replays": made,
        "benchframe_quiet": sum(times.quiet for times in counted),
    }
    benchmarks = []
    for figure in FIGURES:
        seconds = [getattr(times, f"{figure}_ns") * 1e-9 for times in taken]
        if operations[figure] < 1 or not all(math.isfinite(s) and s > 0 for s in seconds):
            continue
        metadata = {**run.get_metadata(), **quiet, "name": figure, "inner_loops": int(operations[figure])}
        warm = [(loops, s) for s in seconds[:warmups]]
        benchmarks.append(
            pyperf.Benchmark([pyperf.Run(seconds[warmups:], warm, metadata=metadata, collect_metadata=False)])
        )
    return pyperf.BenchmarkSuite(benchmarks)


def _add_cold(suite: pyperf.BenchmarkSuite, session: SessionLike, job: Job, seconds: float) -> None:
    """Time lookups with colder caches, for ``seconds`` or a few replays, and add the figure: one value, seconds per
    lookup. Its ``inner_loops`` is the number of lookups that are timed, its ``loops`` the number of replays."""
    import pyperf

    from benchframe.engine.caches import from_text
    from benchframe.engine.cold import COLUMN, ColdSession
    from benchframe.engine.session import Session

    if not isinstance(session, Session) or not suite.get_benchmarks():
        return
    cold = ColdSession(session, from_text(job.cold), job.layout_seed, COLUMN, toucher=_toucher(job.cold))
    if not cold.timed_lookups:
        return
    times = cold.measure(1, seconds=seconds)
    if not (math.isfinite(times.lookup_ns) and times.lookup_ns > 0):
        return
    run = suite.get_benchmarks()[0].get_runs()[0]
    metadata = {**run.get_metadata(), "name": COLD, "inner_loops": cold.timed_lookups, "loops": times.loops}
    suite.add_benchmark(
        pyperf.Benchmark([pyperf.Run([times.lookup_ns * 1e-9], metadata=metadata, collect_metadata=False)])
    )


EXPLAINED = 100_000
"""The most faults and lookups of a stream whose fallbacks are counted by reason: that takes 20 us each."""


def _counts(session: SessionLike) -> dict[str, float]:
    """The counts of a replay, with fallbacks by reason as ``fallbacks.REASON``."""
    from benchframe.engine.session import Session, fallbacks

    found = session.counts()
    if isinstance(session, Session) and found.get("fallbacks") and session.n_lookups <= EXPLAINED:
        found |= {f"fallbacks.{name}": count for name, count in fallbacks(session).items()}
    return found


def _cost(session: SessionLike, budget: int) -> tuple[dict[str, float] | None, str]:
    """The result of a counted replay, or why the strategy cannot be counted: its times are valid either way."""
    from benchframe.dialect.records import DialectError
    from benchframe.engine.cost import stored_cost
    from benchframe.engine.session import Session

    if not budget or not isinstance(session, Session):  # threads are not counted
        return None, ""
    try:
        return finite(dict(stored_cost(session.strategy, session.trace, budget))), ""
    except DialectError as error:
        return None, f"not counted: {' '.join(str(error).split())}"


def _rows(session: SessionLike) -> list[dict[str, Any]]:
    """The latencies as JSON data, without outcomes that did not occur (their quantiles are NaN)."""
    rows = [asdict(latency) for latency in session.latencies()]
    numbers = [[v for v in row.values() if isinstance(v, (int, float))] for row in rows]
    return [row for row, values in zip(rows, numbers, strict=True) if row["n"] and all(map(math.isfinite, values))]


def _as_data(suite: pyperf.BenchmarkSuite) -> dict[str, Any]:
    buffer = io.StringIO()
    suite.dump(buffer)
    data: dict[str, Any] = json.loads(buffer.getvalue())
    return data


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies (prctl(2)); Linux only, otherwise it does nothing.

    If the parent died before the request, its changed id shows it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("benchframe is gone")


def work(arguments: Sequence[str], answers: int, server: int, opener: Opener, addresses: str) -> int:
    """What a worker does, as a child of process ``server``: write one line of JSON to the file descriptor
    ``answers``."""
    import pyperf

    die_with_parent(server)
    runner = pyperf.Runner(program_args=("-m", "benchframe.engine.worker"))
    runner.argparser.add_argument("--job", required=True, type=Path, help="job file written by benchframe")
    args = runner.parse_args(list(arguments))
    job = Job.read(args.job)
    if args.affinity:
        os.sched_setaffinity(0, {int(cpu) for cpu in args.affinity.split(",")})
    outcome = perform(runner, job, opener, addresses)
    with os.fdopen(answers, "w", encoding="utf-8") as file:
        file.write(outcome.to_json())
    return 0


def main(argv: Sequence[str] | None = None, opener: Opener = open_session) -> int:
    """What a server does (``--serve SOCKET --job FILE``): fork a worker for each request, wait for it, and send its
    exit code, until the other end closes. A worker's traceback goes to the stderr that came with the request."""
    faulthandler.enable()
    gc.disable()  # what is imported stays: there is nothing to collect
    _, number, _, file = sys.argv[1:] if argv is None else argv
    job = Job.read(Path(file))
    die_with_parent(job.parent)
    import pyperf  # noqa: F401

    addresses = scatter(job.layout_seed)
    if opener is open_session:
        prepare(job)
    gc.freeze()
    gc.enable()
    server = os.getpid()
    with socket.socket(fileno=int(number)) as requests:
        while True:
            request, received, _, _ = socket.recv_fds(requests, 1 << 16, 2)
            if not request:
                return 0
            answers, stderr = received
            worker = os.fork()
            if not worker:
                requests.close()
                os.dup2(stderr, sys.stderr.fileno())
                _end_with(work, json.loads(request), answers, server, opener, addresses)
            for one in received:
                os.close(one)
            code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
            requests.send(str(code).encode())


def _end_with(function: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> NoReturn:
    """End this process as Python ends a program that calls ``function``, but at once: threads may be stuck in compiled
    code, and there is nothing to take down."""
    code: object = 1
    try:
        code = function(*args, **kwargs)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    sys.exit(main())
