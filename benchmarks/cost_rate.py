"""How many lookups a second the cost engine counts, and what sampling a million events costs in precision.

``python benchmarks/cost_rate.py``: CPU time, one core, median over the rounds. A stream of bare lookups is counted
whole; then one of a million events, whole and by the budget of `benchframe run`.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tabulate import tabulate

from benchframe.engine.cost.run import CountedReplay
from benchframe.engine.job import COST_RECORDS
from benchframe.engine.native import compile_strategies
from benchframe.registry import load

STRATEGIES = ("rbtree", "mmap_cache", "vmacache", "maple", "pmdcache", "sorted_array")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="counts of each (default 3)")
    parser.add_argument("--events", type=int, default=80_000, help="lookups of the stream (default 80000)")
    parser.add_argument("--million", action="store_true", help="a million events too, whole and sampled")
    options = parser.parse_args()
    known = load()
    compile_strategies([known.strategy(name) for name in STRATEGIES])
    stream = known.spec(f"zipf:events={options.events}").trace(0)
    rows = []
    for name in STRATEGIES:
        rates, records = [], 0
        for _ in range(options.rounds):
            counted = CountedReplay(known.strategy(name), stream)
            began = time.process_time()
            cost = counted.run(0)
            rates.append(options.events / (time.process_time() - began))
            records = cost.records
        rows.append([name, f"{records / options.events:.0f}", f"{statistics.median(rates):,.0f}", f"{max(rates):,.0f}"])
    print(tabulate(rows, ["strategy", "records a lookup", "lookups/s, median", "best"], tablefmt="github"))
    if options.million:
        print(tabulate(_million(known), ["zipf, 1 M events", "CPU s", "lines", "loads", "branches"], tablefmt="github"))


def _million(known: object) -> list[list[str]]:
    from benchframe.registry import Registry

    assert isinstance(known, Registry)
    stream = known.spec("zipf:events=1000000").trace(0)
    found = []
    for label, budget in (("whole", 0), ("sampled", COST_RECORDS)):
        counted = CountedReplay(known.strategy("rbtree"), stream)
        began = time.process_time()
        numbers = counted.run(budget).numbers
        seconds = time.process_time() - began
        texts = []
        for key in ("lines", "loads", "branches"):
            error = numbers.get(f"lookup.{key}_se")
            texts.append(f"{numbers[f'lookup.{key}']:.3f}" + (f" ± {error:.3f}" if error is not None else ""))
        found.append([f"{label} ({100 * numbers['counted'] / numbers['events']:.0f} %)", f"{seconds:.1f}", *texts])
    return found


if __name__ == "__main__":
    main()
