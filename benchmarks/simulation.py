"""One and two simulated CPUs beside one and two real threads: how far the simulation is from what was measured.

    python benchmarks/simulation.py [RUN] [--machine NAME] [--set NUMBER=VALUE,...]

RUN is a run with --threads 1,2 (default: reports/reference), so native figures are measured once and kept. A cell's
native throughput is that of its fastest process, as in `benchframe simulate --calibrate`: other load on the machine
only takes away, from two threads on two CPUs twice as much as from one (in brackets: the same with the mean of
processes). Printed: each cell's speed-up from one to two, measured and simulated; the root mean square of the
logarithm of their ratio; of how many pairs of strategies the order of throughput with two threads is the same. A pair
counts if the processes decide it: the verdict that a report of the run would give, at 5 % for all pairs together (in
brackets: pairs whose fastest processes differ by 5 % or more, decided or not). Exit code 1 if the root mean square is
above 0.22, or fewer than 9 in 10 of the decided pairs are in order.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from benchframe.registry import load
from benchframe.results.figures import points
from benchframe.results.folder import RunFolder
from benchframe.simulator.machines import load_machine, load_work
from benchframe.simulator.session import Depth, SimulatedSession
from benchframe.stats.verdict import Pair, judge

RMS, PAIRS, TOO_NEAR = 0.22, 0.9, 1.05


def main() -> int:
    """Simulate the cells of a run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default=str(Path(__file__).resolve().parent.parent / "reports/reference"))
    parser.add_argument("--machine", default="milan-2s")
    parser.add_argument("--set", dest="values", default="")
    args = parser.parse_args()
    values = {name: float(value) for name, _, value in (p.partition("=") for p in args.values.split(",") if p)}
    machine, nothing, known = load_machine(args.machine).changed(values), load_work("none"), load([])
    fastest: dict[tuple[str, str], dict[int, float]] = {}
    average: dict[tuple[str, str], dict[int, float]] = {}
    crews: dict[tuple[str, str], dict[int, float]] = {}
    """ns per operation of two threads, by round."""
    for point in points(RunFolder.open(Path(args.run)).cells()):
        if point.throughput and point.threads in (1, 2) and point.real == point.threads:
            processes = [
                sum(map(float, str(process.metadata["benchframe_thread_rates"]).split(",")))
                for process in point.cell.figures[point.figure]
            ]
            key = (point.workload, point.cell.entry.strategy)
            fastest.setdefault(key, {})[point.threads] = max(processes)
            average.setdefault(key, {})[point.threads] = sum(processes) / len(processes)
            if point.threads == 2:
                crews[key] = {number: 1e9 / rate for number, rate in enumerate(processes)}
    simulated: dict[tuple[str, str], dict[int, float]] = {}
    print(f"{'':46}{'measured, M/s':>22}{'simulated, M/s':>24}   speed-ups")
    for key, found in fastest.items():
        if set(found) != {1, 2}:
            continue
        workload, strategy = key
        own = {}
        for cpus in (1, 2):
            session = SimulatedSession(known.strategy(strategy), known.spec(workload).trace(0, cpus), cpus)
            own[cpus] = session.right_run(machine, nothing, depth=Depth(accesses=1_500_000)).throughput
        simulated[key] = own
        told = "".join(f"{rate / 1e6:12.1f}" for rate in (found[1], found[2], own[1], own[2]))
        print(f"{workload:28}{strategy:18}{told}   {found[2] / found[1]:.2f} {own[2] / own[1]:.2f}", flush=True)
    rms, near_right, near_asked = compared(simulated, fastest)
    mean_rms, _, _ = compared(simulated, average)
    right, asked = decided(simulated, crews)
    print(f"speed-up: rms of the logarithm {rms:.3f} (means: {mean_rms:.3f}), {len(simulated)} cells")
    alone = root_mean_square([math.log(own[1] / fastest[key][1]) for key, own in simulated.items()])
    print(f"one CPU: rms of the logarithm {alone:.3f}")
    print(f"order with two: {right} of {asked} decided pairs (fastest processes: {near_right} of {near_asked})")
    return int(rms > RMS or right < PAIRS * asked)


Rates = Mapping[tuple[str, str], Mapping[int, float]]


def compared(simulated: Rates, measured: Rates) -> tuple[float, int, int]:
    """The root mean square of the logarithm of simulated over measured speed-ups; of how many pairs of strategies on
    one workload the order is right, and how many pairs there are."""
    errors = [math.log(own[2] / own[1] / (measured[key][2] / measured[key][1])) for key, own in simulated.items()]
    right = asked = 0
    for one, other in combinations(simulated, 2):
        rates = measured[one][2], measured[other][2]
        if one[0] == other[0] and max(rates) / min(rates) >= TOO_NEAR:
            asked += 1
            right += (rates[0] > rates[1]) == (simulated[one][2] > simulated[other][2])
    return root_mean_square(errors), right, asked


def decided(simulated: Rates, crews: Mapping[tuple[str, str], Mapping[int, float]]) -> tuple[int, int]:
    """Of how many decided pairs of strategies on one workload the simulated order is right, and how many there are."""
    pairs = [(one, other) for one, other in combinations(simulated, 2) if one[0] == other[0]]
    verdicts = judge([Pair(crews[one], crews[other], unpaired=True, group=one[0]) for one, other in pairs], notes=False)
    right = asked = 0
    for (one, other), verdict in zip(pairs, verdicts, strict=True):
        if verdict is not None and verdict.word in ("faster", "slower"):
            asked += 1
            right += (verdict.word == "faster") == (simulated[one][2] > simulated[other][2])
    return right, asked


def root_mean_square(values: Sequence[float]) -> float:
    """As it says."""
    return math.sqrt(sum(value * value for value in values) / len(values))


if __name__ == "__main__":
    sys.exit(main())
