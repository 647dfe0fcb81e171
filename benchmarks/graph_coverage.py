"""How many scenarios `check --memory lkmm` searches whole, in a given CPU time for each.

``python benchmarks/graph_coverage.py rbtree pmdcache_rcu --seconds 6``: each strategy in every common scenario without
TLBs, ``--jobs`` processes. Seconds are of CPU time, so that a busy machine finds the same. Prints one line for each
search that was cut or found something, and a table.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

from tabulate import tabulate

from benchframe.check.axioms import MODELS
from benchframe.check.cases import COMMON
from benchframe.check.execution import Broken
from benchframe.check.weak import GraphCase
from benchframe.check.weak_hunt import GraphHunt
from benchframe.registry import load

STRATEGIES = ("rbtree", "vmacache", "mmap_cache", "maple_rcu", "pmdcache_rcu", "per_vma_rwsem")
SCENARIOS = {one.name: one for one in COMMON if not one.hardware}
FAR = 1e9
"""A deadline that the clock of the wall does not reach: CPU time ends a search."""


@dataclass
class Search:
    """One search: CPU seconds, graphs, the events of all, failures; ``whole`` if it came to its end."""

    strategy: str
    scenario: str
    seconds: float = 0.0
    graphs: int = 0
    events: int = 0
    failures: tuple[str, ...] = ()
    whole: bool = False


class _Late(Exception):
    pass


def search(strategy: str, scenario: str, model: str, seconds: float) -> Search:
    """Search one scenario for ``seconds`` of CPU time at most."""
    found = Search(strategy, scenario)
    end = time.process_time() + seconds

    def tick(executions: int) -> None:
        if time.process_time() > end:
            raise _Late

    began = time.process_time()
    try:
        hunt = GraphHunt(GraphCase(SCENARIOS[scenario], load().strategy(strategy), model), tick=tick)
        try:
            hunt.run(time.monotonic() + FAR)
        except _Late:
            hunt.search.counts.complete = False
        counts = hunt.search.counts
        found.graphs, found.events, found.whole = counts.executions, counts.events, counts.complete
        found.failures = tuple(str(one.broken) for one in hunt.failures.values())
    except Broken as broken:
        found.failures = (str(broken),)
    found.seconds = time.process_time() - began
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("strategies", nargs="*", default=STRATEGIES, help=f"default {' '.join(STRATEGIES)}")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="only this; may be repeated")
    parser.add_argument("--seconds", type=float, default=6.0, help="CPU seconds of each search (default 6)")
    parser.add_argument("--memory", default=MODELS[0], choices=MODELS, help=f"default {MODELS[0]}")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    options = parser.parse_args()
    names = list(load().strategies) if list(options.strategies) == ["all"] else options.strategies
    pairs = list(product(names, options.scenario or SCENARIOS))
    by: dict[str, list[Search]] = defaultdict(list)
    with ProcessPoolExecutor(options.jobs) as pool:
        some = [pool.submit(search, *pair, options.memory, options.seconds) for pair in pairs]
        for one in (job.result() for job in some):
            by[one.strategy].append(one)
            if not one.whole or one.failures:
                what = f"{one.strategy:16} {one.scenario:24} {one.graphs:6} graphs {one.seconds:6.1f} s"
                print(what, "; ".join(one.failures) or "cut", flush=True)
    rows = [
        [name, f"{sum(one.whole for one in some)} of {len(some)}", sum(one.graphs for one in some),
         sum(one.events for one in some), f"{sum(one.seconds for one in some):.0f}"]
        for name, some in by.items()
    ]  # fmt: skip
    every = [one for some in by.values() for one in some]
    rows.append(["all", f"{sum(one.whole for one in every)} of {len(every)}", sum(one.graphs for one in every),
                 sum(one.events for one in every), f"{sum(one.seconds for one in every):.0f}"])  # fmt: skip
    print(tabulate(rows, ["strategy", "whole", "graphs", "events", "CPU s"], tablefmt="github"))


if __name__ == "__main__":
    main()
