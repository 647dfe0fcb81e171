"""Steps in a series of dated values: where the level changed, and by how much."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    from scipy.stats import chi2  # type: ignore[import-untyped]

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
