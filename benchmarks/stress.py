"""More threads than cores for a while, everything checked: ``python benchmarks/stress.py --seconds 60``.

Each strategy gets its share of the time, in laps of about a second: threads that fault, map, cut, merge and unmap side
by side, each answer compared with what is right, and after each lap validate_mm, the strategy's own check, holder
counts zero, nothing left for RCU, the oracle's layout. Exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from benchframe.engine.threads import Stuck, ThreadSession
from benchframe.errors import EngineError
from benchframe.registry import load

LOADS = ("mixed:mappers=2,turns=200", "ebizzy:vmas=100,chunk=16,events=4000", "page_fault1:mib=1", "brk1", "mt-alloc")
LAP = 1.0
"""Seconds of one lap."""


def stress(name: str, label: str, threads: int, seconds: float) -> tuple[int, int, str]:
    """Laps of one strategy on one load: (laps, answers compared, what was wrong)."""
    known = load()
    session = ThreadSession(known.strategy(name), known.spec(label).trace(1, threads), threads)
    laps, checked = 0, 0
    end = time.perf_counter() + seconds
    while True:
        try:
            lap = session.lap(seconds=min(LAP, max(0.05, end - time.perf_counter())), checks=True)
        except Stuck as error:
            return laps, checked, str(error)
        laps += 1
        checked += int(lap.threads["checked"].sum())
        verdict = session.judge(lap.threads)
        if not verdict.ok:
            return laps, checked, verdict.what
        if time.perf_counter() >= end:
            return laps, checked, ""


def main() -> int:
    """Parse options, run, print a line per strategy and load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="all together (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2 * (os.cpu_count() or 1) + 1, help="(default: %(default)s)")
    parser.add_argument("--strategies", default="pmdcache_rcu,rbtree,mmap_cache", help="(default: %(default)s)")
    parser.add_argument("--loads", default=";".join(LOADS), help="with semicolons (default: %(default)s)")
    args = parser.parse_args()
    names, loads = args.strategies.split(","), args.loads.split(";")
    share = args.seconds / (len(names) * len(loads))
    total, bad = 0, 0
    print(f"{args.threads} threads on {os.cpu_count()} CPUs, {share:.1f} s each")
    for name in names:
        for label in loads:
            threads = min(args.threads, 5) if label == "mt-alloc" else args.threads
            try:
                laps, checked, wrong = stress(name, label, threads, share)
            except EngineError as error:
                laps, checked, wrong = 0, 0, str(error)
            total += checked
            bad += bool(wrong)
            print(f"  {name:14s} {label:40s} {laps:4d} laps {checked:12,d} answers  {wrong or 'ok'}", flush=True)
    print(f"{total:,d} answers compared; " + (f"{bad} wrong" if bad else "none wrong, every address space valid"))
    if bad:
        sys.stdout.flush()
        os._exit(1)  # threads may be stuck
    return 0


if __name__ == "__main__":
    sys.exit(main())
