"""The tables of a run: latencies, tails and counted cost, in columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from benchframe.engine.caches import WARM, Caches
from benchframe.engine.cost.hierarchy import CacheSizes
from benchframe.engine.session import BINS_PER_OCTAVE, bin_edge
from benchframe.files import printable
from benchframe.results.figures import FIGURES, Figure, Row, caching, rows_of, set_aside
from benchframe.results.folder import Cell, CellState, LatencyRow
from benchframe.stats import Ratio

# ----------------------------------------------------------------------------------------------------------------------
# What each cell measured, and its ratio to the baseline, as a :class:`Table`; what a row means is in its notes.
#
# Only cells in state ``ok`` have figures: a wrong answer has no time.

Value = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Headings and texts for people, records for programs. ``right`` says which columns hold numbers."""

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
"""The mark before a ratio where there is no room for its verdict."""


def verdict_text(figure: Figure | None) -> str:
    """The ratio with its interval and verdict: ``0.67 [0.65, 0.69] faster``; "" for the baseline."""
    if figure is None or figure.verdict is None:
        return ""
    return f"{ratio_text(figure.ratio)} {figure.verdict.word}"


def times(value: float, digits: int = 2) -> str:
    """A ratio: ``digits`` places from 0.1 to 10, fewer above, more below, to avoid texts such as 0.00 and 177.34.

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
    """The number of comparisons as text.

    >>> comparisons(1), comparisons(6)
    ('1 comparison', '6 comparisons')
    """
    return f"{number:,} comparison{'s' * (number != 1)}"


def _counts(cell: Cell, cached: Collection[str]) -> tuple[str, str]:
    """Hit rate and invalidations; empty for a strategy without a cache."""
    if cell.entry.strategy not in cached:
        return "", ""
    counts = cell.state.counts
    rate, gone = counts.get("hit_rate"), counts.get("invalidations")
    return ("" if rate is None else f"{100 * rate:.1f} %", "" if gone is None else f"{gone:,.0f}")


def latency_table(cells: Iterable[Cell], notes: Sequence[str] = (), *, rows: Sequence[Row] | None = None) -> Table:
    """Rows workload x strategy: ns per lookup, fault and mapping operation with spread, ratio to the baseline.

    ``notes`` (the manifest's) are added to the table's own; ``rows`` are those of ``cells``, if they are already
    computed.
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
        *cold(row.cell for row in rows),
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
    """How the verdicts were reached, how many rounds the undecided ones need, and anomalies of the figures."""
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


def cold(cells: Iterable[Cell]) -> list[str]:
    """What was touched before each event, and what that makes of the figures."""
    states = dict.fromkeys(cell.workload.state for cell in cells)
    notes = [f"@{state.label}: {state.says()}." for state in states if not state.warm]
    if notes:
        notes.append(
            "In these rows ns/lookup is what a fault takes less without its lookup, whose lines the fault then fetches "
            "itself; ns/fault is the whole fault."
        )
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
    """Figures that are missing in some processes: a difference of two times that noise left at zero or below."""
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
        "caches": cell.workload.caches or WARM,
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
    for count in ("hits", "hit_rate", "invalidations"):  # a strategy without a cache has no such value, not 0
        record[count] = cell.state.counts.get(count) if cell.entry.strategy in cached else None
    record["message"] = cell.state.message
    return record


def _part(ratio: Ratio | None, part: str) -> float | None:
    return None if ratio is None else getattr(ratio, part or "value")


# ----------------------------------------------------------------------------------------------------------------------
# A :class:`Table` as text, Markdown, CSV or LaTeX. Every name is escaped, because it may come from anywhere.

Renderer = Callable[[Table], str]


def to_text(table: Table) -> str:
    """Plain text, as wide as necessary; repeated workloads are left out."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    rows, last = [], ""
    for row in table.rows:
        rows.append([row[0] if row[0] != last else "", *row[1:]])
        last = row[0]
    align = ["right" if right else "left" for right in table.right]
    body = tabulate(rows, list(table.heads), "simple", colalign=align if rows else None, disable_numparse=True)
    return "\n".join([*(line.rstrip() for line in body.splitlines()), "", *table.notes, ""])


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|~&"})
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
}
"""Brackets too: after the end of a row one would be taken for the row's distance."""


def markdown_escape(text: str) -> str:
    """``text`` escaped so that Markdown shows it unchanged, also in a table.

    >>> markdown_escape("a|b_c")
    'a\\\\|b\\\\_c'
    """
    return " ".join(text.translate(_MARKDOWN).split())


def latex_escape(text: str) -> str:
    r"""``text`` escaped so that LaTeX shows it unchanged.

    >>> latex_escape("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return " ".join("".join(_LATEX.get(c) or (c if _shown(c) else "?") for c in text).split())


def _shown(character: str) -> bool:
    """Whether every LaTeX prints it: ASCII, Latin letters of its input encoding, spaces."""
    return " " <= character <= "~" or "\u00c0" <= character <= "\u00ff" or character.isspace()


def to_markdown(table: Table) -> str:
    """A Markdown table (GitHub's form), its notes as a list."""
    from tabulate import tabulate

    rows = [[markdown_escape(text) for text in row] for row in table.rows]
    align = ["right" if right else "left" for right in table.right]
    heads = [markdown_escape(head) for head in table.heads]
    body = tabulate(rows, heads, "pipe", colalign=align if rows else None, disable_numparse=True)
    return "\n".join([body, "", *(f"- {markdown_escape(note)}" for note in table.notes), ""])


def to_latex(table: Table) -> str:
    """A ``tabular`` environment that needs no package; notes are comments above it."""
    from tabulate import tabulate

    rows = [[latex_escape(text) for text in row] for row in table.rows]
    align = ["right" if right else "left" for right in table.right]
    heads = [latex_escape(head) for head in table.heads]
    body = tabulate(rows, heads, "latex_raw", colalign=align if rows else None, disable_numparse=True)
    notes = [f"% {' '.join(printable(note).split())}" for note in table.notes]
    return "\n".join([*notes, body, ""])


def to_csv(table: Table) -> str:
    """Numbers at full precision, one record per line (RFC 4180); missing values are empty."""
    import csv
    import io

    buffer = io.StringIO()
    names = list(dict.fromkeys(name for record in table.records for name in record))
    writer = csv.DictWriter(buffer, names or list(table.heads), lineterminator="\n")
    writer.writeheader()
    for record in table.records:
        writer.writerow({name: _csv(value) for name, value in record.items()})
    return buffer.getvalue()


_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20|%")
"""Characters that a spreadsheet may take for the beginning of a formula or a command, including their wide forms."""


def _csv(value: Value) -> Value:
    """Quote a text that begins like a formula, so that a spreadsheet does not execute it."""
    if isinstance(value, str) and value.lstrip()[:1] in _FORMULA:
        return "'" + value
    return None if isinstance(value, float) and value != value else value


def to_json(table: Table) -> str:
    """Numbers at full precision: ``title``, ``rows`` (one object per record, what is missing is null) and ``notes``."""
    import json

    rows = [
        {name: None if isinstance(value, float) and value != value else value for name, value in record.items()}
        for record in table.records
    ]
    return json.dumps({"title": table.title, "rows": rows, "notes": list(table.notes)}, indent=1) + "\n"


FORMATS: dict[str, Renderer] = {
    "text": to_text, "markdown": to_markdown, "csv": to_csv, "json": to_json, "latex": to_latex,
}  # fmt: skip


def render(table: Table, form: str) -> str:
    """``table`` in one of :data:`FORMATS`. Raises KeyError if there is no such format."""
    return FORMATS[form](table)


# ----------------------------------------------------------------------------------------------------------------------
# Latency of single operations, from the pass that reads the cycle counter around each; docs/timing.md says how.

DISTURBED = "the machine was disturbed during this pass, so these times are too long"
_MUCH = 0.2
"""A fault in the pass takes longer than one in the loops by the cost of reading the counter, some 10 ns for all
strategies alike. A larger difference, by this share of the fault, cannot come from a strategy: undisturbed passes are
within a tenth, disturbed ones start at a quarter."""
_LOWEST = 0.9
"""The tail is left out where passes are compared: a single interruption does not make a pass disturbed."""


def disturbed_passes(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """(strategy, workload) of the cells whose pass over single operations ran on a disturbed machine, judged by its
    faults.

    There is one pass per cell, in the first round's process, so it is as likely to be disturbed as any single process.
    Lookups cannot be used for this: how much they overlap in a loop, but not in the pass, depends on the strategy.
    Needs three strategies on the workload. O(bins).
    """
    extra: dict[str, list[tuple[str, float, float]]] = {}
    for cell in cells:
        loops = list(cell.rounds("fault").values())
        for row in cell.state.latencies:
            if cell.state.state == "ok" and loops and row.bins and (row.figure, row.outcome) == ("fault", "all"):
                found = (cell.entry.strategy, _lower_mean(row.bins) - fmean(loops), fmean(loops))
                extra.setdefault(cell.entry.workload, []).append(found)
    return [
        (name, label)
        for label, found in extra.items()
        if len(found) > 2
        for name, more, loop in found
        if more - median(each for _, each, _ in found) > _MUCH * loop
    ]


def _lower_mean(bins: Sequence[tuple[int, int]]) -> float:
    """The mean in ns of the lowest nine tenths, with each operation in the middle of its bin."""
    left = whole = _LOWEST * sum(count for _, count in bins)
    total = 0.0
    for number, count in bins:
        taken = min(count, left)
        total += taken * bin_edge(number) * 2 ** (-0.5 / BINS_PER_OCTAVE)
        left -= taken
    return total / whole


def _mean(cell: Cell, row: LatencyRow) -> float | None:
    """The mean in ns of a row's operations from its histogram, to 3 % (with threads) or 5 %; None without one."""
    points = [(edge * 33 / 32, n) for edge, n in cell.state.threads.get("histograms", {}).get(row.figure, ())]
    if not points:
        points = [(bin_edge(number) * 2 ** (-0.5 / BINS_PER_OCTAVE), n) for number, n in row.bins]
    total = sum(n for _, n in points)
    return sum(edge * n for edge, n in points) / total if total and row.outcome == "all" else None


def tail_table(cells: Iterable[Cell]) -> Table:
    """Per-operation latency from the separate pass with the cycle counter: mean and quantiles, split by hit and
    miss."""
    heads = ("workload", "strategy", "figure", "outcome", "operations", "mean", "p50", "p90", "p99", "p99.9", "max")
    cells = list(cells)
    lines, records, overheads = [], [], []
    for cell in cells:
        if cell.state.state != "ok":
            continue
        if cell.state.latencies:
            overheads.append(cell.state.timer_overhead_ns)
        for row in cell.state.latencies:
            quantiles = (_mean(cell, row), row.p50, row.p90, row.p99, row.p999, row.max)
            first = (cell.entry.workload, cell.entry.strategy, row.figure, row.outcome)
            lines.append((*first, f"{row.n:,}", *("" if q is None else ns(q) for q in quantiles)))
            values: tuple[Value, ...] = (*first, row.n, *quantiles)
            records.append(dict(zip(heads, values, strict=True)))
    notes = ["ns per operation, one pass over the trace in the first round's process."]
    if overheads:
        own = f"{min(overheads):.1f}" + (f" to {max(overheads):.1f}" if len(set(overheads)) > 1 else "")
        notes.append(f"The cycle counter's own cost, {own} ns, is subtracted from each; 0 is below its resolution.")
    notes += [f"{name} on {label}: {DISTURBED}." for name, label in disturbed_passes(cells)]
    return Table("Tails", heads, tuple(lines), (False,) * 4 + (True,) * 7, tuple(records), tuple(notes))


# ----------------------------------------------------------------------------------------------------------------------
# Counted cost as a :class:`~benchframe.report.table.Table`; docs/cost.md defines each column.

VIEWS = ("lookup", "fault", "mapping")
COLUMNS = {
    "loads": "loads",
    "stores": "stores",
    "atomics": "atomics",
    "branches": "branches",
    "mispredicted": "mispred.",
    "steps": "steps",
    "lines": "lines",
    "lines.vma": "vma",
    "own": "own",
    "lines.pte": "pte",
    "lines.page": "page",
    "lines.mm": "mm",
    "lines.task": "task",
    "far_l1": "far L1",
    "dirty_shared": "dirty shared",
}
"""From the key after the view to the heading. ``own`` sums the strategy's own slabs."""
_MODEL = frozenset({"vma", "mm", "page", "pte", "task", "file"})
_NOTES = (
    "means per operation; vma to task: distinct 64-byte lines of each structure; own: the strategy's own slabs.",
    "mispred.: estimated branch mispredictions; steps: records visited in sequence.",
    (
        "far L1: steps to a record that a 32 KiB cache may have evicted; dirty shared: lines written that other "
        "operations touch."
    ),
)


def own_lines(cost: Mapping[str, float], view: str) -> float:
    """Lines of the strategy's own slabs."""
    prefix = f"{view}.lines."
    return sum(v for k, v in cost.items() if k.startswith(prefix) and k.removeprefix(prefix) not in _MODEL)


def cost_table(cells: Iterable[tuple[str, str, Mapping[str, float]]]) -> Table:
    """Rows (workload, strategy, view) of ``cells``, (workload, strategy, cost); those without cost are left out."""
    heads = ("workload", "strategy", "per", *COLUMNS.values(), "hit rate", "bytes/VMA", "counted")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    sampled = 0.0
    for workload, strategy, cost in cells:
        views = [view for view in VIEWS if f"{view}.n" in cost]
        if views:
            records.append({"workload": workload, "strategy": strategy, **cost})
        for view in views:
            numbers = [own_lines(cost, view) if key == "own" else cost.get(f"{view}.{key}") for key in COLUMNS]
            first = view == views[0]
            hits = cost.get("lookup.hits", 0.0)
            asked = hits + cost.get("lookup.misses", 0.0)
            rows.append(
                (
                    workload,
                    strategy if first else "",
                    view,
                    *map(_text, numbers),
                    f"{100 * hits / asked:.1f} %" if first and asked else "",
                    f"{cost['bytes.per_vma']:.0f}" if first else "",
                    f"{100 * cost['counted'] / cost['events']:.0f} %" if first else "",
                )
            )
            for key in ("lines", "loads", "branches"):
                mean, error = cost.get(f"{view}.{key}", 0.0), cost.get(f"{view}.{key}_se", 0.0)
                sampled = max(sampled, error / mean if mean else 0.0)
    notes = [*_NOTES]
    if sampled:
        notes.append(f"sampled: standard errors of loads, lines and branches are at most {100 * sampled:.2g} %.")
    return Table("Cost", heads, tuple(rows), (False,) * 3 + (True,) * (len(heads) - 3), tuple(records), tuple(notes))


_MISSES = {"l1": "L1", "l2": "L2", "llc": "last level"}


def misses_table(cells: Iterable[tuple[str, str, Caches, Mapping[str, float]]], sizes: CacheSizes) -> Table:
    """Rows (workload, strategy, state of the caches, view) of ``cells``: misses of each level, and which structures
    miss L1."""
    cells = list(cells)
    heads = ("workload", "strategy", "caches", "per", *_MISSES.values(), *_STRUCTURES, "own")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    for workload, strategy, state, found in cells:
        records.append({"workload": workload, "strategy": strategy, "caches": str(state) or WARM, **found})
        for view in (view for view in VIEWS if f"{view}.missed_l1" in found):
            levels = (_text(found[f"{view}.missed_{level}"]) for level in _MISSES)
            parts = {name: found.get(f"{view}.missed_l1.{name}") for name in _STRUCTURES}
            own = found[f"{view}.missed_l1"] - sum(value or 0.0 for value in parts.values())
            texts = (*map(_text, parts.values()), _text(own if own > 1e-9 else None))
            rows.append((workload, strategy, state.label, view, *levels, *texts))
    notes = (
        f"misses per operation in {sizes.told()}; the least recently used line goes, nothing is prefetched.",
        "mm to own: the misses of L1 by structure; csv and json have them for each level, and own by slab.",
        *(f"{state.label}: {_between(state)}." for state in dict.fromkeys(state for *_, state, _ in cells)),
    )
    right = (False,) * 4 + (True,) * (len(heads) - 4)
    return Table("Misses", heads, tuple(rows), right, tuple(records), notes)


_STRUCTURES = ("mm", "vma", "page", "pte", "task", "file")


def _between(state: Caches) -> str:
    """What happens between two operations of a counted run."""
    emptied = {"l2": "L1 is", "llc": "L1 and L2 are", "memory": "all levels are"}.get(state.level)
    if emptied:
        return f"before each operation {emptied} empty"
    return "nothing happens between two operations" if state.warm else state.says().replace("timed event", "operation")


def _text(value: float | None) -> str:
    """Three significant digits; a zero is not emphasised."""
    if value is None or value == 0:
        return "" if value is None else "0"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
