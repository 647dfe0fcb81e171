"""Compare two runs: what is comparable, the ratios, the table, and whether the new one passes a gate.

``benchframe gate BASE NEW`` is loose on time, exact on counted cost. Time fails the gate only if it is *significantly*
slower by more than the limit: the one-sided test of "at most LIMIT slower", corrected by Holm over all figures of the
gate, so that at most one harmless change in twenty fails the gate, however many cells there are. Counted cost
(docs/cost.md) has no noise: any growth is a regression, any shrinking an improvement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchframe.engine.job import COLD, SEEDED
from benchframe.errors import ResultsError
from benchframe.report.table import Table, Value, comparisons, ns, ratio_text
from benchframe.results.figures import FAMILIES, FIGURES, controls, figures_of
from benchframe.results.folder import RUNS, Cell, RunFolder, find_run
from benchframe.results.manifest import Manifest
from benchframe.stats import Judging, Pair, Verdict, holm, judge, summarise
from benchframe.stats.verdict import WORDS, above
from benchframe.units import model_name

# ----------------------------------------------------------------------------------------------------------------------
# The arguments of ``benchframe compare A B``: ``RUN`` or ``RUN:STRATEGY``.


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a run and, if given, a strategy in it."""

    folder: RunFolder
    strategy: str = ""

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.folder.path.resolve().name + (f":{self.strategy}" if self.strategy else "")

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """All cells of the run by (workload, strategy). Raises ResultsError."""
        return {(cell.entry.workload, cell.entry.strategy): cell for cell in self.folder.cells()}

    def baseline(self, workload: str) -> Cell | None:
        """The cell of the workload's baseline if it exists and is ok."""
        cell = self.cells.get((workload, self.folder.manifest.workload(workload).baseline))
        return cell if cell is not None and cell.state.state == "ok" else None


def read_sides(first: str, second: str, root: Path = RUNS) -> tuple[Side, Side]:
    """Both sides from the user's arguments. ``:STRATEGY`` alone as the second is a strategy of the first run; a
    strategy given on one side only is compared with itself on the other. Raises ResultsError."""
    run, name = _parse(first)
    a = Side(RunFolder.open(find_run(run, root)), name)
    other, name = _parse(second)
    b = Side(a.folder if not other else RunFolder.open(find_run(other, root)), name)
    if a.strategy and not b.strategy:
        b = Side(b.folder, a.strategy)
    elif b.strategy and not a.strategy:
        a = Side(a.folder, b.strategy)
    for side in (a, b):
        known = list(dict.fromkeys(cell.strategy for cell in side.folder.manifest.cells))
        if side.strategy and side.strategy not in known:
            raise ResultsError(side.folder.path, f"it has no strategy {side.strategy}", f"it has {', '.join(known)}")
    if a.folder.path.resolve() == b.folder.path.resolve() and a.strategy == b.strategy:
        raise ResultsError(first, "both sides are the same", "name two runs, or RUN:STRATEGY and :STRATEGY")
    return a, b


def _parse(text: str) -> tuple[str, str]:
    """(run, strategy); the path of an existing file is never split at its colon."""
    if ":" not in text or Path(text).exists():
        return text, ""
    run, _, strategy = text.rpartition(":")
    return run, strategy


# ----------------------------------------------------------------------------------------------------------------------
# Reasons why two runs are not comparable: another machine, another program under test, other events.

MODEL = "the model"
_VERSIONS = {
    "python": "Python",
    "numba": "Numba",
    "llvmlite": "llvmlite",
    "numpy": "NumPy",
    "model": MODEL,
}
_HOST = {"cpu": "CPU model", "cpus": "number of CPUs", "machine": "architecture", "kernel": "kernel"}
_SETTINGS = {"aslr": "address space randomisation", "cpu_config": "CPU settings (governor, turbo, idle)"}
UNKNOWN = "unknown"
NONE = "no such figure"


@dataclass(frozen=True)
class Difference:
    """``what`` is ``first`` in one run and ``second`` in the other; ``refuses``: figures are not comparable."""

    what: str
    first: str
    second: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.first} against {self.second}"


def differences(a: Side, b: Side, workloads: Iterable[str]) -> list[Difference]:
    """All differences between the runs that may change a figure, for the compared ``workloads``.

    These refuse the comparison: CPU model and number, architecture, kernel, ASLR, governor and other CPU settings,
    Python, Numba, llvmlite, NumPy, the model, a workload's events and caches, the depth of values. These are only
    reported: the host's name, the versions of benchframe and pyperf, pinning, and a strategy's source, which is usually
    the subject of the comparison. Within one run: none.
    """
    if a.folder.path.resolve() == b.folder.path.resolve():
        return []
    one, two = a.folder.manifest, b.folder.manifest
    found = []
    for names, first, second in (
        (_HOST, one.host, two.host),
        (_VERSIONS, one.versions, two.versions),
        (_SETTINGS, _settings(a), _settings(b)),
    ):
        found += [Difference(text, *pair) for key, text in names.items() if (pair := _differing(first, second, key))]
    for label in workloads:
        digests = one.workload(label).digest, two.workload(label).digest
        if digests[0] != digests[1]:
            found.append(Difference(f"events of {label}", digests[0][:12], digests[1][:12]))
        states = one.workload(label).caches or "warm", two.workload(label).caches or "warm"
        if states[0] != states[1]:
            found.append(Difference(f"caches of {label}", *states))
    columns = _columns(one, workloads), _columns(two, workloads)
    if columns[0] != columns[1]:
        found.append(Difference("caches of cold lookups", *columns, refuses=False))
    depths = _depth(one), _depth(two)
    if depths[0] != depths[1]:
        found.append(Difference("values per process", *depths))
    if pair := _differing(one.host, two.host, "hostname"):
        found.append(Difference("host", *pair, refuses=False))
    found += [
        Difference(key, *pair, refuses=False)
        for key in ("benchframe", "pyperf")
        if (pair := _differing(one.versions, two.versions, key))
    ]
    if one.options.cpu != two.options.cpu:
        found.append(Difference("pinned to", _cpu(one), _cpu(two), refuses=False))
    return found


def _columns(run: Manifest, workloads: Iterable[str]) -> str:
    """The states in which lookups were timed a second time."""
    return ", ".join(sorted({cold for label in workloads if (cold := run.workload(label).cold)})) or NONE


def _other_caches(a: Side, b: Side) -> list[Difference]:
    """Workloads that both runs have, but with caches in another state."""
    return [
        Difference(f"caches of {x.base}", x.state.label, y.state.label)
        for x in a.folder.manifest.workloads
        for y in b.folder.manifest.workloads
        if (x.digest, x.threads) == (y.digest, y.threads) and x.state != y.state
    ]


def edited(a: Side, b: Side, pairs: Iterable[tuple[tuple[str, str], tuple[str, str]]]) -> list[Difference]:
    """Strategies of the same name whose source differs between the runs: reported, not refused."""
    found: dict[str, Difference] = {}
    for first, second in pairs:
        x, y = a.cells[first].entry.strategy_digest, b.cells[second].entry.strategy_digest
        if first[1] == second[1] and x != y:
            found[first[1]] = Difference(f"source of {first[1]}", x[:12] or UNKNOWN, y[:12] or UNKNOWN, refuses=False)
    return list(found.values())


def _differing(one: Mapping[str, str], two: Mapping[str, str], key: str) -> tuple[str, str] | None:
    x, y = one.get(key, UNKNOWN), two.get(key, UNKNOWN)
    if key == "model" and model_name(x) == model_name(y):
        return None
    return None if x == y else (x, y)


def _settings(side: Side) -> dict[str, str]:
    """The machine's settings that pyperf recorded in the first process."""
    for cell in side.cells.values():
        for processes in cell.figures.values():
            if processes:
                metadata = processes[0].metadata
                return {key: str(metadata.get(key, UNKNOWN)) for key in _SETTINGS}
    return {}


def _depth(manifest: Manifest) -> str:
    options = manifest.options
    return f"{options.values} of {options.min_time:g} s after {options.warmups} warm-ups"


def _cpu(manifest: Manifest) -> str:
    return "no CPU" if manifest.options.cpu < 0 else f"CPU {manifest.options.cpu}"


# ----------------------------------------------------------------------------------------------------------------------
# The comparison itself: which cells are compared, and by which test.
#
# Within one run, and between runs that took turns round by round, processes are paired by round. Between two runs
# that were made one after the other a strategy is compared by its ratio to the baseline *of its own run*, if both
# have the same baseline: drift of the machine that hits both alike cancels. The baseline itself, and everything with
# ``absolute``, is compared in ns, and whatever changed on the machine in between is in it.
#
# Two runs with one seed have the same layouts: in round i code, memory and stack lie alike (benchframe.engine.job).
# Then their rounds are paired by layout nevertheless, and what the layout does, most of what is left on a quiet
# machine, cancels. The ratios are then alike but for single processes that were disturbed throughout, so the mean is a
# trimmed one. Runs with other seeds share nothing, and are compared by Welch's test.

PAIRED, RELATIVE, ABSOLUTE = "paired", "relative", "absolute"
MIN_LAYOUTS = 3
"""Common layouts needed to pair the rounds of two runs by them, if they are half of the smaller side's."""


@dataclass(frozen=True)
class Line:
    """One figure of two cells: ``verdict.ratio`` is second / first; ``how`` is PAIRED, RELATIVE or ABSOLUTE, and
    ``layouts`` tells whether rounds of two runs were paired by layout."""

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
    """All lines, the differences between the runs, and what could not be compared: ``missing`` is what the second run
    lacks or where a side failed, ``added`` what the first lacks, one text each."""

    lines: tuple[Line, ...]
    pairs: tuple[tuple[Cell, Cell], ...]
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    judging: Judging

    @property
    def refused(self) -> list[Difference]:
        """Why the runs are not comparable; empty if they are comparable."""
        return [difference for difference in self.differences if difference.refuses]

    @property
    def same_model(self) -> bool:
        """Whether both runs were made with the same model: otherwise counts are not comparable."""
        return all(difference.what != MODEL for difference in self.differences)


def compare(a: Side, b: Side, within: float | None = None, *, absolute: bool = False) -> Comparison:
    """Compare the cells of both sides; ratios are ``b`` / ``a``. ``within`` is the smallest effect of interest
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
    asked = [(x, y, figure) for x, y in usable for figure in _common(x, y)]
    tested = [_tested_pair(a, b, x, y, figure, absolute) for x, y, figure in asked]
    verdicts: list[Verdict | None] = [None] * len(asked)
    for family in FAMILIES:
        mine = [i for i, (*_, figure) in enumerate(asked) if figure in family]
        for i, verdict in zip(mine, judge([tested[i][0] for i in mine], judging), strict=True):
            verdicts[i] = verdict
    lines = [
        Line(x, y, figure, how, verdict, how != PAIRED and not pair.unpaired)
        for (x, y, figure), (pair, how), verdict in zip(asked, tested, verdicts, strict=True)
        if verdict is not None
    ]
    found = differences(a, b, dict.fromkeys(x for (x, _), _ in keys)) + edited(a, b, keys)
    if not keys:
        found += _other_caches(a, b)
    return Comparison(tuple(lines), tuple(pairs), tuple(found), tuple(missing), tuple(added), judging)


def _common(a: Cell, b: Cell) -> list[str]:
    """The figures that both cells have; cold lookups only if they are as cold in both."""
    found = [figure for figure in figures_of(a) if a.rounds(figure) and b.rounds(figure)]
    return [figure for figure in found if figure != COLD or a.workload.cold == b.workload.cold]


Key = tuple[str, str]


def _match(a: Side, b: Side) -> tuple[list[tuple[Key, Key]], list[str], list[str]]:
    """Keys of cells to compare, and those without a partner in the second and in the first run."""
    if a.strategy:
        labels = [label for label, name in a.cells if name == a.strategy]
        found = [((x, a.strategy), (x, b.strategy)) for x in labels if (x, b.strategy) in b.cells]
        return found, [f"{b.strategy} on {x} is not in {b.name}" for x in labels if (x, b.strategy) not in b.cells], []
    missing = [f"{name} on {label} is not in {b.name}" for label, name in a.cells if (label, name) not in b.cells]
    added = [f"{name} on {label} is not in {a.name}" for label, name in b.cells if (label, name) not in a.cells]
    return [(key, key) for key in a.cells if key in b.cells], missing, added


def _tested_pair(a: Side, b: Side, x: Cell, y: Cell, figure: str, absolute: bool) -> tuple[Pair, str]:
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
    """Values of two runs that were not interleaved: over the rounds with the same layout, if there are enough, else
    unpaired."""
    seeds = [layouts(cell, figure) for cell in (x, y)]
    common = {r for r in second.keys() & first.keys() if seeds[0].get(r) is not None and seeds[0][r] == seeds[1].get(r)}
    if len(common) < max(MIN_LAYOUTS, min(len(first), len(second)) / 2):
        return Pair(second, first, unpaired=True)
    return Pair({r: second[r] for r in common}, {r: first[r] for r in common}, trimmed=True)


def layouts(cell: Cell, figure: str) -> dict[int, int]:
    """The layout seed of each round whose process also applied it to its addresses; other rounds share only the order
    of records."""
    found = {}
    for process in cell.figures.get(figure, ()):
        seed = process.metadata.get("benchframe_layout_seed")
        if isinstance(seed, int) and process.metadata.get("benchframe_addresses") == SEEDED:
            found[process.round] = seed
    return found


def machine_change(found: Comparison) -> float | None:
    """By how much the control, code that no strategy changes, took longer in the second run (0.1: 10 %): the median
    over all cells. None if it is not known for both, or if the model differs."""
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
    """Whether two runs were interleaved: by the processes' dates, each round of both ended before the next of either
    began.

    Needs three common rounds. Dates are ISO texts, so they sort.
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


# ----------------------------------------------------------------------------------------------------------------------
# A comparison as a :class:`~benchframe.report.table.Table`, so that every format can show it.

_OWN = "ratios to each run's own baseline"
_NS = "ns of two runs that were not interleaved"
_LAYOUT = "paired by layout, so that its effect cancels; trimmed means"
_HOW = {
    (PAIRED, False): "paired by round",
    (RELATIVE, True): f"{_OWN}, {_LAYOUT}: drift that affects strategy and baseline alike cancels",
    (RELATIVE, False): f"{_OWN}, Welch: drift that affects strategy and baseline alike cancels",
    (ABSOLUTE, True): f"{_NS}, {_LAYOUT}: drift of the machine between the runs is part of the ratio",
    (ABSOLUTE, False): f"{_NS}, Welch: drift of the machine between the runs is part of the ratio",
}
STEADY = 0.03
"""If the control changed by more than this between the runs, the machine did, and the comparison says so."""


def comparison_table(found: Comparison, a: Side, b: Side) -> Table:
    """Rows workload x strategy x figure: both means, ratio second / first with its interval, the verdict, and the kind
    of test."""
    heads = ("workload", "strategy", "figure", "A", "B", "B / A [95 %]", "p", "verdict", "by")
    rows = [_row(line) for line in found.lines]
    hows = dict.fromkeys((line.how, line.layouts) for line in found.lines)
    level, within = f"{100 * found.judging.alpha:g} %", f"{100 * found.judging.within:g} %"
    cold = sum(line.figure == COLD for line in found.lines)
    together = comparisons(len(found.lines) - cold, cold)
    notes = [
        f"A: {a.name}   B: {b.name}; ns, means of process means.",
        _summed(found),
        *(f"{how[0]}: {_HOW[how]}." for how in hows),
        f"p and verdicts are corrected for {together} (Holm, {level}); same: within {within}.",
        *_waiting(found),
        *_machine(found),
        *(f"differs: {difference}." for difference in found.differences),
        *(f"not compared: {text}." for text in (*found.missing, *found.added)),
    ]
    for line in found.lines:
        where = f"{line.strategy} on {line.workload}, {FIGURES[line.figure]}"
        notes += [f"{where}: {note}." for note in line.verdict.notes if line.how == PAIRED or line.layouts]
    return Table(
        "Comparison",
        heads,
        tuple(rows),
        (False, False, False, True, True, True, True, False, False),
        tuple(_record(line) for line in found.lines),
        tuple(notes),
        drops=((8,), (6,), (3, 4)),  # how it was tested, p, both means; ratio and verdict stay
    )


def _summed(found: Comparison) -> str:
    """How often each verdict was reached."""
    words = [line.verdict.word for line in found.lines]
    names = {"faster": "faster", "slower": "slower", "same": "the same", "undecided": "undecided"}
    return (
        f"B is: {', '.join(f'{names[word]} {words.count(word)}' for word in WORDS if word in words)}, of {len(words)}."
    )


def _waiting(found: Comparison) -> list[str]:
    """How many rounds would decide the rest, and whether there is a shorter way."""
    open_lines = [line for line in found.lines if line.verdict.word == "undecided"]
    if not open_lines:
        return []
    known = [line.verdict.more for line in open_lines if line.verdict.more is not None]
    if not known:
        rounds = "many more rounds would be needed"
    else:
        which = ("it" if len(known) == 1 else "them") if len(known) == len(open_lines) else f"{len(known)} of them"
        known.sort()
        half = f", and {known[(len(known) - 1) // 2]:,} half of those" if len(known) > 3 else ""
        more = f"{known[-1]:,} more round{'s' * (known[-1] > 1)}"
        rounds = f"about {more} of both runs should settle {which}{half} (--resume RUN --rounds N)"
    notes = [f"{len(open_lines)} of {len(found.lines)} undecided: {rounds}, or a larger --within."]
    seeds = {cell.entry.key: layouts(cell, line.figure) for line in open_lines for cell in (line.first, line.second)}
    if all(seeds.values()) and any(line.how != PAIRED and not line.layouts for line in open_lines):
        notes.append("the runs have different layouts; two runs with the same --seed need fewer rounds.")
    return notes


def _machine(found: Comparison) -> list[str]:
    """What the control shows about the machine: it is the same code in both runs."""
    change = machine_change(found)
    if change is None or all(line.how == PAIRED for line in found.lines):
        return []
    control = f"control (code that no strategy changes): {100 * change:+.1f} % in B"
    if abs(change) <= STEADY:
        return [f"{control}, so the machine was equally fast."]
    return [f"{control}: the speed of the machine changed between the runs; run both again."]


def _words(line: Line) -> str:
    """The verdict. For two runs that were not interleaved, drift of the machine cannot be separated from a change of
    the code."""
    drift = line.how == ABSOLUTE and line.verdict.word in ("faster", "slower")
    return f"{line.verdict.text}, or drift" if drift else line.verdict.text


def _row(line: Line) -> tuple[str, ...]:
    means = line.means()
    p = min(line.verdict.p, line.verdict.p_same) if line.verdict.word == "same" else line.verdict.p
    shown = "<0.001" if p < 0.001 else f"{p:.3f}"
    return (
        line.workload,
        line.strategy,
        FIGURES[line.figure],
        ns(means[0]),
        ns(means[1]),
        ratio_text(line.verdict.ratio, 3),
        shown,
        _words(line),
        line.how,
    )


def _record(line: Line) -> dict[str, Value]:
    verdict, means = line.verdict, line.means()
    return {
        "workload": line.workload,
        "first": line.first.entry.strategy,
        "second": line.second.entry.strategy,
        "figure": line.figure,
        "first_ns": means[0],
        "second_ns": means[1],
        "ratio": verdict.ratio.value,
        "low": verdict.ratio.low,
        "high": verdict.ratio.high,
        "n": verdict.ratio.n,
        "effect": verdict.effect,
        "p": verdict.p,
        "p_same": verdict.p_same,
        "verdict": verdict.word,
        "more_rounds": verdict.more,
        "by": line.how,
    }


PASS, REGRESSION, INVALID = 0, 1, 2
COST_MODES = ("auto", "exact", "off")


@dataclass(frozen=True)
class GateResult:
    """``code`` PASS, REGRESSION or INVALID, and the reasons, one text each: ``bad`` (what fails the gate), ``good``
    (improvements), ``notes``. ``where`` summarises the regressions, a text per cell."""

    code: int
    bad: tuple[str, ...]
    good: tuple[str, ...]
    notes: tuple[str, ...]
    where: tuple[str, ...] = ()


def gate(found: Comparison, limit: float = 0.05, cost: str = "auto", growth: float = 0.0) -> GateResult:
    """Judge NEW against BASE. ``limit`` 0.05 allows time to grow by 5 %; ``cost`` is one of COST_MODES: ``exact``
    demands counted cost on both sides, ``auto`` compares it where both have it. A count may grow by the share
    ``growth``. O(lines)."""
    invalid = [f"not compared: {text}" for text in found.missing]
    notes = [f"new: {text}" for text in found.added]
    if not found.lines:
        invalid.append("the two runs have no figure in common")
    bad, good, more, slower = _time(found, limit)
    notes += more
    grown: dict[str, int] = {}
    if cost != "off" and not found.same_model:
        (invalid if cost == "exact" else notes).append("counted cost is not comparable: another model")
    elif cost != "off":
        compared = 0
        for base, new in found.pairs:
            if not base.state.cost or not new.state.cost:
                if cost == "exact":
                    invalid.append(f"{_place(new)}: no counted cost in {'BASE' if not base.state.cost else 'NEW'}")
                continue
            compared += 1
            worse, better, other = cost_changes(base, new, growth)
            grown[_place(new)] = len(worse)
            bad += [f"cost: {text}" for text in worse]
            good += [f"cost: {text}" for text in better]
            (invalid if cost == "exact" else notes).extend(other)
        how = f"; each may grow by {100 * growth:g} %" if growth else " exactly"
        notes.append(f"counted cost: {compared} of {len(found.pairs)} cells compared{how}")
    notes += [
        f"{place}: slower, though no counted cost grew: code placement, the machine, or something not counted; gate "
        "two "
        "runs of each before you look for it in the source"
        for place in slower
        if grown.get(place) == 0
    ]
    code = INVALID if invalid else REGRESSION if bad else PASS
    return GateResult(code, (*invalid, *bad), tuple(good), tuple(notes), tuple(_where(slower, grown)))


def _place(cell: Cell) -> str:
    return f"{cell.entry.strategy} on {cell.entry.workload}"


def _where(slower: Mapping[str, int], grown: Mapping[str, int]) -> list[str]:
    """The regressions, a text per cell."""
    found = []
    for place in dict.fromkeys((*slower, *grown)):
        time, cost = slower.get(place, 0), grown.get(place, 0)
        parts = [f"{time} figure{'s' * (time > 1)} slower"] * (time > 0)
        parts += [f"{cost} count{'s' * (cost > 1)} grew"] * (cost > 0)
        if parts:
            found.append(f"{place} ({', '.join(parts)})")
    return found


def _time(found: Comparison, limit: float) -> tuple[list[str], list[str], list[str], dict[str, int]]:
    """(regressions, improvements, notes, how many figures of each cell are slower)."""
    bound, alpha = math.log1p(limit), found.judging.alpha
    corrected = holm([above(line.verdict.ratio, bound) for line in found.lines])
    bad, good, unsure = [], [], []
    slower: dict[str, int] = {}
    for line, p in zip(found.lines, corrected, strict=True):
        ratio = line.verdict.ratio
        what = f"{line.strategy} on {line.workload}, {FIGURES[line.figure]}: {100 * (ratio.value - 1):+.1f} %"
        interval = f"[{100 * (ratio.low - 1):+.1f}, {100 * (ratio.high - 1):+.1f}] %"
        if p <= alpha:
            slower[_place(line.second)] = slower.get(_place(line.second), 0) + 1
            bad.append(f"slower: {what} {interval}, more than {100 * limit:g} % (p {p:.2g})")
        elif line.verdict.word == "faster":
            good.append(f"faster: {what} {interval}")
        elif not ratio.high <= 1 + limit:
            unsure.append((ratio.high, f"{what} {interval}"))
    notes = []
    if unsure:
        worst = max(unsure)[1]
        notes.append(
            f"{len(unsure)} of {len(found.lines)} figures may be more than {100 * limit:g} % slower, too noisy to say: "
            f"the widest is {worst}; more --rounds narrow it"
        )
    return bad, good, notes, slower


def cost_changes(base: Cell, new: Cell, growth: float = 0.0) -> tuple[list[str], list[str], list[str]]:
    """(regressions, improvements, what cannot be compared) of the counted cost of one cell, a line each.

    More hits are an improvement. If both sides counted the same events, every difference counts. If a long stream was
    sampled at different events (a strategy with more records leaves room for fewer events), a mean counts as different
    if the difference exceeds SIGMAS standard errors. Increases of at most the share ``growth`` are left out.
    """
    where = _place(new)
    before, after = base.state.cost, new.state.cost
    if base.workload.digest != new.workload.digest or before.get("events") != after.get("events"):
        return [], [], [f"{where}: different events, so cost is not comparable"]
    sampled = before.get("counted") != after.get("counted")
    worse: list[str] = []
    better: list[str] = []
    for key in sorted({*before, *after} - {"events", "counted"}):
        old, now = before.get(key), after.get(key)
        if key.endswith(("_se", ".n")) or old == now or (sampled and _within(key, before, after)):
            continue
        text = f"{where}, {key}: {_number(old)} -> {_number(now)}" + _percent(old, now)
        good = ((now or 0.0) > (old or 0.0)) == key.endswith("hits")
        if good or abs((now or 0.0) - (old or 0.0)) > growth * abs(old or 0.0):
            (better if good else worse).append(text)
    return worse, better, []


SIGMAS = 5.0


def _within(key: str, before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Whether two sampled means agree within their standard errors; quantiles of a sample have none."""
    errors = before.get(f"{key}_se"), after.get(f"{key}_se")
    if errors[0] is None or errors[1] is None:
        return not key.startswith("bytes.")
    return abs(after.get(key, 0.0) - before.get(key, 0.0)) <= SIGMAS * math.hypot(errors[0], errors[1])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.10g}"


def _percent(old: float | None, now: float | None) -> str:
    return f" ({100 * (now / old - 1):+.3g} %)" if old and now is not None else ""


def summary(outcome: GateResult, limit: float) -> str:
    """The gate's last line."""
    if outcome.code == PASS:
        return f"gate: pass (no figure is significantly more than {100 * limit:g} % slower)"
    number = f"{len(outcome.bad)} reason{'s' * (len(outcome.bad) != 1)}"
    if outcome.code == INVALID:
        return f"gate: not comparable, or failed, {number}"
    more = [f"and {len(outcome.where) - 5} more"] if len(outcome.where) > 6 else []
    shown = outcome.where[: 5 if more else 6]
    return f"gate: regression, {number}: {'; '.join([*shown, *more])}"
