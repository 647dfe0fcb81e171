"""The tables beside the latencies: threads and ideal scaling, tails, counted cost, fallbacks, misses of caches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from benchframe.engine.caches import WARM, Caches
from benchframe.engine.cost.hierarchy import CacheSizes
from benchframe.engine.session import BINS_PER_OCTAVE, REASONS, bin_edge
from benchframe.report.table import Table, Value, comparisons, ns, ratio_text
from benchframe.results.figures import OPERATIONS, Point, points
from benchframe.results.folder import Cell, LatencyRow

HEADS = (
    *("workload", "strategy", "threads", "operation", "per second", "speed-up [95 %]", "ideal", "to baseline [95 %]"),
    *("lock wait", "barrier", "slowest/fastest", "hit rate", "n", "state"),
)
_DROPS = ("n", "slowest/fastest", "ideal", "hit rate", "barrier", "operation", "lock wait", "speed-up [95 %]")
"""What a narrow terminal leaves out first."""
RIGHT = (False, False, True, False, True, True, True, True, True, True, True, True, True, False)


def per_second(value: float | None) -> str:
    """Operations per second with three digits.

    >>> per_second(41_234_567.0), per_second(812_345.0), per_second(12.0), per_second(None)
    ('41.2 M', '812 k', '12', '')
    """
    if value is None:
        return ""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _against(point: Point) -> str:
    """The ratio to the baseline with its verdict."""
    if point.against is None:
        return "1 (base)" if point.cell.baseline and point.ns else ""
    return ratio_text(point.against) + (f" {point.verdict.word}" if point.verdict else "")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def waiting_text(point: Point) -> str:
    """mmap_lock's share, and that of all other locks if it is large enough to show."""
    other = (point.table_share or 0.0) + (point.vma_share or 0.0)
    if point.lock_share is None or other < 0.0005:
        return _percent(point.lock_share)
    return f"{100 * point.lock_share:.1f}+{100 * other:.1f} %"


def scaling_table(cells: Iterable[Cell], notes: Sequence[str] = ()) -> Table:
    """Rows workload x strategy x threads. ``notes`` (the manifest's) are added to the table's own."""
    found = points(cells)
    lines, records = [], []
    for point in found:
        cell = point.cell
        rate = cell.state.counts.get("hit_rate")
        extra = point.real - point.threads
        ordered = bool(cell.state.threads.get("ordered"))
        lines.append(
            (
                point.workload,
                cell.entry.strategy,
                f"{point.threads}{f'+{extra}' if extra > 0 else ''}{'*' if point.crowded else ''}",
                "" if _silent(point) else OPERATIONS[point.figure],
                per_second(point.throughput),
                "1 (base)" if point.base_threads == point.threads and point.ns else ratio_text(point.speed_up),
                f"{point.ideal:.3g}",
                _against(point),
                waiting_text(point),
                _percent(point.order_share if ordered else point.barrier_share),
                "" if point.slowest is None or ordered else f"{point.slowest:.2f}",
                _percent(rate),
                str(point.ns.n if point.ns else 0),
                cell.state.state,
            )
        )
        records.append(_record(point))
    sound = all(point.cell.state.state == "ok" for point in found)
    order = [*(["state"] if sound else []), *_DROPS]
    drops = tuple((HEADS.index(head),) for head in order)
    return Table("Scaling", HEADS, tuple(lines), RIGHT, tuple(records), (*_notes(found), *notes), drops)


def _notes(found: Sequence[Point]) -> list[str]:
    cores = max((p.cores for p in found), default=1)
    notes = [
        "per second: all threads together, mean of processes.",
        (
            "speed-up: over the smallest number of threads of the same strategy; to baseline: over the workload's "
            "baseline with the same number."
        ),
        "Both are paired by round; above 1 is faster.",
        *_judged(found),
        "lock wait: share of the threads' time spent waiting for mmap_lock, not moving its cache line.",
        *(
            ["after +: the same for page-table locks and locks of VMAs together."]
            if any(map(_has_other, found))
            else []
        ),
        "barrier: share spent at the barrier, or waiting for the recorded order of a trace.",
        f"{cores} CPU{'s' * (cores > 1)} here: results with more than {cores} threads say nothing about scaling.",
    ]
    if any(p.crowded for p in found):
        notes.append("*: more threads than CPUs; they take turns, so the row shows waiting, not scaling.")
    for p in found:
        state = p.cell.state
        if state.state != "ok":
            notes.append(f"{p.cell.entry.strategy} on {p.cell.entry.workload}: {state.state}: {state.message}")
        elif _silent(p):
            notes.append(
                f"{p.cell.entry.strategy} on {p.cell.entry.workload}: no figure, because in some samples no fault, "
                "lookup or mapping call came to its end. The machine is too busy: run again when it is calm."
            )
    return notes


def _silent(point: Point) -> bool:
    """Whether a cell was measured and nothing came out for its row."""
    return point.cell.state.state == "ok" and point.ns is None


def _has_other(point: Point) -> bool:
    return "+" in waiting_text(point)


def _judged(found: Sequence[Point]) -> list[str]:
    """How the verdicts were reached."""
    verdicts = [point.verdict for point in found if point.verdict is not None]
    if not verdicts:
        return []
    judging = found[0].cell.judging
    level, within = f"{100 * judging.alpha:g} %", f"{100 * judging.within:g} %"
    notes = [f"verdicts: corrected for {comparisons(len(verdicts))} (Holm, {level}); same: within {within}."]
    open_ = [verdict for verdict in verdicts if verdict.word == "undecided"]
    if open_:
        notes.append(f"{len(open_)} of {len(verdicts)} {'is' if len(open_) == 1 else 'are'} undecided: more --rounds.")
    return notes


def _record(p: Point) -> dict[str, Value]:
    return {
        "workload": p.workload,
        "strategy": p.cell.entry.strategy,
        "threads": p.threads,
        "real_threads": p.real,
        "cores": p.cores,
        "state": p.cell.state.state,
        "operation": p.figure,
        "per_second": p.throughput,
        "ns": p.ns.mean if p.ns else None,
        "ns_sd": p.ns.sd if p.ns else None,
        "processes": p.ns.n if p.ns else 0,
        "ideal": p.ideal,
        **{
            f"speed_up{part and '_' + part}": getattr(p.speed_up, part or "value", None) for part in ("", "low", "high")
        },
        **{f"against{part and '_' + part}": getattr(p.against, part or "value", None) for part in ("", "low", "high")},
        "verdict": p.verdict.word if p.verdict else None,
        "lock_share": p.lock_share,
        "table_share": p.table_share,
        "vma_share": p.vma_share,
        "barrier_share": p.barrier_share,
        "order_share": p.order_share,
        "fairness": p.fairness,
        "slowest": p.slowest,
        "rates": " ".join(f"{r:.6g}" for r in p.rates),
        "hit_rate": p.cell.state.counts.get("hit_rate"),
        "message": p.cell.state.message,
    }


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


def fell_back(cells: Iterable[Cell]) -> list[tuple[str, str, Mapping[str, float]]]:
    """(workload, strategy, counts) of cells in which a lookup gave up its fast path, for :func:`fallback_table`; events
    replayed in several states of the caches count once."""
    found: dict[tuple[str, int, str], tuple[str, str, Mapping[str, float]]] = {}
    for cell in cells:
        if cell.state.state == "ok" and cell.state.counts.get("fallbacks"):
            key = (cell.workload.digest, cell.workload.threads, cell.entry.strategy)
            found.setdefault(key, (cell.entry.workload, cell.entry.strategy, cell.state.counts))
    return list(found.values())


def fallback_table(cells: Iterable[tuple[str, str, Mapping[str, float]]]) -> Table:
    """A row per workload and strategy of ``cells``, (workload, strategy, counts): how many lookups took mmap_lock
    instead of their fast path, and why (:mod:`benchframe.engine.session`)."""
    heads = ("workload", "strategy", "lookups", "fell back", *REASONS)
    rows, records, unexplained = [], [], False
    for workload, strategy, counts in cells:
        total, lookups = counts.get("fallbacks", 0.0), counts.get("lookups", 0.0)
        by_reason = {name: counts.get(f"fallbacks.{name}", 0.0) for name in REASONS}
        known = not total or any(by_reason.values())
        unexplained |= not known
        share = f"{total / lookups:.1%}" if lookups else "-"
        texts = (f"{count:,.0f}" if known else "" for count in by_reason.values())
        rows.append((workload, strategy, f"{lookups:,.0f}", share, *texts))
        record: dict[str, Value] = {"workload": workload, "strategy": strategy, "lookups": lookups, "fallbacks": total}
        if known:
            record.update(by_reason)
        records.append(record)
    notes = [f"{name}: {what}." for name, what in REASONS.items()]
    if unexplained:
        notes.append("no reasons: not looked for with threads, and in streams of more than 100,000 lookups.")
    right = (False, False, *(True,) * (len(heads) - 2))
    return Table("Fallbacks", heads, tuple(rows), right, tuple(records), tuple(notes))


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
