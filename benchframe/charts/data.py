"""Figures of a run as charts need them: rows by workload, texts for marks, workloads that differ in size only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchframe.charts.spec import Look
from benchframe.results.figures import FIGURES, Figure, Row, caching, rows_of
from benchframe.results.folder import Cell
from benchframe.results.scaling import alone, threaded
from benchframe.tables.build import ns, ratio_text

_VMAS = re.compile(r"(?P<head>[^:]+:(?:[^:]*,)?)vmas=(?P<vmas>\d{1,9})(?P<tail>(?:,.*)?)")
_EFFORT = re.compile(r"(?<=[:,])(?:events=(\d{1,9})|touch=[01])(?:,|$)")
"""How long a size is measured, not what is measured: 20 000 lookups in a list of 65 530 VMAs take a minute."""


@dataclass(frozen=True)
class Family:
    """Workloads that are the same but for ``vmas=`` (and how long they are measured): ``sizes`` maps the number of VMAs
    to the workloads' labels, the one with most events first."""

    name: str
    sizes: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """All of them, by size."""
        return [label for labels in self.sizes.values() for label in labels]


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
        self.cached = caching(self.cells)
        self.look = Look(self.strategies, {cell.workload.baseline for cell in self.cells})
        self.families = families(self.workloads)
        swept = {label for family in self.families for label in family.labels}
        self.single = [label for label in self.workloads if label not in swept]
        """Workloads that are no part of a sweep: those with a panel of their own."""

    def of(self, workload: str) -> list[Row]:
        """Rows of one workload that have figures."""
        return [row for row in self.rows if row.cell.entry.workload == workload and row.figures]


def families(labels: Sequence[str], least: int = 3) -> list[Family]:
    """Sweeps of ``vmas=`` with at least ``least`` sizes among workload labels.

    >>> families(["uniform:vmas=6", "uniform:vmas=50", "python-json", "uniform:vmas=500,gap=0"], least=2)
    [Family(name='uniform', sizes={6: ('uniform:vmas=6',), 50: ('uniform:vmas=50',)})]
    >>> families(["uniform:vmas=6,events=9", "uniform:vmas=6,events=80,touch=0"], least=1)[0].sizes
    {6: ('uniform:vmas=6,events=80,touch=0', 'uniform:vmas=6,events=9')}
    """
    found: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for label in labels:
        match = _VMAS.fullmatch(_EFFORT.sub("", label).rstrip(","))
        if match:
            rest = (match["head"] + match["tail"].lstrip(",")).rstrip(":,")
            events = max((int(number) for number in _EFFORT.findall(label) if number), default=0)
            found.setdefault(rest, {}).setdefault(int(match["vmas"]), []).append((-events, label))
    return [
        Family(name, {vmas: tuple(label for _, label in sorted(sizes[vmas])) for vmas in sorted(sizes)})
        for name, sizes in found.items()
        if len(sizes) >= least
    ]


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
