"""One and two simulated CPUs beside one and two real threads: how far the simulation is from what was measured.

    python benchmarks/simulation.py [RUN] [--machine NAME] [--set NUMBER=VALUE,...]

RUN is a run with --threads 1,2 (default: reports/reference). Printed: each cell's speed-up from one to two, measured
and simulated; the root mean square of the logarithm of their ratio; of how many pairs of strategies the order of
throughput with two threads is the same. Two strategies that were measured within 5 % of each other are no pair. Exit
code 1 if the root mean square is above 0.22, or fewer than 9 in 10 pairs are in order.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import combinations
from pathlib import Path

from benchframe.registry import load
from benchframe.results.figures import points
from benchframe.results.folder import RunFolder
from benchframe.simulator.machines import load_machine, load_work
from benchframe.simulator.session import Depth, SimulatedSession

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
    measured: dict[tuple[str, str], dict[int, float]] = {}
    for point in points(RunFolder.open(Path(args.run)).cells()):
        if point.throughput and point.threads in (1, 2) and point.real == point.threads:
            total = sum(point.rates)
            measured.setdefault((point.workload, point.cell.entry.strategy), {})[point.threads] = total
    errors, rates = [], {}
    print(f"{'':46}{'measured, M/s':>22}{'simulated, M/s':>24}   speed-ups")
    for (workload, strategy), found in measured.items():
        if set(found) != {1, 2}:
            continue
        own = {}
        for cpus in (1, 2):
            session = SimulatedSession(known.strategy(strategy), known.spec(workload).trace(0, cpus), cpus)
            own[cpus] = session.right_run(machine, nothing, depth=Depth(accesses=1_500_000)).throughput
        rates[workload, strategy] = own
        real, simulated = found[2] / found[1], own[2] / own[1]
        errors.append(math.log(simulated / real))
        told = "".join(f"{rate / 1e6:12.1f}" for rate in (found[1], found[2], own[1], own[2]))
        print(f"{workload:28}{strategy:18}{told}   {real:.2f} {simulated:.2f}", flush=True)
    rms = math.sqrt(sum(e * e for e in errors) / len(errors))
    alone = [math.log(rates[key][1] / measured[key][1]) for key in rates]
    right = asked = 0
    for (w1, s1), (w2, s2) in combinations(rates, 2):
        one, other = measured[w1, s1][2], measured[w2, s2][2]
        if w1 == w2 and max(one, other) / min(one, other) >= TOO_NEAR:
            asked += 1
            right += (one > other) == (rates[w1, s1][2] > rates[w2, s2][2])
    print(f"speed-up: rms of the logarithm {rms:.3f}, mean {sum(errors) / len(errors):+.3f}, {len(errors)} cells")
    print(f"one CPU: rms of the logarithm {math.sqrt(sum(e * e for e in alone) / len(alone)):.3f}")
    print(f"order with two: {right} of {asked} pairs")
    return int(rms > RMS or right < PAIRS * asked)


if __name__ == "__main__":
    sys.exit(main())
