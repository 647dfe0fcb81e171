"""A simulated run in tables, pictures and sentences: how it scales, where it spends time, a second estimate.

A second estimate of throughput, independent of the simulation's clocks: mean value analysis of one queue. The line with
the highest cost is a server of a closed network, everything else is think time (Reiser and Lavenberg 1980). Its demand
is how often an operation needs the line, as counted, times the mean latency between two of the CPUs; think time is the
time of an operation on one CPU alone. So the estimate takes a strategy's traffic from the simulation, and its queueing
from theory. If the two differ much, more than one line is a bottleneck, or waiting is not queueing for a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from benchframe.report.details import per_second
from benchframe.report.table import Table, Value, ns
from benchframe.results.folder import RunFolder
from benchframe.results.studies import (
    FieldCost,
    Mark,
    Plot,
    SavedStudy,
    Series,
    SimulatedCell,
    SimulatedRun,
    Stack,
    simulated_cells,
)
from benchframe.simulator.machines import PARTS, Machine, Work


def mean_latency(machine: Machine, cpus: int) -> float:
    """ns that a line takes from one of ``cpus`` CPUs to another, averaged over all pairs. O(CPUs).

    >>> from benchframe.simulator.machines import load_machine
    >>> mean_latency(load_machine("milan-2s"), 2), round(mean_latency(load_machine("milan-2s"), 16), 1)
    (23.0, 67.8)
    """
    if cpus < 2:
        return 0.0
    domain, socket = machine.cores, machine.cores * machine.domains
    total = 0.0
    for one in range(cpus):
        same = min(cpus, (one // domain + 1) * domain) - one // domain * domain
        near = min(cpus, (one // socket + 1) * socket) - one // socket * socket
        total += (same - 1) * machine.numbers["near"].value
        total += (near - same) * machine.numbers["socket"].value
        total += (cpus - near) * machine.numbers["far"].value
    return total / (cpus * (cpus - 1))


def mva(customers: int, demand: float, think: float) -> float:
    """The exact throughput of a closed network of one queue: operations per unit of time. O(customers).

    >>> round(mva(1, 10.0, 90.0), 3), round(mva(1000, 10.0, 90.0), 3)
    (0.01, 0.1)
    """
    queue = rate = 0.0
    for n in range(1, customers + 1):
        response = demand * (1 + queue)
        rate = n / (response + think)
        queue = rate * response
    return rate


def hottest(run: SimulatedRun) -> tuple[str, int, int]:
    """(structure, line of its record, transactions) of the line with the highest cost; ("", 0, 0) if there is none."""
    times: dict[tuple[str, int], float] = {}
    counts: dict[tuple[str, int], int] = {}
    for field in run.fields:
        key = (field.structure, field.line)
        times[key] = times.get(key, 0.0) + field.transfer + field.queue
        counts[key] = counts.get(key, 0) + field.transactions
    if not times:
        return "", 0, 0
    best = max(times, key=lambda key: (times[key], key))
    return best[0], best[1], counts[best]


def estimate(cells: Sequence[SimulatedCell], machine: Machine) -> dict[int, float]:
    """By number of CPUs, operations of the leading figure per second, for one strategy and workload, which must have a
    cell with one CPU and one with more. Empty without them."""
    by_cpus = {cell.cpus: cell.asked[0] for cell in cells}
    several = sorted(n for n in by_cpus if n > 1)
    if 1 not in by_cpus or not several:
        return {}
    alone, pair = by_cpus[1], by_cpus[several[0]]
    figure = cells[0].figure
    visits = hottest(pair)[2] / max(1, pair.operations.get(figure, 0))
    think = alone.window / max(1, alone.operations.get(figure, 0))
    found = {1: 1e9 / think}
    for cpus in several:
        found[cpus] = 1e9 * mva(cpus, visits * mean_latency(machine, cpus), think)
    return found


WHAT_LIMITS = {
    "instructions": "its own instructions",
    "private": "its own caches",
    "atomics": "atomic operations on lines it owns",
    "transfers": "cache lines coming from other CPUs",
    "memory": "memory",
    "queueing": "CPUs standing in line for cache lines",
    "waiting": "waiting for locks and other threads",
    "stores": "its store buffer",
    "shootdowns": "TLB shootdowns",
    "work": "the declared work around it",
    "jitter": "chance",
}
STILL = 1.05
"""A curve has peaked where more CPUs gain less than this."""


def groups(cells: Sequence[SimulatedCell]) -> dict[tuple[str, str], list[SimulatedCell]]:
    """The cells of each workload and strategy, by number of CPUs."""
    found: dict[tuple[str, str], list[SimulatedCell]] = {}
    for cell in cells:
        found.setdefault((cell.workload, cell.strategy), []).append(cell)
    return found


def banded(cell: SimulatedCell) -> str:
    """Throughput with its band: ``16.6 M [12.1 M, 20.3 M]``; without corners it is the band of the seeds; with one run
    there is none."""
    low, high = cell.band
    text = per_second(cell.throughput)
    return f"{text} [{per_second(low)}, {per_second(high)}]" if len(cell.runs) > 1 else text


def scaling(cells: Sequence[SimulatedCell], machine: Machine) -> Table:
    """Rows workload x strategy x CPUs: throughput with its band, speed-up, analytic estimate, how the time was
    spent."""
    rows, records = [], []
    for (workload, strategy), own in groups(cells).items():
        guesses = estimate(own, machine)
        first = own[0]
        for cell in own:
            ideal = cell.cpus / first.cpus
            speed = cell.throughput / first.throughput if first.throughput else 0.0
            guess = guesses.get(cell.cpus)
            rows.append(
                (
                    workload,
                    strategy,
                    str(cell.cpus),
                    banded(cell),
                    f"{speed:.3g}",
                    f"{ideal:.3g}",
                    per_second(guess) if guess else "",
                    main_parts(cell),
                    f"{min(run.rounds for run in cell.asked):.3g}",
                )
            )
            low, high = cell.band
            record: dict[str, Value] = {
                "workload": workload,
                "strategy": strategy,
                "cpus": cell.cpus,
                "operation": cell.figure,
                "per_second": cell.throughput,
                "low": low,
                "high": high,
                "speed_up": speed,
                "analytic": guess,
                **{f"ns_{name}": value for name, value in cell.parts().items()},
            }
            records.append(record)
    heads = ("workload", "strategy", "CPUs", "per second [band]", "speed-up", "ideal", "analytic", "time", "rounds")
    right = (False, False, True, True, True, True, True, False, True)
    return Table("Simulated CPUs", heads, tuple(rows), right, tuple(records), tuple(scaling_notes(cells)))


def scaling_notes(cells: Sequence[SimulatedCell]) -> Iterator[str]:
    """The meaning of the columns."""
    corners = any(run.corner for cell in cells for run in cell.runs)
    seeds = max((len(cell.asked) for cell in cells), default=0)
    over = f"{seeds} seed{'s' * (seeds != 1)}" + (" and 8 corners of the box of machine numbers" if corners else "")
    yield f"band: least and most over {over}." + (
        "" if corners else " --band adds the box of what the machine might be."
    )
    yield "analytic: mean value analysis of the line that costs most, with the traffic of the fewest CPUs above 1."
    yield "time: of all CPUs, what it went into; parts of less than 10 % are left out."
    yield "rounds: of its loop that a CPU made on average in the time that counts; below 3 the figure may jump."


def main_parts(cell: SimulatedCell) -> str:
    """``queueing 77 %, transfers 13 %``."""
    parts = cell.parts()
    total = sum(parts.values()) or 1.0
    big = sorted(((ns_, name) for name, ns_ in parts.items() if ns_ >= 0.1 * total), reverse=True)
    return ", ".join(f"{name} {100 * value / total:.0f} %" for value, name in big[:3])


def sentences(cells: Sequence[SimulatedCell]) -> list[str]:
    """For each workload and strategy: where it peaks, and what limits it."""
    return [_sentence(workload, strategy, own) for (workload, strategy), own in groups(cells).items() if len(own) > 1]


def _sentence(workload: str, strategy: str, own: Sequence[SimulatedCell]) -> str:
    best = max(cell.throughput for cell in own)
    peak = next(cell for cell in own if cell.throughput * STILL >= best)
    last = own[-1]
    head = f"{strategy} on {workload}"
    if peak is last:
        ratio = last.throughput / own[0].throughput / (last.cpus / own[0].cpus) if own[0].throughput else 0.0
        told = f"{head} still grows at {last.cpus} CPUs, with {100 * ratio:.0f} % of what so many would give alone"
    else:
        told = f"{head} peaks at {peak.cpus} CPU{'s' * (peak.cpus > 1)} with {per_second(peak.throughput)} a second"
        if last.throughput * STILL < peak.throughput:
            told += f" and falls to {100 * last.throughput / peak.throughput:.0f} % of that at {last.cpus}"
    parts = last.parts()
    total = sum(parts.values()) or 1.0
    worst = max(parts, key=lambda name: parts[name])
    told += f". At {last.cpus}, {100 * parts[worst] / total:.0f} % of the time goes to {WHAT_LIMITS[worst]}"
    line = _hottest(last)
    return told + (f"; the line that costs most holds {line}." if line else ".")


def _hottest(cell: SimulatedCell) -> str:
    """``mm.mmap_lock (written by mm.mmap_lock) and mm.pgd, mm.mm_rb``: the fields of the line with the highest cost."""
    run = cell.asked[0]
    lines: dict[tuple[str, int], list[FieldCost]] = {}
    for field in run.fields:
        lines.setdefault((field.structure, field.line), []).append(field)
    if not lines:
        return ""
    best = max(lines.values(), key=lambda fields: (sum(f.ns for f in fields), fields[0].name))
    whole = sum(f.ns for f in best)
    names = [f.name for f in best if f.ns >= 0.02 * whole][:5]
    writers = {p.writer for p in run.pairs if p.reader in names and p.writer}
    told = ", ".join(names)
    return told + (f" (written: {', '.join(sorted(writers)[:3])})" if writers else "")


def orders(cells: Sequence[SimulatedCell]) -> list[str]:
    """Which orders of strategies hold over all corners and seeds, and which do not: a line per workload and number of
    CPUs. Ignores runs without corners."""
    places: dict[tuple[str, int], list[SimulatedCell]] = {}
    for cell in cells:
        if any(run.corner for run in cell.runs):
            places.setdefault((cell.workload, cell.cpus), []).append(cell)
    found = []
    for (workload, cpus), here in places.items():
        if len(here) < 2:
            continue
        robust: list[str] = []
        open_: list[str] = []
        for one, other in combinations(sorted(here, key=lambda c: -c.throughput), 2):
            ratios = _ratios(one, other)
            (robust if ratios and min(ratios) > 1 else open_).append(
                f"{one.strategy} over {other.strategy} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        told = f"{workload}, {cpus} CPU{'s' * (cpus > 1)}: "
        told += f"robust over the box: {', '.join(robust)}" if robust else "no order is robust over the box"
        found.append(told + (f"; not robust: {', '.join(open_)}" if open_ else "") + ".")
    return found


def _ratios(one: SimulatedCell, other: SimulatedCell) -> list[float]:
    """Throughput of one relative to the other's, for the runs that both have."""
    theirs = {(run.seed, run.corner): run.throughput(other.figure) for run in other.runs}
    return [
        run.throughput(one.figure) / theirs[run.seed, run.corner]
        for run in one.runs
        if theirs.get((run.seed, run.corner))
    ]


def hot_lines(cells: Sequence[SimulatedCell], top: int = 6) -> Table:
    """The fields with the highest cost in each strategy's cell with most CPUs: transactions and time per operation."""
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    for (workload, strategy), own in groups(cells).items():
        cell = own[-1]
        run = cell.asked[0]
        n = max(1, sum(run.operations.values()))
        for field in run.fields[:top]:
            pairs = [p for p in run.pairs if p.reader == field.name]
            told = ", ".join(
                f"{p.writer or 'nobody'} {100 * p.n / max(1, field.transactions):.0f} %" for p in pairs[:3]
            )
            rows.append(
                (
                    workload,
                    strategy,
                    str(cell.cpus),
                    field.name,
                    str(field.line),
                    f"{field.transactions / n:.2f}",
                    ns(field.transfer / n),
                    ns(field.queue / n),
                    ns(field.wait / n),
                    told,
                )
            )
            records.append(
                {
                    "workload": workload,
                    "strategy": strategy,
                    "cpus": cell.cpus,
                    "field": field.name,
                    "line": field.line,
                    "transactions": field.transactions / n,
                    "transfer_ns": field.transfer / n,
                    "queue_ns": field.queue / n,
                    "wait_ns": field.wait / n,
                }
            )
    heads = (
        "workload",
        "strategy",
        "CPUs",
        "field",
        "line",
        "fetches",
        "ns on the way",
        "ns in line",
        "ns waiting",
        "after a write to",
    )
    right = (False, False, True, False, True, True, True, True, True, False)
    notes = (
        "of each strategy's cell of most CPUs; fetches and ns are CPU time per operation.",
        "fetches: how often the line of the field had to come. line: which 64 bytes of the record it lies in.",
        "in line: others were served first. waiting: until somebody wrote the field, a lock say.",
        "after a write to: which field of the line was written last before the fetch.",
    )
    return Table("Lines that cost most", heads, tuple(rows), right, tuple(records), notes)


# ---- for the report --------------------------------------------------------------------------------------------------
def studies(folder: RunFolder, machine: Machine, work: Work, layout: str, command: Sequence[str]) -> list[SavedStudy]:
    """The sections of a simulated run in a report."""
    cells = simulated_cells(folder)
    if not cells:
        return []
    table, lines = scaling(cells, machine), hot_lines(cells)
    told = (
        f"Simulated, not measured: {machine.title} ({machine.name}: {machine.about}) Declared work: {work.told()}. "
        f"Layout of the structures: {layout}. docs/simulation.md says what is modelled and what is not."
    )
    names = tuple(dict.fromkeys(cell.strategy for cell in cells))
    curves, stacks = [], []
    there = [name for name in PARTS if any(cell.parts().get(name, 0) > 0 for cell in cells)]
    for workload in dict.fromkeys(cell.workload for cell in cells):
        own = {s: c for (w, s), c in groups(cells).items() if w == workload and len(c) > 1}
        if own:
            curves.append(_plot(workload, own))
        stacks += [_stack(workload, strategy, c, there) for strategy, c in own.items()]
    found = [
        SavedStudy(
            kind="simulate",
            title="Simulated CPUs: throughput",
            note=told,
            command=tuple(command),
            heads=table.heads,
            right=table.right,
            rows=table.rows,
            notes=(*sentences(cells), *orders(cells), *table.notes),
            plots=tuple(curves),
            strategies=names,
        )
    ]
    if stacks:
        found.append(
            SavedStudy(
                kind="simulate",
                title="Simulated CPUs: where the time goes",
                note="CPU time per operation by the number of CPUs, and what it went into.",
                command=tuple(command),
                heads=("part", "what it is"),
                right=(False, False),
                rows=tuple(PARTS.items()),
                notes=(),
                stacks=tuple(stacks[:16]),
                strategies=names,
            )
        )
    found.append(
        SavedStudy(
            kind="simulate",
            title="Simulated CPUs: lines that cost most",
            note="Which fields' cache lines CPUs fetch, stand in line for and wait for.",
            command=tuple(command),
            heads=lines.heads,
            right=lines.right,
            rows=lines.rows,
            notes=lines.notes,
            strategies=names,
        )
    )
    return found


def _plot(workload: str, own: dict[str, list[SimulatedCell]]) -> Plot:
    series = [
        Series(
            strategy,
            tuple(
                Mark(cell.throughput / 1e6, cell.band[0] / 1e6, cell.band[1] / 1e6, float(cell.cpus)) for cell in cells
            ),
        )
        for strategy, cells in own.items()
    ]
    best = max((cells[0].throughput / cells[0].cpus for cells in own.values()), default=0.0) / 1e6
    counts = sorted({cell.cpus for cells in own.values() for cell in cells})
    ideal = tuple(Mark(best * n, best * n, best * n, float(n)) for n in counts)
    return Plot(f"{workload}: throughput by CPUs", "CPUs", "million operations per second", tuple(series), ideal)


def _stack(workload: str, strategy: str, cells: Sequence[SimulatedCell], names: Sequence[str]) -> Stack:
    bars = tuple(
        (str(cell.cpus), tuple((name, max(cell.parts().get(name, 0.0), 0.0)) for name in names)) for cell in cells
    )
    return Stack(f"{strategy} on {workload}", "ns of CPU time per operation", bars)
