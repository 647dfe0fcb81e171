"""What `compare` and `gate` say of real runs: of the same thing twice, of a strategy that became slower, of what is not
comparable. Prints each command, what it says and its exit code; ends with 1 if one of them says something else than
it should.

python benchmarks/compare_shows.py                          # 3 runs of 16 rounds: about 4 minutes
python benchmarks/compare_shows.py --rounds 48 --keep DIR   # more of it; runs are kept in DIR
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = '''"""mine: the VMA that was found last, in front of the rb-tree."""

from benchframe.api import Cache, Protocol, Strategy, hookimpl, native
from benchframe.kernel import NULL, VMA, index_find, vma_free_now


@native
def find(mm, task, addr):
    vma = mm.strategy0
    if vma != NULL and VMA(mm, vma).vm_start <= addr and addr < VMA(mm, vma).vm_end:
        return vma
{extra}    return NULL


@native
def store(mm, task, addr, vma):
    mm.strategy0 = vma
    return 0


@native
def free(mm, vma):
    mm.strategy0 = NULL
    return vma_free_now(mm, vma)


@hookimpl
def benchframe_strategies():
    cache, protocol = Cache(find=find, store=store), Protocol(vma_free=free)
    return [Strategy("mine", "the last VMA found", "rbtree", cache=cache, protocol=protocol)]
'''
SLOWER = """    mm.strategy1 = index_find(mm, addr)
"""
"""A miss walks the tree once more, for nothing."""


class Shows:
    """Runs commands in ``folder`` and remembers what went otherwise than it should."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []
        self.environment = {**os.environ, "COLUMNS": "160"}

    def call(self, arguments: str, code: int = 0) -> str:
        """One benchframe command; ``code`` is the exit code that it should have. Gives what it wrote to stdout."""
        print(f"\n$ benchframe {arguments}", flush=True)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchframe", *shlex.split(arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=None if arguments.startswith("gate") else subprocess.PIPE,
            text=True,
            check=False,
        )
        print(done.stdout.rstrip())
        if done.returncode and done.stderr:
            print(done.stderr.rstrip().splitlines()[-1])
        print(f"(exit code {done.returncode}, {time.perf_counter() - began:.1f} s)", flush=True)
        if done.returncode != code:
            self.problems.append(f"exit code {done.returncode} instead of {code}: benchframe {arguments}")
        return done.stdout

    def expect(self, what: bool, problem: str) -> None:
        """Remember ``problem`` unless ``what`` holds."""
        if not what:
            self.problems.append(problem)


def verdicts(table: str, strategy: str) -> list[str]:
    """The verdicts of a strategy's rows in the CSV of a comparison."""
    head, *rows = (line.split(",") for line in table.strip().splitlines() if not line.startswith("#"))
    return [row[head.index("verdict")] for row in rows if row[head.index("first")] == strategy]


def main() -> int:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--workload", default="python-json")
    parser.add_argument("--within", type=float, default=2.0, help="per cent")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compare-shows-") as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        shows = Shows(folder)
        (folder / "mine.py").write_text(PLUGIN.format(extra=""), encoding="utf-8")
        (folder / "edited.py").write_text(PLUGIN.format(extra=SLOWER), encoding="utf-8")
        run = f"run --quick --rounds {args.rounds} -s mine,pmdcache -w {args.workload}"
        within = f"--within {args.within:g}"

        print("# The same thing twice")
        shows.call(f"{run} --plugin mine.py -o one")
        shows.call(f"{run} --plugin mine.py -o two")
        shows.call(f"compare one/last two/last {within}")
        same = shows.call(f"compare one/last two/last {within} --format csv")
        for name in ("mine", "pmdcache"):
            words = verdicts(same, name)
            shows.expect("slower" not in words and "faster" not in words, f"the same reads {words} for {name}")
            shows.expect("same" in words, f"nothing of {name} reads same: more --rounds")
        shows.call("gate one/last two/last --cost exact")

        print("\n# mine was edited: a miss walks the tree once more")
        shows.call(f"{run} --plugin edited.py -o three")
        shows.call(f"compare one/last three/last {within}")
        words = verdicts(shows.call(f"compare one/last three/last {within} --format csv"), "mine")
        shows.expect(words[:1] == ["slower"], f"the edited strategy reads {words} in lookup")
        shows.call("gate one/last three/last", 1)
        shows.call("gate three/last one/last")

        print("\n# What is not comparable: values of another length")
        shows.call(f"run --rounds 2 -s pmdcache -w {args.workload} --no-cost -o four")
        shows.call("compare one/last four/last", 2)
        shows.call("gate one/last four/last", 2)
    for problem in shows.problems:
        print(f"UNEXPECTED: {problem}")
    print("\nall as it should be" if not shows.problems else f"\n{len(shows.problems)} unexpected")
    return 1 if shows.problems else 0


if __name__ == "__main__":
    sys.exit(main())
