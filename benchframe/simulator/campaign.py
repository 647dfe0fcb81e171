"""A simulated run: cells are independent and deterministic, so any executor may compute them, here or on a cluster.

:func:`run_cells` sends a :class:`CellJob` for each cell without a result and writes each answer to disk as it comes. A
job contains everything that decides its answer and nothing about the host; a worker refuses it if its own sources or
compiler differ. ``--resume`` computes what was not finished when a process died or Ctrl-C came.

Simulated cells on more than one machine: a Dask.distributed scheduler behind the interface of concurrent.futures.
``local:N`` starts a scheduler and N worker processes on this host's loopback; any other address is that of a running
scheduler. Cells are deterministic: a worker's answer does not depend on its host, and a worker whose sources or
compiler differ refuses the cell (:mod:`benchframe.simulator.campaign`). If a worker is killed, nothing is lost: the
scheduler gives its cell to another.

A scheduler runs whatever code it is sent, so an address on another host must be ``tls://``.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import ipaddress
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, lru_cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchframe.dialect.functions import TextIdentities
from benchframe.dialect.store import LOWERING
from benchframe.engine.job import FIGURES
from benchframe.results.campaign import Stream, plan, with_cells
from benchframe.results.folder import CellState, LatencyRow, RunFolder, ThreadsFound
from benchframe.results.manifest import SIMULATE, CellEntry, Manifest, Options
from benchframe.results.studies import FieldCost, PairCost, SimulatedRun, simulated_path, write_runs
from benchframe.simulator.machines import Layout, Machine, SimulateError, Work, box, toolchain
from benchframe.units import model_digest, strategy_digest

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.simulator.session import Figures
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace


KILLED = "KilledWorker"
"""Dask raises this for a task on which several workers died."""
INNER_LOOPS = 1_000_000
"""As in threaded runs: pyperf's raw values are seconds per this many operations."""
MAX_POINTS = 2000
SIMULATOR = 1
"""The simulator's version: raise it when a figure may change although no compiled function has changed, as by how a
session places memory, sums up or draws its seeds."""


@dataclass(frozen=True)
class CellJob:
    """One cell: everything that decides its figures. ``corners``: also compute the corners of the box of machine
    numbers."""

    strategy: str
    digest: str
    spec: str
    path: str
    stream_seed: int
    trace: str
    cpus: int
    machine: Machine
    work: Work
    layout: Layout
    seeds: tuple[int, ...]
    corners: bool
    rounds: float
    accesses: int
    plugins: tuple[str, ...]
    blocked: tuple[str, ...]
    sources: str
    tools: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answer:
    """The result of a job: ``state`` as in a cell's state; ``runs`` are those of the cell."""

    state: str
    message: str = ""
    event: int = -1
    runs: tuple[SimulatedRun, ...] = ()
    shares: tuple[Mapping[str, float], ...] = ()
    rates: tuple[tuple[float, ...], ...] = ()
    latencies: tuple[LatencyRow, ...] = ()
    threads: ThreadsFound | None = None
    checked: int = 0
    seconds: float = 0.0


@cache
def simulator_digest() -> str:
    """sha256 (hex) over what model and simulator do, :data:`SIMULATOR` and :data:`~benchframe.dialect.store.LOWERING`:
    figures with another digest are stale. A comment or a docstring does not change it."""
    from benchframe.simulator.build import EXPORTS, SWITCH
    from benchframe.simulator.machines import simulator

    identities = TextIdentities(None)
    parts = [(name, identities.of(function)) for name, function in EXPORTS.items()]
    told = (model_digest(), SIMULATOR, LOWERING, SWITCH, simulator.layout, parts)
    return hashlib.sha256(repr(told).encode()).hexdigest()


@cache
def sources_digest() -> str:
    """sha256 (hex) over the texts of the simulator's modules, which a worker must have as they are."""
    digest = hashlib.sha256(simulator_digest().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@lru_cache(4)
def _registry(plugins: tuple[str, ...], blocked: tuple[str, ...]) -> Registry:
    from benchframe.registry import load

    return load([Path(p) for p in plugins], blocked)


@lru_cache(2)
def _trace(plugins: tuple[str, ...], blocked: tuple[str, ...], spec: str, path: str, seed: int, cpus: int) -> Trace:
    if path:
        from benchframe.workload import trace_workload

        return trace_workload(Path(path)).spec().trace(seed, cpus)
    return _registry(plugins, blocked).spec(spec).trace(seed, cpus)


def _strategy(job: CellJob) -> Strategy:
    """The strategy of ``job`` in this process. Raises SimulateError if its sources or compiler differ."""
    mine = dict(toolchain())
    for name, told in job.tools:
        if mine.get(name) != told:
            raise SimulateError(f"this worker has {name} {mine.get(name)}, the run was begun with {told}")
    if sources_digest() != job.sources:
        raise SimulateError("this worker has other sources of benchframe than the run was begun with")
    strategy = _registry(job.plugins, job.blocked).strategy(job.strategy)
    if strategy_digest(strategy) != job.digest:
        raise SimulateError(f"this worker has another source of strategy {job.strategy}")
    return strategy


def compile_job(job: CellJob) -> str:
    """Compile what the job's strategy needs, if it is missing; returns its name."""
    from benchframe.simulator.build import runtime
    from benchframe.simulator.session import simulated_units, specs

    units = simulated_units()
    runtime()
    for spec in specs(_strategy(job)):
        units.get(spec)
    return job.strategy


def shared_job() -> str:
    """Compile the unit that all strategies without an allocator share."""
    from benchframe.simulator.build import runtime
    from benchframe.simulator.session import shared_spec, simulated_units

    runtime()
    simulated_units().get(shared_spec())
    return "the simulator"


def needs_compiling(strategies: Sequence[Strategy]) -> tuple[bool, list[str]]:
    """Whether the shared unit is missing, and the strategies with missing units."""
    from benchframe.simulator.build import compiled
    from benchframe.simulator.session import shared_spec, simulated_units, specs

    units = simulated_units()
    shared = not compiled() or bool(units.missing([shared_spec()]))
    return shared, [s.name for s in strategies if units.missing(specs(s)[1 if s.allocator is None else 0 :])]


def do_job(job: CellJob) -> Answer:
    """Simulate one cell: its seeds, then corners of the box. A wrong answer or a deadlock is a result, not an error.

    A process computes one cell at a time, however many threads call this: there is one simulator.
    """
    with _SIMULATOR:
        return _do_job(job)


def _do_job(job: CellJob) -> Answer:
    from benchframe.errors import EngineError
    from benchframe.simulator.session import Depth, SimulatedSession, Stopped

    began = time.perf_counter()
    strategy = _strategy(job)
    trace = _trace(job.plugins, job.blocked, job.spec, job.path, job.stream_seed, job.cpus)
    if trace.digest != job.trace:
        raise SimulateError(f"this worker makes another stream of {job.spec or job.path}")
    try:
        session = SimulatedSession(strategy, trace, job.cpus)
    except EngineError as error:
        return Answer("crashed", str(error))
    runs: list[SimulatedRun] = []
    found: list[Figures] = []
    checked = 0
    depth = Depth(rounds=job.rounds, accesses=job.accesses)
    todo = [(seed, "", job.machine) for seed in job.seeds]
    if job.corners:
        todo += [(job.seeds[0], label, machine) for label, machine in box(job.machine)]
    for seed, corner, machine in todo:
        try:
            figures = session.run(machine, job.work, seed=seed, depth=depth, layout=job.layout)
        except Stopped as error:
            return Answer("wrong", str(error), seconds=time.perf_counter() - began)
        if not session.verdict.ok:
            return Answer("wrong", session.verdict.what, session.verdict.event)
        checked += session.checked
        if not corner:
            found.append(figures)
        runs.append(_run(session, figures, seed, corner))
    first = found[0]
    latencies = [h.latency(name) for name, h in first.histograms.items()]
    return Answer(
        "ok",
        runs=tuple(runs),
        shares=tuple(dict(f.shares) for f in found),
        rates=tuple(tuple(n / f.seconds for n in f.cpus) for f in found),
        latencies=tuple(
            LatencyRow(row.figure, row.outcome, row.n, row.p50, row.p90, row.p99, row.p999, row.max)
            for row in latencies
        ),
        threads={
            "threads": session.threads,
            "cores": job.machine.cpus,
            "ordered": int(session.program.ordered),
            "address_spaces": session.program.mms,
            "histograms": {name: tuple(h.points()[:MAX_POINTS]) for name, h in first.histograms.items()},
        },
        checked=checked,
        seconds=time.perf_counter() - began,
    )


def _run(session: Any, f: Figures, seed: int, corner: str) -> SimulatedRun:
    events = sum(w.last - w.first for w in session.program.works)
    return SimulatedRun(
        seed=seed,
        corner=corner,
        window=f.window / 1000,
        rounds=round(sum(f.operations.values()) / max(1, events), 3),
        cpus=session.threads,
        operations={name: n for name, n in f.operations.items() if n},
        parts={name: round(ns, 3) for name, ns in f.parts.items()},
        accesses=f.accesses,
        transfers=f.transfers,
        fields=tuple(
            FieldCost(
                r.name,
                r.line,
                r.loads,
                r.stores,
                r.atomics,
                round(r.transfer, 3),
                round(r.queue, 3),
                round(r.wait, 3),
                r.far,
            )
            for r in f.fields
        ),
        pairs=tuple(PairCost(p.reader, p.writer, p.n, round(p.ns, 3)) for p in f.pairs),
    )


_SIMULATOR = threading.Lock()


# ---- the run ---------------------------------------------------------------------------------------------------------
class Watcher:
    """Receives progress; the base class ignores it."""

    def compiling(self, name: str, fraction: float) -> None:
        """``name`` was compiled; ``fraction`` of the work is done."""

    def begin(self, cells: int) -> None:
        """This many cells will follow."""

    def cell(self, entry: CellEntry, answer: Answer) -> None:
        """A cell is done."""


def processes(count: int) -> Executor:
    """An executor on this host: ``count`` processes, which leave Ctrl-C to this process and end with it.

    NumPy asks for huge pages for its large arrays. A simulation touches a small part of each, so huge pages would take
    tens of MB that nobody reads.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    class Quiet(ProcessPoolExecutor):
        """What it starts inherits SIGINT blocked: a process that still imports must not answer Ctrl-C either."""

        def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return super().submit(*arguments, **named)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    context = multiprocessing.get_context("spawn")
    return Quiet(count, mp_context=context, initializer=_quiet, initargs=(os.getpid(),))


def _quiet(parent: int) -> None:
    from benchframe.engine.worker import die_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)


def plan_cells(
    asked: Sequence[str],
    strategies: Mapping[str, Strategy],
    streams: Sequence[Stream],
    machine: Machine,
    work: Work,
    layout: Layout,
    *,
    seeds: int,
    command: Sequence[str],
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Manifest:
    """The manifest of a simulated run. Its cells' keys contain what decides a figure, and nothing about the host."""
    options = Options(mode=SIMULATE, rounds=seeds, values=1, warmups=0, min_time=0.0, timeout=0.0, cost=0)
    told = (
        f"simulated, not measured: {machine.cpus} CPUs of {machine.name}; docs/simulation.md says what that leaves out."
    )
    manifest = plan(
        asked,
        strategies,
        streams,
        options,
        seed=0,
        command=command,
        plugins=plugins,
        blocked=blocked,
        notes=(told, *notes),
    )
    host = {
        "hostname": f"simulated: {machine.name}",
        "cpu": machine.title,
        "cpus": str(machine.cpus),
        "machine numbers": machine.digest()[:16],
        "work": work.told(),
        "layout": layout.told(),
    }
    tools = {**toolchain(), "benchframe": manifest.versions.get("benchframe", ""), "model": simulator_digest()[:16]}
    manifest = replace(manifest, host=host, versions=tools, noise=())
    return with_cells(manifest, [(cell.strategy, cell.workload) for cell in manifest.cells], strategies)


def jobs_of(
    manifest: Manifest,
    machine: Machine,
    work: Work,
    layout: Layout,
    *,
    seeds: int,
    corners: bool,
    rounds: float,
    accesses: int,
) -> dict[CellEntry, CellJob]:
    """The job of each cell, the longest ones first."""
    found = {}
    for entry in manifest.cells:
        workload = manifest.workload(entry.workload)
        found[entry] = CellJob(
            strategy=entry.strategy,
            digest=entry.strategy_digest,
            spec=workload.spec,
            path=workload.path,
            stream_seed=workload.seed,
            trace=workload.digest,
            cpus=workload.threads,
            machine=machine,
            work=work,
            layout=layout,
            seeds=tuple(range(1, seeds + 1)),
            corners=corners,
            rounds=rounds,
            accesses=accesses,
            plugins=manifest.plugins,
            blocked=manifest.blocked,
            sources=sources_digest(),
            tools=tuple(sorted(toolchain().items())),
        )
    return dict(sorted(found.items(), key=lambda pair: -pair[1].cpus))


def run_cells(
    folder: RunFolder,
    jobs: Mapping[CellEntry, CellJob],
    strategies: Mapping[str, Strategy],
    watcher: Watcher,
    executor: Callable[[], Executor],
) -> None:
    """Compute every job whose cell has no result, on an ``executor``, and write each answer as it comes.

    If a process of the executor dies, a new executor is made and the unfinished jobs are computed one by one, to find
    the cell that kills its process; it is marked as crashed. Raises a job's errors (SimulateError, DialectError),
    ResultsError, KeyboardInterrupt; everything finished before is on disk.
    """
    start = time.perf_counter()
    with folder.locked():
        missing = {
            entry: job
            for entry, job in jobs.items()
            if not (folder.cell(entry).state.failed or simulated_path(folder.path, entry).exists())
        }
        try:
            if missing:
                _work(folder, missing, strategies, watcher, executor)
        finally:
            folder.save(replace(folder.manifest, wall=folder.manifest.wall + time.perf_counter() - start))
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        folder.save(replace(folder.manifest, finished=now))


def _compile(
    executor: Executor, jobs: Mapping[CellEntry, CellJob], strategies: Mapping[str, Strategy], watcher: Watcher
) -> None:
    first = {job.strategy: job for job in jobs.values()}
    shared, missing = needs_compiling([strategies[name] for name in first])
    todo = len(missing) + shared
    done = 0
    if not todo:
        return
    watcher.compiling("", 0.0)
    if shared:
        watcher.compiling(executor.submit(shared_job).result(), 1 / todo)
        done = 1
    waiting = {executor.submit(compile_job, first[name]) for name in missing}
    while waiting:
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            done += 1
            watcher.compiling(future.result(), done / todo)


def _work(
    folder: RunFolder,
    jobs: Mapping[CellEntry, CellJob],
    strategies: Mapping[str, Strategy],
    watcher: Watcher,
    executor: Callable[[], Executor],
) -> None:
    """Compile, submit all jobs, take answers as they come; after a death, compute one job at a time on executors of
    their own."""
    suspects: list[CellEntry] = []

    def done(entry: CellEntry, answer: Answer) -> None:
        keep(folder, entry, jobs[entry], answer)
        watcher.cell(entry, answer)

    pool = executor()
    try:
        _compile(pool, jobs, strategies, watcher)
        watcher.begin(len(jobs))
        waiting: dict[Future[Answer], CellEntry] = {pool.submit(do_job, job): entry for entry, job in jobs.items()}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                entry = waiting.pop(future)
                try:
                    done(entry, future.result())
                except BrokenProcessPool:
                    suspects.append(entry)
                except Exception as error:
                    if type(error).__name__ != KILLED:
                        raise
                    done(entry, Answer("crashed", f"every worker that simulated it died: {error}"))
    except BaseException:
        stop(pool)
        raise
    pool.shutdown()
    for entry in suspects:
        with executor() as one:
            try:
                answer = one.submit(do_job, jobs[entry]).result()
            except BrokenProcessPool:
                answer = Answer(
                    "crashed", "its process died while it simulated this cell (memory, or a crash of its code)"
                )
        done(entry, answer)


def stop(pool: Executor) -> None:
    """End an executor now, without the jobs it has not begun; processes of this host are ended."""
    children: Mapping[int, Any] = dict(getattr(pool, "_processes", None) or {})  # gone after shutdown
    # Dask's executor has no cancel_futures: it cancels whatever it was given.
    cancel = {"cancel_futures": True} if "cancel_futures" in signature(pool.shutdown).parameters else {}
    pool.shutdown(wait=False, **cancel)
    for child in children.values():
        child.kill()  # one that compiles would hear SIGTERM when LLVM returns


def keep(folder: RunFolder, entry: CellEntry, job: CellJob, answer: Answer) -> None:
    """Write an answer to disk: the state, the pyperf file, and last the runs, which mark the cell as done."""
    state = CellState(state=answer.state, message=answer.message, event=answer.event)
    if answer.state == "ok":
        state = replace(
            state,
            loops=1,
            counts={"checked": float(answer.checked)},
            latencies=answer.latencies,
            threads=answer.threads or {},
        )
    folder.write_state(entry, state)
    if answer.state == "ok":
        folder.suite_path(entry).unlink(missing_ok=True)
        folder.add_suite(entry, suite(entry, job, answer))
        write_runs(folder.path, entry, answer.runs)


def suite(entry: CellEntry, job: CellJob, answer: Answer) -> dict[str, Any]:
    """The seeds of a cell as a pyperf suite: a process per seed, its value the inverse of the throughput."""
    import pyperf  # type: ignore[import-untyped]

    benchmarks = []
    asked = [run for run in answer.runs if not run.corner]
    for figure in FIGURES:
        seconds = []
        for run in asked:
            n = sum(run.operations.values()) if figure == "replay" else run.operations.get(figure, 0)
            seconds.append(run.window * 1e-9 / n if n else 0.0)
        if not all(seconds):
            continue
        made = []
        for number, (value, shares, rates) in enumerate(zip(seconds, answer.shares, answer.rates, strict=True)):
            mean = sum(rates) / len(rates)
            square = sum(r * r for r in rates)
            metadata: dict[str, str | int | float] = {
                "name": figure,
                "inner_loops": INNER_LOOPS,
                "loops": 1,
                "benchframe_cell": entry.key,
                "benchframe_strategy": entry.strategy,
                "benchframe_workload": entry.workload,
                "benchframe_trace": job.trace,
                "benchframe_round": number,
                "benchframe_simulated": job.machine.name,
                "benchframe_seed": job.seeds[number],
                "benchframe_threads": len(rates),
                "benchframe_thread_rates": ",".join(f"{rate:.6g}" for rate in rates),
                "benchframe_fairness": len(rates) * mean * mean / square if square else 0.0,
                "benchframe_slowest": min(rates) / max(rates) if max(rates) > 0 else 0.0,
                **{f"benchframe_{name}_share": share for name, share in shares.items()},
            }
            metadata = {k: v for k, v in metadata.items() if not isinstance(v, float) or math.isfinite(v)}
            made.append(pyperf.Run([value], metadata=metadata, collect_metadata=False))
        benchmarks.append(pyperf.Benchmark(made))
    buffer = io.StringIO()
    pyperf.BenchmarkSuite(benchmarks).dump(buffer)
    data: dict[str, Any] = json.loads(buffer.getvalue())
    return data


INSTALL = "pip install 'benchframe[cluster]'"
SECONDS = 20
"""Seconds after which a scheduler that does not answer is considered absent."""


def loopback(address: str) -> bool:
    """Whether ``address`` (tcp://host:port) is on this host.

    >>> loopback("tcp://127.0.0.1:8786"), loopback("tcp://[::1]:8786"), loopback("tcp://10.0.0.7:8786")
    (True, True, False)
    """
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked(address: str) -> str:
    """``address`` with its scheme. Raises SimulateError if it is not an address, or an unencrypted one of another host.

    >>> checked("localhost:8786"), checked("tls://big:8786")
    ('tcp://localhost:8786', 'tls://big:8786')
    """
    whole = address if "://" in address else f"tcp://{address}"
    parts = urlsplit(whole)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
        raise SimulateError(f"--cluster {address}: write local:N, HOST:PORT or tls://HOST:PORT")
    if parts.scheme == "tcp" and not loopback(whole):
        raise SimulateError(
            f"--cluster {address}: a scheduler runs the code that it is sent, so another host needs tls://; "
            "or forward its port to this one (ssh -L)"
        )
    return whole


@contextmanager
def cluster(address: str) -> Iterator[Callable[[], Executor]]:
    """A maker of executors on the scheduler at ``address``; ``local:N`` starts one, which ends with the block.

    Raises SimulateError if dask is not installed, or no scheduler answers.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise SimulateError(f"--cluster needs Dask: {INSTALL}") from None
    kind, _, count = address.partition(":")
    own: Any = None
    if kind == "local":
        if not count.isdecimal() or not 1 <= int(count) <= 1024:
            raise SimulateError(f"--cluster {address}: write local:N with N from 1")
        own = distributed.LocalCluster(
            n_workers=int(count),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        target: Any = own
    else:
        target = checked(address)
    try:
        try:
            client = distributed.Client(target, timeout=SECONDS, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise SimulateError(f"--cluster {address}: no scheduler answers there: {error}") from None
        with client:
            yield lambda: client.get_executor(pure=False)
    finally:
        if own is not None:
            own.close()
