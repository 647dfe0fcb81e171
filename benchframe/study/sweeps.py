"""Sweeps: the parameter at which B begins to beat A, how much of a time the layout makes, and what a VMA adds to fork,
exec and exit.

The crossover is where the mean over rounds of log(B / A) changes sign, on the straight line between two points in the
scale of the axis. It is reported only if on each side there is a point whose 95 % interval excludes 1, in opposite
directions. Its interval is a percentile bootstrap over rounds, since rounds are the replicates.

For the layout, one strategy and stream are measured under several layout seeds and alignments to 2 MiB. A layout seed
determines the place of each VMA record, the alignment which addresses share a page of page-table entries, the process
the addresses of code and slabs. Every process measures every combination, so the logarithms of the times are a crossed
design: log ns = mean + seed + alignment + seed x alignment + process + residual, all effects random. Components are
those of the analysis of variance (Searle, Casella, McCulloch, Variance Components, ch. 4), negative ones set to 0.

fork, exec and exit walk a whole address space. A parent of n VMAs, each with one page written, forks children that are
complete copies; or these children exec, or exit. The difference between two sizes, divided by the difference in VMAs,
is what a VMA adds: its record, its place in the index, its anon_vma, its page and its share of the page tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe import stream
from benchframe.engine.caches import UNTOUCHED, Caches
from benchframe.engine.probe import Point, ProbeError, Study
from benchframe.events import NIL, Kind
from benchframe.report.table import Table, Value, ns, ratio_text
from benchframe.results.studies import Bars, Curve, Mark, SavedStudy
from benchframe.results.studies import Kind as StudyKind
from benchframe.stats import Pair, Ratio, Summary, Verdict, judge, paired_ratio, summarise
from benchframe.trace.trace import shifted

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

Array = npt.NDArray[Any]
REPLICATES = 2000
EVENTS = 20_000


@dataclass(frozen=True)
class Sweep:
    """``over``: the meaning of the axis; ``values`` of ``parameter`` of the zipf stream, with ``fixed`` other
    parameters; ``figure`` to compare; ``scale`` of the axis (``linear``, ``log``)."""

    over: str
    title: str
    parameter: str
    values: tuple[float, ...]
    fixed: str
    figure: str
    scale: str

    def specs(self) -> list[str]:
        """The workloads, one per value."""
        return [f"zipf:events={EVENTS},faults=1,{self.parameter}={value:g}{self.fixed}" for value in self.values]


SWEEPS = {
    sweep.over: sweep
    for sweep in (
        Sweep("hit_rate", "hit rate of {b}", "run", (1, 1.5, 2, 3, 5, 8, 16, 40), ",vmas=1000", "lookup", "linear"),
        Sweep("vmas", "VMAs", "vmas", (10, 30, 100, 300, 1000, 3000, 10000, 30000), ",run=8", "lookup", "log"),
        Sweep(
            "writes_per_fault",
            "mapping calls per fault",
            "writes",
            (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1),
            ",vmas=1000,run=8",
            "replay",
            "log",
        ),
        Sweep(
            "vmas_per_2mib",
            "VMAs per 2 MiB",
            "pages",
            (511, 255, 127, 63, 31, 15, 7, 3, 1),
            ",vmas=1000,run=2",
            "lookup",
            "log",
        ),
    )
}
"""The sweeps that --over accepts."""


@dataclass(frozen=True)
class Place:
    """One point: ``x`` on the axis, times of both (ns), the ratio B / A with its interval, B's hit rate (NaN: no
    cache)."""

    x: float
    spec: str
    a: float
    b: float
    ratio: Ratio
    hit_rate: float


@dataclass(frozen=True)
class Crossover:
    """``x`` with its 95 % interval; ``wins`` is true where B is faster above it. ``found`` is the share of replicates
    that cross in this direction at all."""

    x: float
    low: float
    high: float
    wins: bool
    found: float


@dataclass(frozen=True)
class Breakeven:
    """A finished sweep."""

    a: str
    b: str
    sweep: Sweep
    places: tuple[Place, ...]
    crossovers: tuple[Crossover, ...]
    rounds: int
    caches: Caches = UNTOUCHED

    @property
    def verdict(self) -> str:
        """One or more sentences: where B beats A, or that there is no crossover here."""
        title = self.sweep.title.format(b=self.b)
        said = []
        for cross in self.crossovers:
            side = "above" if cross.wins else "below"
            at = f"{number(cross.x)} [{number(cross.low)}, {number(cross.high)}]"
            said.append(f"{self.b} beats {self.a} {side} {at} ({title}, 95 % interval)")
            if cross.found < 0.95:
                said.append(
                    f"only {100 * cross.found:.0f} % of the replicates cross there, so the crossover is uncertain"
                )
        if not said:
            low, high = number(self.places[0].x), number(self.places[-1].x)
            signs = {_sign(place.ratio) for place in self.places}
            what = "slower" if 1 in signs else "faster" if -1 in signs else "not distinguishable from " + self.a
            where = " where the intervals decide" if 0 in signs and len(signs) > 1 else ""
            said.append(f"no crossover from {low} to {high} ({title}): {self.b} is {what}{where}")
        return "; ".join(said)


def number(value: float) -> str:
    """Three significant digits, without an exponent where none is needed."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _sign(ratio: Ratio) -> int:
    return 1 if ratio.low > 1 else -1 if ratio.high < 1 else 0


def breakeven(
    known: Registry,
    a: str,
    b: str,
    sweep: Sweep,
    rounds: int,
    note: Callable[[str], None],
    *,
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    seconds: float = 0.02,
    caches: Caches = UNTOUCHED,
) -> Breakeven:
    """Measure the sweep, each event with ``caches`` in this state; takes some 0.5 s per point and round. Raises
    ProbeError."""
    strategies = {name: known.strategy(name) for name in (a, b)}
    specs = sweep.specs()
    streams = [known.spec(spec).trace(0) for spec in specs]
    points = [Point(name, i, caches=str(caches)) for i in range(len(streams)) for name in (a, b)]
    study = Study(strategies, streams, points, seconds, cpu, plugins, blocked)
    found = study.measure(rounds, 1, lambda done: note(f"{sweep.over}: round {done + 1} of {rounds}"))
    hits = [_hit_rate(strategies[b], stream) for stream in streams]
    places, logs = [], []
    for i, spec in enumerate(specs):
        ours, theirs = (
            {r: row[2 * i + side][sweep.figure] for r, row in enumerate(found) if sweep.figure in row[2 * i + side]}
            for side in (0, 1)
        )
        ratio = paired_ratio(theirs, ours)
        if ratio is None or ratio.n < 2:
            note(f"{spec}: hidden by noise, left out")
            continue
        x = {"hit_rate": hits[i], "vmas_per_2mib": 512 / (sweep.values[i] + 1)}.get(sweep.over, sweep.values[i])
        mean_a, mean_b = (float(np.mean(list(side.values()))) for side in (ours, theirs))
        places.append(Place(x, spec, mean_a, mean_b, ratio, hits[i]))
        logs.append([math.log(theirs[r] / ours[r]) if r in theirs and r in ours else math.nan for r in range(rounds)])
    order = sorted(range(len(places)), key=lambda i: places[i].x)
    sorted_places = tuple(places[i] for i in order)
    crossed = crossovers(sorted_places, np.array([logs[i] for i in order]), sweep.scale) if places else ()
    return Breakeven(a, b, sweep, sorted_places, crossed, rounds, caches)


def _hit_rate(strategy: Any, stream: Any) -> float:
    """B's hit rate, from the compiled counters; NaN if it has no cache."""
    from benchframe.engine.session import Session

    rate = float(Session(strategy, stream).counts()["hit_rate"])
    return rate if rate > 0 else math.nan


def crossovers(places: Sequence[Place], logs: Array, scale: str, seed: int = 0) -> tuple[Crossover, ...]:
    """Where the mean of ``logs`` (a row per place, a column per round; NaN: missing) finally changes sign: between the
    last place decided on one side and the first decided on the other. O(replicates x places x rounds)."""
    decided = [(i, _sign(place.ratio)) for i, place in enumerate(places) if _sign(place.ratio)]
    x = np.array([place.x for place in places])
    axis = np.log(x) if scale == "log" else x
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, logs.shape[1], (REPLICATES, logs.shape[1]))
    found = []
    for (i, before), (j, after) in pairwise(decided):
        if before == after:
            continue
        part, where = logs[i : j + 1], axis[i : j + 1]
        at = _crossing(np.nanmean(part, axis=1), where, before)
        again = [_crossing(_mean(part[:, rounds]), where, before) for rounds in drawn]
        kept = np.array([value for value in again if value is not None])
        if at is None or not len(kept):
            continue
        low, high = np.quantile(kept, (0.025, 0.975)).tolist()
        ends = [math.exp(v) if scale == "log" else v for v in (at, low, high)]
        found.append(Crossover(ends[0], ends[1], ends[2], after < 0, len(kept) / REPLICATES))
    return tuple(found)


def _mean(part: Array) -> Array:
    """Means of rows, without NaN; a row of only NaN counts as 0."""
    known = ~np.isnan(part)
    return np.asarray(np.where(known, part, 0.0).sum(axis=1) / np.maximum(1, known.sum(axis=1)))


def _crossing(means: Array, axis: Array, before: int) -> float | None:
    """Where the line through ``means`` leaves the side ``before`` for the last time; None if it does not."""
    on_side = np.flatnonzero(means * before > 0)
    if not len(on_side) or on_side[-1] == len(means) - 1:
        return None
    i = int(on_side[-1])
    share = means[i] / (means[i] - means[i + 1])
    return float(axis[i] + share * (axis[i + 1] - axis[i]))


COMPONENTS = ("layout seed", "alignment", "seed x alignment", "process", "residual")
LAYOUT_REPLICATES = 1000


@dataclass(frozen=True)
class Component:
    """One source of variance: its standard deviation as a share of the time, its share of all variance with a
    parametric bootstrap interval, and the p value of the null hypothesis "it is zero" (NaN: the residual has no
    test)."""

    name: str
    sd: float
    share: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Sensitivity:
    """``times[seed, shift, process]`` in ns of ``figure``; ``components`` in the order of COMPONENTS."""

    strategy: str
    workload: str
    figure: str
    seeds: tuple[int, ...]
    shifts: tuple[int, ...]
    times: Array
    components: tuple[Component, ...]


def measure(
    strategy: Strategy,
    trace: Trace,
    label: str,
    *,
    seeds: Sequence[int],
    shifts: Sequence[int],
    rounds: int,
    figure: str = "lookup",
    note: Callable[[str], None],
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    seconds: float = 0.02,
) -> Sensitivity:
    """Time every (seed, shift) in ``rounds`` processes; some 0.3 s each. Raises ProbeError, also if the figure is lost
    in noise, and ValueError for fewer than two seeds, shifts or rounds."""
    if min(len(seeds), len(shifts), rounds) < 2:
        raise ValueError("an analysis of variance needs at least two seeds, two shifts and two rounds")
    streams = [shifted(trace, pages) for pages in shifts]
    points = [Point(strategy.name, j, seed) for seed in seeds for j in range(len(shifts))]
    study = Study({strategy.name: strategy}, streams, points, seconds, cpu, plugins, blocked)
    found = study.measure(rounds, 1, lambda done: note(f"layout: round {done + 1} of {rounds}"))
    if any(figure not in row for rows in found for row in rows):
        raise ProbeError(f"{strategy.name} on {label}: ns per {figure} does not exist or is hidden by noise")
    times = np.array([[row[figure] for row in rows] for rows in found]).T.reshape(len(seeds), len(shifts), rounds)
    return Sensitivity(strategy.name, label, figure, tuple(seeds), tuple(shifts), times, components(times))


def components(times: Array, seed: int = 0) -> tuple[Component, ...]:
    """The components of variance of ``log(times)``, (seeds, shifts, processes)."""
    from scipy.stats import f  # type: ignore[import-untyped]

    logs = np.log(times)
    squares, degrees = _mean_squares(logs)
    variances = _variances(squares, logs.shape)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(LAYOUT_REPLICATES):
        parts = _variances(_mean_squares(_simulated(variances, logs.shape, rng))[0], logs.shape)
        drawn.append(parts / max(parts.sum(), 1e-300))
    low, high = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    tests = [
        float(f.sf(squares[0] / squares[2], degrees[0], degrees[2])),
        float(f.sf(squares[1] / squares[2], degrees[1], degrees[2])),
        float(f.sf(squares[2] / squares[4], degrees[2], degrees[4])),
        float(f.sf(squares[3] / squares[4], degrees[3], degrees[4])),
        float("nan"),
    ]
    shares = variances / max(variances.sum(), 1e-300)
    return tuple(
        Component(name, float(np.sqrt(variances[n])), float(shares[n]), float(low[n]), float(high[n]), tests[n])
        for n, name in enumerate(COMPONENTS)
    )


def _simulated(variances: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Logarithms of times drawn from the fitted model."""
    i, j, k = shape
    sd = np.sqrt(variances)
    effects = [rng.normal(0, sd[0], (i, 1, 1)), rng.normal(0, sd[1], (1, j, 1)), rng.normal(0, sd[2], (i, j, 1))]
    return np.asarray(sum(effects) + rng.normal(0, sd[3], (1, 1, k)) + rng.normal(0, sd[4], shape))


def _mean_squares(logs: Array) -> tuple[Array, tuple[int, ...]]:
    """Mean squares and degrees of freedom of seed, alignment, seed x alignment, process, residual."""
    i, j, k = logs.shape
    mean = logs.mean()
    rows, columns, depths = logs.mean(axis=(1, 2)), logs.mean(axis=(0, 2)), logs.mean(axis=(0, 1))
    cells = logs.mean(axis=2)
    interaction = cells - rows[:, None] - columns[None, :] + mean
    residual = logs - cells[:, :, None] - depths[None, None, :] + mean
    degrees = (i - 1, j - 1, (i - 1) * (j - 1), k - 1, (i * j - 1) * (k - 1))
    sums = (
        j * k * ((rows - mean) ** 2).sum(),
        i * k * ((columns - mean) ** 2).sum(),
        k * (interaction**2).sum(),
        i * j * ((depths - mean) ** 2).sum(),
        (residual**2).sum(),
    )
    return np.array([total / degree for total, degree in zip(sums, degrees, strict=True)]), degrees


def _variances(squares: Array, shape: tuple[int, ...]) -> Array:
    """Variance components from mean squares, by their expected values."""
    i, j, k = shape
    found = (
        (squares[0] - squares[2]) / (j * k),
        (squares[1] - squares[2]) / (i * k),
        (squares[2] - squares[4]) / k,
        (squares[3] - squares[4]) / (i * j),
        squares[4],
    )
    return np.asarray(np.maximum(0.0, np.array(found)))


# ----------------------------------------------------------------------------------------------------------------------
# Breakeven and layout as text, and as pictures that :mod:`benchframe.report.charts.study` draws.


def breakeven_table(found: Sequence[Breakeven]) -> Table:
    """A row per point of each sweep; the notes have the verdicts."""
    a, b = found[0].a, found[0].b
    heads = ("over", "value", f"{a}, ns", f"{b}, ns", "ratio [95 %]", f"hit rate of {b}", "workload")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    for study in found:
        for place in study.places:
            hits = "" if place.hit_rate != place.hit_rate else f"{100 * place.hit_rate:.1f} %"
            first = study.sweep.over if place is study.places[0] else ""
            rows.append((first, number(place.x), ns(place.a), ns(place.b), ratio_text(place.ratio), hits, place.spec))
            ratio = {"ratio": place.ratio.value, "low": place.ratio.low, "high": place.ratio.high}
            records.append({"over": study.sweep.over, "x": place.x, "a": place.a, "b": place.b, **ratio})
    notes = [f"{study.sweep.over}: {study.verdict}." for study in found]
    notes.append(
        f"ns per {_per(found)}; ratios paired by round, {found[0].rounds} rounds; a crossover's interval by bootstrap."
    )
    if not (state := found[0].caches).warm:
        notes.append(f"caches as {state.label}: {state.says()}.")
    return Table("Breakeven", heads, tuple(rows), (False, *(True,) * 5, False), tuple(records), tuple(notes))


def _per(found: Sequence[Breakeven]) -> str:
    figures = dict.fromkeys(study.sweep.figure for study in found)
    return " or ".join("event (with mapping calls)" if figure == "replay" else figure for figure in figures)


def layout_table(found: Sequence[Sensitivity]) -> Table:
    """A row per component of variance; the means by alignment are in the notes."""
    heads = ("workload", "strategy", "source", "sd", "share of variance [95 %]", "p")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    notes = []
    for study in found:
        for part in study.components:
            first = part is study.components[0]
            share = f"{100 * part.share:.0f} % [{100 * part.low:.0f}, {100 * part.high:.0f}]"
            p = "" if part.p != part.p else f"{part.p:.3f}" if part.p >= 0.001 else "< 0.001"
            name = study.strategy if first else ""
            rows.append((study.workload, name, part.name, f"{100 * part.sd:.2f} %", share, p))
            numbers: dict[str, Value] = {"sd": part.sd, "share": part.share, "low": part.low, "high": part.high}
            records.append({"workload": study.workload, "strategy": study.strategy, "source": part.name, **numbers})
        by_shift = study.times.mean(axis=(0, 2))
        by_seed = study.times.mean(axis=(1, 2))
        shifts = ", ".join(f"{shift}: {ns(float(t))}" for shift, t in zip(study.shifts, by_shift, strict=True))
        notes.append(f"{study.strategy} on {study.workload}, ns/{study.figure} by pages of shift: {shifts}.")
        notes.append(f"by layout seed: {ns(float(by_seed.min()))} to {ns(float(by_seed.max()))}.")
    notes.append("random effects of log ns, crossed; sd is relative; intervals by parametric bootstrap.")
    return Table("Layout", heads, tuple(rows), (False,) * 3 + (True,) * 3, tuple(records), tuple(notes))


def saved_breakeven(studies: Sequence[Breakeven], table: Table, command: Sequence[str]) -> SavedStudy:
    """One or more sweeps: the ratio B / A against each parameter, and the crossovers."""
    a, b = studies[0].a, studies[0].b
    note = f"Below 1 {b} is faster. Bars are 95 % intervals of the ratio, the strip that of the crossover."
    over = ", ".join(study.sweep.over for study in studies)
    return _saved(
        "breakeven", f"Where {b} beats {a}: {over}", note, table, command, (a, b), curves=tuple(map(_curve, studies))
    )


def _curve(study: Breakeven) -> Curve:
    return Curve(
        study.sweep.over,
        study.sweep.title.format(b=study.b),
        f"{study.b} / {study.a}, {study.sweep.figure}" + ("" if study.caches.warm else f" @{study.caches.label}"),
        study.sweep.scale == "log",
        tuple(Mark(p.ratio.value, p.ratio.low, p.ratio.high, p.x) for p in study.places),
        tuple(Mark(c.x, c.low, c.high) for c in study.crossovers),
        f"{study.b} faster",
    )


def saved_layout(found: Sequence[Sensitivity], table: Table, command: Sequence[str]) -> SavedStudy:
    """Shares of the variance, one picture per strategy."""
    names = [study.strategy for study in found]
    bars = tuple(
        Bars(
            f"{study.strategy} on {study.workload}, ns/{study.figure}",
            "% of the variance",
            tuple(Mark(100 * c.share, 100 * c.low, 100 * c.high, label=c.name) for c in study.components),
        )
        for study in found
    )
    note = "Shares of the variance of log ns: of the layout seed, the alignment to 2 MiB, the process."
    title = f"What the layout does to {', '.join(names)} on {found[0].workload}"
    return _saved("layout", title, note, table, command, names, bars=bars)


def _saved(
    kind: StudyKind,
    title: str,
    note: str,
    table: Table,
    command: Sequence[str],
    strategies: Sequence[str],
    *,
    curves: tuple[Curve, ...] = (),
    bars: tuple[Bars, ...] = (),
) -> SavedStudy:
    """``table`` and pictures together."""
    return SavedStudy(
        kind, title, note, tuple(command), table.heads, table.right, table.rows, table.notes, curves, bars,
        tuple(strategies),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# What fork, exec and exit cost, and what each VMA adds.

CALL_EVENTS = {"fork": 1, "exec": 2, "exit": 1}
"""Events of a call: an exec is a new address space and the end of the old one."""
OPERATIONS = tuple(CALL_EVENTS)
SIZES = (50, 1000)
"""VMAs of the parent: an ordinary program's, and a large one's."""
CHILDREN = 2
"""Calls in a replay."""
ONE_BY_ONE = (
    "a strategy that fills the hook dup copies its tree as a whole, as Linux since 6.8 (maple_rcu, presets from "
    "linux-6.12 on), or stores the child's VMAs in bulk, as 6.1 to 6.7 (maple, linux-6.1, linux-6.4); in the others "
    "they enter the index one by one. benchframe host --fork times the running kernel."
)
COUNTS = ("loads", "stores", "atomics", "lines")
"""What is counted per call, keys of the view ``mapping`` (docs/cost.md)."""


def family(operation: str, vmas: int, children: int = CHILDREN) -> Trace:
    """A stream that times ``children`` calls of one operation; ``vmas`` is at least 6. Raises ValueError."""
    layout = stream.tiles(vmas, 4, 1)
    numbers = np.arange(1, children + 1)
    forks = stream.rows(Kind.FORK, numbers, numbers)
    setup = [*layout.setup(), stream.fault(layout.vm_start, stream.WRITE)]
    if operation == "fork":
        return stream.build(setup, forks, map_count=vmas)
    ends = np.repeat(stream.rows(Kind.EXIT, np.zeros(children)), CALL_EVENTS[operation])
    ends["task"] = ends["mm"] = np.repeat(numbers, CALL_EVENTS[operation])
    ends["ret"] = 0
    if operation == "exec":  # the old address space ends, and the task begins in one of its own
        ends["kind"][1::2], ends["addr"][1::2], ends["mm"][1::2] = Kind.EXEC, NIL, children + numbers
    return stream.build([*setup, forks], ends, map_count=vmas)


@dataclass(frozen=True)
class Walk:
    """One operation under one strategy: ns per call by round, for each of SIZES; ``verdict`` on the larger size against
    the baseline (None for the baseline itself)."""

    strategy: str
    operation: str
    ns: tuple[Mapping[int, float], Mapping[int, float]]
    verdict: Verdict | None

    def mean(self, size: int) -> float:
        """Mean of the process means at SIZES[size]; NaN if noise hides all."""
        values = self.ns[size].values()
        return fmean(values) if values else math.nan

    @property
    def per_vma(self) -> Summary | None:
        """What a VMA adds, ns, over the rounds that have both sizes."""
        return slope(*self.ns)


def slope(small: Mapping[int, float], large: Mapping[int, float]) -> Summary | None:
    """The difference per VMA of SIZES by round; None without a common round.

    >>> found = slope({0: 1000.0, 1: 1100.0}, {0: 96_000.0, 1: 96_100.0})
    >>> found.mean, found.n
    (100.0, 2)
    """
    more = SIZES[1] - SIZES[0]
    values = [(large[r] - small[r]) / more for r in sorted(small.keys() & large.keys())]
    return summarise(values) if values else None


def measure_calls(
    known: Registry,
    names: Sequence[str],
    baseline: str,
    rounds: int,
    note: Callable[[str], None],
    *,
    cpu: int = -1,
    clock: float = 0.01,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
) -> list[Walk]:
    """Time every operation under every strategy at both sizes, in paired rounds; strategies must be compiled.
    ``baseline`` is one of ``names``. Raises ProbeError."""
    strategies = {name: known.strategy(name) for name in names}
    kinds = [(operation, vmas) for operation in OPERATIONS for vmas in SIZES]
    points = [Point(name, number) for number in range(len(kinds)) for name in names]
    streams = [family(operation, vmas) for operation, vmas in kinds]
    study = Study(strategies, streams, points, clock, cpu, plugins, blocked)
    found = study.measure(rounds, 1, lambda done: note(f"round {done + 1} of {rounds}"))
    times: dict[tuple[str, str, int], dict[int, float]] = {}
    for number, (operation, vmas) in enumerate(kinds):
        for place, name in enumerate(names):
            at = number * len(names) + place
            ns_of = {r: row[at]["mapping"] for r, row in enumerate(found) if "mapping" in row[at]}
            times[name, operation, vmas] = {r: CALL_EVENTS[operation] * value for r, value in ns_of.items()}
    return judged(times, names, baseline)


def judged(
    times: Mapping[tuple[str, str, int], Mapping[int, float]], names: Sequence[str], baseline: str
) -> list[Walk]:
    """The walks with their verdicts, which are one family; in the order of ``names``."""
    walks = [(name, operation) for name in names for operation in OPERATIONS]
    others = [walk for walk in walks if walk[0] != baseline]
    large = SIZES[1]
    pairs = [
        Pair(times[name, operation, large], times[baseline, operation, large], group=operation)
        for name, operation in others
    ]
    verdicts = dict(zip(others, judge(pairs, notes=False), strict=True))
    return [
        Walk(name, op, (times[name, op, SIZES[0]], times[name, op, large]), verdicts.get((name, op)))
        for name, op in walks
    ]


def walk_table(walks: Sequence[Walk], baseline: str) -> Table:
    """A row per strategy and operation."""
    few, many = SIZES
    heads = ("strategy", "call", f"{few} VMAs, ns", f"{many:,} VMAs", "ns per VMA [95 %]", f"against {baseline}")
    rows, records = [], []
    for walk in walks:
        each = walk.per_vma
        bounds = "-" if each is None else f"{ns(each.mean)} [{ns(each.low)}, {ns(each.high)}]"
        shown = "" if walk.verdict is None else f"{ratio_text(walk.verdict.ratio)} {walk.verdict.word}"
        rows.append((walk.strategy, walk.operation, ns(walk.mean(0)), ns(walk.mean(1)), bounds, shown))
        record: dict[str, Value] = {"strategy": walk.strategy, "call": walk.operation}
        record.update({f"ns_{few}": walk.mean(0), f"ns_{many}": walk.mean(1)})
        if each is not None:
            record.update(ns_per_vma=each.mean, low=each.low, high=each.high)
        if walk.verdict is not None:
            record.update(ratio=walk.verdict.ratio.value, verdict=walk.verdict.word)
        records.append(record)
    notes = (
        "one page of each VMA is written, so a VMA's cost includes its anon_vma, its page and its part of the tables.",
        "exec and exit end a complete copy that fork made; the pages themselves are neither copied nor zeroed.",
        f"against {baseline}: the call with {many:,} VMAs; all verdicts are one family.",
        ONE_BY_ONE,
    )
    return Table("Fork, exec, exit", heads, tuple(rows), (False, False, True, True, True, False), tuple(records), notes)


def count_calls(strategy: Strategy, operation: str) -> dict[str, float]:
    """COUNTS per VMA, from both sizes; the same on every machine. The strategy must be compiled."""
    from benchframe.engine.cost import count_cost

    few, many = (count_cost(strategy, family(operation, vmas, 1), 0).numbers for vmas in SIZES)
    per_vma = CALL_EVENTS[operation] / (SIZES[1] - SIZES[0])
    return {name: (many[f"mapping.{name}"] - few[f"mapping.{name}"]) * per_vma for name in COUNTS}


def count_table(counted: Mapping[tuple[str, str], Mapping[str, float]]) -> Table:
    """A row per strategy and operation of :func:`count_calls`'s results."""
    rows = tuple((name, op, *(f"{numbers[key]:.1f}" for key in COUNTS)) for (name, op), numbers in counted.items())
    records: list[dict[str, Value]] = [
        {"strategy": name, "call": op, **numbers} for (name, op), numbers in counted.items()
    ]
    notes = (f"per VMA: the difference between {SIZES[0]} and {SIZES[1]:,} VMAs, one page of each written.",)
    heads = ("strategy", "call", *(f"{name} per VMA" for name in COUNTS))
    right = (False, False, *(True,) * len(COUNTS))
    return Table("Fork, exec, exit, counted", heads, rows, right, tuple(records), (*notes, ONE_BY_ONE))


def saved_fork(names: Sequence[str], table: Table, command: Sequence[str]) -> SavedStudy:
    """What the calls cost, timed or counted."""
    return _saved("fork", f"fork, exec and exit of {', '.join(names)}", "", table, command, names)
