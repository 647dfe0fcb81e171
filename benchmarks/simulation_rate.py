"""CPU time and memory of `benchframe simulate`: ten strategies on 1 to 128 CPUs, one load, one seed; and 256 CPUs.

    python benchmarks/simulation_rate.py

The command runs twice: first one CPU each, so that everything is compiled, then all 80 cells. Its time is the CPU time
of all its processes, user and system, and "two cores" is half of that: what two cores need that do nothing else. Wall
time would also contain what else the machine does. Where the time goes is measured in this process, on the largest
cells. Exit code 1 if two cores need more than 90 s, or 256 CPUs more than 400 MB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchframe.registry import load
from benchframe.simulator.machines import load_machine, load_work
from benchframe.simulator.session import Depth, SimulatedSession

STRATEGIES = (
    "rbtree", "mmap_cache", "maple_rcu", "pmdcache", "pmdcache_rcu", "spf_mmseq", "per_vma_rwsem", "per_vma_refcnt",
    "rcu_fault", "vma_lock_2m",
)  # fmt: skip
LOAD, CPUS, SECONDS, MEGABYTES = "multi-fault-all-split", (1, 2, 4, 8, 16, 32, 64, 128), 90, 400


def main() -> int:
    """Measure, print, and compare with the aims."""
    first, _ = simulate(STRATEGIES, (1,), "--accesses", "0.1")
    print(f"one CPU each, with everything that was to be compiled: {first:.1f} s of CPU time", flush=True)
    spent, _ = simulate(STRATEGIES, CPUS)
    told = f"{len(STRATEGIES)} strategies on {', '.join(map(str, CPUS))} CPUs, {LOAD}, one seed"
    print(f"{told}: {spent:.1f} s of CPU time, two cores {spent / 2:.1f} s (aim {SECONDS})")
    _, memory = simulate(("rbtree",), (256,), "--machine", "ideal")
    print(f"256 CPUs: {memory:.0f} MB (aim {MEGABYTES})")
    parts(CPUS[-1])  # last: Linux counts as a child's memory what this process has when it starts the child
    return int(spent / 2 > SECONDS or memory > MEGABYTES)


def simulate(strategies: Sequence[str], cpus: Sequence[int], *options: str) -> tuple[float, float]:
    """CPU seconds of all processes of the command, and the most MB that one of them had."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchframe", "simulate", "-s", ",".join(strategies), "-w", LOAD]
        command += ["--cpus", ",".join(map(str, cpus)), "-o", folder, *options]
        with (Path(folder) / "said").open("w") as said:
            child = subprocess.Popen(command, stdout=said, stderr=said)
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit((Path(folder) / "said").read_text())
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def parts(cpus: int) -> None:
    """Print the CPU time of each strategy's cell by what it is spent on."""
    known, machine, nothing = load([]), load_machine("milan-2s"), load_work("none")
    print(f"{f'{cpus} CPUs, s':18}{'stream':>10}{'set-up':>10}{'simulation':>12}{'accesses/s':>13}")
    for name in STRATEGIES:
        marks = [time.process_time()]
        trace = known.spec(LOAD).trace(0, cpus)
        marks.append(time.process_time())
        session = SimulatedSession(known.strategy(name), trace, cpus)
        marks.append(time.process_time())
        found = session.right_run(machine, nothing, depth=Depth(accesses=4_000_000))
        marks.append(time.process_time())
        stream, set_up, run = (b - a for a, b in pairwise(marks))
        print(f"{name:18}{stream:10.2f}{set_up:10.2f}{run:12.2f}{found.accesses / run:13,.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
