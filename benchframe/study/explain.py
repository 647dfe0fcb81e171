"""Why B is slower or faster than A on a stream: their counts, the fitted cost of each, and what remains unexplained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchframe.engine.caches import UNTOUCHED, Caches
from benchframe.stats import Ratio, paired_ratio, summarise
from benchframe.study.model import BASE, TERMS, Model, terms

RECORDS = 40_000_000
"""The most records to count for the two: this covers most streams completely, more than once."""
MARGIN = 0.1
"""How far outside the calibrated range a term may be, as a share of the range."""


@dataclass(frozen=True)
class Side:
    """One strategy on the stream: its counts, and ns per lookup by round."""

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
    interval, ``model_error`` the model's error on such differences; ``limits`` says where it does not apply."""

    a: Side
    b: Side
    ratio: Ratio | None
    difference: tuple[float, float, float]
    contributions: tuple[Contribution, ...]
    explained: tuple[float, float, float]
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
    ends = np.quantile(parts.sum(axis=1), (0.025, 0.975)).tolist()
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
        error,
        caches,
        tuple(_limits(a, b, model, difference, explained[0], error)),
        state,
    )


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
    if not difference[1] * difference[2] > 0:  # NaN too
        found.append("the measured difference may be zero: its interval contains 0; use more rounds")
    if abs(difference[0]) <= error:
        found.append(
            f"the difference is within the model's own error of {error:.1f} ns, so the counts are valid, but not "
            "their attribution in ns"
        )
    if abs(difference[0] - explained) > abs(difference[0]) / 2:
        found.append("more than half of the difference is not explained")
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
