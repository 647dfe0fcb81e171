"""Figures of a run: per cell and per thread count, and which processes are used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from benchframe.engine.job import COLD
from benchframe.results.folder import Cell, Process, calm, level, number, restless
from benchframe.stats import Judging, Pair, Ratio, Summary, Verdict, judge, paired_ratio, summarise
from benchframe.stats.ratios import shape_notes

# ----------------------------------------------------------------------------------------------------------------------
# How disturbed the machine was while a cell was measured, from what its processes recorded with their figures.
#
# What counts as quiet is decided in :mod:`benchframe.engine.session` and :mod:`benchframe.results.folder`; this
# adds it up, so that nothing is set aside unseen.


@dataclass(frozen=True)
class SetAside:
    """Of all ``replays``, ``quiet`` were undisturbed and count. Of ``processes``, ``restless`` were disturbed
    throughout; ``left_out`` of those are discarded, the others count because their cells have too few undisturbed
    ones."""

    replays: int = 0
    quiet: int = 0
    processes: int = 0
    restless: int = 0
    left_out: int = 0

    @property
    def share(self) -> float:
        """The share of replays that were discarded."""
        return 1 - self.quiet / self.replays if self.replays else 0.0


def set_aside(cells: Iterable[Cell]) -> SetAside:
    """The sum over all processes of ``cells`` that record it; older results, and runs with threads, do not."""
    replays = quiet = processes = restless = left_out = 0
    for cell in cells:
        found = _processes(cell)
        counted = {process.round for process in calm(found)}
        for process in found:
            made, good = (int(number(process, f"benchframe_{name}")) for name in ("replays", "quiet"))
            if made > 0:
                gone = process.round not in counted
                replays += made
                quiet += 0 if gone else good or made
                processes += 1
                restless += gone or not good
                left_out += gone
    return SetAside(replays, quiet, processes, restless, left_out)


def control(cell: Cell) -> float:
    """The lowest undisturbed level of the cell's control, in cycles per replay; 0 if no process recorded it."""
    return min(controls(cell).values(), default=0.0)


def controls(cell: Cell) -> dict[int, float]:
    """The control's undisturbed level for each round whose process counts, where it is known."""
    return {process.round: level(process) for process in calm(_processes(cell)) if level(process) > 0}


def _processes(cell: Cell) -> list[Process]:
    """The processes of one figure: all figures of a process record the same."""
    return next(iter(cell.figures.values()), [])


# ----------------------------------------------------------------------------------------------------------------------
# How throughput grows with threads: the numbers in the scaling table and its chart.

OPERATIONS = {"fault": "faults", "mapping": "mapping ops", "lookup": "lookups"}
"""The figures that a row may be about; the first one that the cell has is used."""


@dataclass(frozen=True)
class Point:
    """One cell of a run with threads.

    ``workload`` is the label without the number of threads; ``threads`` the number asked for, ``real`` the actual
    number (a workload may add some), ``cores`` how many CPUs they had. ``figure`` is the row's figure; ``ns`` is wall
    time per operation of it, ``throughput`` operations per second (both: process means). ``speed_up`` is to the same
    strategy with the fewest threads of the run, ``base_threads``, paired by round; ``against`` is relative to the
    baseline strategy with as many threads. ``verdict`` is the verdict on ``against``, corrected for all such
    comparisons of the run. ``rates`` is each thread's operations per second; shares are parts of the threads' time.
    None: not known.
    """

    cell: Cell
    workload: str
    threads: int
    real: int
    cores: int
    figure: str
    ns: Summary | None
    throughput: float | None
    speed_up: Ratio | None
    base_threads: int
    against: Ratio | None
    rates: tuple[float, ...]
    lock_share: float | None
    barrier_share: float | None
    order_share: float | None
    fairness: float | None
    slowest: float | None
    verdict: Verdict | None = None
    table_share: float | None = None
    vma_share: float | None = None
    """As ``lock_share``, which is for mmap_lock, but for page-table locks and the locks of VMAs."""

    @property
    def ideal(self) -> float:
        """The speed-up of threads without any contention, given enough cores."""
        return self.threads / self.base_threads

    @property
    def crowded(self) -> bool:
        """Whether there are more threads than cores. Then they take turns, and the row shows the effect of waiting, not
        scaling."""
        return self.real > self.cores


def threaded(cells: Iterable[Cell]) -> list[Cell]:
    """Those of ``cells`` that real threads replayed."""
    return [cell for cell in cells if cell.workload.threads]


def alone(cells: Iterable[Cell]) -> list[Cell]:
    """Those of ``cells`` with a single replay: a threaded cell's time per operation is an inverse throughput, and does
    not belong in a table with theirs."""
    return [cell for cell in cells if not cell.workload.threads]


def leading(cell: Cell) -> str:
    """The figure that a cell's row is about."""
    return next((name for name in OPERATIONS if cell.figures.get(name)), "fault")


def base_label(cell: Cell) -> str:
    """The workload's label without ``@threads``.

    >>> "mixed:pages=64@2".rpartition("@")[0]
    'mixed:pages=64'
    """
    return cell.entry.workload.rpartition("@")[0]


def points(cells: Iterable[Cell]) -> list[Point]:
    """A point for each threaded cell, in the order workload, strategy, threads. O(values)."""
    cells = threaded(cells)
    order: dict[tuple[str, str], int] = {}
    for cell in cells:
        order.setdefault((base_label(cell), cell.entry.strategy), len(order))
    cells.sort(key=lambda c: (order[base_label(c), c.entry.strategy], c.workload.threads))
    fewest: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        if cell.state.state == "ok":
            fewest.setdefault((base_label(cell), cell.entry.strategy), cell)
    baseline = {cell.entry.workload: cell for cell in cells if cell.baseline and cell.state.state == "ok"}
    found = [
        _point(cell, fewest.get((base_label(cell), cell.entry.strategy)), baseline.get(cell.entry.workload))
        for cell in cells
    ]
    return _judged(found, baseline)


def _judged(found: list[Point], baseline: Mapping[str, Cell]) -> list[Point]:
    """``found`` with verdicts; all comparisons with a baseline are one family."""
    compared = [(i, point) for i, point in enumerate(found) if point.against is not None]
    if not compared:
        return found
    pairs = [
        Pair(point.cell.rounds(point.figure), baseline[point.cell.entry.workload].rounds(point.figure))
        for _, point in compared
    ]
    verdicts = judge(pairs, compared[0][1].cell.judging, notes=False)
    for (i, point), verdict in zip(compared, verdicts, strict=True):
        found[i] = replace(point, verdict=verdict)
    return found


def _point(cell: Cell, first: Cell | None, baseline: Cell | None) -> Point:
    figure = leading(cell)
    means = cell.rounds(figure) if cell.state.state == "ok" else {}
    processes = cell.figures.get(figure, []) if means else []
    summary = summarise(list(means.values())) if means else None
    threads = cell.workload.threads
    rates = _rates(processes)
    return Point(
        cell=cell,
        workload=base_label(cell),
        threads=threads,
        real=len(rates) or threads,
        cores=int(cell.state.threads.get("cores", 1)),
        figure=figure,
        ns=summary,
        throughput=sum(1e9 / v for v in means.values()) / len(means) if means else None,
        speed_up=paired_ratio(first.rounds(figure), means) if means and first and first is not cell else None,
        base_threads=first.workload.threads if first else threads,
        against=paired_ratio(baseline.rounds(figure), means) if means and baseline and baseline is not cell else None,
        rates=rates,
        lock_share=_mean(processes, "benchframe_lock_share"),
        table_share=_mean(processes, "benchframe_table_share"),
        vma_share=_mean(processes, "benchframe_vma_share"),
        barrier_share=_mean(processes, "benchframe_barrier_share"),
        order_share=_mean(processes, "benchframe_order_share"),
        fairness=_mean(processes, "benchframe_fairness"),
        slowest=_mean(processes, "benchframe_slowest"),
    )


def _mean(processes: Iterable[Process], key: str) -> float | None:
    values = [v for p in processes if isinstance(v := p.metadata.get(key), (int, float))]
    return sum(values) / len(values) if values else None


def _rates(processes: Iterable[Process]) -> tuple[float, ...]:
    """Each thread's mean rate over all processes; empty if the files do not record it."""
    rows = [row for p in processes if (row := _numbers(p.metadata))]
    if not rows or len({len(row) for row in rows}) != 1:
        return ()
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def _numbers(metadata: Mapping[str, str | int | float]) -> list[float]:
    """``benchframe_thread_rates``: numbers with commas; since a file may hold anything, other entries are ignored."""
    text = str(metadata.get("benchframe_thread_rates", ""))
    try:
        values = [float(part) for part in text.split(",")[:1024]]
    except ValueError:
        return []
    return values if all(0 <= v < 1e15 for v in values) else []


# ----------------------------------------------------------------------------------------------------------------------
# What each cell measured and its ratio to the baseline: the numbers in tables, charts and reports.

FIGURES = {"lookup": "ns/lookup", COLD: "ns/cold lookup", "fault": "ns/fault", "mapping": "ns/mapping op"}
"""Figures that have columns, with their headings. ``replay`` (ns per event of any kind) is in CSV and data frame."""
FAMILIES = (("lookup", "fault", "mapping"), (COLD,), ("replay",))
"""Figures whose comparisons are corrected together: what else is timed changes no verdict on the first three."""


@dataclass(frozen=True)
class Figure:
    """One figure of one cell: its summary and, except for the baseline, its ratio and verdict.

    ``verdict`` is corrected for all comparisons of the run; ``notes`` lists anomalies of the cell's process means (two
    groups, drift), one line each.
    """

    summary: Summary
    ratio: Ratio | None
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One cell as the tables show it."""

    cell: Cell
    figures: dict[str, Figure]

    @property
    def shown(self) -> str:
        """The state; ``disturbed`` instead of ok if a figure is that of a busy machine; with ``!`` if pyperf calls one
        unstable.

        Too few samples for 1 % do not count here: the intervals show that, and for how many percent they suffice.
        """
        hints = [hint for lines in self.cell.state.hints.values() for hint in lines]
        state = "disturbed" if self.disturbed else self.cell.state.state
        return state + "!" * any(not hint.startswith("Not enough samples") for hint in hints)

    @property
    def disturbed(self) -> bool:
        """Whether no process found an undisturbed moment for one of the figures of a cell that was measured."""
        measured = self.cell.figures.values() if self.cell.state.state == "ok" else ()
        return any(processes and all(map(restless, processes)) for processes in measured)


def figures_of(cell: Cell) -> tuple[str, ...]:
    """The figures to compare: those with columns, or for a threaded cell only the leading one. All figures of a
    threaded cell are the throughput of the same loops and move together, so three comparisons of one number would only
    cost power."""
    return tuple(FIGURES) if not cell.workload.threads else (leading(cell),)


def caching(cells: Iterable[Cell]) -> frozenset[str]:
    """Strategies that have a cache: somewhere in the run it was hit or invalidated. For other strategies a hit rate of
    0 means nothing; for these it does, on a workload where every lookup misses."""
    return frozenset(
        cell.entry.strategy
        for cell in cells
        if any(cell.state.counts.get(count) for count in ("hits", "hit_rate", "invalidations"))
    )


def rows_of(cells: Iterable[Cell], judging: Judging | None = None, *, notes: bool = True) -> list[Row]:
    """Summaries, paired ratios and verdicts of ``cells``, in their order. O(values).

    FAMILIES says which comparisons are corrected together. ``judging`` defaults to the run's own; ``notes`` False skips
    the search for anomalies.
    """
    cells = list(cells)
    judging = judging or (cells[0].judging if cells else None)
    baselines = {cell.entry.workload: cell for cell in cells if cell.baseline and cell.state.state == "ok"}
    verdicts: dict[tuple[int, str], Verdict | None] = {}
    for family in FAMILIES:
        pairs = {}
        for i, cell in enumerate(cells):
            base = baselines.get(cell.entry.workload)
            for name in family:
                if name in FIGURES and name not in figures_of(cell):
                    continue
                if base and not cell.baseline and cell.state.state == "ok":
                    pairs[i, name] = Pair(cell.rounds(name), base.rounds(name), group=name)
        verdicts |= zip(pairs, judge(pairs.values(), judging, notes=notes), strict=True)
    rows = []
    for i, cell in enumerate(cells):
        figures = {}
        for name in (*FIGURES, "replay"):
            means = cell.rounds(name)
            if cell.state.state == "ok" and means:
                verdict = verdicts.get((i, name))
                odd = shape_notes(means) if notes else ()
                figures[name] = Figure(
                    summarise(list(means.values())), verdict.ratio if verdict else None, verdict, odd
                )
        rows.append(Row(cell, figures))
    return rows
