"""How many executions a second the checker's search makes.

``python benchmarks/explore_rate.py``: random programs of three tasks and some 30 steps (reads, writes, atomic
updates, locks, waits), searched for a fixed number of executions each; median over the rounds, CPU time, one core.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path

from tabulate import tabulate

from benchframe.check.search import Coverage, Explorer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.toyworld import Toy, random_programs


def rate(seed: int, executions: int) -> tuple[Coverage, float]:
    """Coverage and executions a second of CPU time over one random program."""
    rng = random.Random(seed)
    while True:
        programs = [p[:12] for p in random_programs(rng, 3, 12, True, True)]
        if 26 <= sum(map(len, programs)) <= 34:
            explorer = Explorer(partial(Toy, programs))
            began = time.process_time()
            coverage = explorer.explore(lambda run: True, most=executions)
            seconds = time.process_time() - began
            if coverage.executions >= executions and coverage.steps / coverage.executions > 24:
                return coverage, coverage.executions / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="random programs (default 9)")
    parser.add_argument("--executions", type=int, default=1500, help="executions of each (default 1500)")
    options = parser.parse_args()
    measured = [rate(seed, options.executions) for seed in range(options.rounds)]
    rates = sorted(r for _, r in measured)
    lengths = [c.steps / c.executions for c, _ in measured]
    row = [len(rates), f"{statistics.mean(lengths):.0f}", f"{statistics.median(rates):.0f}", f"{rates[0]:.0f}",
           f"{rates[-1]:.0f}"]  # fmt: skip
    print(tabulate([row], ["programs", "steps each", "executions/s, median", "least", "most"], tablefmt="github"))


if __name__ == "__main__":
    main()
