"""Maple nodes from per-CPU sheaves or from freelists (59faa4da7cd4), on simulated CPUs with RCU callbacks in bursts.

    python benchmarks/allocators.py [--cpus 1,64,128,192] [--batch 2048] [--seeds 3] [--workload brk1,mmap2]

Each CPU is a process of will-it-scale. It begins at another point of its burst. "before" is the kernel right before
that commit (VMAs from sheaves, nodes from freelists), "after" that commit (both from sheaves, a callback per node);
"6.17" has freelists for both. Printed: million calls a second of each seed, ns that a CPU waits for each lock per call.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from benchframe.api import Strategy
from benchframe.registry import load
from benchframe.simulator.machines import load_machine, load_work
from benchframe.simulator.session import Depth, SimulatedSession
from benchframe.strategy import resolve
from benchframe_plugins import sheaves, slub

KINDS = {"6.17": slub.freelists, "before": sheaves.sheaves_of_vmas, "after": lambda: sheaves.sheaves(rcu=False),
         "6.18": sheaves.sheaves}  # fmt: skip
FIELDS = ("kmem_node.list_lock", "kmem_node.barn_lock", "slab.lock")


def main() -> int:
    """Simulate every cell, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", default="1,64,128,192")
    parser.add_argument("--batch", type=int, default=2048, help="objects for which a CPU asks for a grace period")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workload", default="brk1,mmap2")
    parser.add_argument("--kinds", default="before,after")
    parser.add_argument("--preset", default="linux-6.18")
    parser.add_argument("--bursts", type=float, default=1.0, help="bursts of each CPU that count")
    parser.add_argument("--lines", action="store_true")
    args = parser.parse_args()
    known = load()
    base = known.strategy(args.preset)
    machine = replace(load_machine("icelake-2s"), cores=96)
    for workload in args.workload.split(","):
        for cpus in (int(n) for n in args.cpus.split(",")):
            trace = known.spec(f"{workload}:variant=processes").trace(0, cpus)
            for kind in args.kinds.split(","):
                made = resolve(replace(base, name=f"{args.preset}-{kind}", allocator=KINDS[kind]()), known.strategies)
                session = SimulatedSession(made, trace, cpus, rcu_batch=args.batch)
                calls = 400  # of a round
                burst = -(-args.batch // calls)
                for seed in range(1, args.seeds + 1):
                    depth = Depth(rounds=args.bursts * burst, warm_rounds=1, accesses=1 << 40)
                    f = session.run(machine, load_work("server"), seed=seed, depth=depth, free_rounds=(2 * burst, 3 * burst))
                    done = sum(f.operations.values())
                    waits = " ".join(
                        f"{name} {sum(row.wait + row.queue + row.transfer for row in f.fields if row.name == name) / done:.0f}" for name in FIELDS
                    )
                    print(workload, cpus, kind, seed, f"{f.throughput / 1e6:.2f} M/s {1e3 * cpus / (f.throughput/1e6):.0f} ns a call; {waits}; {f.accesses / done:.0f} accesses a call, {f.host:.0f} s, {session.verdict.ok}", flush=True)
                    if args.lines:
                        for row in f.fields[:14]:
                            print("    ", row.name, f"{row.transfer/done:.0f} {row.queue/done:.0f} {row.wait/done:.0f} ns; {row.loads/done:.2f} {row.stores/done:.2f} {row.atomics/done:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
