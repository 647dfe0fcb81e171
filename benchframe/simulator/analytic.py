"""A second estimate of throughput, independent of the simulation's clocks: mean value analysis of one queue.

The line with the highest cost is a server of a closed network, everything else is think time (Reiser and Lavenberg
1980). Its demand is how often an operation needs the line, as counted, times the mean latency between two of the CPUs;
think time is the time of an operation on one CPU alone. So the estimate takes a strategy's traffic from the simulation,
and its queueing from theory. If the two differ much, more than one line is a bottleneck, or waiting is not queueing for
a line.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.results.simulated import SimulatedCell, SimulatedRun
from benchframe.simulator.machines import Machine


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
