"""Ratios paired by round, and summaries of process means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
