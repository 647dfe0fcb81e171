"""What is odd about a cell's process means: two groups instead of one, or drift over the run. Named, not removed.

Both notes have a false-alarm rate of at most SHAPE_ALPHA per figure: of a table with a hundred figures one is expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHAPE_ALPHA = 0.01
OUTLIER = 6.0
MIN_ROUNDS = 8
"""Fewer process means show neither groups nor a trend at this level."""

_DIP_N = (8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 200)
_DIP_99 = (
    *(0.1731, 0.1653, 0.1595, 0.1478, 0.1365, 0.1207, 0.1105),
    *(0.1015, 0.0895, 0.0816, 0.0673, 0.0582, 0.0431),
)
"""99 % quantiles of the dip of n uniform values, from 3 000 (n = 200) to 20 000 samples each, as
:func:`benchframe.stats.simulate.dip_quantile` computes them. Uniform values are the least favourable unimodal ones, so
every other unimodal shape, skewed and heavy-tailed ones too, has fewer false alarms."""

Array = npt.NDArray[np.float64]


def dip(values: Sequence[float] | Array) -> float:
    """Hartigan's dip: the largest distance of the empirical distribution from the nearest unimodal one.

    1/(2n) to 1/4, where two point masses lie. Hartigan, Hartigan 1985; the algorithm AS 217 with the later correction
    (the answer is never below that of the modal interval itself). O(n) to O(n^2) by shape, n values.
    """
    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    if n < 2 or x[0] == x[-1]:
        return 0.5 / n if n else math.nan
    low, high, best = 0, n - 1, 1.0
    while True:
        lower, upper = _hull(x, low, high, 1), _hull(x, low, high, -1)
        grid = np.arange(low, high + 1)
        gcm = np.interp(x[grid], x[lower], lower.astype(float))
        lcm = np.interp(x[grid], x[upper], upper.astype(float))
        at_lower, at_upper = np.isin(grid, lower), np.isin(grid, upper)
        gap = np.where(at_lower | at_upper, lcm - gcm + 1.0, -np.inf)
        index = int(np.argmax(gap))
        if gap[index] <= best:
            break
        if at_lower[index]:
            new_low = low + index
            new_high = int(upper[upper >= new_low][0])
        else:
            new_high = low + index
            new_low = int(lower[lower <= new_high][-1])
        below = _outside(x, lower, low, new_low, 1)
        above = _outside(x, upper, new_high, high, -1)
        best = max(best, below, above)
        if (new_low, new_high) == (low, high):
            break
        low, high = new_low, new_high
    return best / (2 * n)


def _hull(x: Array, low: int, high: int, sign: int) -> npt.NDArray[np.int64]:
    """Indices of the greatest convex minorant (sign 1) or least concave majorant (-1) of (x_i, i), low <= i <= high."""
    found: list[int] = []
    for i in range(low, high + 1):
        while len(found) > 1:
            a, b = found[-2], found[-1]
            if sign * ((b - a) * (x[i] - x[a]) - (i - a) * (x[b] - x[a])) < 0:
                break
            found.pop()
        found.append(i)
    return np.asarray(found, dtype=np.int64)


def _outside(x: Array, hull: npt.NDArray[np.int64], first: int, last: int, sign: int) -> float:
    """The largest distance of the empirical distribution from the hull between two of its corners, in steps."""
    grid = np.arange(first, last + 1)
    fitted = np.interp(x[grid], x[hull], hull.astype(float))
    return float(np.max(sign * (grid - fitted), initial=0.0)) + 1.0 if last > first else 1.0


def dip_limit(n: int) -> float:
    """The dip that n values of a unimodal distribution exceed with probability SHAPE_ALPHA at most."""
    if n < _DIP_N[0]:
        return math.inf
    return float(np.interp(math.sqrt(n), np.sqrt(_DIP_N), np.sqrt(_DIP_N) * _DIP_99)) / math.sqrt(n)


def two_groups(means: Mapping[int, float]) -> str:
    """A line that names the two groups that process means fall into, or "" if they do not. O(n log n)."""
    values = np.sort(np.asarray(list(means.values()), dtype=float))
    n = len(values)
    if n < MIN_ROUNDS or dip(np.log(values)) <= dip_limit(n):
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
    """What is odd about process means by round, each one line for the user; usually nothing."""
    notes = [two_groups(means), outliers(means)]
    change = drift(means)
    if change is not None:
        notes.append(f"drifts by {100 * change:+.1f} % from the first round to the last")
    return tuple(note for note in notes if note)
