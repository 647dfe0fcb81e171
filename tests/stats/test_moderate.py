"""Variances moderated over a table: the estimates are right, few rounds find more, and false verdicts stay rare."""

import math

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import chi2
from support.simulated_ratios import World, decided, moderated_p, tables_of

from benchframe.stats import Judging, Pair, Ratio, judge, paired_ratio
from benchframe.stats.verdict import FEWEST, MOST, moderated, prior_of, trigamma_inverse


def pairs_of(logs: np.ndarray, group: str = "lookup") -> list[Pair]:
    """Pairs with these log ratios, (ratios, rounds)."""
    ones = dict.fromkeys(range(logs.shape[1]), 1.0)
    return [Pair({r: math.exp(v) for r, v in enumerate(row)}, ones, group=group) for row in logs]


@pytest.mark.parametrize("value", [1e-7, 1e-3, 0.1, 1.0, 5.0, 300.0, 1e8])
def test_trigamma_inverse(value: float) -> None:
    """It is the inverse, also far out."""
    assert float(polygamma(1, trigamma_inverse(value))) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(("degrees", "scale"), [(1.5, 4e-4), (3.0, 1.0), (8.0, 0.01)])
def test_the_prior_is_found(degrees: float, scale: float) -> None:
    """Of many variances drawn as the model has it, the estimates are what they were drawn with."""
    rng = np.random.default_rng(4)
    truth = scale * degrees / chi2.rvs(degrees, size=20_000, random_state=rng)
    seen = truth * chi2.rvs(2, size=20_000, random_state=rng) / 2
    prior = prior_of(seen, [2.0] * len(seen), most=math.inf)
    assert prior.degrees == pytest.approx(degrees, rel=0.2)
    assert prior.variance == pytest.approx(scale, rel=0.05)
    assert prior_of(seen, [2.0] * len(seen)).degrees <= MOST


def test_judge_does_what_is_simulated() -> None:
    """The verdicts' intervals and p values are those of the vectorised form that the error rates are taken from."""
    logs = tables_of(World(), (1, 3, 14, 3), 0.05, 0.5, np.random.default_rng(3))
    differs, _, half = moderated_p(logs)
    verdicts = [v for v in judge(pairs_of(logs[0]), notes=False) if v is not None]
    assert [v.ratio.log for v in verdicts] == pytest.approx(logs[0].mean(axis=1).tolist())
    assert [math.log(v.ratio.high) - v.ratio.log for v in verdicts] == pytest.approx(half[0].tolist())
    smallest = int(np.argmin(differs[0]))
    assert verdicts[smallest].p == pytest.approx(42 * differs[0][smallest])
    assert {v.ratio.prior for v in verdicts} == {verdicts[0].ratio.prior}
    assert 0 < verdicts[0].ratio.prior <= MOST


@pytest.mark.parametrize(("rounds", "uneven", "false"), [(3, 0.0, 0.05), (3, 0.5, 0.05), (3, 1.0, 0.1), (5, 0.5, 0.05)])
def test_false_verdicts_stay_rare_and_more_is_found(rounds: int, uneven: float, false: float) -> None:
    """Tables of 42 ratios, cells of alike and of very unlike spread: false verdicts and coverage as promised; what is
    10 % slower is found several times as often as by the usual test."""
    rng = np.random.default_rng(11)
    shape = (300, 3, 14, rounds)
    equal, slower = (tables_of(World(), shape, effect, uneven, rng) for effect in (0.0, 0.1))
    differs, same, half = moderated_p(equal)
    assert decided(differs, same)[0].any(axis=1).mean() <= false
    assert 0.925 <= (np.abs(equal.mean(axis=-1)) <= half).mean() <= 0.975
    found, plain = (decided(*moderated_p(slower, most)[:2])[0].mean() for most in (MOST, 0))
    assert found > (4 * plain if rounds == 3 else 0.95) > plain


def test_who_is_moderated() -> None:
    """Paired ratios of a group of FEWEST or more; not a small group, no group, unpaired ones, single rounds, nor rounds
    that were stopped by what they showed. The value stays, and a ratio's own spread."""
    logs = tables_of(World(), (1, 1, FEWEST, 3), 0.0, 0.5, np.random.default_rng(5))[0]
    usual = [paired_ratio(p.strategy, p.baseline) for p in pairs_of(logs)]
    found = [v.ratio for v in judge(pairs_of(logs), notes=False) if v is not None]
    assert all(r.prior > 0 for r in found)
    assert [(r.value, r.sd, r.n) for r in found] == [(r.value, r.sd, r.n) for r in usual if r is not None]
    for pairs, judging in (
        (pairs_of(logs[:-1]), Judging()),
        (pairs_of(logs, group=""), Judging()),
        (pairs_of(logs), Judging(anytime=True)),
    ):
        assert not any(v.ratio.prior for v in judge(pairs, judging, notes=False) if v is not None)
    alone = Pair({0: 2.0}, {0: 1.0}, group="lookup")
    apart = Pair({5: 2.0, 6: 2.1}, {0: 1.0, 1: 1.0}, group="lookup")
    *_, one, two = judge([*pairs_of(logs), alone, apart], notes=False)
    assert one is not None
    assert two is not None
    assert (one.ratio.prior, two.ratio.prior, two.ratio.method) == (0, 0, "welch")


def test_rounds_without_spread() -> None:
    """Ratios that agree to the last bit take the spread of those beside them; where all agree there is none to lend."""
    logs = tables_of(World(), (1, 1, FEWEST, 3), 0.0, 0.0, np.random.default_rng(6))[0]
    logs[0] = 0.01
    first = judge(pairs_of(logs), notes=False)[0]
    assert first is not None
    assert first.ratio.low < 1.01 < first.ratio.high
    flat = [Ratio(3, 1.0, 1.0, 1.0, 0.0, 0.0, 2)] * FEWEST
    assert moderated(flat) == flat


def test_many_rounds_speak_for_themselves() -> None:
    """With 100 rounds the interval is the usual one within 2 %."""
    logs = tables_of(World(), (1, 1, 10, 100), 0.0, 1.0, np.random.default_rng(7))[0]
    for verdict, pair in zip(judge(pairs_of(logs), notes=False), pairs_of(logs), strict=True):
        usual = paired_ratio(pair.strategy, pair.baseline)
        assert verdict is not None
        assert usual is not None
        assert verdict.ratio.high - verdict.ratio.low == pytest.approx(usual.high - usual.low, rel=0.03)
