"""What is odd in process means: two groups, a drift, outliers; each found, and seldom where it is not."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog
from support.process_means import means, noisy

from benchframe.stats import Pair, judge
from benchframe.stats.shape import dip, dip_limit, drift, outliers, two_groups
from benchframe.stats.simulate import dip_quantile


def dip_by_programming(values: list[float]) -> float:
    """The dip by its definition: over all modes, the least sup distance of a convex-then-concave function, by LP."""
    x = np.sort(values)
    n = len(x)
    best = 1.0
    for mode in range(n):
        rows, bounds = [], []

        def slope(i: int) -> np.ndarray:  # type: ignore[type-arg]
            row = np.zeros(n + 1)
            row[i + 1], row[i] = 1 / (x[i + 1] - x[i]), -1 / (x[i + 1] - x[i])
            return row

        for i in range(n - 1):
            rows.append(-slope(i))
            bounds.append(0.0)
        for i in range(n - 2):
            rows.append((slope(i) - slope(i + 1)) * (1 if i + 1 <= mode else -1))
            bounds.append(0.0)
        for i in range(n):
            for sign, level in ((-1, (i + 1) / n), (1, i / n)):
                row = np.zeros(n + 1)
                row[i], row[n] = sign, -1
                rows.append(row)
                bounds.append(sign * level)
        cost = np.zeros(n + 1)
        cost[n] = 1
        found = linprog(cost, A_ub=np.array(rows), b_ub=bounds, bounds=[(None, None)] * n + [(0, None)])
        if found.status == 0:
            best = min(best, float(found.fun))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_dip_is_the_dip(seed: int) -> None:
    """The fast dip equals the one found by linear programming from its definition."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 10))
    values = rng.random(n) if seed % 2 else np.concatenate([rng.normal(0, 1, n), rng.normal(6, 1, 3)])
    assert dip(values) == pytest.approx(dip_by_programming(values.tolist()), abs=1e-9)


def test_dip_limits() -> None:
    """Bounds of the dip, ties included, and the table of limits against a fresh simulation."""
    assert dip([1.0, 1.0, 1.0]) == pytest.approx(1 / 6)
    assert dip([0.0] * 50 + [1.0] * 50) == pytest.approx(0.25, abs=0.01)
    assert math.isinf(dip_limit(5))
    assert dip_limit(20) == pytest.approx(dip_quantile(20, 0.99, 3000, seed=1), rel=0.06)
    assert dip_limit(17) == pytest.approx(dip_quantile(17, 0.99, 3000, seed=2), rel=0.06)


def test_two_groups_are_named_and_others_are_not() -> None:
    """Two page layouts 10 % apart are found in 20 processes; normal, skewed and heavy-tailed noise hardly ever."""
    rng = np.random.default_rng(1)
    two = means((np.where(np.arange(20) % 2, 10.0, 11.0) * np.exp(rng.normal(0, 0.005, 20))).tolist())
    assert "10 processes near 10 ns, 10 near 11 ns" in two_groups(two)
    for shape in (rng.normal(0, 0.02, (400, 20)), rng.exponential(0.02, (400, 20)), rng.standard_t(2, (400, 20)) / 50):
        assert sum(bool(two_groups(means(np.exp(row).tolist()))) for row in shape) <= 4


def test_drift_is_named() -> None:
    """3 % from first to last round is found in its size; A/A is called drift in about 1 %; few rounds never."""
    rng = np.random.default_rng(2)
    rising = means((10 * np.exp(np.linspace(0, 0.03, 20) + rng.normal(0, 0.003, 20))).tolist())
    assert drift(rising) == pytest.approx(0.03, abs=0.008)
    assert sum(drift(noisy(15, seed=i)) is not None for i in range(300)) <= 9
    assert drift(means([1.0, 2.0, 3.0])) is None
    (verdict,) = judge([Pair(rising, means([10.0] * 20))])
    assert verdict is not None
    assert any("the ratio drifts by +" in note for note in verdict.notes)


def test_outliers_are_named() -> None:
    """One process that was hit is named with its round; ordinary noise is not."""
    values = noisy(12, 7.0, 0.01, 3) | {4: 13.2}
    assert outliers(values) == "1 of 12 processes lies far from the median of 6.98 ns: 13.2 ns in round 5"
    assert not any(outliers(noisy(20, 7.0, 0.01, seed)) for seed in range(100))
