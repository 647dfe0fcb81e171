"""Sweeps: the parameter at which B begins to beat A, and how much of a time the layout makes.

The crossover is where the mean over rounds of log(B / A) changes sign, on the straight line between two points in the
scale of the axis. It is reported only if on each side there is a point whose 95 % interval excludes 1, in opposite
directions. Its interval is a percentile bootstrap over rounds, since rounds are the replicates.

For the layout, one strategy and stream are measured under several layout seeds and alignments to 2 MiB. A layout seed
determines the place of each VMA record, the alignment which addresses share a page of page-table entries, the process
the addresses of code and slabs. Every process measures every combination, so the logarithms of the times are a crossed
design: log ns = mean + seed + alignment + seed x alignment + process + residual, all effects random. Components are
those of the analysis of variance (Searle, Casella, McCulloch, Variance Components, ch. 4), negative ones set to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.caches import UNTOUCHED, Caches
from benchframe.engine.probe import Point, ProbeError, Study
from benchframe.report.table import Table, Value, ns, ratio_text
from benchframe.results.studies import Bars, Curve, Kind, Mark, SavedStudy
from benchframe.stats import Ratio, paired_ratio
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
# Both as text, and as pictures that :mod:`benchframe.report.charts.study` draws.


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
    kind: Kind,
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
