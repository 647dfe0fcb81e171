"""A strategy's figures over dated runs, and where they changed: ``benchframe history``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchframe.errors import ResultsError
from benchframe.files import printable
from benchframe.report.table import Table, Value, ns, times
from benchframe.results.figures import rows_of
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import SIMULATE
from benchframe.stats.steps import MOST, Level, levels

FLOOR = 0.001
"""The least standard error of a log value: a run of equal values is not exact either."""


@dataclass(frozen=True)
class Dated:
    """One run's value: ns, or the ratio to the baseline; ``se`` is the standard error of its logarithm."""

    run: str
    created: str
    value: float
    se: float
    digest: str
    """Of the strategy's text and what it calls."""
    versions: tuple[tuple[str, str], ...] = ()
    """Of benchframe, its model, and what it is made with."""


@dataclass(frozen=True)
class History:
    """One workload on one machine, in order of time; ``levels`` as in :mod:`benchframe.stats.steps`, of logarithms."""

    workload: str
    machine: str
    dated: tuple[Dated, ...]
    levels: tuple[Level, ...]


def read_histories(
    folders: Iterable[Path], strategy: str, figure: str, *, absolute: bool, workloads: Sequence[str], within: float
) -> tuple[list[History], list[str]]:
    """Histories of ``strategy``, and a line for each run that cannot be read. O(values of all runs).

    A series is one workload with its baseline, events, and machine (processor, number of CPUs, kernel; its name may
    differ, as for `compare`), so that what is compared is alike. Only cells in state ok with two processes or more
    count. ``workloads``: only these labels; all if empty.
    """
    series: dict[tuple[str, ...], list[Dated]] = {}
    problems = []
    for path in folders:
        try:
            folder = RunFolder.open(path)
            if folder.manifest.options.mode == SIMULATE:
                continue
            rows = rows_of(folder.cells(), notes=False)
        except ResultsError as error:
            problems.append(error.line)
            continue
        host = folder.manifest.host
        machine = ", ".join(host[key] for key in ("cpu", "cpus", "kernel") if host.get(key))
        for row in rows:
            cell, found = row.cell, row.figures.get(figure)
            label = cell.entry.workload
            if cell.entry.strategy != strategy or found is None or (workloads and label not in workloads):
                continue
            beside = cell.workload.baseline
            if absolute:
                value = found.summary.mean
                se = found.summary.sd / math.sqrt(found.summary.n) / value if found.summary.n > 1 else math.nan
            elif found.ratio is not None:
                value, se = found.ratio.value, found.ratio.se
            else:
                continue
            if value > 0 and math.isfinite(value) and math.isfinite(se):
                key = (label, "" if absolute else beside, cell.workload.digest, machine)
                digest = cell.entry.strategy_digest
                manifest, name = folder.manifest, path.resolve().name
                versions = tuple(sorted(manifest.versions.items()))
                dated = Dated(name, manifest.created, value, max(se, FLOOR), digest, versions)
                series.setdefault(key, []).append(dated)
    histories = []
    for (label, _, _, machine), values in series.items():
        values.sort(key=lambda one: (one.created, one.run))
        kept = values[-MOST:]
        found_levels = levels([math.log(one.value) for one in kept], [one.se for one in kept], within)
        histories.append(History(label, machine, tuple(kept), tuple(found_levels)))
    return histories, problems


def changed(before: Dated, after: Dated) -> str:
    """What differs between two runs besides time: the strategy's text, versions by name; "nothing"."""
    old, new = dict(before.versions), dict(after.versions)
    others = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return ", ".join([*(["text"] if before.digest != after.digest else []), *others]) or "nothing"


def history_table(histories: Sequence[History], strategy: str, figure: str, *, absolute: bool, within: float) -> Table:
    """A row per level: since which run it holds, its value, the step to it, and what else changed there."""
    heads = ("workload", "since", "run", "runs", "ns" if absolute else "ratio", "step", "changed")
    rows, records = [], []
    for history in histories:
        before: Level | None = None
        for level in history.levels:
            first = history.dated[level.first]
            step = math.exp(level.mean - before.mean) if before is not None else None
            text = ""
            if before is not None:
                text = changed(history.dated[level.first - 1], first)
            value = math.exp(level.mean)
            shown = ns(value) if absolute else times(value)
            change = "" if step is None else f"{100 * (step - 1):+.1f} %"
            name = "" if before is not None else printable(history.workload)
            count = f"{level.last - level.first}"
            rows.append((name, first.created[:10], printable(first.run), count, shown, change, text))
            record: dict[str, Value] = {
                "workload": history.workload, "machine": history.machine, "strategy": strategy, "figure": figure,
                "since": first.created, "run": first.run, "runs": level.last - level.first, "value": value,
                "se": level.se, "step": step, "changed": text,
            }  # fmt: skip
            records.append(record)
            before = level
    what = "ns" if absolute else "ratio to the baseline; below 1 is faster"
    notes = [
        f"{strategy}, {figure}: {what}. A row is a level that its runs share; step: from the row above.",
        f"Steps of {100 * within:g} % or less are not looked for. By chance a series shows one in 1 of 100 histories.",
        *(f"{printable(history.workload)}: {printable(history.machine)}" for history in histories),
    ]
    right = (False, False, False, True, True, True, False)
    return Table(f"history of {strategy}", heads, tuple(rows), right, tuple(records), tuple(notes), drops=((3,), (2,)))
