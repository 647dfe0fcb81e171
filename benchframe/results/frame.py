"""Runs as pandas DataFrames: one row per value, per figure of a cell, per kind of operation, per simulated run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.engine.caches import WARM
from benchframe.errors import UsageError, did_you_mean
from benchframe.results.figures import rows_of
from benchframe.results.folder import Cell, RunFolder, calm, find_run

if TYPE_CHECKING:
    import pandas as pd

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
