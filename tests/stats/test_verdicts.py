"""Verdicts: corrected, with a smallest effect of interest; error rates by seeded simulation, nothing is timed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats
from support.process_means import means, noisy
from support.simulated_ratios import (
    World,
    characteristics,
    coverage,
    decided,
    log_ratios,
    p_values,
)

from benchframe.stats import Judging, Pair, Ratio, holm, judge, more_rounds, paired_ratio, ratio, welch_ratio
from benchframe.stats.ratios import bootstrap_interval

DATA = Path(__file__).resolve().parents[1] / "data"


# ---- one comparison ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "word"), [(9.0, "faster"), (11.0, "slower"), (10.05, "same"), (10.3, "slower"), (9.98, "same")]
)
def test_words(level: float, word: str) -> None:
    """With little noise each truth gets its word; half a percent is the same within 2 %, though it is significant."""
    (verdict,) = judge([Pair(noisy(25, level, 0.002, 2), noisy(25, 10.0, 0.002, 3))])
    assert verdict is not None
    assert verdict.word == word
    assert verdict.more is None
    assert verdict.text == ("same within 2 %" if word == "same" else word)
    assert verdict.percent == pytest.approx(100 * (level / 10 - 1), abs=0.3)


def test_p_values_are_scipys() -> None:
    """The t tests, paired and Welch's, agree with SciPy's own."""
    a, b = noisy(9, 10.2, seed=4), noisy(9, 10.0, seed=5)
    logs = np.log(list(a.values())), np.log(list(b.values()))
    (paired,) = judge([Pair(a, b)])
    (unpaired,) = judge([Pair(a, {r + 100: v for r, v in list(b.items())[:6]})])
    assert paired is not None
    assert unpaired is not None
    assert paired.p == pytest.approx(scipy_stats.ttest_rel(*logs).pvalue)
    welch = scipy_stats.ttest_ind(logs[0], logs[1][:6], equal_var=False)
    assert unpaired.p == pytest.approx(welch.pvalue)
    assert unpaired.ratio.method == "welch"
    interval = welch.confidence_interval()
    assert (unpaired.ratio.low, unpaired.ratio.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    bound = math.log1p(0.02)
    difference = logs[0] - logs[1]
    tost = max(
        scipy_stats.ttest_1samp(difference, -bound, alternative="greater").pvalue,
        scipy_stats.ttest_1samp(difference, bound, alternative="less").pvalue,
    )
    assert paired.p_same == pytest.approx(tost)


def test_which_test_for_which_counts() -> None:
    """Rounds in common are paired, unless they are few beside what each side has; one round gives no interval."""
    a, b = noisy(10, seed=6), noisy(10, seed=7)
    found = ratio(a, b)
    assert found is not None
    assert (found.method, found.n) == ("paired", 10)
    uneven = ratio(a, {r: v for r, v in b.items() if r < 6})
    assert uneven is not None
    assert (uneven.method, uneven.n) == ("paired", 6)
    apart = ratio(a, {r + 8: v for r, v in b.items()})
    assert apart is not None
    assert apart.method == "welch"
    single = ratio({0: 1.0}, {0: 2.0})
    assert single is not None
    assert (single.value, single.method) == (0.5, "paired")
    assert math.isnan(single.low)
    assert ratio({}, {0: 1.0}) is None
    assert welch_ratio({0: 1.0}, {1: 2.0, 2: 2.0}) is not None
    assert judge([Pair({}, {0: 1.0}), Pair(a, b)])[0] is None


def test_one_round_is_undecided() -> None:
    """Whatever the ratio, one round decides nothing and forecasts nothing."""
    (verdict,) = judge([Pair({0: 1.0}, {0: 2.0})])
    assert verdict is not None
    assert (verdict.word, verdict.text, verdict.more) == ("undecided", "undecided, one round", None)


def test_no_spread_at_all() -> None:
    """Equal values decide without dividing by zero."""
    flat = means([10.0] * 4)
    words = [v.word for v in judge([Pair(flat, flat), Pair(means([20.0] * 4), flat)]) if v]
    assert words == ["same", "slower"]


def test_unpaired_is_told() -> None:
    """Two runs that were not interleaved carry a note; their round numbers are not paired though they are alike."""
    (verdict,) = judge([Pair(noisy(5, seed=1), noisy(5, seed=2), unpaired=True)])
    assert verdict is not None
    assert verdict.ratio.method == "welch"
    assert "not interleaved" in verdict.notes[0]


# ---- many comparisons -------------------------------------------------------------------------------------------


def test_holm_is_the_textbooks() -> None:
    """Step-down by hand: smallest times k, next times k - 1, never falling; NaN counts as 1; order is kept."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.0]) == [1.0, 1.0, 0.0]
    assert holm([]) == []


def test_correction_takes_the_family_into_account() -> None:
    """What is significant alone is undecided among forty others that are not."""
    found = Pair(noisy(8, 10.12, 0.01, 11), noisy(8, 10.0, 0.01, 12))
    alone = judge([found], Judging(within=0.001))[0]
    others = [Pair(noisy(8, 10.0, 0.01, 100 + i), noisy(8, 10.0, 0.01, 200 + i)) for i in range(40)]
    among = judge([found, *others], Judging(within=0.001))[0]
    assert alone is not None
    assert among is not None
    assert (alone.word, among.word) == ("slower", "undecided")
    assert among.p > alone.p
    assert among.ratio == alone.ratio


def test_tables_of_equals_with_one_baseline() -> None:
    """240 A/A tables, each of six strategies against one shared baseline: at most 5 % hold a false verdict."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(240):
        drift_ = np.cumsum(rng.normal(0, 0.02, 8))
        cells = [means(np.exp(drift_ + rng.normal(0, 0.015, 8)).tolist()) for _ in range(7)]
        verdicts = judge([Pair(cell, cells[0]) for cell in cells[1:]], notes=False)
        wrong += any(v is not None and v.word in ("faster", "slower") for v in verdicts)
    assert wrong <= 19  # 12 are expected at most; P(more than 19) is 2 % at a rate of exactly 5 %


# ---- how many more ----------------------------------------------------------------------------------------------


def test_forecast_is_about_right() -> None:
    """As many more rounds as the forecast says decide in about 80 % of simulated continuations."""
    forecast = more_rounds(Ratio(5, 1.03, 0.99, 1.07, 0.03, 0.03 / math.sqrt(5), 4), Judging())
    assert forecast is not None
    rng = np.random.default_rng(5)
    logs = rng.normal(math.log(1.03), 0.03, (4000, 5 + forecast))
    p, q = p_values(logs)
    assert 0.76 <= ((p <= 0.05) | (q <= 0.05)).mean() <= 0.88


def test_forecast_grows_with_noise_and_gives_up() -> None:
    """Twice the noise needs about four times the rounds; beyond a thousand none is named."""

    def rounds(sd: float) -> int | None:
        return more_rounds(Ratio(10, 1.03, 1, 1.06, sd, sd / math.sqrt(10), 9), Judging())

    small, large = rounds(0.04), rounds(0.08)
    assert small is not None
    assert large is not None
    assert 3 < (large + 10) / (small + 10) < 5
    assert rounds(2.0) is None
    assert rounds(math.nan) is None
    (verdict,) = judge([Pair(means([2.7, 0.37, 2.7, 0.37]), means([1.0] * 4))])
    assert verdict is not None
    assert verdict.text == "undecided, more than 1,000 more rounds"


# ---- error rates ------------------------------------------------------------------------------------------------


def test_characteristics() -> None:
    """A/A at most alpha alone, in tables and with TOST at its edge; intervals cover; 3 % is found in 10 rounds."""
    for record in characteristics(4800, seed=2):
        rounds = record["rounds"]
        assert record["false"] <= 0.06, rounds
        assert record["table"] <= 0.08, rounds  # of 400 tables
        assert record["wrong_same"] <= 0.06, rounds
        assert 0.94 <= record["coverage"] <= 0.97, rounds
        if rounds >= 10:
            assert record["found"] > 0.9
            assert record["looks_t"] > 0.1 > 0.05 > record["looks"]


def test_paired_beats_unpaired_under_drift() -> None:
    """The same drifting values: paired by round 3 % is found, unpaired in less than half of the runs."""
    rng, found = np.random.default_rng(9), [0, 0]
    for _ in range(200):
        drift_ = np.cumsum(rng.normal(0, 0.03, 10))
        a = means(np.exp(drift_ + rng.normal(math.log(1.03), 0.01, 10)).tolist())
        b = means(np.exp(drift_ + rng.normal(0, 0.01, 10)).tolist())
        for i, unpaired in enumerate((False, True)):
            (verdict,) = judge([Pair(a, b, unpaired)], notes=False)
            found[i] += verdict is not None and verdict.word == "slower"
    assert found[0] > 190
    assert found[1] < 100


def test_layout_variance_of_processes_is_in_the_interval() -> None:
    """Process means with layout as large as their noise: coverage stays at its level, with heavy tails too."""
    for world in (World(layout=0.03, noise=0.001), World(heavy=0.0), World(noise=0.03, heavy=0.2)):
        logs = log_ratios(world, 4000, 8, 0.03, np.random.default_rng(4))
        assert 0.935 <= coverage(logs, math.log(1.03)) <= 0.975


def test_both_questions_are_corrected() -> None:
    """``decided`` (the vectorised form) and ``judge`` say the same of the same numbers."""
    logs = log_ratios(World(), 6, 9, 0.02, np.random.default_rng(8))
    p, q = p_values(logs)
    differs, same = decided(p, q)
    verdicts = judge([Pair(means(np.exp(row).tolist()), means([1.0] * 9)) for row in logs], notes=False)
    for i, verdict in enumerate(verdicts):
        assert verdict is not None
        assert (verdict.word in ("faster", "slower"), verdict.word == "same") == (bool(differs[i]), bool(same[i]))


# ---- real values ------------------------------------------------------------------------------------------------


def test_bootstrap_agrees_where_there_are_values() -> None:
    """With 40 rounds BCa and percentile intervals are near the t interval; seeded, so repeatable; NaN for two."""
    a, b = noisy(40, 10.2, seed=3), noisy(40, 10.0, seed=4)
    found = paired_ratio(a, b)
    assert found is not None
    logs = [math.log(a[r] / b[r]) for r in a]
    for method in ("BCa", "percentile"):
        low, high = bootstrap_interval(logs, method=method)
        assert (low, high) == pytest.approx((found.low, found.high), abs=0.0015)
    assert bootstrap_interval(logs) == bootstrap_interval(logs)
    assert math.isnan(bootstrap_interval(logs[:2])[0])


def test_recorded_values() -> None:
    """A real run's process means (rbtree against a copy of itself, mmap_cache against rbtree): the verdicts it gave."""
    recorded = json.loads((DATA / "process_means.json").read_text())
    pairs = [
        Pair(*({int(r): v for r, v in recorded[figure][name].items()} for name in (strategy, "rbtree")))
        for figure, strategy, _ in recorded["expected"]
    ]
    words = [v.word for v in judge(pairs) if v is not None]
    assert words == [word for *_, word in recorded["expected"]]
