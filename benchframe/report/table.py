"""The tables of a run: latencies, tails and counted cost, in columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from textwrap import wrap
from typing import Any

from benchframe.engine.caches import WARM, from_text
from benchframe.engine.job import COLD
from benchframe.files import printable
from benchframe.results.figures import FIGURES, Figure, Row, caching, rows_of, set_aside
from benchframe.results.folder import Cell, CellState
from benchframe.results.studies import HostFigures, HostWorkload
from benchframe.stats import Ratio, Summary, summarise, welch_ratio

# ----------------------------------------------------------------------------------------------------------------------
# What each cell measured, and its ratio to the baseline, as a :class:`Table`; what a row means is in its notes.
#
# Only cells in state ``ok`` have figures: a wrong answer has no time.

Value = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Headings and texts for people, records for programs. ``right`` says which columns hold numbers, ``drops`` which a
    narrow terminal leaves out, in this order; without it, the last first (:func:`fitted`)."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    records: tuple[dict[str, Value], ...]
    notes: tuple[str, ...] = field(default=())
    drops: tuple[tuple[int, ...], ...] = field(default=())


def ns(value: float) -> str:
    """A time in ns with at least three significant digits.

    >>> ns(3.14159), ns(45.67), ns(1234.5), ns(float("nan"))
    ('3.14', '45.7', '1,234', '-')
    """
    if value != value:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def spread(figure: Figure | None, sign: str = " ± ") -> str:
    """``mean ± sd`` of the process means; "" without a figure."""
    return "" if figure is None else mean_sd(figure.summary, sign)


def mean_sd(summary: Summary, sign: str = " ± ") -> str:
    """``mean ± sd`` in ns, the mean alone of one process."""
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
    low, high = (bound(end, digits) for end in (ratio.low, ratio.high))
    return f"{times(ratio.value, digits)} " + (f"[{low}, {high}]" if ratio.n > 1 else "[-]")


def bound(value: float, digits: int = 2) -> str:
    """An end of a ratio's interval; of one that says next to nothing no more than that.

    >>> bound(0.667), bound(4e-11), bound(8.8e11), bound(math.nan)
    ('0.67', '<.001', '>999', '-')
    """
    if 0 < value < 0.0005:
        return "<.001"
    return ">999" if value > 999 else times(value, digits)


def comparisons(number: int, cold: int = 0) -> str:
    """The number of comparisons as text; ``cold`` are those of cold lookups, a family of their own.

    >>> comparisons(1), comparisons(6, 3)
    ('1 comparison', '6 comparisons, and apart from them for 3 of cold lookups')
    """
    text = f"{number:,} comparison{'s' * (number != 1)}"
    return f"{text}, and apart from them for {cold:,} of cold lookups" if cold else text


def _counts(cell: Cell, cached: Collection[str]) -> tuple[str, str]:
    """Hit rate and invalidations; empty for a strategy without a cache."""
    if cell.entry.strategy not in cached:
        return "", ""
    counts = cell.state.counts
    rate, gone = counts.get("hit_rate"), counts.get("invalidations")
    return ("" if rate is None else f"{100 * rate:.1f} %", "" if gone is None else f"{gone:,.0f}")


def latency_table(
    cells: Iterable[Cell],
    notes: Sequence[str] = (),
    *,
    rows: Sequence[Row] | None = None,
    host: HostFigures | None = None,
) -> Table:
    """Rows workload x strategy: ns per lookup, fault and mapping operation with spread, ratio to the baseline.

    ``notes`` (the manifest's) are added to the table's own; ``rows`` are those of ``cells``, if they are already
    computed. ``host`` adds a last row to each workload that the running kernel performed.
    """
    rows = rows_of(cells) if rows is None else rows
    present = [name for name in FIGURES if any(name in row.figures for row in rows)]
    heads = ["workload", "strategy"]
    right = [False, False]
    for name in present:
        heads += [FIGURES[name], "ratio [95 %]"]
        right += [True, False]
    rate, gone, processes, state = range(len(heads), len(heads) + 4)
    heads += ["hit rate", "invalidations", "n", "state"]
    right += [True, True, True, False]
    telling = any(row.shown != "ok" for row in rows)
    figures = [(at, at + 1) for at in range(2, rate, 2)]
    drops = [(gone,), *([] if telling else [(state,)]), (processes,), *reversed(figures[1:]), (rate,), (2,)]
    lines, records, cached = [], [], caching(row.cell for row in rows)
    for i, row in enumerate(rows):
        line = [row.cell.entry.workload, row.cell.entry.strategy]
        for name in present:
            figure = row.figures.get(name)
            line += [spread(figure), verdict_text(figure)]
        most = max((figure.summary.n for figure in row.figures.values()), default=0)
        line += [*_counts(row.cell, cached), str(most), row.shown]
        lines.append(tuple(line))
        records.append(_record(row, cached))
        if host and (performed := after(rows, i, host)):
            texts = [text for name in present for text in (_host_spread(performed, name), "")]
            most = max(len(performed.fault), len(performed.mapping))
            lines.append((performed.workload, host.name, *texts, "", "", str(most), ""))
            records.append(_host_record(row, performed, host.name, records[-1]))
    return Table(
        "Latency",
        tuple(heads),
        tuple(lines),
        tuple(right),
        tuple(records),
        (*_notes(rows), *host_notes(rows, host), *notes),
        tuple(drops) if present else (),
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    baselines = sorted({row.cell.workload.baseline for row in rows})
    base = " or ".join(baselines)
    notes = [
        "ns: mean of process means ± their standard deviation; n: processes.",
        f"ratio: to {base}, geometric mean of ratios paired by round, 95 % t interval; below 1 is faster.",
        *_judged(rows),
        *disturbed(row.cell for row in rows),
        *cold_notes(row.cell for row in rows),
    ]
    if any(row.shown.endswith("!") for row in rows):
        notes.append("!: pyperf reports a figure of this cell as unstable; the report quotes its message.")
    if any(row.disturbed for row in rows):
        notes.append(
            "disturbed: no process found an undisturbed moment for one of this cell's figures or more, which are those "
            "of a busy machine. Run it again when the machine is idle."
        )
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
    cold = sum(name == COLD for _, name, *_ in found)
    together = comparisons(len(found) - cold, cold)
    notes = [f"verdicts: {how}corrected for {together} (Holm, {level}); same: within {within}."]
    if any(v.ratio.prior for *_, v in found):
        notes.append(
            "variances: moderated by those of the other ratios of the same figure, also in intervals (moderated t)."
        )
    if any(v.word == "undecided" and v.ratio.word != "undecided" for *_, v in found):
        notes.append(
            f"An interval refers to one ratio alone. A verdict is corrected for {len(found) - cold - 1:,} others, so "
            "it may be undecided although the interval excludes 1."
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


def cold_notes(cells: Iterable[Cell]) -> list[str]:
    """What was touched before each event, and what that makes of the figures."""
    cells = list(cells)
    states = dict.fromkeys(cell.workload.state for cell in cells)
    notes = [f"@{state.label}: {state.says()}." for state in states if not state.warm]
    column = [cell for cell in cells if cell.figures.get(COLD)]
    for state in dict.fromkeys(from_text(cell.workload.cold) for cell in column):
        mine = [cell.figures[COLD][0].operations for cell in column if from_text(cell.workload.cold) == state]
        timed = f"{min(mine):,}" + (f" to {max(mine):,}" if max(mine) > min(mine) else "")
        notes.append(
            f"{FIGURES[COLD]}: {timed} lookups a process with colder caches ({state.label}): {state.says()}. It is "
            "a whole fault's time less that of a fault with a known answer: lines that both fetch, such as the VMA's "
            "own, are not in it (--caches warm: no such column)."
        )
    if any(not state.warm for state in states):
        notes.append(
            "In these rows ns/fault is the whole fault, and ns/lookup is that less the time of a fault with a known "
            "answer: lines that both fetch, such as the VMA's own, are not in it."
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


_COUNTED = {"lookup": "lookups", COLD: "lookups", "fault": "faults", "mapping": "mapping_ops"}


def _lost(row: Row) -> list[str]:
    """Figures that are missing in some processes: a difference of two times that noise left at zero or below."""
    done, found = len(row.cell.done), []
    for name, head in FIGURES.items():
        if name == COLD and not row.cell.workload.cold:
            continue
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
    record["fallbacks"] = cell.state.counts.get("fallbacks")
    record |= {name: count for name, count in cell.state.counts.items() if name.startswith("fallbacks.")}
    record["message"] = cell.state.message
    return record


def _part(ratio: Ratio | None, part: str) -> float | None:
    return None if ratio is None else getattr(ratio, part or "value")


# ----------------------------------------------------------------------------------------------------------------------
# The running kernel beside the strategies (``run --host``): a row, and what a better lookup could save of a real fault.


def after(rows: Sequence[Row], i: int, host: HostFigures) -> HostWorkload | None:
    """What the kernel took for the workload of row ``i``, if that is the workload's last row."""
    label = rows[i].cell.entry.workload
    last = i + 1 == len(rows) or rows[i + 1].cell.entry.workload != label
    return host.workload(label) if last else None


def host_summary(performed: HostWorkload, figure: str) -> Summary | None:
    """The kernel's figure of this name, None if it has none: a lookup cannot be timed from outside."""
    means = {"fault": performed.fault, "mapping": performed.mapping}.get(figure, ())
    return summarise(means) if means else None


def _host_spread(performed: HostWorkload, figure: str) -> str:
    summary = host_summary(performed, figure)
    return mean_sd(summary) if summary else ""


def _host_record(
    row: Row, performed: HostWorkload, name: str, like: Mapping[str, Value]
) -> dict[str, Value]:  # fmt: skip
    """The members of ``like``, a strategy's record, as far as the kernel has them."""
    record: dict[str, Value] = dict.fromkeys(like)
    record |= {key: like[key] for key in ("workload", "baseline", "caches")} | {"strategy": name, "state": "host"}
    for figure in FIGURES:
        if summary := host_summary(performed, figure):
            parts = ("n", "mean", "median", "sd", "low", "high")
            record |= {f"{figure}_{part}": getattr(summary, part) for part in parts}
    return record


def host_notes(rows: Sequence[Row], host: HostFigures | None) -> list[str]:
    """What the kernel's rows are, and for each workload :func:`host_sentence`."""
    if host is None or not any(host.workload(row.cell.entry.workload) for row in rows):
        return []
    what = "the same faults and mapping calls performed for real, by processes of their own"
    notes = [f"{host.name}: {what}; no ratio, since the model leaves entry, clearing and accounting out."]
    for performed in host.workloads:
        if performed.cut:
            notes.append(f"{host.name} performed a part of {performed.workload}: {performed.cut}.")
    return notes + [sentence for _, sentence in host_sentences(rows, host)]


def host_sentences(rows: Sequence[Row], host: HostFigures) -> list[tuple[float, str]]:
    """For each workload with lookups that had real faults: the share of a fault that its lookup is, and what that means
    in words, with the strategy measured here that saves most of it, and with cold lookups where they were measured."""
    told = []
    for performed in host.workloads:
        there = [row for row in rows if row.cell.entry.workload == performed.workload]
        lookups = {row.cell.entry.strategy: row.cell.rounds("lookup") for row in there if "lookup" in row.figures}
        first = lookups.pop(performed.strategy, None)
        if not first or not performed.fault:
            continue
        share, text = share_of_fault(first, performed.fault, f"{performed.strategy} in the model")
        means = {name: fmean(values.values()) for name, values in lookups.items()}
        best = min(means, key=means.__getitem__, default="")
        saved = fmean(first.values()) - means.get(best, math.inf)
        if saved > 0:
            part = percent(saved / fmean(performed.fault))
            text += f" Of the strategies here, {best} saves most: {ns(saved)} ns, {part}."
        own = next(row.figures for row in there if row.cell.entry.strategy == performed.strategy)
        if cold := own.get(COLD):
            part = percent(cold.summary.mean / fmean(performed.fault))
            text += f" In colder caches (ns/cold lookup) it is {mean_sd(cold.summary)} ns, {part} of a fault."
        told.append((share, f"{performed.workload}: {text[0].lower()}{text[1:]}"))
    return told


def share_of_fault(lookup: Mapping[int, float], fault: Sequence[float], whose: str) -> tuple[float, str]:
    """The share of a real page fault (ns by process) that a lookup (ns by round) is, and a sentence that says it with
    both spreads, numbers of processes and the share's 95 % interval (Welch)."""
    share = welch_ratio(lookup, dict(enumerate(fault)))
    if share is None:
        raise ValueError("no lookup or no fault")
    one, whole = summarise(list(lookup.values())), summarise(fault)
    end = f" [{percent(share.low)}, {percent(share.high)}]" if share.n > 1 else ""
    return share.value, (
        f"A lookup is {mean_sd(one)} ns ({whose}, n = {one.n}) of a page fault of {mean_sd(whole)} ns on this kernel "
        f"(n = {whole.n}): the best strategy can save {percent(share.value)}{end} of a fault."
    )


def percent(share: float) -> str:
    """A share in per cent with two significant digits.

    >>> percent(0.00534), percent(0.123), percent(float("nan"))
    ('0.53 %', '12 %', '-')
    """
    return "-" if share != share else f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


# ----------------------------------------------------------------------------------------------------------------------
# A :class:`Table` as text, Markdown, CSV or LaTeX. Every name is escaped, because it may come from anywhere.

Renderer = Callable[[Table], str]


def to_text(table: Table, width: int = 0, colour: bool = False) -> str:
    """Plain text; repeated workloads are left out. At most ``width`` columns wide if that is not 0 (:func:`fitted`),
    the notes too; with ``colour`` the words faster and slower are green and red (ECMA-48)."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    if width:
        table = fitted(table, width)
    rows, last = [], ""
    for row in table.rows:
        rows.append([row[0] if row[0] != last else "", *(_coloured(text) if colour else text for text in row[1:])])
        last = row[0]
    align = ["right" if right else "left" for right in table.right]
    body = tabulate(rows, list(table.heads), "simple", colalign=align if rows else None, disable_numparse=True)
    notes = [line for note in table.notes for line in (_wrapped(note, width) if width else [note])]
    return "\n".join([*(line.rstrip() for line in body.splitlines()), "", *notes, ""])


_COLOURS = {"faster": "\x1b[32mfaster\x1b[0m", "slower": "\x1b[31mslower\x1b[0m"}


def _wrapped(note: str, width: int) -> list[str]:
    """The lines of a note; a path or a command stays in one piece."""
    return wrap(note, width, break_long_words=False, break_on_hyphens=False)


def _coloured(text: str) -> str:
    head, space, word = text.rpartition(" ")
    return f"{head}{space}{_COLOURS.get(word, word)}"


def fitted(table: Table, width: int) -> Table:
    """``table`` without the columns for which ``width`` has no room, and a note that names them.

    Columns go in the order of :attr:`Table.drops`, then the last first; the labels on the left and one more column
    stay, however narrow. O(rows x columns).

    >>> narrow = fitted(Table("", ("name", "ns", "x", "n"), (("a", "1.5", "0.5 faster", "6"),), (False,) * 4, ()), 18)
    >>> narrow.heads, narrow.notes
    (('name', 'ns'), ('Left out, to fit 18 columns: n, x. --format csv has everything.',))
    """
    from tabulate import MIN_PADDING

    heads = (head + " " * MIN_PADDING for head in table.heads)  # as tabulate sets them
    widths = [max(map(len, column)) for column in zip(heads, *table.rows, strict=True)]
    labels = next((at for at, right in enumerate(table.right) if right), 1)
    kept, gone = set(range(len(widths))), list[str]()
    last_first = [(at,) for at in reversed(range(labels + 1, len(widths)))]
    for group in (*table.drops, *last_first):
        if sum(widths[at] + 2 for at in kept) - 2 <= width:
            break
        if kept.issuperset(group) and kept.difference(range(labels), group):
            gone.append(" with ".join(table.heads[at] for at in group))
            kept.difference_update(group)
    if not gone:
        return table

    def part(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(item for at, item in enumerate(row) if at in kept)

    note = f"Left out, to fit {width} columns: {', '.join(gone)}. --format csv has everything."
    rows = tuple(map(part, table.rows))
    return replace(
        table, heads=part(table.heads), rows=rows, right=part(table.right), notes=(note, *table.notes), drops=()
    )


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
