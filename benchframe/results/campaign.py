"""A run: plan its cells, measure them round by round, and continue until they are decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchframe.engine.job import COLD, Budget, Depth, Job, Outcome, Workers, layout_seed, order, spool
from benchframe.errors import ResultsError, disk_error
from benchframe.results.figures import control, rows_of
from benchframe.results.folder import CellState, LatencyRow, RunFolder, ThreadsFound, cell_key
from benchframe.results.manifest import CellEntry, Manifest, Options, WorkloadEntry, differences, host, noise, versions
from benchframe.results.studies import sources_of, write_sources
from benchframe.units import code_digest

if TYPE_CHECKING:
    from benchframe.results.folder import RunFolder
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace
    from benchframe.workload import WorkloadSpec


# ----------------------------------------------------------------------------------------------------------------------
# pyperf's own warnings about unstable figures, kept per cell and figure. Hints, not verdicts: see benchframe.stats.


def instability(path: Path) -> dict[str, tuple[str, ...]]:
    """The warnings that ``python -m pyperf check`` would print for each figure of a cell's file. Of COLD there are
    none: a process has one value of it, and its interval says how steady it is.

    The text comes from a private function of pyperf (its command prints all figures together); if a later pyperf does
    not have it, there are no hints.
    """
    if not path.exists():
        return {}
    import pyperf  # type: ignore[import-untyped]

    try:
        from pyperf._cli import format_checks  # type: ignore[import-untyped]
    except ImportError:
        return {}
    suite = pyperf.BenchmarkSuite.load(str(path))
    found = {}
    for bench in suite.get_benchmarks():
        if bench.get_name() == COLD:
            continue
        lines = tuple(line[2:] for line in format_checks(bench) if line.startswith("* "))
        if lines:
            found[bench.get_name()] = lines
    return found


# ----------------------------------------------------------------------------------------------------------------------
# `benchframe run --until-decided`: rounds go only to cells whose comparison is open, and to their baselines.
#
# Each round is a round as ever: shuffled, one process per cell, paired. After it the table's verdicts are reached by
# tests that may be looked at after every round (:mod:`benchframe.stats.verdict`), and corrected for *all* comparisons
# of the run, so that stopping when one is decided finds no more false differences than a run of fixed length. Decided
# stays decided: the evidence that counts is the largest so far, and more evidence elsewhere only loosens Holm's
# correction.

MIN_ROUNDS = 4
"""Rounds that every cell gets before any decision: with fewer, no estimate of the spread is reliable."""
MAX_ROUNDS = 200
"""Rounds after which a comparison stays undecided, unless --rounds says otherwise."""


def open_cells(folder: RunFolder) -> set[tuple[str, str]]:
    """(workload, strategy) of cells that need another round, their baselines included; empty when all comparisons are
    decided.

    A cell is open while one of the figures that the run is to decide (``options.decide``) is undecided; figures without
    an operation in the trace, and cells that failed, do not count. O(values).
    """
    decide = folder.manifest.options.decide
    found: set[tuple[str, str]] = set()
    for row in rows_of(folder.cells(), notes=False):
        verdicts = [figure.verdict for name, figure in row.figures.items() if name in decide]
        if any(verdict is not None and verdict.word == "undecided" for verdict in verdicts):
            found.add((row.cell.entry.workload, row.cell.entry.strategy))
            found.add((row.cell.entry.workload, row.cell.workload.baseline))
    return found


# ----------------------------------------------------------------------------------------------------------------------
# From the names that the user gave to cells with content hashes: what to run, before anything runs.


@dataclass(frozen=True)
class Stream:
    """One workload of the run: its manifest entry and its events."""

    entry: WorkloadEntry
    trace: Trace


def make_stream(
    spec: WorkloadSpec, seed: int, *, label: str = "", path: Path | None = None, threads: int = 0, caches: str = ""
) -> Stream:
    """Make the events of ``spec``; ``path`` is the trace file behind it, if there is one. ``threads`` real threads will
    replay it; 0: a single replay. ``caches`` is what is touched before each event.

    Raises what the workload's maker raises (WorkloadError, TraceError).
    """
    trace = spec.trace(seed, threads)
    entry = WorkloadEntry(
        label=label or spec.label,
        spec="" if path else spec.label,
        path=str(path.resolve()) if path else "",
        seed=seed,
        digest=trace.digest,
        events=len(trace),
        timed=len(trace) - trace.setup,
        baseline=spec.workload.baseline,
        threads=threads,
        caches=caches,
        summary=spec.workload.summary,
    )
    return Stream(entry, trace)


def plan(
    asked: Sequence[str],
    strategies: Mapping[str, Strategy],
    streams: Sequence[Stream],
    options: Options,
    *,
    seed: int,
    command: Sequence[str],
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    notes: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of a new run: each workload's baseline first, then the strategies in ``asked``, in that order.

    ``strategies`` maps names to strategies: all in ``asked``, and every baseline named in ``streams``.
    """
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = Manifest(
        created=made,
        command=tuple(command),
        seed=seed,
        options=options,
        workloads=tuple(stream.entry for stream in streams),
        cells=(),
        versions=_versions(),
        host=host(),
        metadata=dict(metadata or {}),
        plugins=tuple(plugins),
        blocked=tuple(blocked),
        noise=tuple(noise()),
        notes=tuple(notes),
    )
    pairs = [(name, stream.entry.label) for stream in streams for name in cells_of(asked, stream.entry.baseline)]
    return with_cells(manifest, pairs, strategies)


def cells_of(asked: Sequence[str], baseline: str) -> list[str]:
    """The strategies that run on a workload: its baseline first, then those in ``asked``.

    >>> cells_of(["pmdcache", "rbtree"], "rbtree")
    ['rbtree', 'pmdcache']
    """
    return [baseline, *(name for name in asked if name != baseline)]


def with_cells(manifest: Manifest, pairs: Sequence[tuple[str, str]], strategies: Mapping[str, Strategy]) -> Manifest:
    """``manifest`` with the cells (strategy, workload label) of ``pairs``, each under its content hash."""
    from benchframe.units import strategy_digest

    digests = {name: strategy_digest(strategies[name]) for name in dict.fromkeys(name for name, _ in pairs)}
    cells = []
    for name, label in pairs:
        key = cell_key(_content(manifest, name, digests[name], manifest.workload(label)))
        cells.append(CellEntry(key, name, label, digests[name]))
    return replace(manifest, cells=tuple(cells))


def without(manifest: Manifest, patterns: Sequence[str]) -> Manifest:
    """``manifest`` without the cells that match a pattern ``STRATEGY@WORKLOAD`` (``*`` and ``?`` as in file names).

    A baseline's cell stays as long as another cell of its workload does, which is compared with it. A workload without
    cells is removed too. Raises ResultsError for a pattern that matches no cell, and if no cell would be left.
    """
    named = {pattern: _named(manifest, pattern) for pattern in patterns}
    gone = {cell for cells in named.values() for cell in cells}
    needed = {c.workload for c in manifest.cells if c not in gone and not _is_baseline(manifest, c)}
    gone = {c for c in gone if not (_is_baseline(manifest, c) and c.workload in needed)}
    for pattern, cells in named.items():
        if not cells & gone:
            known = ", ".join(entry.label for entry in manifest.workloads[:3])
            why = "only baselines of other cells have this name" if cells else "no cell of this run has this name"
            raise ResultsError(f"--skip {pattern}", why, f"write STRATEGY@WORKLOAD; workloads: {known}")
    kept = tuple(cell for cell in manifest.cells if cell not in gone)
    if not kept:
        raise ResultsError("--skip", "no cell of this run is left", "skip fewer")
    labels = {cell.workload for cell in kept}
    return replace(manifest, cells=kept, workloads=tuple(w for w in manifest.workloads if w.label in labels))


def _named(manifest: Manifest, pattern: str) -> set[CellEntry]:
    """The cells that match ``STRATEGY@WORKLOAD``."""
    strategy, at, label = pattern.partition("@")
    return {c for c in manifest.cells if at and fnmatchcase(c.strategy, strategy) and fnmatchcase(c.workload, label)}


def _is_baseline(manifest: Manifest, cell: CellEntry) -> bool:
    """Whether other cells of its workload are compared with this cell."""
    return cell.strategy == manifest.workload(cell.workload).baseline


def _content(manifest: Manifest, strategy: str, digest: str, workload: WorkloadEntry) -> dict[str, Any]:
    """Everything that a cell's figures depend on. The number of rounds is not included: rounds can be added later."""
    options = manifest.options
    return {
        "strategy": [strategy, digest],
        "workload": [workload.label, workload.seed, workload.digest],
        "schedule": manifest.seed,
        "options": [options.values, options.warmups, options.min_time, options.cpu],
        "versions": dict(manifest.versions),
        "host": dict(manifest.host),
        **({"threads": workload.threads} if workload.threads else {}),
        **({"caches": workload.caches} if workload.caches else {}),
        **({"cold": workload.cold} if workload.cold else {}),
    }


def _versions() -> dict[str, str]:
    from benchframe.units import model_digest

    return {**versions(), "model": model_digest()[:16]}


def _one_name(versions: Mapping[str, str]) -> dict[str, str]:
    """``versions``, with equivalent models under one name."""
    from benchframe.units import model_name

    return {**versions, "model": model_name(versions.get("model", "unknown"))}


def check_same_place(folder: RunFolder) -> None:
    """Raise ResultsError if this machine or these versions differ from those that began the run."""
    then, now = folder.manifest, (_versions(), host())
    changed = differences(_one_name(then.versions), _one_name(now[0])) + differences(dict(then.host), now[1])
    if changed:
        raise ResultsError(
            folder.path,
            f"it was started elsewhere ({'; '.join(changed)})",
            "its figures would not be comparable: start a new run",
        )


def renew(folder: RunFolder, strategies: Mapping[str, Strategy], streams: Sequence[Stream], rounds: int) -> list[str]:
    """Bring a run's manifest up to date before it continues: cells whose strategy or stream was edited start over.

    ``rounds`` may be larger than at the run's beginning. Returns ``strategy on workload`` for each discarded cell.
    Raises ResultsError.
    """
    old = folder.manifest
    entries = tuple(stream.entry for stream in streams)
    changed = replace(old, workloads=entries, options=replace(old.options, rounds=rounds), finished="")
    new = with_cells(changed, [(cell.strategy, cell.workload) for cell in old.cells], strategies)
    stale = [(a, b) for a, b in zip(old.cells, new.cells, strict=True) if a.key != b.key]
    names = [f"{a.strategy} on {a.workload}" for a, _ in stale]
    if names:
        new = new.with_note(f"edited during the run, so measured again, later than the rest: {', '.join(names)}")
    folder.save(new)
    for before, _ in stale:
        folder.forget(before)
    return names


# ----------------------------------------------------------------------------------------------------------------------
# The run itself: rounds of worker processes, each result on disk before the next process starts.
#
# After every process the cell's state and then its pyperf file are replaced atomically, so a kill, a full disk or
# Ctrl-C loses only the process that was running.

STOPPED = "stopped after round"
"""The beginning of the note about a spent budget."""


AGAIN = 2
"""A process without an undisturbed replay (according to its control) is repeated at most this many times, ..."""
FIRST_LOOK = 3
"""... unless the run has no more rounds than this: then a quick answer matters more, and the disturbance is
reported."""


class Observer:
    """Receives progress; the base class ignores it."""

    def compiling(self, unit: str, fraction: float) -> None:
        """``unit`` was compiled; ``fraction`` (0 to 1) of the work is done. First called with "" and 0: there may be
        nothing to compile."""

    def begin(self, processes: int) -> None:
        """Timing starts; this many worker processes will follow."""

    def process(self, entry: CellEntry, round_: int, outcome: Outcome) -> None:
        """A worker process has ended."""

    def round_ended(self, done: int) -> None:
        """So many rounds are on disk, and no worker process is at work."""

    def more(self, processes: int) -> None:
        """This many processes will follow in addition to those announced."""

    def dropped(self, processes: int) -> None:
        """This many announced processes will not run: their cell failed, or the budget is spent."""

    def note(self, text: str) -> None:
        """A note for the user, one line."""


Compile = Callable[["Sequence[Strategy]", Callable[[str, float], None]], object]


def compile_native(strategies: Sequence[Strategy], progress: Callable[[str, float], None]) -> object:
    """Compile ``strategies`` for the native engine, in parallel; instant if the cache holds them."""
    from benchframe.engine.compile import compile_strategies

    return compile_strategies(strategies, progress)


def compile_threaded(strategies: Sequence[Strategy], progress: Callable[[str, float], None]) -> object:
    """Compile the builds of ``strategies`` for several threads."""
    from benchframe.engine.compile import compile_strategies

    return compile_strategies(strategies, progress, builds=("threads",))


@dataclass
class Campaign:
    """One session of a run: it carries out what is missing in ``folder``.

    ``strategies`` and ``traces`` map names and labels to everything that the manifest's cells name. ``worker`` is the
    command that starts a worker process, if it is not the native engine's.
    """

    folder: RunFolder
    strategies: Mapping[str, Strategy]
    traces: Mapping[str, Trace]
    observer: Observer
    plugins: Sequence[str] = ()
    blocked: Sequence[str] = ()
    worker: Sequence[str] = ()
    compile: Compile = compile_native
    compile_threads: Compile = compile_threaded
    start: float = field(default_factory=time.perf_counter)
    """When the session began, by time.perf_counter: the time that the user waited before it counts too."""

    def run(self) -> None:
        """Run all rounds that are missing and fit in the budget, then write hints and totals.

        Raises ResultsError (disk; a source that was edited meanwhile), EngineError (a strategy that does not compile),
        OSError (no process) and KeyboardInterrupt; everything measured before is on disk.
        """
        self._measured = self._timed = self._warmup = 0.0
        with self.folder.locked(), self.folder.spool() as scratch, Workers(scratch, self.worker) as self._workers:
            try:
                self._rounds(scratch)
            except BaseException:
                with suppress(ResultsError):  # a full disk must not hide what went wrong first
                    self._total()
                raise
            self._total()
            self._finish()

    def _rounds(self, scratch: Path) -> None:
        manifest = self.folder.manifest
        notes = tuple(note for note in manifest.notes if not note.startswith(STOPPED))
        if notes != manifest.notes:  # the budget of an earlier session says nothing about this one
            manifest = replace(manifest, notes=notes)
            self.folder.save(manifest)
        options = manifest.options
        cells = {f"{cell.workload}\n{cell.strategy}": cell for cell in manifest.cells}
        read = {name: self.folder.cell(cell) for name, cell in cells.items()}
        states = {name: cell.state for name, cell in read.items()}
        self._controls = {cell.entry: low for cell in read.values() if (low := control(cell))}
        done = {name: cell.done for name, cell in read.items()}

        def missing(round_: int) -> list[str]:
            names = order(manifest.seed, round_, list(cells))
            return [name for name in names if round_ not in done[name] and not states[name].failed]

        sure = min(options.rounds, MIN_ROUNDS) if options.until_decided else options.rounds
        left = sum(len(missing(r)) for r in range(sure))
        if not left and not options.until_decided:
            return
        write_sources(self.folder.path, sources_of(self.strategies.values()))
        self._tell("", 0.0)
        for builder, cells_of in ((self.compile, self._sequential), (self.compile_threads, self._threaded)):
            wanted = dict.fromkeys(cell.strategy for cell in cells_of())
            if wanted:
                builder([self.strategies[name] for name in wanted], self._tell)
        try:
            spooled = {label: spool(trace, scratch) for label, trace in self.traces.items()}
        except OSError as error:
            raise disk_error(scratch, error, "written") from None
        self.observer.begin(left)
        budget = Budget(options.budget or None)
        for round_ in range(options.rounds):
            names = missing(round_)
            if names and round_ >= sure:
                still = open_cells(self.folder)
                names = [name for name in names if (cells[name].workload, cells[name].strategy) in still]
                if not still:
                    self.observer.note(f"all is decided after {round_} rounds")
                    return
                self.observer.more(len(names))
            if names and not budget.fits(time.perf_counter() - self.start):
                later = range(round_, options.rounds)
                self._stop(round_, len(names) if round_ >= sure else sum(len(missing(r)) for r in later if r < sure))
                return
            began = time.perf_counter()
            for name in names:
                states[name] = self._process(cells[name], states[name], round_, spooled[cells[name].workload])
                if states[name].failed:
                    self.observer.dropped(sum(r not in done[name] for r in range(round_ + 1, sure)))
            if names:
                budget.took(time.perf_counter() - began)
                self.observer.round_ended(round_ + 1)

    def _threaded(self) -> list[CellEntry]:
        manifest = self.folder.manifest
        return [cell for cell in manifest.cells if manifest.workload(cell.workload).threads]

    def _sequential(self) -> list[CellEntry]:
        threaded = self._threaded()
        return [cell for cell in self.folder.manifest.cells if cell not in threaded]

    def _tell(self, unit: str, fraction: float) -> None:
        self.observer.compiling(unit, fraction)

    def _stop(self, round_: int, processes: int) -> None:
        """Note that the budget is spent."""
        rounds = self.folder.manifest.options.rounds
        note = f"{STOPPED} {round_} of {rounds}: the next would not fit in the budget"
        self.folder.save(self.folder.manifest.with_note(note))
        self.observer.dropped(processes)
        self.observer.note(note)

    def _process(self, entry: CellEntry, state: CellState, round_: int, spooled: tuple[Path, Path]) -> CellState:
        """Run one worker process and write its outcome to disk: the state first, then the figures."""
        outcome = self._launch(entry, state, round_, spooled)
        patient = self.folder.manifest.options.rounds > FIRST_LOOK
        for _ in range(AGAIN if patient else 0):
            if outcome.state != "ok" or not outcome.restless:
                break
            self._warmup += outcome.measured + outcome.warmup
            outcome = self._launch(entry, state, round_, spooled)
        if outcome.state == "skipped":
            raise ResultsError(self.folder.path, outcome.message, "continue with --resume, or start a new run")
        self._measured += outcome.measured
        self._timed += outcome.timed
        self._warmup += outcome.warmup
        if outcome.state == "ok" and outcome.suite is not None:
            state = _ok(state, outcome)
            if outcome.control > 0:
                self._controls[entry] = min(outcome.control, self._controls.get(entry, outcome.control))
            self.folder.write_state(entry, state)
            self.folder.add_suite(entry, outcome.suite)
        else:
            state = replace(
                state,
                state=outcome.state,
                message=outcome.message,
                detail=outcome.detail,
                event=outcome.event,
                round=round_,
            )
            self.folder.write_state(entry, state)
        self.observer.process(entry, round_, outcome)
        return state

    def _launch(self, entry: CellEntry, state: CellState, round_: int, spooled: tuple[Path, Path]) -> Outcome:
        manifest = self.folder.manifest
        options = manifest.options
        layout = layout_seed(manifest.seed, round_)
        trace = self.traces[entry.workload]
        threads = manifest.workload(entry.workload).threads
        job = Job(
            strategy=entry.strategy,
            digest=entry.strategy_digest,
            events=str(spooled[0].resolve()),
            trace_meta=str(spooled[1].resolve()),
            setup=trace.setup,
            layout_seed=layout,
            extras=not state.counts and not state.latencies,
            cost=0 if state.cost or state.loops else options.cost,
            threads=threads,
            caches=manifest.workload(entry.workload).caches,
            cold=manifest.workload(entry.workload).cold,
            control=self._controls.get(entry, 0.0),
            patient=options.rounds > FIRST_LOOK,
            plugins=tuple(self.plugins),
            blocked=tuple(self.blocked),
            model=code_digest(),
            metadata={
                "benchframe_cell": entry.key,
                "benchframe_strategy": entry.strategy,
                "benchframe_workload": entry.workload,
                "benchframe_trace": trace.digest,
                "benchframe_round": round_,
                "benchframe_layout_seed": layout,
                "benchframe_version": manifest.versions.get("benchframe", "unknown"),
                **{
                    f"plugin_{key}": flat for key, text in manifest.metadata.items() if (flat := " ".join(text.split()))
                },
            },
        )
        return self._workers.run(
            job,
            Depth(options.rounds, options.values, options.warmups, options.min_time),
            loops=state.loops,
            cpu=options.cpu if options.cpu >= 0 and not threads else None,
            timeout=options.timeout,
        )

    def _total(self) -> None:
        """Add this session's seconds to the manifest."""
        manifest = self.folder.manifest
        self.folder.save(
            replace(
                manifest,
                wall=manifest.wall + time.perf_counter() - self.start,
                measured=manifest.measured + self._measured,
                timed=manifest.timed + self._timed,
                warmup=manifest.warmup + self._warmup,
            )
        )

    def _finish(self) -> None:
        """Store pyperf's instability hints with each cell, and note that the run ended normally."""
        for cell in self.folder.cells():
            hints = instability(self.folder.suite_path(cell.entry))
            if hints != dict(cell.state.hints):
                self.folder.write_state(cell.entry, replace(cell.state, hints=hints))
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.folder.save(replace(self.folder.manifest, finished=now))


def _ok(state: CellState, outcome: Outcome) -> CellState:
    """The state after a successful process; counts and latencies come from the first one."""
    latencies = state.latencies
    if outcome.latencies is not None:
        latencies = tuple(
            LatencyRow(**{**row, "bins": tuple((int(b), int(n)) for b, n in row.get("bins", ()))})
            for row in outcome.latencies
        )
    return replace(
        state,
        state="ok",
        message=outcome.message or state.message if state.state == "ok" else outcome.message,
        detail="",
        loops=outcome.loops,
        counts=state.counts if outcome.counts is None else outcome.counts,
        cost=state.cost if outcome.cost is None else outcome.cost,
        latencies=latencies,
        timer_overhead_ns=outcome.timer_overhead_ns or state.timer_overhead_ns,
        threads=state.threads if outcome.threads is None else cast("ThreadsFound", outcome.threads),
    )
