"""How long a user waits for three things: ``python benchmarks/waits.py``.

compile  all strategies from an empty cache, in two processes, progress shown
table    fifteen strategies on three recorded programs, ``benchframe run --quick``, compiled before
plugin   ``benchframe new x && benchframe check --strategy x && benchframe run --quick --strategy x``, each step;
         all but x itself compiled before

Wall clock of whole commands, the interpreter's start included; beside it the CPU time of the command and its children.
The cache, results and list of plugins are in a folder of their own, which is removed; ``--cache`` keeps a compiled one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from compile_time import COMPILE, Taken, timed
from sampling import Spread, machine, print_table

from benchframe.registry import load

FIFTEEN = (
    "linked_list,avl,rbtree,mmap_cache,vmacache,pmdcache,pmdcache_rcu,rcu_rbtree,spf_seqcount,spf_mmseq,"
    "maple,per_vma_rwsem,per_vma_refcnt,sorted_array,btree"
)
"""Every kind of index, cache and protocol once."""
TRACES = "python-json,gcc-project,java-version"
WANTED = {"compile": 150, "table": 180, "plugin": 60}
CLI = [sys.executable, "-m", "benchframe"]


def compiled(names: str, environment: dict[str, str]) -> Taken:
    """Compile ``names``, with commas, in two processes; what is there already takes no time."""
    return timed([sys.executable, "-c", COMPILE, names, "2"], environment, quiet=False)


def plugin(environment: dict[str, str], folder: Path, number: int) -> list[tuple[str, Taken]]:
    """The three commands for a plugin that was not there before."""
    name = f"waits{number}"
    steps = (
        ("new", ["new", name, "-o", str(folder)]),
        ("check", ["check", "--strategy", name]),
        ("run", ["run", "--quick", "--strategy", name, "--output", str(folder / "runs")]),
    )
    return [(what, timed([*CLI, *command], environment)) for what, command in steps]


def main() -> None:
    """Parse options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="compile,table,plugin", help="with commas (default: %(default)s)")
    parser.add_argument("--times", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="a folder for compiled code (default: a new one)")
    args = parser.parse_args()
    asked = args.what.split(",")
    if unknown := set(asked) - set(WANTED):
        parser.error(f"--what knows {', '.join(WANTED)}, not {', '.join(sorted(unknown))}")
    every = ",".join(sorted(load().strategies))
    print(machine())
    rows: list[list[str]] = []

    def row(what: str, taken: list[Taken], wanted: str = "") -> None:
        wall, cpu = Spread(tuple(t.wall for t in taken)), Spread(tuple(t.cpu for t in taken))
        rows.append([what, wall.text(1), cpu.text(1), str(len(taken)), wanted])

    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        environment["BENCHFRAME_CONFIG_DIR"] = str(Path(folder) / "config")
        if "compile" in asked:
            cold = []
            for number in range(args.times):
                environment["BENCHFRAME_CACHE_DIR"] = str(Path(folder) / f"cold{number}")
                print(f"cold compile {number + 1} of {args.times}", file=sys.stderr)
                cold.append(compiled(every, environment))
            row(f"compile: {every.count(',') + 1} strategies, empty cache", cold, str(WANTED["compile"]))
        if args.cache or "compile" not in asked:
            environment["BENCHFRAME_CACHE_DIR"] = str(args.cache or Path(folder) / "cache")
        if "table" in asked:
            compiled(FIFTEEN, environment)
            command = [*CLI, "run", "--quick", "--strategy", FIFTEEN, "--workload", TRACES]
            runs = [timed([*command, "--output", f"{folder}/run{n}"], environment) for n in range(args.times)]
            row(f"table: 15 strategies x {TRACES}", runs, str(WANTED["table"]))
        if "plugin" in asked:
            compiled("rbtree", environment)
            taken = [plugin(environment, Path(folder), number) for number in range(args.times)]
            for step in range(3):
                row(f"plugin: {taken[0][step][0]}", [steps[step][1] for steps in taken])
            sums = [Taken(sum(t.wall for _, t in steps), sum(t.cpu for _, t in steps), "") for steps in taken]
            row("plugin: all three", sums, str(WANTED["plugin"]))
    print_table("Seconds: median [25 % .. 75 %]", ["what", "wall", "CPU", "n", "wanted"], rows)


if __name__ == "__main__":
    main()
