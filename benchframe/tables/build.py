"""What each cell measured, and its ratio to the baseline, as a :class:`Table`; what a row means is in its notes.

Figures appear for cells in state ``ok`` only: a wrong answer has no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchframe.results.figures import FIGURES, Figure, Row, rows_of
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


def short_text(figure: Figure | None) -> str:
    """The ratio alone, ``~`` before it if it is undecided, ``=`` if it is the same within the effect of interest."""
    if figure is None or figure.verdict is None:
        return ""
    return MARKS.get(figure.verdict.word, "") + f"{figure.verdict.ratio.value:.2f}"


def ratio_text(ratio: Ratio | None, digits: int = 2) -> str:
    """``0.67 [0.65, 0.69]``, or ``[-]`` if one round gives no interval.

    >>> ratio_text(Ratio(9, 0.67, 0.65, 0.69))
    '0.67 [0.65, 0.69]'
    """
    if ratio is None:
        return ""
    low, high = (">999" if end > 999 else f"{end:.{digits}f}" for end in (ratio.low, ratio.high))
    return f"{ratio.value:.{digits}f} " + (f"[{low}, {high}]" if ratio.n > 1 else "[-]")


def comparisons(number: int) -> str:
    """A number of them.

    >>> comparisons(1), comparisons(6)
    ('1 comparison', '6 comparisons')
    """
    return f"{number:,} comparison{'s' * (number != 1)}"


def _counts(cell: Cell) -> tuple[str, str]:
    """Hit rate and invalidations; nothing for a strategy that has no cache: none was hit, none made invalid."""
    counts = cell.state.counts
    rate, gone = counts.get("hit_rate"), counts.get("invalidations")
    if not rate and not gone:
        return "", ""
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
    lines = []
    for row in rows:
        line = [row.cell.entry.workload, row.cell.entry.strategy]
        for name in present:
            figure = row.figures.get(name)
            line += [spread(figure), verdict_text(figure)]
        processes = max((figure.summary.n for figure in row.figures.values()), default=0)
        line += [*_counts(row.cell), str(processes), row.shown]
        lines.append(tuple(line))
    return Table(
        "Latency",
        tuple(heads),
        tuple(lines),
        tuple(right),
        tuple(_record(row) for row in rows),
        (*_notes(rows), *notes),
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    baselines = sorted({row.cell.workload.baseline for row in rows})
    base = " or ".join(baselines)
    notes = [
        "ns: mean of process means ± their standard deviation; n: processes.",
        f"ratio: to {base}, geometric mean of ratios paired by round, 95 % t interval; below 1 is faster.",
        *_judged(rows),
        *_disturbed(rows),
    ]
    if any(row.shown.endswith("!") for row in rows):
        notes.append("!: pyperf calls a figure of this cell unsteady; the report says why.")
    for row in rows:
        notes += _lost(row)
        state = row.cell.state
        if state.state != "ok":
            event = f" (event {state.event})" if state.event >= 0 else ""
            notes.append(
                f"{row.cell.entry.strategy} on {row.cell.entry.workload}: {state.state}: {state.message}{event}"
            )
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
    how = "may be looked at after every round, " if judging.anytime else ""
    level, within = f"{100 * judging.alpha:g} %", f"{100 * judging.within:g} %"
    notes = [
        f"verdicts: {how}corrected for {comparisons(len(found))} (Holm, {level}); same: within {within}.",
        "An interval is its own ratio's alone.",
    ]
    waiting = [verdict for *_, verdict in found if verdict.word == "undecided"]
    if waiting:
        known = sorted(verdict.more for verdict in waiting if verdict.more is not None)
        who = "" if len(known) == len(waiting) else f"for {len(known)} of them "
        rounds = f"{known[-1]:,} more round{'s' * (known[-1] > 1)}" if known else ""
        half = f", {known[(len(known) - 1) // 2]:,} for half of those" if len(known) > 3 else ""
        rest = f"; {who}about {rounds} would do{half}" if known else ""
        verb = "is" if len(waiting) == 1 else "are"
        notes.append(f"{len(waiting)} of {len(found)} {verb} undecided{rest}: --until-decided, or more --rounds.")
    for row in rows:
        for name, figure in row.figures.items():
            odd = (*figure.notes, *(figure.verdict.notes if figure.verdict else ()))
            where = f"{row.cell.entry.strategy} on {row.cell.entry.workload}, {FIGURES.get(name)}"
            notes += [f"{where}: {what}." for what in odd if name in FIGURES]
    return notes


def _disturbed(rows: Sequence[Row]) -> list[str]:
    """How many replays do not count, and that some processes found no quiet moment."""
    found = set_aside(row.cell for row in rows)
    notes = []
    if found.share >= 0.001:
        share = f"{100 * found.share:.0f} %" if found.share >= 0.01 else "under 1 %"
        notes.append(
            f"{share} of the replays do not count: the machine was disturbed then, as the control tells, which is "
            "the same code for all strategies."
        )
    if found.restless:
        notes.append(
            f"{found.restless} of {found.processes} processes found no quiet moment: all that they measured counts."
        )
    return notes


_COUNTED = {"lookup": "lookups", "fault": "faults", "mapping": "mapping_ops"}


def _lost(row: Row) -> list[str]:
    """Figures that some processes could not give: a difference of two times that noise left at zero or below."""
    done, found = len(row.cell.done), []
    for name, head in FIGURES.items():
        have = len(row.cell.rounds(name))
        if row.cell.state.state == "ok" and row.cell.state.counts.get(_COUNTED[name], 0) > 0 and have < done:
            where = f"{row.cell.entry.strategy} on {row.cell.entry.workload}"
            found.append(f"{where}: {head} is lost in noise in {done - have} of {done} processes.")
    return found


def _record(row: Row) -> dict[str, Value]:
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
    for count in ("lookups", "hits", "hit_rate", "invalidations"):
        record[count] = cell.state.counts.get(count)
    record["message"] = cell.state.message
    return record


def _part(ratio: Ratio | None, part: str) -> float | None:
    return None if ratio is None else getattr(ratio, part or "value")


def tail_table(cells: Iterable[Cell]) -> Table:
    """Per-operation latency from the separate pass with the cycle counter: quantiles, split by hit and miss."""
    heads = ("workload", "strategy", "figure", "outcome", "operations", "p50", "p90", "p99", "p99.9", "max")
    lines, records, overheads = [], [], []
    for cell in cells:
        if cell.state.state != "ok":
            continue
        if cell.state.latencies:
            overheads.append(cell.state.timer_overhead_ns)
        for row in cell.state.latencies:
            quantiles = (row.p50, row.p90, row.p99, row.p999, row.max)
            first = (cell.entry.workload, cell.entry.strategy, row.figure, row.outcome)
            lines.append((*first, f"{row.n:,}", *(ns(q) for q in quantiles)))
            values: tuple[Value, ...] = (*first, row.n, *quantiles)
            records.append(dict(zip(heads, values, strict=True)))
    notes = ["ns per operation, one pass over the trace in the first round's process."]
    if overheads:
        own = f"{min(overheads):.1f}" + (f" to {max(overheads):.1f}" if len(set(overheads)) > 1 else "")
        notes.append(f"The cycle counter's own cost, {own} ns, is taken off each; 0 is below its step.")
    return Table("Tails", heads, tuple(lines), (False,) * 4 + (True,) * 6, tuple(records), tuple(notes))
