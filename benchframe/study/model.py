"""A cost model of a lookup: ns = base of the stream + sum of (count x ns per unit), fitted to cells of this machine.

What is to be explained are differences between strategies on one stream, so each stream has a base of its own: what all
lookups on it have in common, and what the processor overlaps (a base may be below 0). The units are non-negative
(Lawson and Hanson's NNLS, scipy.optimize.nnls): a load that saves time is no mechanism.

Terms that go together in every cell cannot be told apart by any fit. What each operation takes alone
(:mod:`benchframe.study.units`) can: the fit is drawn towards it, as by a prior, the more the less the cells say. How
strongly is decided by how well differences on a stream that was left out are predicted. A term's contribution comes
with a bootstrap interval over cells and processes, and the sum with the model's own error on differences it has not
seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TERMS = ("work", "mispredictions", "atomics", "depth", "lines", "far steps")
"""What a lookup is made of; :func:`terms` says how each is counted."""
BASE = "base"
FLOOR = 5.0
"""ns: cells faster than this weigh as if they took so long; errors are relative above."""
REPLICATES = 400
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""How strongly the fit may be drawn to what operations take alone: at 1, a unit off by its whole size weighs as much as
a cell off by 100 %."""
NEAR_BEST = 1.02
"""The strongest prior that errs by at most so many times the least is taken."""


@dataclass(frozen=True)
class Sample:
    """One cell: counts (keys of CellState.cost) and the ns of each process."""

    strategy: str
    workload: str
    cost: Mapping[str, float]
    ns: tuple[float, ...]

    @property
    def typical(self) -> float:
        """Median of the processes: one that was disturbed does not move it."""
        return float(np.median(self.ns))


def terms(cost: Mapping[str, float], view: str = "lookup") -> dict[str, float]:
    """The terms of a cell, per operation of ``view``.

    With m mispredictions a lookup, m / (1 + m) of it lies before one of them, evenly spread: there the processor waits
    for the chain of loads that the branch depends on, and other work is done meanwhile. Behind the last one the next
    lookup begins before this one ends: there the chain is hidden and the work is what takes time. So depth counts by
    the first share, work by the second.
    """

    def count(key: str) -> float:
        return cost.get(f"{view}.{key}", 0.0)

    missed = count("mispredicted")
    waiting = missed / (1 + missed)
    return {
        "work": (count("loads") + count("stores") + count("branches")) * (1 - waiting),
        "mispredictions": missed,
        "atomics": count("atomics") + count("barriers"),
        "depth": _chain(cost, view) * waiting,
        "lines": count("lines"),
        "far steps": count("far_l1"),
    }


def _chain(cost: Mapping[str, float], view: str) -> float:
    """Steps that wait for each other. A walk of the page tables and the walk of the index after a cache's miss do not:
    of the two the deeper counts. A hit's steps all do."""
    hits, misses = cost.get(f"{view}.hits", 0.0), cost.get(f"{view}.misses", 0.0)
    rate = hits / (hits + misses) if hits and "hit.steps" in cost else 0.0
    if rate == 1:
        return cost["hit.steps"]

    def missed(*keys: str) -> float:
        whole, hit = (sum(cost.get(f"{part}.{key}", 0.0) for key in keys) for part in (view, "hit"))
        return (whole - rate * hit) / (1 - rate)

    table, steps = missed("lines.pte", "lines.page"), missed("steps")
    return rate * cost.get("hit.steps", 0.0) + (1 - rate) * max(table, steps - table)


@dataclass(frozen=True)
class Model:
    """``coefficients``: ns per unit, BASE first, the mean over the streams; ``replicates``: the same of each bootstrap
    replicate, a row each; ``low`` and ``high``: the range of each term in the calibration, and of the streams' bases;
    ``residuals``: ns of each cell, measured less fitted; ``alone``: ns per unit that the fit was drawn to, and
    ``strength`` (0: there are none); ``difference_error``: root mean square error of predicted differences between
    strategies on a workload that the fit had not seen, as a share of the larger of the two times."""

    names: tuple[str, ...]
    coefficients: Array
    replicates: Array
    low: Mapping[str, float]
    high: Mapping[str, float]
    residuals: Array
    difference_error: float
    cells: int
    slowest: float
    alone: Mapping[str, float]
    strength: float

    def interval(self, name: str) -> tuple[float, float]:
        """95 % of the replicates' ns per unit."""
        column = self.replicates[:, self.names.index(name)]
        low, high = np.quantile(column, (0.025, 0.975)).tolist()
        return low, high

    def predict(self, cost: Mapping[str, float]) -> float:
        """ns of a lookup with these counts."""
        return float(self.coefficients @ _row(cost))


def _row(cost: Mapping[str, float]) -> Array:
    return np.array([1.0, *terms(cost).values()])


def fit(
    samples: Sequence[Sample], alone: Mapping[str, float] | None = None, seed: int = 0, replicates: int = REPLICATES
) -> Model:
    """Fit to ``samples``, drawn to the units ``alone`` if there are any; ValueError for fewer than three cells per
    coefficient. Deterministic in ``seed``. Some 0.3 ms a replicate."""
    names = (BASE, *TERMS)
    if len(samples) < 3 * len(names):
        raise ValueError(
            f"{len(samples)} cells are too few to fit {len(names)} coefficients; {3 * len(names)} would do"
        )
    design = np.array([_row(sample.cost)[1:] for sample in samples])
    times = np.array([sample.typical for sample in samples])
    streams = np.unique([sample.workload for sample in samples], return_inverse=True)[1]
    prior = np.array([(alone or {}).get(name, 0.0) for name in TERMS])
    strength, error = _strength(design, times, streams, prior) if alone else (0.0, math.nan)
    if not alone:
        error = _difference_error(design, times, streams, prior, 0.0)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(replicates):
        cells = rng.integers(0, len(samples), len(samples))
        again = np.array([np.median(rng.choice(samples[i].ns, len(samples[i].ns))) for i in cells])
        units = _solve(design[cells], again, streams[cells], prior, strength)
        drawn.append([_bases(design[cells], again, streams[cells], units).mean(), *units])
    units = _solve(design, times, streams, prior, strength)
    bases = _bases(design, times, streams, units)
    return Model(
        names=names,
        coefficients=np.array([bases.mean(), *units]),
        replicates=np.array(drawn),
        low={BASE: float(bases.min()), **dict(zip(TERMS, design.min(axis=0).tolist(), strict=True))},
        high={BASE: float(bases.max()), **dict(zip(TERMS, design.max(axis=0).tolist(), strict=True))},
        residuals=times - design @ units - bases[streams],
        difference_error=error,
        cells=len(samples),
        slowest=float(times.max()),
        alone={name: alone[name] for name in TERMS if name in alone} if alone else {},
        strength=strength,
    )


def _solve(design: Array, times: Array, streams: Array, prior: Array, strength: float) -> Array:
    """ns per unit: non-negative least squares of relative errors, a base per stream taken out before."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    weights = 1.0 / np.maximum(times, FLOOR)
    left, right = design * weights[:, None], times * weights
    size = np.abs(left).max(axis=0)
    for stream in np.unique(streams):
        mine = streams == stream
        along = weights[mine] / np.linalg.norm(weights[mine])
        left[mine] -= np.outer(along, along @ left[mine])
        right[mine] -= along * (along @ right[mine])
    left[:, np.abs(left).max(axis=0) < 1e-9 * size] = 0.0  # the same in all cells of each stream: not told by them
    if strength > 0:
        # A unit of 0 alone (lines) is held to about a third of a load's: it has no mechanism of its own.
        spread = np.where(prior > 0, prior, max(float(prior[prior > 0].min(initial=1.0)) / 3, 1e-3))
        left = np.vstack([left, np.diag(math.sqrt(strength) / spread)])
        right = np.concatenate([right, math.sqrt(strength) * prior / spread])
    scale = np.maximum(np.abs(left).max(axis=0), 1e-9)
    found, _ = nnls(left / scale, right, maxiter=1000)
    return np.asarray(found / scale)


def _bases(design: Array, times: Array, streams: Array, units: Array) -> Array:
    """What is left of the times, per stream; NaN-free: streams that are not there have the mean."""
    weights = 1.0 / np.maximum(times, FLOOR) ** 2
    rest = (times - design @ units) * weights
    total = np.bincount(streams, weights)
    sums = np.bincount(streams, rest)
    known = total > 0
    found = np.full(len(total), float(rest.sum() / weights.sum()))
    found[known] = sums[known] / total[known]
    return found


def _strength(design: Array, times: Array, streams: Array, prior: Array) -> tuple[float, float]:
    """(strength, its error): the strongest whose error on streams left out is near the least of all."""
    errors = [_difference_error(design, times, streams, prior, strength) for strength in STRENGTHS]
    least = min(errors)
    best = [(s, e) for s, e in zip(STRENGTHS, errors, strict=True) if e <= NEAR_BEST * least or math.isnan(e)]
    return best[-1]


def _difference_error(design: Array, times: Array, streams: Array, prior: Array, strength: float) -> float:
    """Leave one stream out, predict every difference between two strategies on it; root mean square of the errors,
    each relative to the slower of the two."""
    errors: list[float] = []
    for left_out in np.unique(streams):
        out = streams == left_out
        if out.all():
            continue
        units = _solve(design[~out], times[~out], streams[~out], prior, strength)
        wrong, mine = times[out] - design[out] @ units, times[out]
        for i in range(len(mine)):
            errors += [(wrong[i] - wrong[j]) / max(mine[i], mine[j]) for j in range(i)]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")
