"""Trimmed means between two runs whose layouts are alike: SciPy agrees, errors stay rare, more is found."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchframe.stats import WITHIN, Pair, judge, paired_ratio
from benchframe.stats.ratios import trimmed_ratio


def test_trimmed_ratio_is_yuens() -> None:
    """The trimmed mean and its interval are SciPy's (trim_mean, and the trimmed t test against nothing of Yuen's
    statistic); with few rounds nothing is trimmed."""
    rng = np.random.default_rng(8)
    logs = rng.standard_t(2, 12) / 50
    found = trimmed_ratio({r: math.exp(v) for r, v in enumerate(logs)}, dict.fromkeys(range(12), 1.0))
    assert found is not None
    assert found.log == pytest.approx(scipy_stats.trim_mean(logs, 0.2))
    winsorized = np.asarray(scipy_stats.mstats.winsorize(logs, (0.2, 0.2)))
    assert found.se == pytest.approx(winsorized.std(ddof=1) / (1 - 4 / 12) / math.sqrt(12), rel=0.03)
    assert found.degrees == 7
    few = {r: 1 + r / 100 for r in range(4)}
    plain = paired_ratio(few, dict.fromkeys(few, 1.0))
    trimmed = trimmed_ratio(few, dict.fromkeys(few, 1.0))
    assert plain is not None
    assert trimmed is not None
    assert (trimmed.value, trimmed.low) == pytest.approx((plain.value, plain.low))
    assert trimmed_ratio({}, {}) is None


@pytest.mark.parametrize("far", [0.0, 0.1])
def test_trimmed_verdicts_err_as_seldom_and_find_more(far: float) -> None:
    """Equal things differ in at most 5 % and things 2 % apart read same in at most 5 % of tables, with and without
    single rounds that lie far away; with those 3 % is found, and equality seen, far more often than with means."""
    rng = np.random.default_rng(9)
    runs, rounds = 800, 12
    found = {}
    for name, effect in (("equal", 0.0), ("edge", math.log1p(WITHIN)), ("slower", math.log1p(0.03))):
        logs = effect + rng.normal(0, 0.01, (runs, rounds))
        logs += np.where(rng.random((runs, rounds)) < far, rng.normal(0, 0.2, (runs, rounds)), 0)
        ones = dict.fromkeys(range(rounds), 1.0)
        for trimmed in (True, False):
            pairs = [Pair({r: math.exp(v) for r, v in enumerate(row)}, ones, trimmed=trimmed) for row in logs]
            words = [v.word for pair in pairs for v in judge([pair], notes=False) if v is not None]
            found[name, trimmed] = Counter(words)
    assert found["equal", True]["slower"] + found["equal", True]["faster"] <= 0.06 * runs
    assert found["edge", True]["same"] <= 0.065 * runs
    if far:
        assert found["slower", True]["slower"] > 0.95 * runs > 1.3 * found["slower", False]["slower"]
        assert found["equal", True]["same"] > 0.95 * runs > 1.3 * found["equal", False]["same"]
    else:
        assert found["slower", True]["slower"] > 0.95 * found["slower", False]["slower"]


def test_what_was_trimmed_is_told() -> None:
    """Where the mean of all rounds lies outside the trimmed interval, a note says what it is."""
    base = dict.fromkeys(range(12), 1.0)
    mine = {r: 1.0 + (r % 3) / 1000 + (0.4 if r < 2 else 0.0) for r in range(12)}
    verdict = judge([Pair(mine, base, trimmed=True)])[0]
    assert verdict is not None
    assert verdict.word == "same"
    assert any("the mean of all rounds is 1.0" in note for note in verdict.notes)
