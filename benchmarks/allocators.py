"""Maple nodes from per-CPU sheaves or from freelists (59faa4da7cd4), on simulated CPUs with RCU callbacks in bursts.

    python benchmarks/allocators.py [--cpus 1,64,128,192] [--batch 2048] [--seeds 3] [--workload brk1,mmap2]

Each CPU is a process of will-it-scale on the cores of `icelake-2s`, of which there are 96 a socket, and begins at
another point of its burst: it has made some bursts of calls at no cost. "before" is the kernel right before
that commit (VMAs from sheaves, nodes from freelists), "after" that commit (both from sheaves, a callback for each
node); "6.17" has freelists for both, "6.18" kfree_rcu into sheaves, too. A line for each seed: million calls a second,
ns a call, and of these what a CPU spent on the lines of the node's list_lock, of the barn, and of the page allocator's
lock, the waiting for locks included.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from benchframe.registry import load
from benchframe.simulator import session as sessions
from benchframe.simulator.machines import load_machine, load_work
from benchframe.simulator.session import Depth, SimulatedSession
from benchframe.strategy import resolve
from benchframe.workloads import FileEntry, Kind, Trace, stream
from benchframe_plugins import sheaves, slub

KINDS = {
    "6.17": slub.freelists,
    "before": sheaves.sheaves_of_vmas,
    "after": lambda: sheaves.sheaves(rcu=False),
    "6.18": sheaves.sheaves,
}
LISTS = ("list_lock", "nr_partial", "partial", "partial_tail")
BARN = ("barn_lock", "nr_full", "full", "nr_empty", "empty")
LINES = {
    "list_lock": [f"kmem_node.{name}" for name in LISTS],
    "barn": [f"kmem_node.{name}" for name in BARN],
    "pages": ["slab.lock", "slab.top", "slab.free"],
}
HEAP, AREA, FILE, PAGE = 0x5000_0000_0000, 0x7000_0000_0000, 0x6000_0000_0000, 4096
MAP_SHARED = 0x01
AREAS = 20
"""VMAs of each process beside its heap, as of a small C program: a store replaces one leaf of a tree of two levels."""
TURNS = 200
CALLS = 400
"""Calls of a CPU in a round: 200 turns of two."""


def processes(workload: str, count: int) -> Trace:
    """will-it-scale's ``brk1`` or ``mmap2`` by ``count`` processes of an ordinary number of VMAs."""
    length = 128 << 20

    def once(file: int) -> list[stream.Rows]:
        if workload == "brk1":
            return [stream.rows(Kind.BRK, [HEAP + PAGE, HEAP])]
        made = stream.mmap(FILE, length, 3)
        made["file"], made["flags"] = file, MAP_SHARED
        return [made, stream.munmap(FILE, length)]

    areas = [stream.mmap(AREA + 4 * number * PAGE, PAGE, 3) for number in range(AREAS)]
    work = [stream.by(i, *(once(i) * TURNS), mm=i) for i in range(count)]
    begin = [stream.by(i, stream.rows(Kind.BRK, HEAP), *areas, mm=i) for i in range(count)]
    files = tuple(FileEntry(f"task{i}", length, i + 1) for i in range(count))
    setup = [stream.begin_threads(count, True), *begin, *work]
    return stream.build_threads(setup, work, map_count=AREAS + 2, files=files)


def main() -> int:
    """Simulate every cell, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", default="1,64,128,192")
    parser.add_argument("--batch", type=int, default=2048, help="objects for which a CPU asks for a grace period")
    parser.add_argument("--bursts", type=float, default=1.0, help="bursts of each CPU that count")
    parser.add_argument(
        "--begun", type=int, default=2, help="so many bursts to one more, by chance, before, at no cost"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workload", default="brk1,mmap2")
    parser.add_argument("--kinds", default="before,after", help=", ".join(KINDS))
    parser.add_argument("--preset", default="linux-6.18")
    parser.add_argument("--fields", action="store_true", help="print the fields that cost most, too")
    args = parser.parse_args()
    sessions.KEPT_LINES = 1000
    known = load()
    base = known.strategy(args.preset)
    machine = replace(load_machine("icelake-2s"), cores=96)
    rounds = -(-args.batch // CALLS)
    depth = Depth(rounds=args.bursts * rounds, warm_rounds=0.5, accesses=1 << 40)
    for workload in args.workload.split(","):
        for cpus in map(int, args.cpus.split(",")):
            trace = processes(workload, cpus)
            for kind in args.kinds.split(","):
                made = replace(base, name=f"{args.preset}-{kind}", allocator=KINDS[kind]())
                session = SimulatedSession(resolve(made, known.strategies), trace, cpus, rcu_batch=args.batch)
                for seed in range(1, args.seeds + 1):
                    found = session.run(
                        machine,
                        load_work("server"),
                        seed=seed,
                        depth=depth,
                        free_rounds=(args.begun * rounds, (args.begun + 1) * rounds),
                    )
                    if not session.verdict.ok:
                        print(f"{workload}, {cpus} CPUs, {kind}: {session.verdict.what}", file=sys.stderr)
                        return 1
                    done = sum(found.operations.values())
                    rate = found.throughput / 1e6
                    told = ", ".join(
                        f"{name} {sum(row.ns for row in found.fields if row.name in fields) / done:.0f}"
                        for name, fields in LINES.items()
                    )
                    print(
                        f"{workload} {cpus:3} {kind:6} {seed} {rate:7.2f} {1e3 * cpus / rate:6.0f} ns: {told}",
                        flush=True,
                    )
                    for row in found.fields if args.fields else ():
                        if row.ns > done or row.name.startswith("kmem_node"):
                            counts = f"{row.loads / done:.4f} {row.stores / done:.4f} {row.atomics / done:.4f}"
                            print(f"    {row.name:32} {row.ns / done:7.2f} ns, {counts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
