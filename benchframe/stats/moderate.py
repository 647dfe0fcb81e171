"""Spread from the whole table: variances of few rounds each, moderated by those beside them.

Three rounds say next to nothing about their own spread: with two degrees of freedom a 95 % interval has 4.3 standard
errors on either side, and after the correction for a hundred comparisons a difference must be fifty. But a table holds
dozens of ratios of one figure, measured in turns on one machine. What their variances have in common is told by all of
them: they are taken for draws from a scaled inverse chi-square distribution, whose scale and strength (``degrees``, as
many further rounds as it is worth) are estimated from the table itself. Unlike variances give a weak prior, and each
ratio is left with its own rounds; alike ones give a strong one. With many rounds a ratio's own variance prevails.

G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray experiments,
Statistical Applications in Genetics and Molecular Biology 3 (2004), sections 4 to 6; but for MOST, see there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchframe.stats.ratios import Ratio
from benchframe.stats.summary import student_quantile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

FEWEST = 8
"""Ratios from which on their variances say something about each other."""
MOST = 4.0
"""Degrees of freedom that the prior is worth at most. Smyth has no such limit: his genes share no baseline, and
thousands of them tell the prior's strength well. Here a simulated table of 126 ratios, whose true spreads differ by a
factor of 1.6 (one standard deviation), had a false verdict in 22 % of runs of three rounds without the limit, in 1 %
with it (docs/statistics.md)."""
_FLOOR = 1e-5
"""Variances below this part of the median one are that: rounds that happen to agree to the last bit."""


@dataclass(frozen=True)
class Prior:
    """What the variances of a table have in common: ``variance`` (of a log ratio in one round), worth ``degrees``."""

    variance: float
    degrees: float


def moderated(ratios: Sequence[Ratio | None]) -> list[Ratio | None]:
    """The ratios of one figure, each with standard error, degrees of freedom and interval by the moderated variance.

    Only paired ratios of two rounds or more are moderated, and only if there are FEWEST of them. O(ratios).
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
    """The prior by the moments of the logarithms of ``variances`` > 0 with so many ``degrees`` of freedom each.

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
