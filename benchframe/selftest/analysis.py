"""What a self-test's record says: false positives, power, smallest effect per minute, and what a load does.

Pure functions of a :class:`~benchframe.selftest.record.Record`; nothing is timed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from benchframe.selftest.record import FIGURES, Means, Record
from benchframe.selftest.twins import BASELINE, COPIES, SLOWED
from benchframe.stats import ALPHA, Judging, Pair, Ratio, Verdict, judge, paired_ratio, welch_ratio
from benchframe.stats.verdict import above, below

BLOCK = 5
"""Rounds of one A/A comparison: what a short run has."""
MINUTES = (0.5, 1.0, 2.0, 5.0, 10.0)
POWER = 0.9

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FalsePositives:
    """Of ``n`` comparisons of a strategy with itself ``wrong`` differ at ALPHA, each by itself. ``independent`` and
    ``independent_wrong`` count those that share no process; ``low`` and ``high`` bound the rate at 95 % (Clopper and
    Pearson, over the independent ones). ``tables`` is how many tables these make, ``wrong_tables`` how many hold a
    false verdict after the correction."""

    n: int
    wrong: int
    independent: int
    independent_wrong: int
    low: float
    high: float
    tables: int
    wrong_tables: int


@dataclass(frozen=True)
class Power:
    """One figure: ``sd`` of the log ratio of two processes in a round; ``smallest`` effect (0.03: 3 %) that is found
    with probability POWER in each of MINUTES; ``found`` the probability that a 3 % slow-down is found in two minutes,
    ``resampled`` the same by drawing from the measured ratios instead of a normal distribution."""

    figure: str
    sd: float
    smallest: tuple[float, ...]
    found: float
    resampled: float


@dataclass(frozen=True)
class Loaded:
    """One comparison under a load that began half-way: what interleaved rounds say, and what the same values say if
    all of the one are taken before the load and all of the other under it, and the other way round."""

    figure: str
    strategy: str
    interleaved: Verdict
    before: Ratio
    after: Ratio
    slowdown: float
    """By how much the load slows the figure itself."""


def equals(means: Means) -> list[str]:
    """The strategies that are one and the same."""
    return [name for name in (BASELINE, *COPIES) if name in means[FIGURES[0]]]


def false_positives(means: Means, block: int = BLOCK) -> FalsePositives:
    """All pairs of equal strategies, over blocks of ``block`` rounds. In each block disjoint pairs are the independent
    ones. O(pairs x rounds)."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    names = equals(means)
    rounds = sorted(set.intersection(*(set(means[FIGURES[0]][name]) for name in names))) if names else []
    n = wrong = independent = independent_wrong = tables = wrong_tables = 0
    for start in range(0, len(rounds) - block + 1, block):
        part = rounds[start : start + block]
        table = []
        for figure in FIGURES:
            for a, b in combinations(names, 2):
                pair = Pair(_only(means[figure].get(a, {}), part), _only(means[figure].get(b, {}), part))
                ratio = paired_ratio(pair.strategy, pair.baseline)
                if ratio is None or ratio.n < 2:
                    continue
                significant = 2 * min(above(ratio), below(ratio)) <= ALPHA
                n, wrong = n + 1, wrong + significant
                if (a, b) in zip(names[::2], names[1::2], strict=False) and figure == FIGURES[0]:
                    independent, independent_wrong = independent + 1, independent_wrong + significant
                if a == names[0]:
                    table.append(pair)
        verdicts = judge(table, notes=False)
        tables += 1
        wrong_tables += any(v is not None and v.word in ("faster", "slower") for v in verdicts)
    k, m = independent_wrong, independent
    low = float(betaincinv(k, m - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, m - k, 0.975)) if k < m else 1.0
    return FalsePositives(n, wrong, independent, independent_wrong, low, high, tables, wrong_tables)


def power(record: Record, figure: str, rng: np.random.Generator) -> Power | None:
    """What can be found in which time; None if the workload has no such figure."""
    names = [name for name in equals(record.quiet) if name in record.quiet[figure]]
    rounds = sorted(set.intersection(*(set(record.quiet[figure][name]) for name in names))) if names else []
    if len(names) < 2 or len(rounds) < 3:
        return None
    logs = np.log([[record.quiet[figure][name][r] for r in rounds] for name in names])
    rest = logs - logs.mean(axis=0) - logs.mean(axis=1, keepdims=True) + logs.mean()
    degrees = (len(names) - 1) * (len(rounds) - 1)
    sd = math.sqrt(2 * float((rest**2).sum()) / degrees)
    pair = 2 * record.seconds
    smallest = tuple(smallest_effect(sd, int(60 * minutes / pair)) for minutes in MINUTES)
    n = int(120 / pair)
    pairs = np.array([logs[i] - logs[j] for i, j in combinations(range(len(names)), 2)]).ravel()
    return Power(figure, sd, smallest, detection(sd, n, math.log(1.03)), _resampled(pairs, n, math.log(1.03), rng))


def detection(sd: float, n: int, effect: float, alpha: float = ALPHA) -> float:
    """The probability that ``n`` paired rounds find a log ratio ``effect`` at ``alpha`` (noncentral t).

    >>> detection(0.02, 5, 0.03) < detection(0.02, 9, 0.03) < 1
    True
    """
    from scipy.special import nctdtr, stdtrit

    if n < 2:
        return 0.0
    return 1.0 - float(nctdtr(n - 1, effect * math.sqrt(n) / sd, stdtrit(n - 1, 1 - alpha / 2)))


def smallest_effect(sd: float, n: int) -> float:
    """The smallest relative slow-down that ``n`` rounds find with probability POWER; infinite for n < 2. Bisection."""
    if n < 2:
        return math.inf
    low, high = 0.0, sd
    while detection(sd, n, high) < POWER:
        high *= 2
        if high > 100 * sd:
            return math.inf
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if detection(sd, n, middle) >= POWER else (middle, high)
    return math.expm1(high)


def _resampled(pairs: Array, n: int, effect: float, rng: np.random.Generator) -> float:
    """Detection by drawing ``n`` of the measured log ratios of equal strategies, times 1.03; 4000 draws."""
    from scipy.special import stdtrit

    if n < 2:
        return 0.0
    drawn = rng.choice(np.concatenate([pairs, -pairs]), (4000, n)) + effect
    t = drawn.mean(axis=1) / (drawn.std(axis=1, ddof=1) / math.sqrt(n))
    return float((t > stdtrit(n - 1, 1 - ALPHA / 2)).mean())


def injected(record: Record) -> dict[str, Verdict]:
    """The slowed twin against the baseline, by figure: what the whole quiet part says of its size."""
    return _verdicts(record.quiet, SLOWED)


def injected_exactly(record: Record, effect: float = 0.03) -> dict[str, tuple[int, int]]:
    """By figure: of how many pairs of equal strategies the second, its measured times multiplied by 1 + ``effect``,
    reads slower over all quiet rounds, each by itself at ALPHA; and how many pairs there are. The noise is that of the
    host, the size is exact."""
    found = {}
    for figure in FIGURES:
        sides = [record.quiet[figure][name] for name in equals(record.quiet) if name in record.quiet[figure]]
        ratios = [
            paired_ratio({r: (1 + effect) * v for r, v in second.items()}, first)
            for first, second in combinations(sides, 2)
        ]
        tested = [2 * above(ratio) <= ALPHA for ratio in ratios if ratio is not None and ratio.n > 1]
        if tested:
            found[figure] = (sum(tested), len(tested))
    return found


def loaded(record: Record) -> list[Loaded]:
    """Each comparison of the part with a load, interleaved and as if its strategies had run one after the other."""
    found = []
    for figure in FIGURES:
        sides = record.load[figure]
        base = sides.get(BASELINE, {})
        verdicts = {name: v for name in sides if name != BASELINE and (v := _verdicts(record.load, name).get(figure))}
        for name, verdict in verdicts.items():
            before = welch_ratio(_from(sides[name], record.loaded_from), _until(base, record.loaded_from))
            after = welch_ratio(_until(sides[name], record.loaded_from), _from(base, record.loaded_from))
            change = welch_ratio(_from(base, record.loaded_from), _until(base, record.loaded_from))
            if before and after and change:
                found.append(Loaded(figure, name, verdict, before, after, change.value - 1))
    return found


def _verdicts(means: Means, name: str) -> dict[str, Verdict]:
    """Verdicts on one strategy, the family being its figures."""
    figures = [figure for figure in FIGURES if name in means[figure] and BASELINE in means[figure]]
    pairs = [Pair(means[figure][name], means[figure][BASELINE]) for figure in figures]
    verdicts = judge(pairs, Judging())
    return {figure: v for figure, v in zip(figures, verdicts, strict=True) if v is not None}


def _only(means: Mapping[int, float], rounds: Sequence[int]) -> dict[int, float]:
    return {r: means[r] for r in rounds if r in means}


def _from(means: Mapping[int, float], first: int) -> dict[int, float]:
    return {r: v for r, v in means.items() if r >= first}


def _until(means: Mapping[int, float], end: int) -> dict[int, float]:
    return {r: v for r, v in means.items() if r < end}
