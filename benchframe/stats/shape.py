"""Anomalies in a cell's process means: two groups instead of one, outliers, or drift over the run. They are reported,
not removed.

The notes on groups and on drift have a false-alarm rate of at most SHAPE_ALPHA per figure: expect one in a table of a
hundred figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
