"""What a series of values shows: two groups instead of one, outliers, drift, and steps at which the level changed.

The notes on groups and on drift have a false-alarm rate of at most SHAPE_ALPHA per figure: expect one in a table of a
hundred figures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

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
    from scipy.stats import kendalltau, theilslopes  # type: ignore[import-untyped]

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
