"""Why B is slower or faster than A on a stream: their counts, the fitted cost of each, and what remains unexplained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchframe.engine.caches import UNTOUCHED, Caches
from benchframe.engine.cost.hierarchy import TERMS
from benchframe.report.table import Table, Value, ns
from benchframe.results.studies import Bars, Mark, SavedStudy
from benchframe.stats import Ratio, Summary, paired_ratio, summarise
from benchframe.study.model import BASE, Model, terms
from benchframe.study.model import text as alone

RECORDS = 40_000_000
"""The most records to count for the two: this covers most streams completely, more than once."""
Array = npt.NDArray[np.float64]
DRAWS = 4000
MARGIN = 0.1
"""How far outside the calibrated range a term may be, as a share of the range."""


@dataclass(frozen=True)
class Side:
    """One strategy on the stream: its counts with its path's (:func:`benchframe.study.model.counts`), and ns per lookup
    by round."""

    name: str
    cost: Mapping[str, float]
    ns: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean of the process means."""
        return float(np.mean(list(self.ns.values())))

    @property
    def hit_rate(self) -> float | None:
        """The share of lookups that the cache answered; None if there are no lookups."""
        hits, misses = self.cost.get("lookup.hits", 0.0), self.cost.get("lookup.misses", 0.0)
        return hits / (hits + misses) if hits else None


@dataclass(frozen=True)
class Contribution:
    """One term: counts per lookup of A and B, ns per unit, and what it adds to the difference, with 95 % intervals."""

    term: str
    a: float
    b: float
    unit: float
    unit_low: float
    unit_high: float
    ns: float
    low: float
    high: float


@dataclass(frozen=True)
class Explanation:
    """``difference`` is measured (B minus A, ns, with interval), ``explained`` the sum of the contributions with its
    interval, ``share`` the 95 % interval of the unexplained share with its sign, ``model_error`` the model's error on
    such differences; ``limits`` says where it does not apply."""

    a: Side
    b: Side
    ratio: Ratio | None
    difference: tuple[float, float, float]
    contributions: tuple[Contribution, ...]
    explained: tuple[float, float, float]
    share: tuple[float, float]
    model_error: float
    caches: tuple[str, ...]
    limits: tuple[str, ...]
    state: Caches = UNTOUCHED
    """How both were timed and counted."""

    @property
    def remainder(self) -> float:
        """What the model does not explain, ns."""
        return self.difference[0] - self.explained[0]

    @property
    def decided(self) -> bool:
        """Whether the measured difference is more than its own noise."""
        return self.difference[1] * self.difference[2] > 0  # not if NaN

    @property
    def unexplained(self) -> float:
        """The remainder as a share of the measured difference, without its sign; infinite if nothing was measured."""
        return abs(self.remainder / self.difference[0]) if self.difference[0] else float("inf")


def explain(a: Side, b: Side, model: Model, state: Caches = UNTOUCHED) -> Explanation:
    """Attribute the difference of ns per lookup, timed, counted and calibrated with caches in ``state``. Raises
    ValueError if the two have no common round."""
    rounds = sorted(a.ns.keys() & b.ns.keys())
    if not rounds:
        raise ValueError(f"{a.name} and {b.name} have no round in common")
    summary = summarise([b.ns[r] - a.ns[r] for r in rounds])
    difference = (summary.mean, summary.low, summary.high)
    ours, theirs = terms(a.cost), terms(b.cost)
    delta = np.array([theirs[name] - ours[name] for name in TERMS])
    columns = model.replicates[:, 1:]
    parts = columns * delta
    low, high = np.quantile(parts, (0.025, 0.975), axis=0)
    contributions = []
    for number, name in enumerate(TERMS):
        unit = float(model.coefficients[number + 1])
        ns = unit * float(delta[number])
        bounds = float(low[number]), float(high[number])
        contributions.append(Contribution(name, ours[name], theirs[name], unit, *model.interval(name), ns, *bounds))
    sums = parts.sum(axis=1)
    ends = np.quantile(sums, (0.025, 0.975)).tolist()
    explained = (float(model.coefficients[1:] @ delta), ends[0], ends[1])
    error = model.difference_error * max(a.mean, b.mean)
    caches = tuple(text for side in (a, b) for text in _cache(side, b if side is a else a, model) if state.warm)
    caches += tuple(text for side in (a, b) for text in _missed(side))
    return Explanation(
        a,
        b,
        paired_ratio(b.ns, a.ns),
        difference,
        tuple(contributions),
        explained,
        _share(summary, sums),
        error,
        caches,
        tuple(_limits(a, b, model, difference, explained[0], error)),
        state,
    )


def _share(measured: Summary, explained: Array) -> tuple[float, float]:
    """The interval of 1 - explained / measured: each replicate of the sum with a draw of the measured mean, whose error
    is independent of it. Seeded."""
    if measured.n < 2:
        return float("-inf"), float("inf")
    error = measured.sd / math.sqrt(measured.n)
    drawn = np.random.default_rng(0).standard_t(measured.n - 1, DRAWS) * error + measured.mean
    low, high = np.quantile(1 - np.resize(explained, DRAWS) / drawn, (0.025, 0.975)).tolist()
    return low, high


def _cache(side: Side, other: Side, model: Model) -> list[str]:
    """The model's statement about a strategy's hits and misses."""
    rate = side.hit_rate
    if rate is None or "hit.n" not in side.cost:
        return []
    # Measured as a whole; the model says how much less a hit costs.
    whole, without = side.mean, other.mean
    hit = max(0.0, whole - model.predict(side.cost) + model.predict(_view(side.cost, "hit")))
    miss = (whole - rate * hit) / (1 - rate) if rate < 1 else None
    text = f"{side.name} hits {100 * rate:.1f} %: according to the model a hit takes {hit:.1f} ns"
    if miss is None:
        return [text]
    saved, paid = rate * (miss - hit), miss - without
    return [
        f"{text}, a miss {miss:.1f} ns; {other.name} takes {without:.1f} ns",
        f"so against {other.name} every miss costs {paid:+.1f} ns, and hits take {saved:.1f} ns off the average lookup",
    ]


def _missed(side: Side) -> list[str]:
    """By structure, the lines that the first cache did not have."""
    start = "lookup.missed_l1."
    parts = {key.removeprefix(start): count for key, count in side.cost.items() if key.startswith(start)}
    told = [f"{name} {count:.2f}" for name, count in sorted(parts.items(), key=lambda part: -part[1]) if count >= 0.005]
    return [f"lines that L1 did not have, {side.name}: {', '.join(told) or 'none'} per lookup"]


def _view(cost: Mapping[str, float], view: str) -> dict[str, float]:
    """The numbers of another view under the names of lookup's."""
    return {f"lookup.{k.removeprefix(view + '.')}": v for k, v in cost.items() if k.startswith(view + ".")}


def _limits(
    a: Side, b: Side, model: Model, difference: tuple[float, float, float], explained: float, error: float
) -> list[str]:
    """Where the model does not apply."""
    found = []
    if not difference[1] * difference[2] > 0:  # NaN too; the share of what remains says nothing then
        found.append("the measured difference may be zero: its interval contains 0; use more rounds")
    elif abs(difference[0] - explained) > abs(difference[0]) / 2:
        found.append("more than half of the difference is not explained")
    if abs(difference[0]) <= error:
        found.append(
            f"the difference is within the model's own error of {error:.1f} ns, so the counts are valid, but not "
            "their attribution in ns"
        )
    for side in (a, b):
        for name, value in terms(side.cost).items():
            low, high = model.low[name], model.high[name]
            room = MARGIN * (high - low)
            if value > high + room or value < low - room:
                found.append(
                    f"{side.name}: {name} {value:.1f} is beyond the calibration's {low:.1f} to {high:.1f}: extrapolated"
                )
        if side.mean > model.slowest:
            found.append(
                f"{side.name} takes {side.mean:.0f} ns, more than the slowest calibrated cell ({model.slowest:.0f}): "
                "the model has no term for misses of the TLB"
            )
        wrong = side.mean - model.predict(side.cost)
        wrong -= min(max(wrong, model.low[BASE] - model.coefficients[0]), model.high[BASE] - model.coefficients[0])
        if abs(wrong) > max(2 * error, 3.0):
            found.append(
                f"{side.name} is measured {wrong:+.1f} ns off its prediction: something else decides, such as a chain "
                "of arithmetic or branches that the compiler removed"
            )
    if a.cost.get("counted", 0) < a.cost.get("events", 0) or b.cost.get("counted", 0) < b.cost.get("events", 0):
        worst = max(s.cost.get("lookup.lines_se", 0.0) / max(s.cost.get("lookup.lines", 0.0), 1e-9) for s in (a, b))
        found.append(f"counts are from windows: standard error of lines {100 * worst:.1g} %")
    return found


# ----------------------------------------------------------------------------------------------------------------------
# An explanation as text, and as a picture that :mod:`benchframe.report.charts.study` draws.


def signed(value: float) -> str:
    """ns with a sign.

    >>> signed(1.234), signed(-0.04)
    ('+1.23', '-0.04')
    """
    return ("-" if value < 0 else "+") + ns(abs(value))


def explanation_table(found: Explanation, model: Model, workload: str) -> Table:
    """One row per term, then the sum, the remainder and the measured difference."""
    a, b = found.a, found.b
    heads = ("term", a.name, b.name, "difference", "ns per unit [95 %]", "contribution, ns [95 %]")
    rows = []
    for c in found.contributions:
        unit = f"{c.unit:.2f} [{c.unit_low:.2f}, {c.unit_high:.2f}]"
        part = f"{signed(c.ns)} [{signed(c.low)}, {signed(c.high)}]"
        rows.append((c.term, f"{c.a:.2f}", f"{c.b:.2f}", f"{c.b - c.a:+.2f}", unit, part))
    mean, low, high = found.explained
    rows.append(("sum of terms", "", "", "", "", f"{signed(mean)} [{signed(low)}, {signed(high)}]"))
    rows.append(("unexplained", "", "", "", "", signed(found.remainder)))
    mean, low, high = found.difference
    rows.append(("measured", ns(a.mean), ns(b.mean), "", "", f"{signed(mean)} [{signed(low)}, {signed(high)}]"))
    ratio = found.ratio
    free = [c.term for c in found.contributions if c.unit_high < 0.005 and max(c.a, c.b) > 0]
    notes = [
        f"lookup on {workload}, ns: {a.name} {ns(a.mean)}, {b.name} {ns(b.mean)}"
        + (f", ratio {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], {ratio.n} rounds." if ratio else "."),
        *in_words(found),
        *(f"{text}." for text in found.caches),
        *([] if found.state.warm else [f"caches as {found.state.label}: {found.state.says()}."]),
        _unexplained(found),
        f"model: {model.cells} cells counted and timed here, a base per stream; non-negative least squares; bootstrap.",
        *_drawn(model),
        *(
            f"{term}, 0.00 ns: the fit cannot separate this term from others that rise with it; it is not free."
            for term in free
        ),
        (
            f"prediction error on differences left out of the fit: {100 * model.difference_error:.0f} % of the slower "
            "time (rms)."
        ),
        *(f"limit: {text}." for text in found.limits),
    ]
    records: list[dict[str, Value]] = []
    for c in found.contributions:
        units: dict[str, Value] = {"unit": c.unit, "unit_low": c.unit_low, "unit_high": c.unit_high}
        records.append({"term": c.term, "a": c.a, "b": c.b, **units, "ns": c.ns, "low": c.low, "high": c.high})
    return Table("Explanation", heads, tuple(rows), (False, *(True,) * 5), tuple(records), tuple(notes))


_WORDS = {
    "work": "loads, stores and branches that it waits for",
    "mispredictions": "mispredicted branches",
    "atomics": "atomic operations and barriers",
    "depth": "loads in sequence",
    "from L2": "of their lines that only L2 had",
    "from LLC": "of their lines that only the last-level cache had",
    "from memory": "of their lines that only memory had",
}
"""The terms in the words of a reader of kernel code."""
_TELLING = 0.1
"""A contribution is mentioned if it is this share of the largest."""


def in_words(found: Explanation) -> list[str]:
    """The difference in a sentence, by its largest contributions, and whether the model's error is larger than it."""
    if not found.decided:
        return []
    mean, a, b = found.difference[0], found.a, found.b
    most = max(abs(c.ns) for c in found.contributions)
    parts = sorted(
        (c for c in found.contributions if abs(c.ns) >= max(_TELLING * most, 0.05)), key=lambda c: -abs(c.ns)
    )
    counts = [
        f"{signed(c.ns)} for {abs(c.b - c.a):.2g} {'more' if c.b > c.a else 'fewer'} {_WORDS.get(c.term, c.term)}"
        for c in parts
    ]
    speed = "slower" if mean > 0 else "faster"
    sentence = f"{b.name} is {ns(abs(mean))} ns ({100 * abs(mean) / a.mean:.0f} %) {speed} a lookup than {a.name}"
    guess = (
        "according to a model whose error is larger than that, "
        if abs(mean) <= found.model_error
        else "according to the model, "
    )
    rest = f"{signed(found.remainder)} unexplained"
    return [f"{sentence}: {guess}{', '.join([*counts, rest])} (ns)."]


def _unexplained(found: Explanation) -> str:
    """The unexplained share of the measured difference, or that there is none to be explained."""
    if not found.decided:
        return "unexplained: undecided, since the measured difference is within its own noise."
    low, high = (100 * end for end in found.share)
    share = 100 * found.remainder / found.difference[0]
    return f"unexplained: {share:.0f} % [{low:.0f}, {high:.0f}] of the measured difference."


def _drawn(model: Model) -> list[str]:
    """What the fit is drawn towards, if anything."""
    if not model.alone:
        return []
    return [f"timed alone: {alone(model.alone)}; the fit is pulled towards that (strength {model.strength:g})."]


def saved_explanation(found: Explanation, workload: str, table: Table, command: Sequence[str]) -> SavedStudy:
    """An explanation: a bar per term, the remainder, and the measured difference."""
    a, b = found.a.name, found.b.name
    items = [Mark(c.ns, c.low, c.high, label=c.term) for c in found.contributions]
    items.append(Mark(found.remainder, found.remainder, found.remainder, label="unexplained"))
    items.append(Mark(*found.difference, label="measured"))
    finite = tuple(mark for mark in items if all(v == v and abs(v) < 1e12 for v in (mark.value, mark.low, mark.high)))
    note = f"What each kind of work adds to the time per lookup of {b} over that of {a}: left of 0 it saves time. Bars "
    note += "are counts times the fitted cost of each, with 95 % intervals; the last is what was measured."
    bars = Bars(f"{workload}: {b} less {a}", "ns per lookup", finite)
    return SavedStudy(
        "explain", f"Why {b} differs from {a} on {workload}", note, tuple(command), table.heads, table.right,
        table.rows, table.notes, (), (bars,), (a, b),
    )  # fmt: skip
