"""A comparison as a :class:`~benchframe.tables.build.Table`, so that every format can show it."""

from __future__ import annotations

from benchframe.compare.compare import ABSOLUTE, PAIRED, RELATIVE, Comparison, Line, layouts, machine_change
from benchframe.compare.sides import Side
from benchframe.results.figures import FIGURES
from benchframe.stats.verdict import WORDS
from benchframe.tables.build import Table, Value, ns, ratio_text

_OWN = "ratios to each run's own baseline"
_NS = "ns of two runs that were not interleaved"
_LAYOUT = "paired by layout, so that its effect cancels; trimmed means"
_HOW = {
    (PAIRED, False): "paired by round",
    (RELATIVE, True): f"{_OWN}, {_LAYOUT}: drift that affects strategy and baseline alike cancels",
    (RELATIVE, False): f"{_OWN}, Welch: drift that affects strategy and baseline alike cancels",
    (ABSOLUTE, True): f"{_NS}, {_LAYOUT}: drift of the machine between the runs is part of the ratio",
    (ABSOLUTE, False): f"{_NS}, Welch: drift of the machine between the runs is part of the ratio",
}
STEADY = 0.03
"""If the control changed by more than this from run to run, the machine did: that is said."""


def comparison_table(found: Comparison, a: Side, b: Side) -> Table:
    """Rows workload x strategy x figure: both means, ratio second / first with its interval, verdict, and how."""
    heads = ("workload", "strategy", "figure", "A", "B", "B / A [95 %]", "p", "verdict", "by")
    rows = [_row(line) for line in found.lines]
    hows = dict.fromkeys((line.how, line.layouts) for line in found.lines)
    level, within = f"{100 * found.judging.alpha:g} %", f"{100 * found.judging.within:g} %"
    notes = [
        f"A: {a.name}   B: {b.name}; ns, means of process means.",
        _summed(found),
        *(f"{how[0]}: {_HOW[how]}." for how in hows),
        f"p and verdicts are corrected for {len(found.lines)} comparisons (Holm, {level}); same: within {within}.",
        *_waiting(found),
        *_machine(found),
        *(f"differs: {difference}." for difference in found.differences),
        *(f"not compared: {text}." for text in (*found.missing, *found.added)),
    ]
    for line in found.lines:
        where = f"{line.strategy} on {line.workload}, {FIGURES[line.figure]}"
        notes += [f"{where}: {note}." for note in line.verdict.notes if line.how == PAIRED or line.layouts]
    return Table(
        "Comparison",
        heads,
        tuple(rows),
        (False, False, False, True, True, True, True, False, False),
        tuple(_record(line) for line in found.lines),
        tuple(notes),
    )


def _summed(found: Comparison) -> str:
    """How often each verdict was reached."""
    words = [line.verdict.word for line in found.lines]
    names = {"faster": "faster", "slower": "slower", "same": "the same", "undecided": "undecided"}
    return (
        f"B is: {', '.join(f'{names[word]} {words.count(word)}' for word in WORDS if word in words)}, of {len(words)}."
    )


def _waiting(found: Comparison) -> list[str]:
    """How many rounds would decide the rest, and why there may be a shorter way."""
    open_lines = [line for line in found.lines if line.verdict.word == "undecided"]
    if not open_lines:
        return []
    known = [line.verdict.more for line in open_lines if line.verdict.more is not None]
    if not known:
        rounds = "many more rounds would be needed"
    else:
        which = ("it" if len(known) == 1 else "them") if len(known) == len(open_lines) else f"{len(known)} of them"
        known.sort()
        half = f", and {known[(len(known) - 1) // 2]:,} half of those" if len(known) > 3 else ""
        more = f"{known[-1]:,} more round{'s' * (known[-1] > 1)}"
        rounds = f"about {more} of both runs should settle {which}{half} (--resume RUN --rounds N)"
    notes = [f"{len(open_lines)} of {len(found.lines)} undecided: {rounds}, or a larger --within."]
    seeds = {cell.entry.key: layouts(cell, line.figure) for line in open_lines for cell in (line.first, line.second)}
    if all(seeds.values()) and any(line.how != PAIRED and not line.layouts for line in open_lines):
        notes.append("the runs have different layouts; two runs with the same --seed need fewer rounds.")
    return notes


def _machine(found: Comparison) -> list[str]:
    """What the control says of the machine: it is the same code in both runs."""
    change = machine_change(found)
    if change is None or all(line.how == PAIRED for line in found.lines):
        return []
    control = f"control (code that no strategy changes): {100 * change:+.1f} % in B"
    if abs(change) <= STEADY:
        return [f"{control}, so the machine was equally fast."]
    return [f"{control}: the speed of the machine changed between the runs; run both again."]


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
