"""How fast whole traces go through the model, and how long a large address space takes to build.

``python benchmarks/replay_rate.py``: events a second of every strategy on every shipped trace, and the time to make
65 530 VMAs by mmap, with MAP_FIXED and by top-down search. Each is checked against the oracle first. What is timed is
the replay of the native engine alone; the state is put back between replays, outside the clock.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from sampling import Spread, interleave, machine, print_table

from benchframe import stream
from benchframe.engine.compile import compile_strategies
from benchframe.engine.session import Session
from benchframe.registry import Registry, load
from benchframe.trace.trace import Trace


def sample(known: Registry, names: list[str], trace: Trace, rounds: int, seed: int) -> dict[str, Spread]:
    """Seconds of CPU time of one replay, for each strategy."""
    sessions = {name: Session(known.strategy(name), trace, layout_seed=seed) for name in names}
    saved = {}
    for name, session in sessions.items():
        saved[name] = session.machine.save()
        verdict = session.verify()
        if not verdict.ok:
            sys.exit(f"replay_rate: {name}: {verdict.what}")

    def replay(session: Session) -> None:
        session.runner.timed(session.first, session.last)

    taken = interleave(
        {name: (lambda s=session: replay(s)) for name, session in sessions.items()},  # type: ignore[misc]
        rounds,
        seed,
        before=lambda name: sessions[name].machine.restore(saved[name]),
    )
    return {name: Spread(tuple(seconds)) for name, seconds in taken.items()}


def rates(known: Registry, names: list[str], traces: list[str], rounds: int, seed: int) -> None:
    """Print the table of events a second."""
    rows = []
    for workload in traces:
        trace = known.workload(workload).spec().trace(seed)
        count = len(trace) - trace.setup
        for name, spread in sample(known, names, trace, rounds, seed).items():
            speed = Spread(tuple(count / s / 1e6 for s in spread.values))
            rows.append([workload, name, str(count), speed.text(1), f"{1e3 / speed.median:.0f}", str(rounds)])
    print_table(
        "Whole replays: million events a second of CPU time, median [25 % .. 75 %]",
        ["trace", "strategy", "events", "M events/s", "ns/event", "n"],
        rows,
    )


def build(known: Registry, names: list[str], vmas: int, rounds: int, seed: int) -> None:
    """Print how long it takes to make ``vmas`` VMAs."""
    tiles = stream.tiles(vmas, 4, gap=0)
    ceiling, fixed, floor = tiles.setup()
    searched = stream.mmap(np.zeros(len(tiles), np.int64), tiles.length, tiles.prot[::-1], flags=0)
    rows = []
    for how, middle in (("MAP_FIXED", fixed), ("top-down search", searched)):
        trace = stream.build([], [ceiling, middle, floor], map_count=vmas)
        for name, spread in sample(known, names, trace, rounds, seed).items():
            ms = Spread(tuple(1e3 * s for s in spread.values))
            rows.append([how, name, ms.text(1), f"{ms.median * 1e6 / vmas:.0f}", str(rounds)])
    print_table(
        f"Making {vmas} VMAs by mmap: ms of CPU time, median [25 % .. 75 %]",
        ["mmap by", "strategy", "ms", "ns/VMA", "n"],
        rows,
    )


def main() -> None:
    """Parse options, compile, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="rbtree,mmap_cache,pmdcache", help="with commas (%(default)s)")
    parser.add_argument("--trace", help="shipped traces, with commas (default: all)")
    parser.add_argument("--vmas", type=int, default=65_530, help="VMAs to build (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="replays of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    known = load()
    names = args.strategy.split(",") if args.strategy else sorted(known.strategies)
    shipped = sorted(name for name, w in known.workloads.items() if "trace" in w.tags)
    traces = args.trace.split(",") if args.trace else shipped
    print(machine())
    compile_strategies([known.strategy(name) for name in names])
    rates(known, names, traces, args.rounds, args.seed)
    build(known, names, args.vmas, max(3, args.rounds // 3), args.seed)


if __name__ == "__main__":
    main()
