"""What each cell measured, and its ratio to the baseline, as a :class:`Table`; what a row means is in its notes.

Figures appear for cells in state ``ok`` only: a wrong answer has no time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from benchframe.results.cell import CellState
from benchframe.results.figures import FIGURES, Figure, Row, caching, rows_of
from benchframe.results.folder import Cell
from benchframe.results.quiet import set_aside
from benchframe.stats import Ratio

Value = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Heads and texts for people, records for programs. ``right`` says which columns hold numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    records: tuple[dict[str, Value], ...]
    notes: tuple[str, ...] = field(default=())


def ns(value: float) -> str:
    """A time in ns with at least three significant digits.

    >>> ns(3.14159), ns(45.67), ns(1234.5), ns(float("nan"))
    ('3.14', '45.7', '1,234', '-')
    """
    if value != value:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def spread(figure: Figure | None, sign: str = " ± ") -> str:
    """``mean ± sd`` of the process means."""
    if figure is None:
        return ""
    summary = figure.summary
    return ns(summary.mean) + (f"{sign}{ns(summary.sd)}" if summary.n > 1 else "")


MARKS = {"undecided": "~", "same": "="}
"""What stands before a ratio that has no room for its verdict."""


def verdict_text(figure: Figure | None) -> str:
    """The ratio with its interval and verdict: ``0.67 [0.65, 0.69] faster``; "" where nothing is compared."""
    if figure is None or figure.verdict is None:
        return ""
    return f"{ratio_text(figure.ratio)} {figure.verdict.word}"


def times(value: float, digits: int = 2) -> str:
    """A ratio: ``digits`` places from 0.1 to 10, fewer above, more below, so that neither 0.00 nor 177.34 is said.

    >>> times(0.667), times(0.00412), times(18.434), times(244.31), times(1.0049, 3), times(1234.5)
    ('0.67', '0.0041', '18.4', '244', '1.005', '1,234')
    """
    if not 0 < value < math.inf:
        return "-" if value != value else f"{value:g}"
    power = int(f"{value:.{digits - (value < 1)}e}".partition("e")[2])
    return f"{value:,.{max(0, digits - power - (power < 0))}f}"


def short_times(value: float) -> str:
    """A ratio in at most five characters.

    >>> short_times(0.667), short_times(0.0123), short_times(18.434), short_times(244.31), short_times(1234.5)
    ('0.67', '.012', '18.4', '244', '>999')
    """
    if value >= 999.5:
        return ">999"
    if value < 0.0995:
        return f"{value:.3f}"[1:] if value >= 0.0005 else "<.001"
    return times(value)


def short_text(figure: Figure | None) -> str:
    """The ratio alone, ``~`` before it if it is undecided, ``=`` if it is the same within the effect of interest."""
    if figure is None or figure.verdict is None:
        return ""
    return MARKS.get(figure.verdict.word, "") + short_times(figure.verdict.ratio.value)


def ratio_text(ratio: Ratio | None, digits: int = 2) -> str:
    """``0.67 [0.65, 0.69]``, or ``[-]`` if one round gives no interval.

    >>> ratio_text(Ratio(9, 0.67, 0.65, 0.69)), ratio_text(Ratio(5, 244.3, 188.6, 316.4))
    ('0.67 [0.65, 0.69]', '244 [189, 316]')
    """
    if ratio is None:
        return ""
    low, high = (">999" if end > 999 else times(end, digits) for end in (ratio.low, ratio.high))
    return f"{times(ratio.value, digits)} " + (f"[{low}, {high}]" if ratio.n > 1 else "[-]")


def comparisons(number: int) -> str:
    """A number of them.

    >>> comparisons(1), comparisons(6)
    ('1 comparison', '6 comparisons')
    """
    return f"{number:,} comparison{'s' * (number != 1)}"


def _counts(cell: Cell, cached: Collection[str]) -> tuple[str, str]:
    """Hit rate and invalidations; nothing for a strategy that has no cache."""
    if cell.entry.strategy not in cached:
        return "", ""
    counts = cell.state.counts
    rate, gone = counts.get("hit_rate"), counts.get("invalidations")
    return ("" if rate is None else f"{100 * rate:.1f} %", "" if gone is None else f"{gone:,.0f}")


def latency_table(cells: Iterable[Cell], notes: Sequence[str] = (), *, rows: Sequence[Row] | None = None) -> Table:
    """Rows workload x strategy: ns per lookup, fault and mapping operation with spread, ratio to the baseline.

    ``notes`` (the manifest's) are added to the table's own; ``rows`` are those of ``cells``, if they are at hand.
    """
    rows = rows_of(cells) if rows is None else rows
    present = [name for name in FIGURES if any(name in row.figures for row in rows)]
    heads = ["workload", "strategy"]
    right = [False, False]
    for name in present:
        heads += [FIGURES[name], "ratio [95 %]"]
        right += [True, False]
    heads += ["hit rate", "invalidations", "n", "state"]
    right += [True, True, True, False]
    lines, cached = [], caching(row.cell for row in rows)
    for row in rows:
        line = [row.cell.entry.workload, row.cell.entry.strategy]
        for name in present:
            figure = row.figures.get(name)
            line += [spread(figure), verdict_text(figure)]
        processes = max((figure.summary.n for figure in row.figures.values()), default=0)
        line += [*_counts(row.cell, cached), str(processes), row.shown]
        lines.append(tuple(line))
    return Table(
        "Latency",
        tuple(heads),
        tuple(lines),
        tuple(right),
        tuple(_record(row, cached) for row in rows),
        (*_notes(rows), *notes),
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    baselines = sorted({row.cell.workload.baseline for row in rows})
    base = " or ".join(baselines)
    notes = [
        "ns: mean of process means ± their standard deviation; n: processes.",
        f"ratio: to {base}, geometric mean of ratios paired by round, 95 % t interval; below 1 is faster.",
        *_judged(rows),
        *disturbed(row.cell for row in rows),
    ]
    if any(row.shown.endswith("!") for row in rows):
        notes.append("!: pyperf reports a figure of this cell as unstable; the report quotes its message.")
    for row in rows:
        notes += _lost(row)
        state = row.cell.state
        if state.state != "ok":
            notes.append(f"{row.cell.entry.strategy} on {row.cell.entry.workload}: {state.state}: {what_failed(state)}")
    return notes


def _judged(rows: Sequence[Row]) -> list[str]:
    """How the verdicts were reached, how many rounds the open ones need, and what is odd about the figures."""
    found = [
        (row, name, figure, figure.verdict)
        for row in rows
        for name, figure in row.figures.items()
        if name in FIGURES and figure.verdict is not None
    ]
    if not found:
        return []
    judging = rows[0].cell.judging
    how = "valid when tested after every round, " if judging.anytime else ""
    level, within = f"{100 * judging.alpha:g} %", f"{100 * judging.within:g} %"
    notes = [
        f"verdicts: {how}corrected for {comparisons(len(found))} (Holm, {level}); same: within {within}.",
    ]
    if any(v.ratio.prior for *_, v in found):
        notes.append(
            "variances: moderated by those of the other ratios of the same figure, also in intervals (moderated t)."
        )
    if any(v.word == "undecided" and v.ratio.word != "undecided" for *_, v in found):
        notes.append(
            f"An interval refers to one ratio alone. A verdict is corrected for {len(found) - 1:,} others, so it may "
            "be "
            "undecided although the interval excludes 1."
        )
    waiting = [verdict for *_, verdict in found if verdict.word == "undecided"]
    if waiting:
        known = sorted(verdict.more for verdict in waiting if verdict.more is not None)
        which = ("it" if len(known) == 1 else "them") if len(known) == len(waiting) else f"{len(known)} of them"
        rounds = f"{known[-1]:,} more round{'s' * (known[-1] > 1)}" if known else ""
        half = f", and {known[(len(known) - 1) // 2]:,} half of those" if len(known) > 3 else ""
        rest = f"; about {rounds} should settle {which}{half}" if known else ""
        verb = "is" if len(waiting) == 1 else "are"
        notes.append(
            f"{len(waiting)} of {comparisons(len(found))} {verb} undecided{rest} (--until-decided, or a larger "
            "--rounds)."
        )
    for row in rows:
        for name, figure in row.figures.items():
            odd = (*figure.notes, *(figure.verdict.notes if figure.verdict else ()))
            where = f"{row.cell.entry.strategy} on {row.cell.entry.workload}, {FIGURES.get(name)}"
            notes += [f"{where}: {what}." for what in odd if name in FIGURES]
    return notes


def disturbed(cells: Iterable[Cell]) -> list[str]:
    """How many replays were discarded, and how many processes were disturbed throughout."""
    found = set_aside(cells)
    notes = []
    if found.share >= 0.001:
        share = f"{100 * found.share:.0f} %" if found.share >= 0.01 else "under 1 %"
        notes.append(
            f"{share} of the replays were discarded: a control loop, identical for every strategy, ran slow at that "
            "moment, so something else was using the machine."
        )
    if found.left_out:
        verb, now = ("was", "is") if found.left_out == 1 else ("were", "are")
        notes.append(
            f"{found.left_out} of {found.processes} processes {verb} disturbed throughout, according to the control, "
            f"and {now} left out."
        )
    if kept := found.restless - found.left_out:
        verb, whose = ("was", "is used: its cell has") if kept == 1 else ("were", "are used: their cells have")
        also = " more" if found.left_out else f" of {found.processes} processes"
        notes.append(f"{kept}{also} {verb} disturbed throughout but {whose} fewer than two undisturbed ones.")
    return notes


def what_failed(state: CellState) -> str:
    """The message of a failed cell, with the event unless it begins with it."""
    known = state.event < 0 or state.message.startswith(f"event {state.event} ")
    return state.message if known else f"{state.message} (event {state.event})"


_COUNTED = {"lookup": "lookups", "fault": "faults", "mapping": "mapping_ops"}


def _lost(row: Row) -> list[str]:
    """Figures that some processes could not give: a difference of two times that noise left at zero or below."""
    done, found = len(row.cell.done), []
    for name, head in FIGURES.items():
        have = len(row.cell.figures.get(name, ()))
        if row.cell.state.state == "ok" and row.cell.state.counts.get(_COUNTED[name], 0) > 0 and have < done:
            where = f"{row.cell.entry.strategy} on {row.cell.entry.workload}"
            found.append(f"{where}: {head} is hidden by noise in {done - have} of {done} processes.")
    return found


def _record(row: Row, cached: Collection[str]) -> dict[str, Value]:
    cell = row.cell
    record: dict[str, Value] = {
        "workload": cell.entry.workload,
        "strategy": cell.entry.strategy,
        "baseline": cell.workload.baseline,
        "state": cell.state.state,
    }
    for name in (*FIGURES, "replay"):
        figure = row.figures.get(name)
        summary, ratio = (figure.summary, figure.ratio) if figure else (None, None)
        record |= {
            f"{name}_{part}": getattr(summary, part, None) for part in ("n", "mean", "median", "sd", "low", "high")
        }
        record |= {f"{name}_ratio{part and '_' + part}": _part(ratio, part) for part in ("", "low", "high")}
        verdict = figure.verdict if figure else None
        record |= {f"{name}_{part}": getattr(verdict, part, None) for part in ("p", "p_same", "more")}
        record[f"{name}_verdict"] = verdict.word if verdict else None
    record["lookups"] = cell.state.counts.get("lookups")
    for count in ("hits", "hit_rate", "invalidations"):  # a strategy without a cache has none of them, not 0
        record[count] = cell.state.counts.get(count) if cell.entry.strategy in cached else None
    record["message"] = cell.state.message
    return record


def _part(ratio: Ratio | None, part: str) -> float | None:
    return None if ratio is None else getattr(ratio, part or "value")
