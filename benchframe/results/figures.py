"""What each cell measured and its ratio to the baseline: the numbers that tables, charts and reports show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchframe.results.folder import Cell
from benchframe.results.scaling import leading
from benchframe.stats import Judging, Pair, Ratio, Summary, Verdict, judge, summarise
from benchframe.stats.shape import shape_notes

FIGURES = {"lookup": "ns/lookup", "fault": "ns/fault", "mapping": "ns/mapping op"}
"""Figures that have columns, with their heads. ``replay`` (ns per event of any kind) is in CSV and data frame."""


@dataclass(frozen=True)
class Figure:
    """One figure of one cell: its summary and, unless the cell is the baseline, its ratio and what that came to.

    ``verdict`` is corrected for all comparisons of the run; ``notes`` names what is odd about the cell's process means
    (two groups, drift), one line each.
    """

    summary: Summary
    ratio: Ratio | None
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()


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


def figures_of(cell: Cell) -> tuple[str, ...]:
    """The figures that are compared: all three, or of a threaded cell the one that leads, since all of them are the
    throughput of the same loops and move together: three comparisons of one number would only cost certainty."""
    return tuple(FIGURES) if not cell.workload.threads else (leading(cell),)


def caching(cells: Iterable[Cell]) -> frozenset[str]:
    """Strategies that have a cache: somewhere in the run it was hit or made invalid. Of all others a hit rate of 0
    says nothing; of these it does, on a workload where every lookup misses."""
    return frozenset(
        cell.entry.strategy
        for cell in cells
        if any(cell.state.counts.get(count) for count in ("hits", "hit_rate", "invalidations"))
    )


def rows_of(cells: Iterable[Cell], judging: Judging | None = None, *, notes: bool = True) -> list[Row]:
    """Summaries, paired ratios and verdicts of ``cells``, in their order. O(values).

    All comparisons of the three figures are one family for the correction; ``replay``, which sums them up, is a family
    of its own. ``judging`` defaults to what the run was begun with; ``notes`` False skips the search for oddities.
    """
    cells = list(cells)
    judging = judging or (cells[0].judging if cells else None)
    baselines = {cell.entry.workload: cell for cell in cells if cell.baseline and cell.state.state == "ok"}
    verdicts: dict[tuple[int, str], Verdict | None] = {}
    for family in (tuple(FIGURES), ("replay",)):
        pairs = {}
        for i, cell in enumerate(cells):
            base = baselines.get(cell.entry.workload)
            for name in family:
                if name in FIGURES and name not in figures_of(cell):
                    continue
                if base and not cell.baseline and cell.state.state == "ok":
                    pairs[i, name] = Pair(cell.rounds(name), base.rounds(name), group=name)
        verdicts |= zip(pairs, judge(pairs.values(), judging, notes=notes), strict=True)
    rows = []
    for i, cell in enumerate(cells):
        figures = {}
        for name in (*FIGURES, "replay"):
            means = cell.rounds(name)
            if cell.state.state == "ok" and means:
                verdict = verdicts.get((i, name))
                odd = shape_notes(means) if notes else ()
                figures[name] = Figure(
                    summarise(list(means.values())), verdict.ratio if verdict else None, verdict, odd
                )
        rows.append(Row(cell, figures))
    return rows
