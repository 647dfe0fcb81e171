"""Figures of a run as charts need them: rows by workload, texts for marks, workloads that differ in size only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchframe.charts.spec import Look
from benchframe.results.figures import FIGURES, Figure, Row, rows_of
from benchframe.results.folder import Cell
from benchframe.results.scaling import alone, threaded
from benchframe.tables.build import ns, ratio_text

_VMAS = re.compile(r"(?P<head>[^:]+:(?:[^:]*,)?)vmas=(?P<vmas>\d{1,9})(?P<tail>(?:,.*)?)")


@dataclass(frozen=True)
class Family:
    """Workloads that are the same but for ``vmas=``: ``sizes`` maps the number of VMAs to the workload's label."""

    name: str
    sizes: dict[int, str] = field(default_factory=dict)


class Data:
    """The cells of a run, summarised once for all charts. Only cells in state ``ok`` have figures.

    ``rows`` and ``workloads`` are those of one replay; ``crews`` are the labels of what real threads played.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells = list(cells)
        self.rows: list[Row] = rows_of(alone(self.cells))
        self.workloads = list(dict.fromkeys(cell.entry.workload for cell in alone(self.cells)))
        self.crews = list(dict.fromkeys(cell.entry.workload for cell in threaded(self.cells)))
        self.strategies = list(dict.fromkeys(cell.entry.strategy for cell in self.cells))
        self.look = Look(self.strategies, {cell.workload.baseline for cell in self.cells})
        self.families = families(self.workloads)
        swept = {label for family in self.families for label in family.sizes.values()}
        self.single = [label for label in self.workloads if label not in swept]
        """Workloads that are no part of a sweep: those with a panel of their own."""

    def of(self, workload: str) -> list[Row]:
        """Rows of one workload that have figures."""
        return [row for row in self.rows if row.cell.entry.workload == workload and row.figures]


def families(labels: Sequence[str], least: int = 3) -> list[Family]:
    """Sweeps of ``vmas=`` with at least ``least`` sizes among workload labels.

    >>> families(["uniform:vmas=6", "uniform:vmas=50", "python-json", "uniform:vmas=500,gap=0"], least=2)
    [Family(name='uniform', sizes={6: 'uniform:vmas=6', 50: 'uniform:vmas=50'})]
    """
    found: dict[str, Family] = {}
    for label in labels:
        match = _VMAS.fullmatch(label)
        if match:
            rest = (match["head"] + match["tail"].lstrip(",")).rstrip(":,")
            found.setdefault(rest, Family(rest)).sizes[int(match["vmas"])] = label
    return [Family(f.name, dict(sorted(f.sizes.items()))) for f in found.values() if len(f.sizes) >= least]


def interval(figure: Figure) -> tuple[float, float]:
    """The 95 % interval of a mean for drawing: the mean itself for one process, never below a tenth of it."""
    summary = figure.summary
    if summary.n < 2:
        return summary.mean, summary.mean
    return max(summary.mean / 10, summary.low), summary.high


def says(row: Row, name: str) -> str:
    """What a mark of figure ``name`` says: strategy, time with interval, ratio and verdict."""
    figure = row.figures[name]
    summary = figure.summary
    text = f"{row.cell.entry.strategy}: {ns(summary.mean)} {FIGURES.get(name, name)}"
    if summary.n > 1:
        text += f" [{ns(summary.low)}, {ns(summary.high)}], {summary.n} processes"
    if figure.ratio is not None:
        word = figure.verdict.text if figure.verdict else figure.ratio.word
        text += f"; {word}: {ratio_text(figure.ratio)} of {row.cell.workload.baseline}"
    return text


def percent(part: float) -> str:
    """A share as text.

    >>> percent(0.8521)
    '85.2 %'
    """
    return f"{100 * part:.1f} %"
