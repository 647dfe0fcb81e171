"""What a user waits for: compiles, ``benchframe --help``, a quick run: ``python benchmarks/compile_time.py``.

cold    the three strategies of the project's first table, from an empty cache, in two processes, progress shown
warm    the same from the cache that the cold one filled, in a new process: until every unit can be called
help    ``benchframe --help``
quick   ``benchframe run --quick --strategy pmdcache`` with its baseline on one shipped trace, warm

Wall clock of whole processes, the interpreter's start included; beside it the CPU time of the process and its
children, which a busy machine stretches less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sampling import Spread, machine, print_table

STRATEGIES = ("rbtree", "mmap_cache", "pmdcache")
COMPILE = """
import json, sys, time
from benchframe.registry import load
from benchframe.engine.compile import compile_strategies
from benchframe.runner import NativeRunner
known = load()
strategies = [known.strategy(name) for name in sys.argv[1].split(",")]
began = time.perf_counter()
def tell(unit, share):
    print(f"  {share:4.0%}  {unit}  after {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
done = compile_strategies(strategies, tell, int(sys.argv[2]))
for strategy in strategies:
    NativeRunner(strategy)
print(json.dumps({"seconds": time.perf_counter() - began, "units": done}))
"""


@dataclass(frozen=True)
class Taken:
    """What one program took: wall and CPU seconds, and what it printed."""

    wall: float
    cpu: float
    text: str


def timed(command: list[str], environment: dict[str, str], quiet: bool = True) -> Taken:
    """Run a program. SystemExit with its words if it fails."""
    before = os.times()
    began = time.perf_counter()
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True
    )
    seconds = time.perf_counter() - began
    if ended.returncode:
        sys.exit(f"compile_time: {' '.join(command[:3])} ... ended with {ended.returncode}:\n{ended.stderr or ''}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(seconds, cpu, ended.stdout)


def main() -> None:
    """Parse options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", type=int, default=3, help="cold compiles (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=10, help="warm starts (default: %(default)s)")
    parser.add_argument("--help-runs", type=int, default=20, help="runs of --help (default: %(default)s)")
    parser.add_argument("--quick-runs", type=int, default=3, help="quick runs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="compiling processes (default: %(default)s)")
    parser.add_argument("--workload", default="python-json", help="of the quick run (default: %(default)s)")
    args = parser.parse_args()
    print(machine())
    names = ",".join(STRATEGIES)
    compile_command = [sys.executable, "-c", COMPILE, names, str(args.jobs)]
    cli = [sys.executable, "-m", "benchframe"]
    rows: list[list[str]] = []
    units: dict[str, list[float]] = {}

    def row(what: str, taken: list[Taken]) -> None:
        wall, cpu = Spread(tuple(t.wall for t in taken)), Spread(tuple(t.cpu for t in taken))
        rows.append([what, wall.text(2), cpu.text(2), str(len(taken))])

    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        cold = []
        for n in range(args.cold):
            environment["BENCHFRAME_CACHE_DIR"] = str(Path(folder) / f"cache{n}")
            print(f"cold compile {n + 1} of {args.cold}", file=sys.stderr)
            cold.append(timed(compile_command, environment, quiet=False))
            for unit, spent in json.loads(cold[-1].text)["units"]:
                units.setdefault(unit, []).append(spent)
        if cold:
            row(f"cold compile of {names}, {args.jobs} processes", cold)
        timed(compile_command, environment)
        warm = [timed(compile_command, environment) for _ in range(args.warm)]
        if any(json.loads(taken.text)["units"] for taken in warm):
            sys.exit("compile_time: a warm start compiled something")
        if warm:
            row("warm: whole process", warm)
            loading = Spread(tuple(json.loads(taken.text)["seconds"] for taken in warm))
            rows.append(["warm: of that, loading the units", loading.text(2), "", str(len(warm))])
        helped = [timed([*cli, "--help"], environment) for _ in range(args.help_runs)]
        if helped:
            row("benchframe --help", helped)
        run = [*cli, "run", "--quick", "--strategy", "pmdcache", "--workload", args.workload, "--output", folder]
        quick = [timed(run, environment) for _ in range(args.quick_runs)]
        if quick:
            row(f"benchframe run --quick --strategy pmdcache --workload {args.workload}", quick)
    print_table("Seconds: median [25 % .. 75 %]", ["what", "wall", "CPU", "n"], rows)
    if units:
        per_unit = [[u, Spread(tuple(v)).text(2), str(len(v))] for u, v in sorted(units.items())]
        print_table("Cold compile by unit, wall seconds", ["unit", "s", "n"], per_unit)


if __name__ == "__main__":
    main()
