"""Compiled lookups against the same in C, on the same records: ``python benchmarks/c_index.py``.

Needs gcc. As ``c_walk.py`` does for the rb-tree: for each strategy and number of VMAs the model builds one address
space; both sides look up the same addresses in it, every answer is compared, then the two run in turn and the ratio is
taken within each pair. A cache is looked up through find_vma, on a skewed stream; an index alone, at random addresses.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sampling import Spread, interleave, machine, print_table, ratios

from benchframe.dialect import native
from benchframe.engine.session import Session
from benchframe.mm.hooks import find_vma, index_find
from benchframe.mm.layout import ANSWER, EVENT
from benchframe.registry import load
from benchframe.runner import unit_store
from benchframe.units import UnitSpec

HERE = Path(__file__).resolve().parent
STRATEGIES = ("avl", "sorted_array", "eytzinger", "btree", "maple", "vmacache", "vmacache_pmd")
MIN_SECONDS = 0.005
"""A sample repeats the stream until it takes about this long."""


@native
def walk_index(root, first, last):
    """The sum of what the index finds for events [first, last)."""
    total = 0
    index = first
    while index < last:
        total += index_find(root, EVENT(root, index).addr)
        index += 1
    return total


@native
def walk_find(root, first, last):
    """The same through the cache, by task 1."""
    total = 0
    index = first
    while index < last:
        total += find_vma(root, 1, EVENT(root, index).addr)
        index += 1
    return total


@native
def answers(root, first, last):
    """What find_vma gives for each of events [first, last), to ANSWER."""
    index = first
    while index < last:
        ANSWER(root, index).vma = find_vma(root, 1, EVENT(root, index).addr)
        index += 1
    return 0


def space(session: Session) -> ctypes.Array[ctypes.c_int64]:
    """c_index.c's struct space."""
    arrays = session.machine.arrays
    mm, task = session.machine.mm(0), arrays["task_base"]

    def word(field: str) -> int:
        return session.machine.root + int(mm.dtype.fields[field][1])

    def own(field: str) -> int:
        return int(task.ctypes.data) + task.dtype.itemsize + int(task.dtype.fields[field][1])

    def array(base: str) -> int:
        return int(arrays[base].ctypes.data) if base in arrays else 0

    return (ctypes.c_int64 * 14)(
        array("vma_base"),
        array("event_base"),
        *(word(f) for f in ("mm_rb", "mmap", "strategy0", "strategy2", "id")),
        *(array(f"private{n}_base") for n in (0, 1, 3)),
        word("vmacache_seqnum"),
        *(own(f) for f in ("mm", "vmacache_seqnum", "vmacache0")),
    )


def compare(name: str, vmas: int, events: int, rounds: int, seed: int, library: ctypes.CDLL) -> list[str]:
    """One row of the table."""
    known = load()
    strategy = known.strategy(name)
    kind = "zipf" if strategy.cache else "uniform"
    session = Session(strategy, known.spec(f"{kind}:vmas={vmas},events={events}").trace(seed), layout_seed=seed)
    root, first, last = session.machine.root, session.first, session.last
    units, binding = unit_store(), dict(strategy.binding)
    fast = units.get(UnitSpec(f"c-index-{name}", walk_find if strategy.cache else walk_index, binding))
    every = units.get(UnitSpec(f"c-index-answers-{name}", answers, binding))
    memory = space(session)
    c_walk, c_answers = getattr(library, f"walk_{name}"), getattr(library, f"answers_{name}")
    c_walk.restype, c_walk.argtypes = ctypes.c_int64, [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    c_answers.restype, c_answers.argtypes = None, [*c_walk.argtypes, ctypes.c_void_p]

    for _ in range(2):  # an order that is built when it pays is there the second time
        every(root, first, last)
    theirs = np.zeros(last - first, np.int64)
    c_answers(memory, first, last, theirs.ctypes.data)
    ours = session.machine.arrays["answer_base"]["vma"][first:last]
    if not np.array_equal(ours, theirs) or fast(root, first, last) != c_walk(memory, first, last):
        sys.exit(f"c_index: {name}: the answers differ at {vmas} VMAs")

    once = interleave({"c": lambda: c_walk(memory, first, last)}, 3)["c"]
    repeat = max(1, round(MIN_SECONDS / min(once)))

    def run_native() -> None:
        for _ in range(repeat):
            fast(root, first, last)

    def run_c() -> None:
        for _ in range(repeat):
            c_walk(memory, first, last)

    taken = interleave({"native": run_native, "c": run_c}, rounds, seed)
    ns = {k: Spread(tuple(1e9 * s / repeat / (last - first) for s in v)) for k, v in taken.items()}
    ratio = ratios(taken["native"], taken["c"])
    return [name, kind, str(vmas), ns["native"].text(1), ns["c"].text(1), ratio.text(3), str(rounds)]


def main() -> None:
    """Parse options, compile, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default=",".join(STRATEGIES), help="with commas (default: %(default)s)")
    parser.add_argument("--vmas", default="50,1000,20000", help="numbers of VMAs, with commas (default: %(default)s)")
    parser.add_argument("--events", type=int, default=50_000, help="lookups in one pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="pairs of samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gcc", default="-O2", help="gcc's options (default: %(default)s)")
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "c_index.so"
        command = ["gcc", *args.gcc.split(), "-fPIC", "-shared", "-Wall", "-Werror", "-o", str(target)]
        try:
            subprocess.run([*command, str(HERE / "c_index.c")], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"c_index: {' '.join(command)}: {error}; install gcc")
        library = ctypes.CDLL(str(target))
        rows = [
            compare(name, int(n), args.events, args.rounds, args.seed, library)
            for name in args.strategy.split(",")
            for n in args.vmas.split(",")
        ]
    print_table(
        f"Lookups, native against C (gcc {args.gcc}): CPU time, median [25 % .. 75 %]",
        ["strategy", "addresses", "VMAs", "native, ns", "C, ns", "native / C", "pairs"],
        rows,
    )


if __name__ == "__main__":
    main()
