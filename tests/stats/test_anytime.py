"""Looking after every round: what it costs, what it finds; seeded simulation, nothing is timed."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.integrate import trapezoid
from support.process_means import noisy
from support.simulated_ratios import World, covered_throughout, log_ratios, looked_at

from benchframe.stats import Judging, Pair, judge
from benchframe.stats.verdict import anytime_p, anytime_same, log_evidence, radius


def test_evidence_is_a_likelihood_ratio() -> None:
    """The closed form equals the marginal of t under the prior over its null density, integrated numerically."""
    n, tau, t = 7, 1.5, 2.3
    grid = np.linspace(-9, 9, 4001)
    prior = scipy_stats.norm.pdf(grid, 0, tau)
    under = scipy_stats.nct.pdf(t, n - 1, grid * math.sqrt(n))
    marginal = trapezoid(prior * under, grid)
    assert float(log_evidence(t, n, tau)) == pytest.approx(math.log(marginal / scipy_stats.t.pdf(t, n - 1)), rel=1e-3)


def test_looking_after_each_round_is_paid_for() -> None:
    """A/A with a look after each of 100 rounds: the usual test errs often, the anytime-valid one at most at alpha."""
    logs = log_ratios(World(), 4000, 100, 0.0, np.random.default_rng(6))
    usual, ours, _ = looked_at(logs)
    assert usual > 0.25
    assert ours <= 0.05
    assert covered_throughout(logs, 0.0) >= 0.95


def test_looking_finds_what_is_there() -> None:
    """3 % at the default noise is found by looking, in fewer than 20 rounds in nine of ten runs."""
    _, found, when = looked_at(log_ratios(World(), 2000, 60, 0.03, np.random.default_rng(7)))
    assert found > 0.99
    assert np.quantile(when, 0.9) < 20


def test_anytime_p_never_grows() -> None:
    """More rounds only lower the anytime p values: what is decided stays decided."""
    logs = log_ratios(World(), 1, 40, 0.01, np.random.default_rng(2))[0]
    p = [anytime_p(logs[:n]) for n in range(1, 41)]
    q = [anytime_same(logs[:n], 0.02) for n in range(1, 41)]
    assert p[0] == q[0] == 1.0
    assert all(after <= before for before, after in [*pairwise(p), *pairwise(q)])


def test_anytime_test_and_interval_agree() -> None:
    """The p value is below alpha exactly where the confidence sequence leaves the null out, at each n."""
    rng = np.random.default_rng(3)
    for n in (4, 7, 20):
        for effect in (0.0, 0.01, 0.03, 0.1):
            values = rng.normal(effect, 0.02, n)
            t = values.mean() / (values.std(ddof=1) / math.sqrt(n))
            assert (float(log_evidence(t, n)) >= math.log(20)) == (abs(t) >= float(radius(n, 0.05)))
    assert math.isinf(float(radius(2, 0.05)))


def test_judging_anytime_is_stricter() -> None:
    """The same twelve rounds: a difference that one look decides may need more when every round is a look."""
    pair = Pair(noisy(12, 10.12, 0.01, 21), noisy(12, 10.0, 0.01, 22))
    once, often = (judge([pair], Judging(0.001, anytime=anytime))[0] for anytime in (False, True))
    assert once is not None
    assert often is not None
    assert (once.word, often.word) == ("slower", "undecided")
    assert often.more is not None
    big = judge([Pair(noisy(6, 20.0, seed=1), noisy(6, 10.0, seed=2))], Judging(anytime=True))[0]
    assert big is not None
    assert big.word == "slower"
