"""Throughput by number of threads, with ideal scaling, as a :class:`~benchframe.report.table.Table`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchframe.report.table import Table, Value, comparisons, ratio_text
from benchframe.results.figures import OPERATIONS, Point, points
from benchframe.results.folder import Cell

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
                OPERATIONS[point.figure],
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
    return notes


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
