"""A cost model of a lookup: ns = base + sum of (count x ns per unit), fitted to cells that were counted and timed.

The coefficients are non-negative (Lawson and Hanson's NNLS, scipy.optimize.nnls): a load that saves time is no
mechanism. Terms that go together in every cell cannot be told apart; then NNLS gives all to one of them, and the
bootstrap, which draws cells and processes anew, shows it as wide intervals. So a term's contribution comes with its
interval, and their sum with the model's own error: the leave-one-workload-out residual of differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TERMS: dict[str, tuple[tuple[str, float], ...]] = {
    "work": (("loads", 1.0), ("stores", 1.0), ("branches", 1.0)),
    "mispredictions": (("mispredicted", 1.0),),
    "atomics": (("atomics", 1.0), ("barriers", 1.0)),
    "depth": (("steps", 1.0),),
    "lines": (("lines", 1.0),),
    "far steps": (("far_l1", 1.0),),
}
"""Name of a term to the keys of a view that it sums. ``depth`` is steps; docs/cost.md has them all."""
BASE = "base"
FLOOR = 5.0
"""ns: cells faster than this weigh as if they took so long; errors are relative above."""
REPLICATES = 400


@dataclass(frozen=True)
class Sample:
    """One cell: counts (keys of CellState.cost) and the ns of each process."""

    strategy: str
    workload: str
    cost: Mapping[str, float]
    ns: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the process means."""
        return float(np.mean(self.ns))


def terms(cost: Mapping[str, float], view: str = "lookup") -> dict[str, float]:
    """The terms of a cell, per operation of ``view``."""
    return {
        name: sum(weight * cost.get(f"{view}.{key}", 0.0) for key, weight in parts) for name, parts in TERMS.items()
    }


@dataclass(frozen=True)
class Model:
    """``coefficients``: ns per unit, BASE first; ``replicates``: the same of each bootstrap replicate, a row each;
    ``low`` and ``high``: the range of each term in the calibration; ``residuals``: ns of each cell, measured less
    fitted; ``difference_error``: root mean square error of predicted differences between strategies on a workload
    that the fit had not seen, as a share of the larger of the two times."""

    names: tuple[str, ...]
    coefficients: Array
    replicates: Array
    low: Mapping[str, float]
    high: Mapping[str, float]
    residuals: Array
    difference_error: float
    cells: int
    slowest: float

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


def fit(samples: Sequence[Sample], seed: int = 0, replicates: int = REPLICATES) -> Model:
    """Fit to ``samples``; ValueError for fewer than three cells per coefficient. Deterministic in ``seed``. Some
    0.1 ms a replicate."""
    names = (BASE, *TERMS)
    if len(samples) < 3 * len(names):
        raise ValueError(
            f"{len(samples)} cells are too few to fit {len(names)} coefficients; {3 * len(names)} would do"
        )
    design = np.array([_row(sample.cost) for sample in samples])
    times = np.array([sample.mean for sample in samples])
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(replicates):
        cells = rng.integers(0, len(samples), len(samples))
        again = np.array([np.mean(rng.choice(samples[i].ns, len(samples[i].ns))) for i in cells])
        drawn.append(_solve(design[cells], again))
    coefficients = _solve(design, times)
    columns = design[:, 1:]
    return Model(
        names=names,
        coefficients=coefficients,
        replicates=np.array(drawn),
        low=dict(zip(TERMS, columns.min(axis=0).tolist(), strict=True)),
        high=dict(zip(TERMS, columns.max(axis=0).tolist(), strict=True)),
        residuals=times - design @ coefficients,
        difference_error=_difference_error(samples, design, times),
        cells=len(samples),
        slowest=float(times.max()),
    )


def _solve(design: Array, times: Array) -> Array:
    """Non-negative least squares of relative errors."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    weights = 1.0 / np.maximum(times, FLOOR)
    scale = np.maximum(np.abs(design).max(axis=0), 1e-9)
    found, _ = nnls(design / scale * weights[:, None], times * weights, maxiter=1000)
    return np.asarray(found / scale)


def _difference_error(samples: Sequence[Sample], design: Array, times: Array) -> float:
    """Leave one workload out, predict every difference between two strategies on it; root mean square of the errors,
    each relative to the slower of the two."""
    errors: list[float] = []
    labels = [sample.workload for sample in samples]
    for left_out in dict.fromkeys(labels):
        out = np.array([label == left_out for label in labels])
        if out.all():
            continue
        wrong = times[out] - design[out] @ _solve(design[~out], times[~out])
        mine = times[out]
        for i in range(len(mine)):
            errors += [(wrong[i] - wrong[j]) / max(mine[i], mine[j]) for j in range(i)]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")
