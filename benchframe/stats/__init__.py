"""Statistics of process means: spread, ratios paired by round, verdicts corrected for the number of comparisons.

Tables, reports, comparisons and gates call :func:`judge`; docs/statistics.md gives the reasons and the error rates.
Importing this package does not import SciPy: the functions do so when they are called.
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
