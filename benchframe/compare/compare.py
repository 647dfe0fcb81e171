"""The comparison itself: which cells stand beside each other, and by which test.

Within one run, and between runs that took turns round by round, processes are paired by round. Between two runs that
were made one after the other a strategy is compared by its ratio to the baseline *of its own run*, if both have the
same baseline: drift of the machine that hits both alike cancels. The baseline itself, and everything with ``absolute``,
is compared in ns, and whatever changed on the machine in between is in it.

Two runs with one seed have the same layouts: in round i code, memory and stack lie alike (benchframe.engine.placement).
Then their rounds are paired by layout all the same, and what the layout does, most of what is left on a quiet
machine, cancels. The ratios are then alike but for single processes that were disturbed throughout, so the mean is a
trimmed one. Runs with other seeds share nothing, and are compared by Welch's test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from benchframe.compare.comparable import MODEL, Difference, differences, edited
from benchframe.compare.sides import Side
from benchframe.engine.placement import SEEDED
from benchframe.results.figures import figures_of
from benchframe.results.folder import Cell
from benchframe.results.quiet import controls
from benchframe.stats import Judging, Pair, Verdict, judge, summarise

PAIRED, RELATIVE, ABSOLUTE = "paired", "relative", "absolute"
MIN_LAYOUTS = 3
"""Layouts in common from which on rounds of two runs are paired by them, if they are half of the smaller side's."""


@dataclass(frozen=True)
class Line:
    """One figure of two cells: ``verdict.ratio`` is second / first; ``how`` is PAIRED, RELATIVE or ABSOLUTE, and
    ``layouts`` whether rounds of two runs were paired by layout."""

    first: Cell
    second: Cell
    figure: str
    how: str
    verdict: Verdict
    layouts: bool = False

    @property
    def strategy(self) -> str:
        """The strategy's name, or both names."""
        a, b = self.first.entry.strategy, self.second.entry.strategy
        return a if a == b else f"{a} -> {b}"

    @property
    def workload(self) -> str:
        """The workload's label."""
        return self.first.entry.workload

    def means(self) -> tuple[float, float]:
        """ns per operation of both cells."""
        a, b = (summarise(list(cell.rounds(self.figure).values())).mean for cell in (self.first, self.second))
        return a, b


@dataclass(frozen=True)
class Comparison:
    """All lines, what differs between the runs, and what could not be compared: ``missing`` what the second run lacks
    or a side failed at, ``added`` what the first lacks, one text each."""

    lines: tuple[Line, ...]
    pairs: tuple[tuple[Cell, Cell], ...]
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    judging: Judging

    @property
    def refused(self) -> list[Difference]:
        """Why the runs are not comparable; empty if they are."""
        return [difference for difference in self.differences if difference.refuses]

    @property
    def same_model(self) -> bool:
        """Whether both runs were made with one model: else what was counted is not comparable."""
        return all(difference.what != MODEL for difference in self.differences)


def compare(a: Side, b: Side, within: float | None = None, *, absolute: bool = False) -> Comparison:
    """Compare the cells that both sides have; ratios are ``b`` / ``a``. ``within`` is the smallest effect of interest
    (default: the first run's). Raises ResultsError. O(values)."""
    judging = a.folder.manifest.options.judging
    judging = judging if within is None else replace(judging, within=within)
    keys, missing, added = _match(a, b)
    pairs = [(a.cells[x], b.cells[y]) for x, y in keys]
    usable = [(x, y) for x, y in pairs if x.state.state == y.state.state == "ok"]
    missing += [
        f"{cell.entry.strategy} on {cell.entry.workload} is {cell.state.state} in {side.name}"
        for pair in pairs
        for cell, side in zip(pair, (a, b), strict=True)
        if cell.state.state != "ok"
    ]
    asked = [(x, y, figure) for x, y in usable for figure in figures_of(x) if x.rounds(figure) and y.rounds(figure)]
    tested = [_pair(a, b, x, y, figure, absolute) for x, y, figure in asked]
    verdicts = judge([pair for pair, _ in tested], judging)
    lines = [
        Line(x, y, figure, how, verdict, how != PAIRED and not pair.unpaired)
        for (x, y, figure), (pair, how), verdict in zip(asked, tested, verdicts, strict=True)
        if verdict is not None
    ]
    found = differences(a, b, dict.fromkeys(x for (x, _), _ in keys)) + edited(a, b, keys)
    return Comparison(tuple(lines), tuple(pairs), tuple(found), tuple(missing), tuple(added), judging)


Key = tuple[str, str]


def _match(a: Side, b: Side) -> tuple[list[tuple[Key, Key]], list[str], list[str]]:
    """Keys of cells that stand beside each other, and what has no partner in the second and in the first run."""
    if a.strategy:
        labels = [label for label, name in a.cells if name == a.strategy]
        found = [((x, a.strategy), (x, b.strategy)) for x in labels if (x, b.strategy) in b.cells]
        return found, [f"{b.strategy} on {x} is not in {b.name}" for x in labels if (x, b.strategy) not in b.cells], []
    missing = [f"{name} on {label} is not in {b.name}" for label, name in a.cells if (label, name) not in b.cells]
    added = [f"{name} on {label} is not in {a.name}" for label, name in b.cells if (label, name) not in a.cells]
    return [(key, key) for key in a.cells if key in b.cells], missing, added


def _pair(a: Side, b: Side, x: Cell, y: Cell, figure: str, absolute: bool) -> tuple[Pair, str]:
    first, second = x.rounds(figure), y.rounds(figure)
    if a.folder.path.resolve() == b.folder.path.resolve() or interleaved(x, y, figure):
        return Pair(second, first), PAIRED
    if not absolute and not (x.baseline and y.baseline):
        bases = a.baseline(x.entry.workload), b.baseline(y.entry.workload)
        if (
            bases[0] is not None
            and bases[1] is not None
            and bases[0].entry.strategy == bases[1].entry.strategy
            and bases[0].entry.strategy_digest == bases[1].entry.strategy_digest
        ):
            ratios = [_to(cell.rounds(figure), base.rounds(figure)) for cell, base in ((x, bases[0]), (y, bases[1]))]
            if min(map(len, ratios)) > 1:
                return _by_layout(x, y, figure, ratios[1], ratios[0]), RELATIVE
    return _by_layout(x, y, figure, second, first), ABSOLUTE


def _by_layout(x: Cell, y: Cell, figure: str, second: dict[int, float], first: dict[int, float]) -> Pair:
    """Values of two runs that took no turns: over the rounds in which they had the same layout, if these are
    enough, else unpaired."""
    seeds = [layouts(cell, figure) for cell in (x, y)]
    common = {r for r in second.keys() & first.keys() if seeds[0].get(r) is not None and seeds[0][r] == seeds[1].get(r)}
    if len(common) < max(MIN_LAYOUTS, min(len(first), len(second)) / 2):
        return Pair(second, first, unpaired=True)
    return Pair({r: second[r] for r in common}, {r: first[r] for r in common}, trimmed=True)


def layouts(cell: Cell, figure: str) -> dict[int, int]:
    """The layout seed of each round whose process let it choose the addresses too; others share nothing but records."""
    found = {}
    for process in cell.figures.get(figure, ()):
        seed = process.metadata.get("benchframe_layout_seed")
        if isinstance(seed, int) and process.metadata.get("benchframe_addresses") == SEEDED:
            found[process.round] = seed
    return found


def machine_change(found: Comparison) -> float | None:
    """By how much the control, code that no strategy changes, took longer in the second run (0.1: 10 %): the median
    over all cells. None if it is not known for both, or the model differs."""
    if not found.same_model:
        return None
    changes = []
    for x, y in found.pairs:
        levels = [list(controls(cell).values()) for cell in (x, y)]
        if all(levels):
            changes.append(median(levels[1]) / median(levels[0]) - 1)
    return median(changes) if changes else None


def _to(cell: dict[int, float], base: dict[int, float]) -> dict[int, float]:
    return {r: cell[r] / base[r] for r in cell.keys() & base.keys()}


def interleaved(x: Cell, y: Cell, figure: str) -> bool:
    """Whether two runs took turns: by the processes' dates each round of both ended before the next of either began.

    Needs three rounds in common. Dates are ISO texts, so they sort.
    """
    dates = [
        {process.round: str(process.metadata.get("date", "")) for process in cell.figures.get(figure, ())}
        for cell in (x, y)
    ]
    rounds = sorted(dates[0].keys() & dates[1].keys())
    if len(rounds) < 3 or not all(side[r] for side in dates for r in rounds):
        return False
    turns = [(min(dates[0][r], dates[1][r]), max(dates[0][r], dates[1][r])) for r in rounds]
    return all(before[1] < after[0] for before, after in pairwise(turns))
