"""Latency of single operations, from the pass that reads the cycle counter around each; docs/timing.md says how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, median

from benchframe.engine.latency import BINS_PER_OCTAVE, bin_edge
from benchframe.results.folder import Cell
from benchframe.tables.build import Table, Value, ns

DISTURBED = "the machine was disturbed during this pass, so these times are too long"
_MUCH = 0.2
"""A fault in the pass takes longer than one in the loops by what reading the counter costs, some 10 ns for all
strategies alike. More than that by this share of the fault is no strategy's doing: undisturbed passes lie within a
tenth, disturbed ones from a quarter on."""
_LOWEST = 0.9
"""The tail is left out where passes are compared: one interruption is no disturbed pass."""


def disturbed_passes(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """(strategy, workload) of the cells whose pass over single operations met a slowed machine, judged by its faults.

    Each of them happens once, in the first round's process, so it is as likely to be hit as any single process. Of
    lookups alone nothing can be told: what overlaps in a loop does not overlap in the pass, by strategy. Needs three
    strategies on the workload. O(bins).
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
    """The mean in ns of the lowest nine tenths, each operation in the middle of its bin."""
    left = whole = _LOWEST * sum(count for _, count in bins)
    total = 0.0
    for number, count in bins:
        taken = min(count, left)
        total += taken * bin_edge(number) * 2 ** (-0.5 / BINS_PER_OCTAVE)
        left -= taken
    return total / whole


def tail_table(cells: Iterable[Cell]) -> Table:
    """Per-operation latency from the separate pass with the cycle counter: quantiles, split by hit and miss."""
    heads = ("workload", "strategy", "figure", "outcome", "operations", "p50", "p90", "p99", "p99.9", "max")
    cells = list(cells)
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
        notes.append(f"The cycle counter's own cost, {own} ns, is subtracted from each; 0 is below its resolution.")
    notes += [f"{name} on {label}: {DISTURBED}." for name, label in disturbed_passes(cells)]
    return Table("Tails", heads, tuple(lines), (False,) * 4 + (True,) * 6, tuple(records), tuple(notes))
