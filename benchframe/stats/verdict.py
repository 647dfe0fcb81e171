"""Verdicts: faster, slower, same within X %, undecided; corrected for how many comparisons stand beside each other.

Two questions are asked of each comparison, each at ``alpha`` for the whole table:

differs   is the ratio not 1? A t test on log ratios (paired or Welch); *faster* or *slower*.
same      does the ratio lie within ``within`` of 1, the smallest effect of interest? Two one-sided t tests (TOST,
          Schuirmann 1987); it wins over *differs*, since an effect that small is of no interest.

Each question's p values are corrected by Holm's step-down method (1979): the probability of one or more false answers
in the table is at most ``alpha``, whatever the dependence, and comparisons depend on each other through their baseline.
(Benjamini-Hochberg would bound the share of false ones, but each line of a table is read, and quoted, alone.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchframe.stats.moderate import moderated
from benchframe.stats.ratios import Ratio, bootstrap_interval, log_ratios, ratio, trimmed_ratio, welch_ratio

ALPHA = 0.05
WITHIN = 0.02
"""The smallest effect of interest: two cells within 2 % of each other are the same for most purposes."""
MAX_MORE = 1000
"""More rounds than this are not forecast."""
POWER_Z = 0.8416
"""The forecast is for power 0.8."""
WORDS = ("faster", "slower", "same", "undecided")
BOOTSTRAP_FROM = 20
"""Rounds from which on the bootstrap interval is near enough to its level to check the t interval."""


@dataclass(frozen=True)
class Judging:
    """How verdicts are reached: the smallest effect of interest (0.02: 2 %), the table's error rate, and whether the
    rounds were stopped by what they showed (``anytime``: then the tests are those of benchframe.stats.anytime)."""

    within: float = WITHIN
    alpha: float = ALPHA
    anytime: bool = False


@dataclass(frozen=True)
class Pair:
    """Process means (ns) by round of two cells that are to be compared: ``strategy`` / ``baseline``."""

    strategy: Mapping[int, float]
    baseline: Mapping[int, float]
    unpaired: bool = False
    """The rounds of the two have nothing to do with each other (two runs), though their numbers are alike."""
    trimmed: bool = False
    """Single rounds that lie far away shall not decide: trimmed means of the paired ratios."""
    group: str = ""
    """Pairs of one group (a figure of one run) lend each other their variances; those without a group do not."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to.

    ``word`` is one of WORDS, ``text`` the same for people ("same within 2 %", "undecided, about 12 more rounds").
    ``ratio`` has value and its own (uncorrected) interval. ``p`` and ``p_same`` are corrected for the table.
    ``more`` is how many more rounds would probably decide (power 0.8 at the effect and spread seen so far), None if
    it is decided, cannot be told, or is above MAX_MORE (``text`` says which). ``notes`` names what is odd.
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
    """A verdict for each pair, in their order; all of them are one family for the correction.

    None for a pair that cannot be compared (one side has no processes). ``notes`` False leaves the notes out (they
    cost about a millisecond a pair). O(pairs log pairs + values).

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
    """p values corrected for their number (Holm 1979), in the given order; NaN counts as 1. O(n log n).

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
    """The p value of "the log ratio is at most ``null``": small if it surely lies above; 1 if there is no spread yet.

    >>> above(Ratio(9, 1.1, 1.05, 1.15, 0.03, 0.01, 8)) < 0.001
    True
    """
    if math.isnan(ratio.se):
        return 1.0
    if ratio.se == 0:
        return 0.0 if ratio.log > null else 1.0
    from scipy.special import stdtr  # type: ignore[import-untyped]

    return float(stdtr(ratio.degrees, (null - ratio.log) / ratio.se))


def below(ratio: Ratio, null: float = 0.0) -> float:
    """The p value of "the log ratio is at least ``null``"; as :func:`above`."""
    if ratio.se == 0:
        return 0.0 if ratio.log < null else 1.0
    return 1.0 if math.isnan(ratio.se) else 1.0 - above(ratio, null)


def _ratios(pairs: Sequence[Pair], judging: Judging) -> list[Ratio | None]:
    """The pairs' ratios, moderated within their groups; not where rounds were stopped by what they showed."""
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
        from benchframe.stats.anytime import anytime_p, anytime_same

        logs = log_ratios(pair.strategy, pair.baseline)
        return anytime_p(logs), anytime_same(logs, bound)
    differs = min(1.0, 2 * min(above(ratio), below(ratio)))
    return differs, max(above(ratio, -bound), below(ratio, bound))


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
    """How many more rounds (of both sides) would decide a ratio if effect and spread are what they seem: with power
    0.8, at ``alpha`` over the ``comparisons`` still open. None above MAX_MORE, or if there is no spread to go by.

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
        from benchframe.stats.anytime import radius

        two = one = radius(n, alpha)
    else:
        two, one = (stdtrit(n - 1 + ratio.prior, 1 - alpha / sides) for sides in (2, 1))
    slack = POWER_Z if abs(ratio.log) > spread / 10 else 1.2816  # near zero either end of the interval may fail
    enough = (abs(ratio.log) >= (two + POWER_Z) * error) | (bound - abs(ratio.log) >= (one + slack) * error)
    return int(np.argmax(enough)) + 1 if enough.any() else None


def _notes(pair: Pair, ratio: Ratio, judging: Judging) -> tuple[str, ...]:
    """What makes the ratio itself doubtful."""
    from benchframe.stats.shape import drift

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
