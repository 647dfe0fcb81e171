"""A recorded program by itself and many of it side by side: ``python benchmarks/side_by_side.py``.

A replay of one program finds all it reads in the nearest cache. Between two faults of a real program stand its own work
and that of others, which take the caches. Here N runs of the program go side by side, event by event in turn, each in
address spaces of its own, so that together they outgrow a core's caches. Faults are bare lookups, since the work of a
fault that misses the caches hides what a lookup costs. Every answer is checked against the oracle first.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
from sampling import Spread, machine, print_table

from benchframe.engine.compile import compile_strategies
from benchframe.engine.session import Session
from benchframe.events import Kind
from benchframe.registry import load
from benchframe.trace.trace import Trace


def side_by_side(trace: Trace, copies: int) -> Trace:
    """``copies`` runs of ``trace``, event by event in turn; faults become lookups."""
    made = np.repeat(trace.events, copies)
    which = np.tile(np.arange(copies), len(trace.events))
    made["mm"] = made["mm"] * copies + which
    made["task"] = made["task"] * copies + which
    fork, thread = made["kind"] == Kind.FORK, made["kind"] == Kind.THREAD
    made["addr"][fork] = made["addr"][fork] * copies + which[fork]
    made["len"][fork | thread] = made["len"][fork | thread] * copies + which[fork | thread]
    made["kind"][made["kind"] == Kind.FAULT] = Kind.LOOKUP
    limits = {**trace.meta.limits, "setup": trace.setup * copies}
    return Trace(made, meta=replace(trace.meta, limits=limits, snapshots=()))


def main() -> None:
    """Parse options, compile, check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="rbtree,mmap_cache,vmacache", help="with commas (default: %(default)s)")
    parser.add_argument("--trace", default="gcc-project", help="a shipped trace (default: %(default)s)")
    parser.add_argument("--copies", default="1,8,32,100", help="runs side by side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="measurements of each (default: %(default)s)")
    args = parser.parse_args()
    print(machine())
    known, names = load(), args.strategy.split(",")
    compile_strategies([known.strategy(name) for name in names])
    rows = []
    for copies in map(int, args.copies.split(",")):
        trace = side_by_side(known.spec(args.trace).trace(1), copies)
        sessions = {name: Session(known.strategy(name), trace, layout_seed=1) for name in names}
        for name, session in sessions.items():
            if not session.verify().ok:
                sys.exit(f"side_by_side: {name}: {session.verify().what}")
        ns: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(args.rounds):
            for name, session in sessions.items():
                ns[name].append(session.measure(max(2, 64 // copies)).lookup_ns)
        rows.append([str(copies), *(Spread(tuple(ns[name])).text(1) for name in names), str(args.rounds)])
    print_table(
        f"{args.trace} side by side with itself: ns per lookup, median [25 % .. 75 %]", ["runs", *names, "n"], rows
    )


if __name__ == "__main__":
    main()
