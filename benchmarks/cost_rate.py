"""How many lookups a second the cost engine counts, and what sampling a million events costs in precision.

``python benchmarks/cost_rate.py``: CPU time, one core, median over the rounds. A stream of bare lookups is counted
whole, by compiled code (its compilation is not timed) and by interpreted code; ``--strategies all`` takes all
that are known. With ``--million`` a stream of a million events too, whole and by the budget of `benchframe run`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from tabulate import tabulate

from benchframe.engine import cost as count
from benchframe.engine.compile import compile_strategies
from benchframe.engine.cost import CountedReplay
from benchframe.engine.job import COST_RECORDS
from benchframe.registry import load
from benchframe.strategy import Strategy
from benchframe.trace.trace import Trace

STRATEGIES = ("rbtree", "mmap_cache", "vmacache", "maple", "pmdcache", "sorted_array")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="counts of each (default 3)")
    parser.add_argument("--events", type=int, default=80_000, help="lookups of the stream (default 80000)")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="names with commas between, or all")
    parser.add_argument("--million", action="store_true", help="a million events too, whole and sampled")
    options = parser.parse_args()
    known = load()
    names = sorted(known.strategies) if options.strategies == "all" else options.strategies.split(",")
    compile_strategies([known.strategy(name) for name in names])
    stream = known.spec(f"zipf:events={options.events}").trace(0)
    rows = []
    for name in names:
        fast, records = _rate(known.strategy(name), stream, options.rounds, 0)
        slow, _ = _rate(known.strategy(name), stream, 1, None)
        rows.append([name, f"{records / options.events:.0f}", f"{fast:,.0f}", f"{slow:,.0f}"])
        print(f"{name}: {fast:,.0f}", file=sys.stderr, flush=True)
    print(tabulate(rows, ["strategy", "records a lookup", "lookups/s", "interpreted"], tablefmt="github"))
    if options.million:
        print(tabulate(_million(known), ["zipf, 1 M events", "CPU s", "lines", "loads", "branches"], tablefmt="github"))


def _rate(strategy: Strategy, stream: Trace, rounds: int, compiled: int | None) -> tuple[float, int]:
    """(lookups a second of CPU time, records); ``compiled`` None: interpreted."""
    count.LOAD = count.COMPILE = 1 << 62 if compiled is None else compiled
    rates, records = [], 0
    for _ in range(rounds):
        counted = CountedReplay(strategy, stream)
        if counted.compile() is (compiled is None):
            print(f"{strategy.name}: cannot be compiled for counting", file=sys.stderr)
        began = time.process_time()
        records = counted._replay(0).records
        rates.append((len(stream.events) - stream.setup) / (time.process_time() - began))
    return statistics.median(rates), records


def _million(known: object) -> list[list[str]]:
    from benchframe.registry import Registry

    assert isinstance(known, Registry)
    stream = known.spec("zipf:events=1000000").trace(0)
    count.LOAD = count.COMPILE = 0
    found = []
    for label, budget in (("whole", 0), ("sampled", COST_RECORDS)):
        counted = CountedReplay(known.strategy("rbtree"), stream)
        counted.compile()
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
