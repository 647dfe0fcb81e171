"""Statistics from recorded values: nothing is timed here."""

import math
import random

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchframe.stats import Ratio, paired_ratio, student_quantile, summarise

BASE = {0: 101.2, 1: 99.8, 2: 104.9, 3: 100.4, 4: 98.7}
FAST = {0: 81.0, 1: 79.5, 2: 84.2, 3: 80.3, 4: 78.8}


def test_summary_is_that_of_the_textbook() -> None:
    """Mean, median, sd and the 95 % t interval agree with SciPy's own, computed another way."""
    values = list(BASE.values())
    summary = summarise(values)
    assert summary.n == 5
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.median == 100.4
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    low, high = scipy_stats.t.interval(0.95, 4, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx((low, high))


def test_one_process_has_no_interval() -> None:
    """With a single process mean there is no spread, and nothing is decided."""
    summary = summarise([42.0])
    assert summary.mean == 42.0
    assert math.isnan(summary.sd)
    assert math.isnan(summary.low)
    ratio = paired_ratio({0: 1.0}, {0: 2.0})
    assert ratio is not None
    assert ratio.value == 0.5
    assert ratio.word == "undecided"
    with pytest.raises(ValueError, match="no process means"):
        summarise([])


def test_ratio_is_paired_by_round() -> None:
    """Drift that hits both cells of a round alike cancels: the paired interval is far narrower than an unpaired one."""
    ratio = paired_ratio(FAST, BASE)
    assert ratio is not None
    logs = np.log([FAST[r] / BASE[r] for r in BASE])
    assert ratio.value == pytest.approx(math.exp(logs.mean()))
    low, high = scipy_stats.t.interval(0.95, 4, loc=logs.mean(), scale=scipy_stats.sem(logs))
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert ratio.word == "faster"
    assert ratio.high - ratio.low < 0.02
    unpaired = scipy_stats.ttest_ind(np.log(list(FAST.values())), np.log(list(BASE.values()))).confidence_interval()
    assert unpaired.high - unpaired.low > 0.05


def test_ratio_uses_common_rounds_only() -> None:
    """Rounds that one of the two lacks (a killed run) do not enter; without a common round there is no ratio."""
    some = paired_ratio({0: 1.0, 1: 1.0, 7: 99.0}, {0: 2.0, 1: 2.0, 8: 1.0})
    assert some is not None
    assert (some.n, some.value) == (2, pytest.approx(0.5))
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None


def test_inverse_ratio_has_inverse_interval() -> None:
    """Swapping strategy and baseline inverts value and interval: no side is favoured."""
    there, back = paired_ratio(FAST, BASE), paired_ratio(BASE, FAST)
    assert there is not None
    assert back is not None
    assert back.value == pytest.approx(1 / there.value)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    assert back.word == "slower"


@pytest.mark.parametrize("degrees", [1, 2, 9, 24, 100])
def test_student_quantile(degrees: int) -> None:
    """The quantile equals scipy.stats' own."""
    assert student_quantile(degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees))


def test_interval_holds_its_error_rate() -> None:
    """Two equal strategies with drift per round and noise per process: about 5 % of 1000 runs decide wrongly."""
    rng = random.Random(4)
    wrong = 0
    for _ in range(1000):
        drift = [rng.gauss(0, 0.05) for _ in range(10)]
        a = {r: math.exp(d + rng.gauss(0, 0.02)) for r, d in enumerate(drift)}
        b = {r: math.exp(d + rng.gauss(0, 0.02)) for r, d in enumerate(drift)}
        ratio = paired_ratio(a, b)
        assert ratio is not None
        wrong += ratio.word != "undecided"
    assert 25 <= wrong <= 80


def test_words() -> None:
    """The word comes from the interval alone."""
    assert Ratio(3, 1.3, 1.1, 1.5).word == "slower"
    assert Ratio(3, 1.3, 0.9, 1.9).word == "undecided"
    assert Ratio(3, 0.7, math.nan, math.nan).word == "undecided"
