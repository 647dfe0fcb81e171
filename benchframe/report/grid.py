"""Tables of a page: cells with a text, a value to sort by, and a class; from the same rows as all other tables."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from benchframe.report.run import Run
from benchframe.results.figures import FIGURES, Figure, Row
from benchframe.stats.verdict import WORDS
from benchframe.tables.build import Table, spread, verdict_text


@dataclass(frozen=True)
class Item:
    """One cell of a table. ``value`` sorts; None sorts last in both directions. ``kind`` is a CSS class."""

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """Heads (text, whether numbers) and rows. The first column holds workloads, the second strategies."""

    heads: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Item, ...], ...]


def latency_grid(run: Run) -> Grid:
    """ns and ratio of each figure, hit rate, invalidations, processes, state. O(cells)."""
    rows = run.data.rows
    present = [name for name in FIGURES if any(name in row.figures for row in rows)]
    heads: list[tuple[str, bool]] = [("workload", False), ("strategy", False)]
    for name in present:
        heads += [(FIGURES[name], True), ("ratio [95 %]", False)]
    heads.insert(_beside(present), ("hit rate", True))
    heads += [("invalidations", True), ("n", True), ("state", False)]
    return Grid(tuple(heads), tuple(tuple(_latency_row(row, present, run.data.cached)) for row in rows))


def _beside(present: list[str]) -> int:
    """The column of the hit rate: beside the time per lookup, which it is no measure of, and seen without scrolling."""
    return 4 if "lookup" in present else 2 + 2 * len(present)


def _latency_row(row: Row, present: list[str], cached: Collection[str]) -> list[Item]:
    cell = row.cell
    items = [Item(cell.entry.workload), Item(cell.entry.strategy, kind="base" if cell.baseline else "")]
    for name in present:
        figure = row.figures.get(name)
        items += [_time(figure), _ratio(figure)]
    counts = cell.state.counts
    rate, gone = counts.get("hit_rate"), counts.get("invalidations")
    if cell.entry.strategy not in cached:
        rate = gone = None
    items.insert(_beside(present), Item("" if rate is None else f"{100 * rate:.1f} %", rate))
    items.append(Item("" if gone is None else f"{gone:,.0f}", gone))
    processes = max((figure.summary.n for figure in row.figures.values()), default=0)
    items.append(Item(str(processes), processes))
    items.append(Item(row.shown, kind="" if cell.state.state == "ok" else "bad"))
    return items


def _time(figure: Figure | None) -> Item:
    return Item(spread(figure), figure.summary.mean if figure else None)


def _ratio(figure: Figure | None) -> Item:
    if figure is None or figure.ratio is None:
        return Item("")
    word = figure.verdict.word if figure.verdict else "undecided"
    return Item(verdict_text(figure), figure.ratio.value, word)


def grid_of(table: Table) -> Grid:
    """Any table whose first two columns are workload and strategy; a strategy that is left out is the one above."""
    rows = []
    strategy = ""
    for texts in table.rows:
        strategy = texts[1] or strategy
        texts = (texts[0], strategy, *texts[2:])
        rows.append(
            tuple(Item(t, _number(t) if right else None, _kind(t)) for t, right in zip(texts, table.right, strict=True))
        )
    return Grid(tuple(zip(table.heads, table.right, strict=True)), tuple(rows))


def _kind(text: str) -> str:
    """The class of a ratio with its verdict: the verdict.

    >>> _kind("0.9 [0.8, 0.95] faster"), _kind("faster"), _kind("12 of 13")
    ('faster', '', '')
    """
    word = text.rpartition("] ")[2]
    return word if word != text and word in WORDS else ""


_LEADING = re.compile(r"(\d[\d,]*\.?\d*)(?: ?([kM])\b)?")
_UNITS = {"k": 1e3, "M": 1e6, None: 1.0, "": 1.0}


def _number(text: str) -> float | None:
    """The first number of a text as the tables write them, with its unit.

    >>> _number("1,234"), _number("41.2 M"), _number("1.83 [1.80, 1.85]"), _number("2+1*"), _number("-")
    (1234.0, 41200000.0, 1.83, 2.0, None)
    """
    match = _LEADING.match(text)
    return float(match[1].replace(",", "")) * _UNITS[match[2]] if match else None
