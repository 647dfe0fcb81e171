"""Ratios paired by round, summaries of process means, and what a series of values shows beside them: two groups instead
of one, outliers, drift, and steps at which the level changed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# ----------------------------------------------------------------------------------------------------------------------
# Process means of one cell: mean, spread, interval.
#
# The unit is the *process mean*. Values of one process share its layout and are not independent: a test over pooled
# values finds differences that are not there (11-26 % false positives at 5 %). Intervals are Student's t at 95 %.

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """A figure of one cell over ``n`` processes. ``low`` and ``high`` bound the mean at 95 %; NaN if n < 2."""

    n: int
    mean: float
    median: float
    sd: float
    low: float
    high: float


def summarise(means: Sequence[float]) -> Summary:
    """Summary of process means (ns); ValueError if there are none. O(n log n).

    >>> summarise([10.0, 12.0, 11.0]).mean
    11.0
    """
    if not means:
        raise ValueError("no process means")
    mean = statistics.fmean(means)
    sd = statistics.stdev(means) if len(means) > 1 else math.nan
    half = math.nan if len(means) < 2 else student_quantile(len(means) - 1) * sd / math.sqrt(len(means))
    return Summary(len(means), mean, statistics.median(means), sd, mean - half, mean + half)


def student_quantile(degrees: float, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t: P(|t| < q) = ``level``.

    >>> round(student_quantile(9), 3)
    2.262
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    return float(stdtrit(degrees, (1 + level) / 2))


# ----------------------------------------------------------------------------------------------------------------------
# The ratio of two cells: geometric mean, interval, and the data behind it.
#
# Ratios are averaged as logarithms, so that 2x faster and 2x slower cancel. Where both cells have a process in the same
# round the ratio is taken within the round, where both met the same state of the machine; else, between two runs,
# Welch's interval for two samples of unequal spread is used, and drift between the runs is in it.

MIN_PAIRS = 2
"""Common rounds needed for a paired ratio."""
BOOTSTRAPS = 4999
TRIM = 0.2
"""The share of ratios that a trimmed mean leaves out at each end: Wilcox's usual choice."""


@dataclass(frozen=True)
class Ratio:
    """``value`` = geometric mean of strategy / baseline over ``n`` rounds; below 1 is faster. ``low`` and ``high``
    bound it at 95 %, NaN if n < 2; the interval is for this ratio alone, not corrected for other comparisons.

    ``sd`` is the standard deviation of the log ratios (Welch: the pooled one of the log means), ``se`` the standard
    error of the log ratio, ``degrees`` its degrees of freedom, ``method`` ``paired``, ``trimmed`` or ``welch``. Of the
    degrees, ``prior`` come from other ratios (:mod:`benchframe.stats.verdict`), whose variances are then in ``se``.
    """

    n: int
    value: float
    low: float
    high: float
    sd: float = math.nan
    se: float = math.nan
    degrees: float = math.nan
    method: str = "paired"
    prior: float = 0.0

    @property
    def word(self) -> str:
        """The verdict of this interval alone: ``faster``, ``slower`` or ``undecided``. A table with many ratios needs
        :func:`benchframe.stats.judge`, which corrects for their number.

        >>> Ratio(5, 0.8, 0.7, 0.9).word, Ratio(5, 0.98, 0.9, 1.1).word
        ('faster', 'undecided')
        """
        if self.high < 1:
            return "faster"
        if self.low > 1:
            return "slower"
        return "undecided"

    @property
    def log(self) -> float:
        """The mean of the log ratios."""
        return math.log(self.value)

    @property
    def effect(self) -> float:
        """The standardised effect: mean log ratio over its standard deviation (Cohen's d, for pairs d_z)."""
        return self.log / self.sd if self.sd > 0 else math.nan


def log_ratios(strategy: Mapping[int, float], baseline: Mapping[int, float]) -> list[float]:
    """log(strategy / baseline) of each round that both have, in round order."""
    return [math.log(strategy[r] / baseline[r]) for r in sorted(strategy.keys() & baseline.keys())]


def paired_ratio(strategy: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """Ratio of two cells' process means by round, over the rounds that both have; None if there is no such round.

    >>> paired_ratio({0: 5.0, 1: 6.0}, {0: 10.0, 1: 12.0, 2: 9.0}).value
    0.5
    """
    logs = log_ratios(strategy, baseline)
    if not logs:
        return None
    mean, n = statistics.fmean(logs), len(logs)
    sd = statistics.stdev(logs) if n > 1 else math.nan
    return _ratio(n, mean, sd, sd / math.sqrt(n), n - 1, "paired")


def welch_ratio(strategy: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """Ratio of two cells that share no rounds, or have unequal numbers of them, on log process means with Welch's
    degrees of freedom (Welch 1947). None if one has no processes; NaN interval if one has a single process.

    >>> welch_ratio({0: 2.0, 1: 2.0}, {5: 4.0, 6: 4.0, 7: 4.0}).value
    0.5
    """
    if not strategy or not baseline:
        return None
    a, b = ([math.log(v) for v in side.values()] for side in (strategy, baseline))
    mean = statistics.fmean(a) - statistics.fmean(b)
    if min(len(a), len(b)) < 2:
        return _ratio(1, mean, math.nan, math.nan, math.nan, "welch")
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    se = math.sqrt(va + vb)
    degrees = se**4 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)) if se > 0 else len(a) + len(b) - 2
    pooled = math.sqrt((statistics.variance(a) + statistics.variance(b)) / 2)
    return _ratio(min(len(a), len(b)), mean, pooled, se, degrees, "welch")


def trimmed_ratio(strategy: Mapping[int, float], baseline: Mapping[int, float], share: float = TRIM) -> Ratio | None:
    """As :func:`paired_ratio`, with the trimmed mean of the log ratios and Yuen's interval (Yuen 1974): the mean leaves
    out a ``share`` of them at each end; in the spread they count as the nearest remaining value.

    Suitable for ratios that agree except for single outlying rounds, as between two runs with the same layouts: it then
    needs a fraction of the rounds. Below five rounds nothing is trimmed.

    >>> trimmed_ratio({0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0, 4: 9.0}, dict.fromkeys(range(5), 4.0)).value
    0.5
    """
    logs = sorted(log_ratios(strategy, baseline))
    if not logs:
        return None
    n = len(logs)
    cut = int(share * n)
    kept = logs[cut : n - cut]
    mean, left = statistics.fmean(kept), len(kept)
    if left < 2:
        return _ratio(n, mean, math.nan, math.nan, math.nan, "trimmed")
    spread = statistics.stdev([min(max(value, kept[0]), kept[-1]) for value in logs])
    error = spread * math.sqrt((n - 1) / (left * (left - 1)))
    return _ratio(n, mean, error * math.sqrt(n), error, left - 1, "trimmed")


def ratio(strategy: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """The paired ratio if at least MIN_PAIRS rounds, and half of the smaller side's, are common; else Welch's.

    A single common round gives a paired value without an interval.
    """
    common = len(strategy.keys() & baseline.keys())
    if common >= MIN_PAIRS and 2 * common >= min(len(strategy), len(baseline)):
        return paired_ratio(strategy, baseline)
    if min(len(strategy), len(baseline)) >= 2:
        return welch_ratio(strategy, baseline)
    return paired_ratio(strategy, baseline) or welch_ratio(strategy, baseline)


def bootstrap_interval(
    logs: npt.NDArray[np.float64] | list[float], level: float = LEVEL, method: str = "BCa"
) -> tuple[float, float]:
    """The bootstrap interval (SciPy's ``BCa`` or ``percentile``) of the geometric mean of ratios, from log ratios.

    A check of the t interval where the log ratios are skewed; below ten rounds it is too narrow (docs/statistics.md).
    Seeded: the same values give the same interval. NaN if there are fewer than 3 values or all are equal.
    """
    import numpy as np
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    values = np.asarray(logs, dtype=float)
    if len(values) < 3 or np.ptp(values) == 0:
        return math.nan, math.nan
    done = bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=BOOTSTRAPS, method=method, rng=np.random.default_rng(1)
    )
    return math.exp(done.confidence_interval.low), math.exp(done.confidence_interval.high)


def _ratio(n: int, mean: float, sd: float, se: float, degrees: float, method: str) -> Ratio:
    half = math.nan if math.isnan(se) else student_quantile(degrees) * se
    bounds: tuple[Any, Any] = (math.exp(mean - half), math.exp(mean + half))
    return Ratio(n, math.exp(mean), *bounds, sd, se, degrees, method)


# ----------------------------------------------------------------------------------------------------------------------
# The shape of a series.
#
# The notes on groups and on drift have a false-alarm rate of at most SHAPE_ALPHA per figure: expect one in a table of a
# hundred figures.

SHAPE_ALPHA = 0.01
OUTLIER = 6.0
MIN_ROUNDS = 8
"""With fewer process means neither groups nor a trend can be significant at this level."""


def two_groups(means: Mapping[int, float]) -> str:
    """A line that names the two groups into which the process means fall, or "" if they do not. O(n log n).

    The test is that of Hartigan's dip (Hartigan, Hartigan 1985): the largest distance of the empirical distribution
    from the nearest unimodal one. Its p-values are for uniform means, the least favourable unimodal shape, so skewed
    and heavy-tailed ones have fewer false alarms.
    """
    values = np.sort(np.asarray(list(means.values()), dtype=float))
    n = len(values)
    if n < MIN_ROUNDS or values[0] == values[-1]:
        return ""
    import diptest

    if diptest.diptest(np.log(values))[1] > SHAPE_ALPHA:
        return ""
    sizes = np.arange(1, n)
    sums = np.cumsum(values)
    within = (sums[:-1] ** 2) / sizes + (sums[-1] - sums[:-1]) ** 2 / (n - sizes)
    cut = int(np.argmax(within)) + 1
    left, right = values[:cut], values[cut:]
    return (
        f"two groups: {len(left)} processes near {np.mean(left):.3g} ns, {len(right)} near {np.mean(right):.3g} ns; "
        "the mean describes neither"
    )


def outliers(means: Mapping[int, float]) -> str:
    """A line that names processes more than OUTLIER robust standard deviations (1.4826 MAD of the logarithms) and more
    than 10 % from the median; "" if there are none. O(n log n).

    >>> outliers({r: 7.0 + r % 2 / 10 for r in range(9)} | {9: 13.2})
    '1 of 10 processes lies far from the median of 7.05 ns: 13.2 ns in round 10'
    """
    if len(means) < MIN_ROUNDS:
        return ""
    logs = np.log(np.asarray(list(means.values())))
    median = float(np.median(logs))
    limit = max(OUTLIER * 1.4826 * float(np.median(np.abs(logs - median))), math.log(1.1))
    far = [f"{value:.3g} ns in round {r + 1}" for r, value in means.items() if abs(math.log(value) - median) > limit]
    if not far:
        return ""
    verb = "lies" if len(far) == 1 else "lie"
    rest = f" and {len(far) - 3} more" if len(far) > 3 else ""
    middle = f"{math.exp(median):.3g} ns"
    return f"{len(far)} of {len(means)} processes {verb} far from the median of {middle}: {', '.join(far[:3])}{rest}"


def drift(means: Mapping[int, float]) -> float | None:
    """The relative change from first to last round if process means drift (Kendall's tau over the order of rounds,
    two-sided at SHAPE_ALPHA), by the Theil-Sen slope of their logarithms; else None. O(n^2).

    >>> drift({r: 1.01**r for r in range(11)}) is not None, drift({0: 1.0, 1: 2.0})
    (True, None)
    """
    rounds = sorted(means)
    if len(rounds) < MIN_ROUNDS:
        return None
    from scipy.stats import kendalltau, theilslopes

    logs = np.log([means[r] for r in rounds])
    found: Any = kendalltau(rounds, logs)
    if not found.pvalue < SHAPE_ALPHA:
        return None
    slope = float(theilslopes(logs, rounds).slope)
    return math.expm1(slope * (rounds[-1] - rounds[0]))


def shape_notes(means: Mapping[int, float]) -> tuple[str, ...]:
    """Anomalies in process means by round, each one line for the user; usually none."""
    notes = [two_groups(means), outliers(means)]
    change = drift(means)
    if change is not None:
        notes.append(f"drifts by {100 * change:+.1f} % from the first round to the last")
    return tuple(note for note in notes if note)


ALPHA = 0.01
"""The chance that a series without a step shows one, if errors are right: below 1 %. If values vary three times as much
as their errors say, 2 % to 10 % (tests/stats/test_steps.py)."""
MOST = 2000
"""The longest series; the search is quadratic."""


@dataclass(frozen=True)
class Level:
    """Values ``first`` to before ``last``, with one mean; ``se`` is its standard error."""

    first: int
    last: int
    mean: float
    se: float


def between(values: Sequence[float], errors: Sequence[float]) -> float:
    """The standard deviation between values beyond their own standard errors, from differences of neighbours: few
    steps hardly change the median of those.

    >>> round(between([0.0, 0.1, 0.0, 0.1, 0.0], [0.01] * 5), 3)
    0.104
    """
    if len(values) < 3:
        return 0.0
    differences = [abs(b - a) for a, b in pairwise(values)]
    spread = 1.4826 * statistics.median(differences) / math.sqrt(2)
    return math.sqrt(max(0.0, spread**2 - statistics.median(error**2 for error in errors)))


def levels(values: Sequence[float], errors: Sequence[float], within: float = 0.02, alpha: float = ALPHA) -> list[Level]:
    """The levels of a series, in order; one if it has no step. O(n^2).

    Weighted least squares with a price for each level (Jackson and others, "An algorithm for optimal partitioning",
    2005). The weight of a value is 1 / (its standard error^2 + the variance between values). The price is the quantile
    of chi-square that a step by chance exceeds with probability ``alpha`` over all places where it may be (Bonferroni).
    Neighbouring levels that differ by ``within`` or less are one.

    Args:
        values: log ratios, or logs of times, in order of time.
        errors: the standard error of each.
        within: the smallest step of interest.

    Raises:
        ValueError: the lengths differ, there are more than :data:`MOST` values, or an error is not positive.

    >>> [(level.first, level.last) for level in levels([0.0, 0.01, -0.01, 0.2, 0.21], [0.01] * 5)]
    [(0, 3), (3, 5)]
    """
    n = len(values)
    if n != len(errors) or n > MOST:
        raise ValueError(f"{n} values with {len(errors)} errors: give as many, at most {MOST}")
    if not all(error > 0 for error in errors):
        raise ValueError("a standard error must be positive")
    if n == 0:
        return []
    from scipy.stats import chi2

    extra = between(values, errors)
    weights = [1 / (error**2 + extra**2) for error in errors]
    price = float(chi2.isf(alpha / max(1, n - 1), 1))
    sums = [(0.0, 0.0, 0.0)]
    for value, weight in zip(values, weights, strict=True):
        w, wv, wvv = sums[-1]
        sums.append((w + weight, wv + weight * value, wvv + weight * value * value))

    def level(first: int, last: int) -> Level:
        w, wv = (sums[last][k] - sums[first][k] for k in (0, 1))
        return Level(first, last, wv / w, 1 / math.sqrt(w))

    def loss(first: int, last: int) -> float:
        w, wv, wvv = (sums[last][k] - sums[first][k] for k in (0, 1, 2))
        return wvv - wv * wv / w

    best, cut = [-price], [0]
    for last in range(1, n + 1):
        cost, first = min((best[first] + loss(first, last) + price, first) for first in range(last))
        best.append(cost)
        cut.append(first)
    ends = [n]
    while ends[-1] > 0:
        ends.append(cut[ends[-1]])
    ends.reverse()
    found = [level(first, last) for first, last in pairwise(ends)]
    while len(found) > 1:  # the smallest difference first: two small ones may be one that matters
        gap, at = min((abs(b.mean - a.mean), at) for at, (a, b) in enumerate(pairwise(found)))
        if gap > within:
            break
        found[at : at + 2] = [level(found[at].first, found[at + 1].last)]
    return found
