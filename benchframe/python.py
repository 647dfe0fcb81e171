"""``benchframe.run``, ``benchframe.simulate`` and ``benchframe.load``, for Python programs and notebooks.

The first two do what the commands of these names do. :func:`load` reads runs as pandas DataFrames: one row per value,
per figure of a cell, per kind of operation, or per simulated run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from benchframe.engine.caches import WARM
from benchframe.errors import UsageError, did_you_mean
from benchframe.results.figures import rows_of
from benchframe.results.folder import Cell, RunFolder, calm, find_run

if TYPE_CHECKING:
    import pandas as pd

    from benchframe.registry import Registry

Names = str | Sequence[str]
Files = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, which every command and :func:`benchframe.load` take, and its table.

    ``str()`` is the table as the command prints it. A cell that is wrong, crashed or timed out raises nothing: it has
    its state in the table and in the frames, and a line in ``failed``.
    """

    path: Path
    table: str
    failed: tuple[str, ...] = ()
    """``STRATEGY on WORKLOAD: state: message`` of each cell without figures."""

    def __str__(self) -> str:
        return self.table

    def load(self, what: str = "figures") -> pd.DataFrame:
        """The run as a data frame: :func:`benchframe.load` of its folder."""
        return load(self.path, what)


def run(
    strategies: Names = "all",
    workloads: Names = (),
    *,
    traces: Files = (),
    baseline: str | None = None,
    threads: Sequence[int] = (0,),
    caches: Names | None = None,
    mode: str = "default",
    rounds: int | None = None,
    budget: float | None = None,
    timeout: float | None = None,
    until_decided: bool = False,
    within: float = 0.02,
    skip: Names = (),
    labels: Mapping[str, str] | None = None,
    seed: int = 0,
    stream_seed: int = 0,
    cost: bool = True,
    host: bool = False,
    pin: bool = True,
    plugins: Files = (),
    output: str | Path = "reports/runs",
) -> Run:
    """Time strategies beside their baseline in interleaved processes, after checking every answer: `benchframe run`.

    Progress is told on stderr. Takes rounds x cells processes of 2 to 4 s (``mode="quick"``: 1 s), after compiling.
    Ctrl-C leaves what was measured in the run's folder: `benchframe run --resume` continues it.

    Args:
        strategies: names, or ``"all"``; several as a list or with commas.
        workloads: as ``"zipf:vmas=1000"``, sweeps (``"uniform:vmas=10..1e5:log"``) included. Without workloads and
            traces: the shipped traces tagged default.
        traces: recorded trace files.
        baseline: what strategies are compared with, instead of each workload's own.
        threads: numbers of real threads, a cell for each; 0 is the usual replay.
        caches: states in which lookups find the caches (docs/caches.md), a cell for each; without it warm ones, and
            lookups once more as after a program's work.
        mode: ``"quick"`` (3 rounds), ``"default"`` (10) or ``"rigorous"`` (25).
        rounds: processes per cell, instead of the mode's.
        budget: seconds after which no further round begins.
        timeout: seconds that one process may take.
        until_decided: add rounds for undecided comparisons only.
        within: the smallest effect of interest, as a share: 0.02 is 2 %.
        skip: ``"STRATEGY@WORKLOAD"`` patterns of cells to leave out.
        labels: a workload's label to what tables shall call it.
        seed: of the order of processes and of layouts.
        stream_seed: of synthetic streams.
        cost: count loads, cache lines, atomics and branches, too.
        host: let the running kernel perform the workloads, too (docs/host.md).
        pin: pin the processes to one CPU if the machine is idle.
        plugins: plugin files or folders. They are executed.
        output: the folder in which the run gets its own.

    Raises:
        BenchframeError: an unknown name, a parameter out of range, a plugin that does not load, no space on the disk...

    ::

        run = benchframe.run("pmdcache,vmacache", "zipf:vmas=1000", mode="quick")
        print(run)
        run.load().query("figure == 'lookup'")[["strategy", "mean", "ratio", "verdict"]]
    """
    from benchframe.cli.run import adaptive, make_streams, measured, new_run, planned, settings
    from benchframe.engine.caches import USUAL, doubts, parse
    from benchframe.engine.compile import check_texts

    start = time.perf_counter()
    if mode not in ("quick", "default", "rigorous"):
        raise UsageError(f"mode={mode!r}: choose quick, default or rigorous")
    if rounds is not None and rounds < 1:
        raise UsageError(f"rounds={rounds}: at least 1 is needed")
    for name, value in (("budget", budget), ("timeout", timeout)):
        if value is not None and value <= 0:
            raise UsageError(f"{name}={value}: give a positive number of seconds")
    files, known = _known(plugins)
    options = settings(mode == "quick", mode == "rigorous", rounds, _text(budget), _text(timeout), pin)
    options = replace(options, within=within, cost=options.cost if cost else 0, host=host)
    if until_decided:
        options = adaptive(options, rounds, "lookup,fault")
    asked = _strategies(strategies, known)
    check_texts([known.strategy(name) for name in asked])
    crews = list(dict.fromkeys(threads))
    states = parse(None if caches is None else ",".join(_names(caches)), options.cpu)
    cold = USUAL if caches is None else None
    streams = make_streams(known, _names(workloads), _paths(traces), stream_seed, baseline, crews, labels, states, cold)
    command = ["benchframe", "run", *_words(strategy=asked, workload=_names(workloads), trace=_paths(traces))]
    manifest = planned(known, asked, streams, options, str(seed), files, [], _names(skip), command)
    for doubt in doubts(states, options.cpu):
        manifest = manifest.with_note(doubt)
    folder = new_run(manifest, asked, streams, Path(output))
    measured(known, folder, streams, files, [], start)
    return _finished(folder)


def simulate(
    strategies: Names,
    workloads: Names = (),
    *,
    traces: Files = (),
    cpus: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    machine: str = "milan-2s",
    numbers: Mapping[str, float] | None = None,
    work: str = "none",
    layout: str = "model",
    what_if: Names = (),
    seeds: int = 1,
    band: bool = False,
    rounds: float = 10.0,
    accesses: float = 4.0,
    baseline: str | None = None,
    stream_seed: int = 0,
    plugins: Files = (),
    jobs: int = 0,
    output: str | Path = "reports/runs",
) -> Run:
    """Run strategies on simulated CPUs of a described machine: `benchframe simulate`. Every answer is checked; the same
    call gives the same figures on every host of one architecture. They are not measurements (docs/simulation.md).

    Args:
        strategies: names, or ``"all"``.
        workloads: those that have a form for threads.
        traces: recorded traces, each with the threads that it has.
        cpus: numbers of CPUs, a cell for each.
        machine: a machine's name, or a file that describes one.
        numbers: other numbers for the machine, in ns: ``{"near": 20}``.
        work: what a kernel does around a lookup: ``"none"``, a profile's name, or ``"fault=NS,..."``.
        layout: the order of mm_struct's fields: ``"model"``, ``"linux-3.10"``, ...
        what_if: fields (``"mm.mm_rb"``) in cache lines of their own.
        seeds: runs that differ by chance.
        band: 8 more runs in corners of the machine's uncertainty.
        rounds: rounds of its loop that a CPU makes.
        accesses: millions of accesses after which a run ends early.
        baseline, stream_seed, plugins, output: as in :func:`run`.
        jobs: processes; 0: one per CPU.

    Raises:
        BenchframeError: an unknown name, a number out of range, a plugin that does not load...

    ::

        run = benchframe.simulate("rbtree,per_vma_refcnt", "mixed", cpus=(1, 8, 64))
        run.load("simulated").pivot_table(index="cpus", columns="strategy", values="throughput")
    """
    from benchframe.cli.simulate import new_folder, simulated, streams_of
    from benchframe.simulator.machines import load_layout, load_machine, load_work

    for name, given, least in (("seeds", seeds, 1), ("rounds", rounds, 0.5), ("accesses", accesses, 0.01)):
        if given < least:
            raise UsageError(f"{name}={given}: at least {least} is needed")
    files, known = _known(plugins)
    model = load_machine(machine).changed(dict(numbers or {}))
    profile = load_work(work)
    fields = load_layout(layout, tuple(name if "." in name else f"mm.{name}" for name in _names(what_if)))
    asked = _strategies(strategies, known)
    told = ",".join(map(str, cpus))
    streams = streams_of(known, _names(workloads), _paths(traces), stream_seed, baseline, told, model)
    words = _words(strategy=asked, workload=_names(workloads), trace=_paths(traces), cpus=[told], machine=[machine])
    command = ["benchframe", "simulate", *words]
    folder = new_folder(known, asked, streams, model, profile, fields, seeds, files, None, Path(output), None, command)
    with _no_main():
        table = simulated(
            known, folder, model, profile, fields, seeds=seeds, band=band, rounds=rounds, accesses=accesses, jobs=jobs
        )
    from benchframe.report.table import render

    return _finished(folder, render(table, "text"))


@contextmanager
def _no_main() -> Iterator[None]:
    """Processes that are started inside do not import the script that calls: without `if __name__ == "__main__"` it
    would run again in each, and a notebook or stdin has no file to import."""
    own = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own


def _finished(folder: Any, table: str | None = None) -> Run:
    """The run in ``folder``."""
    from benchframe.cli.report import tables
    from benchframe.report.table import render

    failed = tuple(
        f"{cell.entry.strategy} on {cell.entry.workload}: {cell.state.state}: {cell.state.message}"
        for cell in folder.cells()
        if cell.state.failed
    )
    return Run(
        folder.path, "\n".join(render(each, "text") for each in tables(folder)) if table is None else table, failed
    )


def _known(plugins: Files) -> tuple[list[Path], Registry]:
    """The plugin files, and what they and the installed plugins register. Raises UsageError."""
    import typer

    from benchframe.cli.options import loaded, plugin_files

    given = _paths(plugins)
    files = plugin_files(given)
    try:
        return files, loaded(files, None, given)
    except typer.Exit:  # its problems were told on stderr
        raise UsageError("a plugin does not load", hint="the lines above say why") from None


def _names(value: Names) -> list[str]:
    """Names from one text with commas, or from several."""
    from benchframe.cli.options import split

    return split([value] if isinstance(value, str) else list(value))


def _paths(value: Files) -> list[Path]:
    return [Path(value)] if isinstance(value, (str, Path)) else [Path(one) for one in value]


def _strategies(value: Names, known: Registry) -> list[str]:
    from benchframe.cli.options import strategy_names

    return strategy_names(_names(value), known)


def _text(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g}"


def _words(**options: Iterable[object]) -> list[str]:
    """Options of the command that does about the same, for the run's manifest."""
    return [word for name, values in options.items() for value in values for word in (f"--{name}", str(value))]


Rows = Iterator[dict[str, Any]]
_METADATA = {
    "benchframe_layout_seed": "layout_seed",
    "date": "date",
    "hostname": "hostname",
    "cpu_model_name": "cpu",
    "cpu_affinity": "cpu_affinity",
    "load_avg_1min": "load_avg_1min",
    "python_version": "python",
    "benchframe_version": "benchframe",
}
CELL = ("run", "workload", "spec", "strategy", "baseline", "state", "threads", "caches")
"""Columns of every frame; those of the workload's parameters come last."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "values": (*CELL, "figure", "round", "counts", "value", "ns", "loops", "operations", *_METADATA.values()),
    "figures": (*CELL, "figure", "n", "mean", "median", "sd", "low", "high", "ratio", "ratio_low", "ratio_high",
                "verdict", "hits", "hit_rate", "invalidations", "fallbacks"),
    "tails": (*CELL, "figure", "outcome", "n", "p50", "p90", "p99", "p999", "max"),
    "simulated": (*CELL, "seed", "corner", "cpus", "window", "figure", "operations", "throughput"),
}  # fmt: skip
_INTEGERS = ("round", "value", "loops", "operations", "threads", "layout_seed", "n", "seed", "cpus")


def load(run: str | Path | Sequence[str | Path], what: str = "values") -> pd.DataFrame:
    """Read a run, or several as one frame: each a folder, its name below ``reports/runs``, or ``last``.

    ``what`` is a row of the frame; its columns are :data:`COLUMNS` of it, then one per parameter of the workloads
    that differs from its default (``vmas``, ``alpha``, ...; ``workload_threads`` where the name is taken), and in
    ``figures`` the counted costs as ``cost_...`` and fallbacks by reason as ``fallbacks.REASON``. ``spec`` is the
    workload without its label, ``threads`` how many real threads played (0: one replay), ``caches`` the state of the
    caches at each event (warm, llc=1048576, ...; figure ``cold`` is as in the note below the run's table),
    ``baseline`` whether the strategy is what the workload compares with.

    - ``values``: a measured value. ``ns`` is nanoseconds per operation of ``figure`` (lookup, fault, mapping, replay),
      with threads wall time per operation of all together; ``value`` its index within the process, ``round`` the
      process, ``counts`` whether that found a quiet moment and so is in the tables
      (:mod:`benchframe.results.folder`). A cell without figures (wrong, crashed, ...) is one row whose ``figure`` and
      ``ns`` are missing.
    - ``figures``: a figure of a cell as the tables have it, with interval, ratio, verdict and hits.
    - ``tails``: percentiles of single operations in ns, by outcome (all, hit, miss).
    - ``simulated``: a simulated run of a cell, one seed on one machine, with operations per second.

    The mean of process means, as the tables have it: ``df[df.counts].groupby(["workload", "strategy", "figure",
    "round"]).ns.mean().groupby(["workload", "strategy", "figure"]).mean()``.

    Raises :class:`~benchframe.errors.ResultsError` (a run that cannot be read) and UsageError (another ``what``).
    """
    import pandas as pd

    if what not in _ROWS:
        raise UsageError(f"load: there is no {what!r}; {did_you_mean(what, _ROWS)}")
    runs = [run] if isinstance(run, (str, Path)) else run
    rows = [row for one in runs for row in _ROWS[what](RunFolder.open(find_run(str(one))))]
    columns = list(dict.fromkeys([*COLUMNS[what], *(name for row in rows for name in row)]))
    frame = pd.DataFrame(rows, columns=columns)
    types: dict[str, str] = {name: "Int64" for name in COLUMNS[what] if name in _INTEGERS}
    typed: pd.DataFrame = frame.astype({**types, **({"counts": "boolean"} if what == "values" else {})})
    return typed


def _cell(folder: RunFolder, cell: Cell, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every row of a cell has: the first columns, and the last."""
    spec = cell.workload.spec or cell.workload.path
    first = {
        "run": folder.path.resolve().name,
        "workload": cell.entry.workload,
        "spec": spec,
        "strategy": cell.entry.strategy,
        "baseline": cell.baseline,
        "state": cell.state.state,
        "threads": cell.workload.threads,
        "caches": cell.workload.caches or WARM,
    }
    given = (part.partition("=") for part in cell.workload.spec.partition(":")[2].split(",") if "=" in part)
    last = {(f"workload_{key}" if key in COLUMNS[what] else key): _number(value) for key, _, value in given}
    return first, last


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _values(folder: RunFolder) -> Rows:
    for cell in folder.cells():
        first, last = _cell(folder, cell, "values")
        if not cell.figures:
            yield {**first, **last}
        for figure, processes in cell.figures.items():
            counted = {process.round for process in calm(processes)}
            for process in processes:
                shared = {
                    **first,
                    "figure": figure,
                    "round": process.round,
                    "counts": process.round in counted,
                    "loops": process.loops,
                    "operations": process.operations,
                    **{name: process.metadata.get(key) for key, name in _METADATA.items()},
                    **last,
                }
                for index, ns in enumerate(process.values):
                    yield {**shared, "value": index, "ns": ns}


def _figures(folder: RunFolder) -> Rows:
    for row in rows_of(folder.cells(), notes=False):
        first, last = _cell(folder, row.cell, "figures")
        state = row.cell.state
        counts = {name: state.counts.get(name) for name in ("hits", "hit_rate", "invalidations", "fallbacks")}
        counts |= {name: count for name, count in state.counts.items() if name.startswith("fallbacks.")}
        costs = {f"cost_{name}": value for name, value in state.cost.items()}
        if not row.figures:
            yield {**first, **counts, **costs, **last}
        for name, figure in row.figures.items():
            summary, ratio, verdict = figure.summary, figure.ratio, figure.verdict
            yield {
                **first,
                "figure": name,
                **{part: getattr(summary, part) for part in ("n", "mean", "median", "sd", "low", "high")},
                "ratio": ratio.value if ratio else None,
                "ratio_low": ratio.low if ratio else None,
                "ratio_high": ratio.high if ratio else None,
                "verdict": verdict.word if verdict else None,
                **counts,
                **costs,
                **last,
            }


def _tails(folder: RunFolder) -> Rows:
    for cell in folder.cells():
        first, last = _cell(folder, cell, "tails")
        for row in cell.state.latencies:
            yield {**first, **{name: value for name, value in asdict(row).items() if name != "bins"}, **last}


def _simulated(folder: RunFolder) -> Rows:
    from benchframe.results.studies import simulated_cells

    for one in simulated_cells(folder):
        first, last = _cell(folder, one.cell, "simulated")
        for run in one.runs:
            shared = {**first, "seed": run.seed, "corner": run.corner, "cpus": run.cpus, "window": run.window}
            for figure, operations in run.operations.items():
                yield {
                    **shared, "figure": figure, "operations": operations, "throughput": run.throughput(figure), **last
                }  # fmt: skip


_ROWS: dict[str, Callable[[RunFolder], Rows]] = {
    "values": _values,
    "figures": _figures,
    "tails": _tails,
    "simulated": _simulated,
}
