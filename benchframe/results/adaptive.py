"""`benchframe run --until-decided`: rounds go only to cells whose comparison is open, and to their baselines.

Each round is a round as ever: shuffled, one process per cell, paired. After it the table's verdicts are reached by
tests that may be looked at after every round (:mod:`benchframe.stats.anytime`), and corrected for *all* comparisons of
the run, so that stopping when one is decided finds no more false differences than a run of fixed length. Decided stays
decided: the evidence that counts is the largest so far, and more evidence elsewhere only loosens Holm's correction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchframe.results.figures import rows_of

if TYPE_CHECKING:
    from benchframe.results.folder import RunFolder

MIN_ROUNDS = 4
"""Rounds that every cell gets before anything is decided: below it no spread is believed."""
MAX_ROUNDS = 200
"""Rounds after which a comparison stays undecided, unless --rounds says otherwise."""


def open_cells(folder: RunFolder) -> set[tuple[str, str]]:
    """(workload, strategy) of cells that need another round, their baselines included; empty when all is decided.

    A cell is open while one of the figures that the run is to decide (``options.decide``) is undecided; figures that
    a trace has no operation for, and cells that failed, are not waited for. O(values).
    """
    decide = folder.manifest.options.decide
    found: set[tuple[str, str]] = set()
    for row in rows_of(folder.cells(), notes=False):
        verdicts = [figure.verdict for name, figure in row.figures.items() if name in decide]
        if any(verdict is not None and verdict.word == "undecided" for verdict in verdicts):
            found.add((row.cell.entry.workload, row.cell.entry.strategy))
            found.add((row.cell.entry.workload, row.cell.workload.baseline))
    return found
