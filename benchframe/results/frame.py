"""A run as a pandas DataFrame: one row per value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.results.calm import calm
from benchframe.results.folder import RunFolder, find_run

if TYPE_CHECKING:
    import pandas as pd

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
COLUMNS = (
    *("run", "workload", "strategy", "baseline", "state", "figure", "round", "counts", "value", "ns"),
    *("loops", "operations"),
    *("threads", *_METADATA.values()),
)


def load(run: str | Path) -> pd.DataFrame:
    """Read a run: a folder, its name below ``reports/runs``, or ``last``.

    One row per measured value, with the columns :data:`COLUMNS`: ``ns`` is nanoseconds per operation of ``figure``
    (lookup, fault, mapping, replay), ``value`` its index within the process, ``round`` the process, ``counts``
    whether that found a quiet moment and so is in the tables (:mod:`benchframe.results.calm`), ``baseline`` whether the
    row's strategy is what the workload compares with, ``threads`` how many real threads played (0: one replay; else
    ``ns`` is wall time per operation, all threads together). A cell without figures (wrong, crashed, ...) is one row
    whose ``figure`` and ``ns`` are missing. Raises :class:`~benchframe.errors.ResultsError`.

    The mean of process means, as the tables have it: ``df[df.counts].groupby(["workload", "strategy", "figure",
    "round"]).ns.mean().groupby(["workload", "strategy", "figure"]).mean()``.
    """
    import pandas as pd

    folder = RunFolder.open(find_run(str(run)))
    rows: list[dict[str, Any]] = []
    for cell in folder.cells():
        base = {
            "run": folder.path.resolve().name,
            "workload": cell.entry.workload,
            "strategy": cell.entry.strategy,
            "baseline": cell.baseline,
            "state": cell.state.state,
            "threads": cell.workload.threads,
        }
        if not cell.figures:
            rows.append(base)
        for figure, processes in cell.figures.items():
            counted = {process.round for process in calm(processes)}
            for process in processes:
                shared = {
                    **base,
                    "figure": figure,
                    "round": process.round,
                    "counts": process.round in counted,
                    "loops": process.loops,
                    "operations": process.operations,
                    **{name: process.metadata.get(key) for key, name in _METADATA.items()},
                }
                rows += [{**shared, "value": i, "ns": ns} for i, ns in enumerate(process.values)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    integers = ["round", "value", "loops", "operations", "threads", "layout_seed"]
    typed: pd.DataFrame = frame.astype({**dict.fromkeys(integers, "Int64"), "counts": "boolean"})
    return typed
