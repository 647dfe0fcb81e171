"""Verdicts: faster, slower, same or undecided; moderated variances, and tests that may be repeated at any time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.stats.ratios import (
    Ratio,
    bootstrap_interval,
    log_ratios,
    ratio,
    student_quantile,
    trimmed_ratio,
    welch_ratio,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# ----------------------------------------------------------------------------------------------------------------------
# Deciding during a run: a t test that may be repeated after every round.
#
# The usual test promises alpha for one look. Whoever looks after each round and stops when it is significant finds a
# difference between equal things far more often (20 % of the time after ten looks, ever more with more). Here the
# evidence is an *e-process*: the Bayes factor of the t statistic with a normal prior N(0, TAU^2) on the standardised
# effect and the right Haar prior on the scale. It is a martingale when the null holds, so by Ville's inequality it
# ever exceeds 1/alpha with probability alpha at most, whatever the rule for stopping is.
#
# Sources: Lai 1976, "On confidence sequences"; Hendriksen, de Heide, Gruenwald 2021, "Optional stopping with Bayes
# factors"; Wang, Ramdas 2023, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
# variance".

TAU = 1.5
"""Prior standard deviation of the standardised effect (log ratio over its sd by round). A 3 % effect at 2 % noise is
1.5; a larger prior decides large effects a round or two earlier and small ones later."""

Array = npt.NDArray[np.float64]


def log_evidence(t: Any, n: Any, tau: float = TAU) -> Any:
    """log of the e-value of a t statistic over ``n`` >= 2 values, elementwise. 0 is no evidence, log 20 corresponds to
    alpha 0.05.

    The marginal of t under the prior is a t distribution stretched by sqrt(1 + n tau^2), hence the closed form.
    """
    n = np.asarray(n, dtype=float)
    g, nu, square = 1 + n * tau**2, n - 1, np.square(t)
    with np.errstate(invalid="ignore"):
        finite = -0.5 * np.log(g) + n / 2 * (np.log1p(square / nu) - np.log1p(square / (nu * g)))
    return np.where(np.isinf(square), nu / 2 * np.log(g), finite)


def prefixes(logs: Sequence[float] | Array) -> tuple[Array, Array, Array]:
    """(n, mean, standard error) of the first 2, 3, ... values, by running sums around the first value."""
    values = np.asarray(logs, dtype=float)
    n = np.arange(2, len(values) + 1, dtype=float)
    shifted = values - values[0] if len(values) else values
    total, squares = np.cumsum(shifted)[1:], np.cumsum(shifted**2)[1:]
    variance = np.maximum(squares - total**2 / n, 0.0) / (n - 1)
    return n, values[0] + total / n if len(values) else total, np.sqrt(variance / n)


def anytime_p(logs: Sequence[float] | Array, null: float = 0.0) -> float:
    """The anytime-valid p value of the null hypothesis "the mean is ``null``": 1 over the largest e-value so far, at
    most 1. O(n)."""
    return float(np.min(_running(logs, null), initial=1.0))


def anytime_same(logs: Sequence[float] | Array, bound: float) -> float:
    """The anytime-valid p value of the null hypothesis "the mean lies outside (-bound, bound)": two one-sided tests,
    each by the confidence sequence, so both must reject at the same time. O(n)."""
    _, mean, _ = prefixes(logs)
    both = np.maximum(_running(logs, -bound), _running(logs, bound))
    return float(np.min(np.where(np.abs(mean) < bound, both, 1.0), initial=1.0))


def _running(logs: Sequence[float] | Array, null: float) -> Array:
    """min(1, 1/e) after 2, 3, ... values."""
    n, mean, error = prefixes(logs)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, (mean - null) / error, np.where(mean == null, 0.0, np.inf))
        evidence = log_evidence(t, n)
    found: Array = np.minimum(1.0, np.exp(-np.maximum(evidence, 0.0)))
    return found


def radius(n: Any, alpha: float, tau: float = TAU) -> Any:
    """Half the width, in standard errors, of the confidence sequence after ``n`` values; infinite while n is small.

    >>> bool(radius(5, 0.05) > radius(50, 0.05) > 2)
    True
    """
    n = np.asarray(n, dtype=float)
    g, nu = 1 + n * tau**2, n - 1
    k = np.exp((0.5 * np.log(g) - math.log(alpha)) * 2 / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((k < g) & (n > 1), np.sqrt(nu * (k - 1) / np.maximum(1 - k / g, 1e-300)), np.inf)


# ----------------------------------------------------------------------------------------------------------------------
# Spread from the whole table: variances of few rounds each, moderated by those beside them.
#
# Three rounds say next to nothing about their own spread: with two degrees of freedom a 95 % interval has 4.3
# standard errors on either side, and after the correction for a hundred comparisons a difference must be fifty. But a
# table holds dozens of ratios of one figure, measured in turns on one machine. What their variances have in common is
# told by all of them: they are taken for draws from a scaled inverse chi-square distribution, whose scale and
# strength (``degrees``, as many further rounds as it is worth) are estimated from the table itself. Unlike variances
# give a weak prior, and each ratio is left with its own rounds; alike ones give a strong one. With many rounds a
# ratio's own variance prevails.
#
# G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
# experiments, Statistical Applications in Genetics and Molecular Biology 3 (2004), sections 4 to 6; but for MOST, see
# there.

FEWEST = 8
"""The least number of ratios whose variances are moderated."""
MOST = 4.0
"""The most degrees of freedom that the prior may have. Smyth needs no such limit: his genes share no baseline, and
thousands of them determine the prior's strength well. Here a simulated table of 126 ratios, whose true spreads differ
by a factor of 1.6 (one standard deviation), had a false verdict in 22 % of runs of three rounds without the limit, in 1
% with it (docs/statistics.md)."""
_FLOOR = 1e-5
"""Variances below this fraction of the median one are raised to it: some rounds happen to agree to the last bit."""


@dataclass(frozen=True)
class Prior:
    """The common prior of a table's variances: ``variance`` (of a log ratio in one round), worth ``degrees``."""

    variance: float
    degrees: float


def moderated(ratios: Sequence[Ratio | None]) -> list[Ratio | None]:
    """The ratios of one figure, each with standard error, degrees of freedom and interval from the moderated variance.

    Only paired ratios of two rounds or more are moderated, and only if there are at least FEWEST of them. O(ratios).
    """
    usable = [r for r in ratios if _usable(r)]
    if len(usable) < FEWEST:
        return list(ratios)
    variances = [r.sd**2 for r in usable if r is not None]
    floor = _FLOOR * statistics.median(variances)
    if not floor:
        return list(ratios)
    prior = prior_of([max(v, floor) for v in variances], [r.degrees for r in usable if r is not None])
    return [_moderate(r, prior) if r is not None and _usable(r) else r for r in ratios]


def prior_of(variances: Sequence[float] | Array, degrees: Sequence[float] | Array, most: float = MOST) -> Prior:
    """The prior, from the moments of the logarithms of ``variances`` > 0 with ``degrees`` degrees of freedom each.

    >>> prior_of([2.0] * 9, [2] * 9).degrees == MOST
    True
    """
    import numpy as np
    from scipy.special import digamma, polygamma  # type: ignore[import-untyped]

    half = np.asarray(degrees, dtype=float) / 2
    logs = np.log(np.asarray(variances, dtype=float)) - digamma(half) + np.log(half)
    mean, excess = float(logs.mean()), float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return Prior(math.exp(mean), min(most, 1e9))
    own = trigamma_inverse(excess)
    return Prior(math.exp(mean + float(digamma(own)) - math.log(own)), min(2 * own, most))


def trigamma_inverse(value: float) -> float:
    """x with trigamma(x) = ``value`` > 0; Newton's method on 1 / trigamma, which is nearly a line (Smyth's appendix).

    >>> round(trigamma_inverse(math.pi**2 / 6), 9)
    1.0
    """
    from scipy.special import polygamma

    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        now = float(polygamma(1, x))
        step = now * (1 - now / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-10:
            break
    return x


def _usable(ratio: Ratio | None) -> bool:
    return ratio is not None and ratio.method == "paired" and ratio.n > 1


def _moderate(own: Ratio, prior: Prior) -> Ratio:
    degrees = prior.degrees + own.degrees
    error = math.sqrt((prior.degrees * prior.variance + own.degrees * own.sd**2) / degrees / own.n)
    half = student_quantile(degrees) * error
    low, high = math.exp(own.log - half), math.exp(own.log + half)
    return replace(own, low=low, high=high, se=error, degrees=degrees, prior=prior.degrees)


# ----------------------------------------------------------------------------------------------------------------------
# Verdicts: faster, slower, same within X %, undecided; corrected for the number of comparisons in the table.
#
# Two questions are asked of each comparison, each at ``alpha`` for the whole table:
#
# differs   is the ratio not 1? A t test on log ratios (paired or Welch); *faster* or *slower*.
# same      does the ratio lie within ``within`` of 1, the smallest effect of interest? Two one-sided t tests (TOST,
#           Schuirmann 1987); it wins over *differs*, since an effect that small is of no interest.
#
# Each question's p values are corrected by Holm's step-down method (1979): the probability of one or more false
# answers in the table is at most ``alpha``, whatever the dependence, and comparisons depend on each other through
# their baseline. (Benjamini-Hochberg would bound the share of false ones, but each line of a table is read, and
# quoted, alone.)

ALPHA = 0.05
WITHIN = 0.02
"""The smallest effect of interest: for most purposes two cells within 2 % of each other are the same."""
MAX_MORE = 1000
"""A larger number of further rounds is not forecast."""
POWER_Z = 0.8416
"""The forecast is for power 0.8."""
WORDS = ("faster", "slower", "same", "undecided")
BOOTSTRAP_FROM = 20
"""The least number of rounds at which the bootstrap interval is accurate enough to check the t interval."""


@dataclass(frozen=True)
class Judging:
    """How verdicts are reached: the smallest effect of interest (0.02: 2 %), the table's error rate, and whether the
    number of rounds depended on the results (``anytime``: then anytime-valid tests are used)."""

    within: float = WITHIN
    alpha: float = ALPHA
    anytime: bool = False


@dataclass(frozen=True)
class Pair:
    """Process means (ns) by round of the two cells to compare: ``strategy`` / ``baseline``."""

    strategy: Mapping[int, float]
    baseline: Mapping[int, float]
    unpaired: bool = False
    """The rounds of the two are independent (two runs), although their numbers are equal."""
    trimmed: bool = False
    """Single outlying rounds should not decide: use trimmed means of the paired ratios."""
    group: str = ""
    """Pairs of one group (a figure of one run) share information about their variances; those without a group do
    not."""


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    ``word`` is one of WORDS, ``text`` the same for display ("same within 2 %", "undecided, about 12 more rounds").
    ``ratio`` has the value and its own (uncorrected) interval. ``p`` and ``p_same`` are corrected for the table.
    ``more`` is how many more rounds would probably decide (power 0.8 at the effect and spread seen so far), None if the
    comparison is decided, if no forecast is possible, or if it is above MAX_MORE (``text`` says which). ``notes`` lists
    anomalies.
    """

    word: str
    text: str
    ratio: Ratio
    p: float = 1.0
    p_same: float = 1.0
    more: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def percent(self) -> float:
        """The effect in percent: +3 is 3 % slower."""
        return 100 * (self.ratio.value - 1)

    @property
    def effect(self) -> float:
        """The standardised effect; see :attr:`benchframe.stats.Ratio.effect`."""
        return self.ratio.effect


def judge(pairs: Iterable[Pair], judging: Judging | None = None, *, notes: bool = True) -> list[Verdict | None]:
    """A verdict for each pair, in the given order; all pairs form one family for the correction.

    None for a pair that cannot be compared (one side has no processes). ``notes`` False omits the notes (which cost
    about a millisecond per pair). O(pairs log pairs + values).

    >>> fast, base = {r: 8.0 + r % 2 / 9 for r in range(9)}, {r: 10.0 for r in range(9)}
    >>> [v.word for v in judge([Pair(fast, base), Pair(base, fast), Pair(base, base)])]
    ['faster', 'slower', 'same']
    """
    judging, pairs = judging or Judging(), list(pairs)
    ratios = _ratios(pairs, judging)
    found = [i for i, ratio in enumerate(ratios) if ratio is not None]
    evidence = [_p_values(pairs[i], r, judging) for i in found if (r := ratios[i]) is not None]
    p_differs, p_same = (holm([e[k] for e in evidence]) for k in (0, 1))
    waiting = sum(min(p, q) > judging.alpha for p, q in zip(p_differs, p_same, strict=True))
    verdicts: list[Verdict | None] = [None] * len(pairs)
    for i, p, q in zip(found, p_differs, p_same, strict=True):
        r = ratios[i]
        assert r is not None
        verdicts[i] = _verdict(r, p, q, judging, waiting, _notes(pairs[i], r, judging) if notes else ())
    return verdicts


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple testing (Holm 1979), in the given order; NaN counts as 1. O(n log n).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        p = 1.0 if math.isnan(p_values[i]) else p_values[i]
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[i] = largest
    return corrected


def above(ratio: Ratio, null: float = 0.0) -> float:
    """The p value of the null hypothesis "the log ratio is at most ``null``": small if it is clearly above; 1 if the
    spread is not known yet.

    >>> above(Ratio(9, 1.1, 1.05, 1.15, 0.03, 0.01, 8)) < 0.001
    True
    """
    if math.isnan(ratio.se):
        return 1.0
    if ratio.se == 0:
        return 0.0 if ratio.log > null else 1.0
    from scipy.special import stdtr

    return float(stdtr(ratio.degrees, (null - ratio.log) / ratio.se))


def below(ratio: Ratio, null: float = 0.0) -> float:
    """The p value of the null hypothesis "the log ratio is at least ``null``"; as :func:`above`."""
    if ratio.se == 0:
        return 0.0 if ratio.log < null else 1.0
    return 1.0 if math.isnan(ratio.se) else 1.0 - above(ratio, null)


def differs(ratio: Ratio) -> float:
    """The p value of the null hypothesis "the ratio is 1", two-sided, for this comparison alone.

    >>> round(differs(Ratio(9, 1.1, 1.05, 1.15, 0.03, 0.01, 8)), 5)
    1e-05
    """
    return min(1.0, 2 * min(above(ratio), below(ratio)))


def _ratios(pairs: Sequence[Pair], judging: Judging) -> list[Ratio | None]:
    """The pairs' ratios, moderated within their groups, except where the number of rounds depended on the results."""
    ratios = [_ratio(pair) for pair in pairs]
    for group in {pair.group for pair in pairs if pair.group and not judging.anytime}:
        members = [i for i, pair in enumerate(pairs) if pair.group == group]
        for i, found in zip(members, moderated([ratios[i] for i in members]), strict=True):
            ratios[i] = found
    return ratios


def _ratio(pair: Pair) -> Ratio | None:
    if pair.trimmed:
        return trimmed_ratio(pair.strategy, pair.baseline)
    return (welch_ratio if pair.unpaired else ratio)(pair.strategy, pair.baseline)


def _p_values(pair: Pair, ratio: Ratio, judging: Judging) -> tuple[float, float]:
    """(differs, same), uncorrected."""
    bound = math.log1p(judging.within)
    if judging.anytime and ratio.method == "paired":
        logs = log_ratios(pair.strategy, pair.baseline)
        return anytime_p(logs), anytime_same(logs, bound)
    return differs(ratio), max(above(ratio, -bound), below(ratio, bound))


def _verdict(ratio: Ratio, p: float, q: float, judging: Judging, waiting: int, notes: tuple[str, ...]) -> Verdict:
    if q <= judging.alpha:
        return Verdict("same", f"same within {100 * judging.within:g} %", ratio, p, q, None, notes)
    if p <= judging.alpha:
        word = "faster" if ratio.value < 1 else "slower"
        return Verdict(word, word, ratio, p, q, None, notes)
    more = more_rounds(ratio, judging, max(1, waiting))
    if ratio.n < 2:
        text = "undecided, one round"
    elif more is None:
        text = f"undecided, more than {MAX_MORE:,} more rounds"
    else:
        text = f"undecided, about {more:,} more round{'s' * (more > 1)}"
    return Verdict("undecided", text, ratio, p, q, more, notes)


def more_rounds(ratio: Ratio, judging: Judging, comparisons: int = 1) -> int | None:
    """How many more rounds (of both sides) would decide a ratio if effect and spread stay as estimated: with power 0.8,
    at ``alpha`` over the ``comparisons`` still open. None above MAX_MORE, or if the spread is not known.

    >>> more_rounds(Ratio(5, 1.03, 0.99, 1.07, 0.03, 0.0134, 4), Judging())
    5
    """
    if ratio.n < 2 or not ratio.se > 0:
        return None
    import numpy as np
    from scipy.special import stdtrit

    alpha, bound = judging.alpha / comparisons, math.log1p(judging.within)
    n = np.arange(ratio.n + 1, ratio.n + MAX_MORE + 1)
    spread = ratio.se * math.sqrt(ratio.n)
    error = spread / np.sqrt(n)
    if judging.anytime:
        two = one = radius(n, alpha)
    else:
        two, one = (stdtrit(n - 1 + ratio.prior, 1 - alpha / sides) for sides in (2, 1))
    slack = POWER_Z if abs(ratio.log) > spread / 10 else 1.2816  # near zero the interval may fail at either end
    enough = (abs(ratio.log) >= (two + POWER_Z) * error) | (bound - abs(ratio.log) >= (one + slack) * error)
    return int(np.argmax(enough)) + 1 if enough.any() else None


def _notes(pair: Pair, ratio: Ratio, judging: Judging) -> tuple[str, ...]:
    """Reasons to doubt the ratio itself."""
    from benchframe.stats.ratios import drift

    notes = []
    if ratio.method == "welch":
        notes.append("not interleaved: drift of the machine between the two is part of the ratio")
        return tuple(notes)
    logs = log_ratios(pair.strategy, pair.baseline)
    plain = math.exp(math.fsum(logs) / len(logs))
    if ratio.method == "trimmed" and not ratio.low <= plain <= ratio.high:
        notes.append(f"the mean of all rounds is {plain:.3f}: some are far away, and the trimmed mean excludes them")
    change = drift({r: math.exp(v) for r, v in enumerate(logs)})
    if change is not None:
        notes.append(f"the ratio drifts by {100 * change:+.1f} % from the first round to the last")
    if ratio.n >= BOOTSTRAP_FROM and ratio.method == "paired" and not judging.anytime:
        low, high = bootstrap_interval(logs)
        if (low > 1 or high < 1) != (ratio.word != "undecided"):
            notes.append(f"the bootstrap interval [{low:.3f}, {high:.3f}] disagrees: the distribution is not normal")
    return tuple(notes)
