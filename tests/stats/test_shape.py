"""What is odd in process means: two groups, a drift, outliers; each found, and seldom where it is not."""

import numpy as np
import pytest
from support.process_means import means, noisy

from benchframe.stats import Pair, judge
from benchframe.stats.ratios import drift, outliers, two_groups


def test_two_groups_are_named_and_others_are_not() -> None:
    """Two page layouts 10 % apart are found in 20 processes; normal, skewed and heavy-tailed noise hardly ever."""
    rng = np.random.default_rng(1)
    two = means((np.where(np.arange(20) % 2, 10.0, 11.0) * np.exp(rng.normal(0, 0.005, 20))).tolist())
    assert "10 processes near 10 ns, 10 near 11 ns" in two_groups(two)
    for shape in (rng.normal(0, 0.02, (400, 20)), rng.exponential(0.02, (400, 20)), rng.standard_t(2, (400, 20)) / 50):
        assert sum(bool(two_groups(means(np.exp(row).tolist()))) for row in shape) <= 4
    assert two_groups(means([10.0] * 12)) == ""  # a clock too coarse to tell them apart


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
