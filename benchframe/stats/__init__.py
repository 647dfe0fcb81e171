"""Statistics of process means: spread, ratios paired by round, verdicts corrected for their number.

:func:`judge` is what tables, reports, comparisons and gates ask; docs/statistics.md says why, with error rates.
Importing this package imports no SciPy: the functions do when they are called.
"""

from benchframe.stats.ratios import (
    LEVEL,
    Ratio,
    Summary,
    log_ratios,
    paired_ratio,
    ratio,
    student_quantile,
    summarise,
    welch_ratio,
)
from benchframe.stats.verdict import ALPHA, WITHIN, WORDS, Judging, Pair, Verdict, holm, judge, more_rounds

__all__ = [
    "ALPHA",
    "LEVEL",
    "WITHIN",
    "WORDS",
    "Judging",
    "Pair",
    "Ratio",
    "Summary",
    "Verdict",
    "holm",
    "judge",
    "log_ratios",
    "more_rounds",
    "paired_ratio",
    "ratio",
    "student_quantile",
    "summarise",
    "welch_ratio",
]
