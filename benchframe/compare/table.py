"""A comparison as a :class:`~benchframe.tables.build.Table`, so that every format can show it."""

from __future__ import annotations

from benchframe.compare.compare import ABSOLUTE, PAIRED, RELATIVE, Comparison, Line
from benchframe.compare.sides import Side
from benchframe.results.figures import FIGURES
from benchframe.tables.build import Table, Value, ns, ratio_text

_HOW = {
    PAIRED: "paired by round",
    RELATIVE: "ratios to each run's own baseline, Welch: drift between the runs that hits both alike cancels",
    ABSOLUTE: "ns of two runs that were not interleaved, Welch: drift of the machine between them is in the ratio",
}


def comparison_table(found: Comparison, a: Side, b: Side) -> Table:
    """Rows workload x strategy x figure: both means, ratio second / first with its interval, verdict, and how."""
    heads = ("workload", "strategy", "figure", "A", "B", "B / A [95 %]", "p", "verdict", "by")
    rows = [_row(line) for line in found.lines]
    hows = dict.fromkeys(line.how for line in found.lines)
    level, within = f"{100 * found.judging.alpha:g} %", f"{100 * found.judging.within:g} %"
    notes = [
        f"A: {a.name}   B: {b.name}; ns, means of process means.",
        *(f"{how}: {_HOW[how]}." for how in hows),
        f"p and verdicts are corrected for {len(found.lines)} comparisons (Holm, {level}); same: within {within}.",
        *(f"differs: {difference}." for difference in found.differences),
        *(f"not compared: {text}." for text in (*found.missing, *found.added)),
    ]
    for line in found.lines:
        where = f"{line.strategy} on {line.workload}, {FIGURES[line.figure]}"
        notes += [f"{where}: {note}." for note in line.verdict.notes if line.how == PAIRED]
    return Table(
        "Comparison",
        heads,
        tuple(rows),
        (False, False, False, True, True, True, True, False, False),
        tuple(_record(line) for line in found.lines),
        tuple(notes),
    )


def _words(line: Line) -> str:
    """The verdict. Two runs that took no turns: what the machine did in between is not told from what the code does."""
    drift = line.how == ABSOLUTE and line.verdict.word in ("faster", "slower")
    return f"{line.verdict.text}, or drift" if drift else line.verdict.text


def _row(line: Line) -> tuple[str, ...]:
    means = line.means()
    p = min(line.verdict.p, line.verdict.p_same) if line.verdict.word == "same" else line.verdict.p
    shown = "<0.001" if p < 0.001 else f"{p:.3f}"
    return (
        line.workload,
        line.strategy,
        FIGURES[line.figure],
        ns(means[0]),
        ns(means[1]),
        ratio_text(line.verdict.ratio, 3),
        shown,
        _words(line),
        line.how,
    )


def _record(line: Line) -> dict[str, Value]:
    verdict, means = line.verdict, line.means()
    return {
        "workload": line.workload,
        "first": line.first.entry.strategy,
        "second": line.second.entry.strategy,
        "figure": line.figure,
        "first_ns": means[0],
        "second_ns": means[1],
        "ratio": verdict.ratio.value,
        "low": verdict.ratio.low,
        "high": verdict.ratio.high,
        "n": verdict.ratio.n,
        "effect": verdict.effect,
        "p": verdict.p,
        "p_same": verdict.p_same,
        "verdict": verdict.word,
        "more_rounds": verdict.more,
        "by": line.how,
    }
