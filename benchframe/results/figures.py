"""What each cell measured and its ratio to the baseline: the numbers that tables, charts and reports show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchframe.results.folder import Cell
from benchframe.stats import Ratio, Summary, paired_ratio, summarise

FIGURES = {"lookup": "ns/lookup", "fault": "ns/fault", "mapping": "ns/mapping op"}
"""Figures that have columns, with their heads. ``replay`` (ns per event of any kind) is in CSV and data frame."""


@dataclass(frozen=True)
class Figure:
    """One figure of one cell: its summary and, unless the cell is the baseline, its ratio."""

    summary: Summary
    ratio: Ratio | None


@dataclass(frozen=True)
class Row:
    """One cell as the tables show it."""

    cell: Cell
    figures: dict[str, Figure]

    @property
    def shown(self) -> str:
        """The state, with ``!`` if pyperf calls one of the figures unsteady.

        That there are too few samples for 1 % is not counted: the intervals say so, and for how many percent.
        """
        hints = [hint for lines in self.cell.state.hints.values() for hint in lines]
        return self.cell.state.state + "!" * any(not hint.startswith("Not enough samples") for hint in hints)


def rows_of(cells: Iterable[Cell]) -> list[Row]:
    """Summaries and paired ratios of ``cells``, in their order. O(values)."""
    cells = list(cells)
    baselines = {cell.entry.workload: cell for cell in cells if cell.baseline and cell.state.state == "ok"}
    rows = []
    for cell in cells:
        figures = {}
        base = baselines.get(cell.entry.workload)
        for name in (*FIGURES, "replay"):
            means = cell.rounds(name)
            if cell.state.state == "ok" and means:
                ratio = paired_ratio(means, base.rounds(name)) if base and not cell.baseline else None
                figures[name] = Figure(summarise(list(means.values())), ratio)
        rows.append(Row(cell, figures))
    return rows
