"""The compiled rb-tree lookup against the same walk in C, on the same records: ``python benchmarks/c_walk.py``.

Needs gcc. For each number of VMAs one address space is built by the model. Both sides then look up the same random
addresses in it: rb_find of the rbtree plugin inside a small native loop, and c_walk.c, which gets the addresses of the
model's arrays. Every single answer is compared first. Then the two run in turn; the ratio is taken within each pair.
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
from benchframe.mm.hooks import index_find
from benchframe.mm.layout import ANSWER, EVENT, event, vm_area_struct
from benchframe.registry import load
from benchframe.runner import unit_store
from benchframe.units import UnitSpec

HERE = Path(__file__).resolve().parent
LAYOUT = (
    vm_area_struct.size,
    *(vm_area_struct.offset(name) for name in ("vm_start", "vm_end", "rb_right", "rb_left")),
    event.size,
    event.offset("addr"),
)
"""What both sides must agree on, in the order of ``layout`` in c_walk.c."""
MIN_SECONDS = 0.005
"""A sample repeats the stream until it takes about this long."""


@native
def walk(root, first, last):
    """The sum of what the index finds for events [first, last)."""
    total = 0
    index = first
    while index < last:
        total += index_find(root, EVENT(root, index).addr)
        index += 1
    return total


@native
def answers(root, first, last):
    """What the index finds for each of events [first, last), to ANSWER."""
    index = first
    while index < last:
        ANSWER(root, index).vma = index_find(root, EVENT(root, index).addr)
        index += 1
    return 0


class Walk:
    """c_walk.c, compiled. Raises SystemExit with gcc's words if it cannot be."""

    def __init__(self, folder: Path, flags: list[str]) -> None:
        target = folder / "c_walk.so"
        command = ["gcc", *flags, "-fPIC", "-shared", "-Wall", "-Werror", "-o", str(target), str(HERE / "c_walk.c")]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"c_walk: {' '.join(command)}: {error}; install gcc")
        library = ctypes.CDLL(str(target))
        seen = tuple((ctypes.c_int64 * len(LAYOUT)).in_dll(library, "layout"))
        if seen != LAYOUT:
            sys.exit(f"c_walk: c_walk.c has another layout than benchframe.mm.layout: {seen}, not {LAYOUT}")
        self.walk, self.answers = library.walk, library.answers
        self.walk.restype, self.answers.restype = ctypes.c_int64, None
        self.walk.argtypes = [ctypes.c_int64] * 5
        self.answers.argtypes = [ctypes.c_int64] * 6


def compare(vmas: int, events: int, rounds: int, seed: int, c: Walk) -> list[str]:
    """One row of the table."""
    known = load()
    strategy = known.strategy("rbtree")
    trace = known.workload("uniform").spec(f"vmas={vmas},events={events}").trace(seed)
    session = Session(strategy, trace, layout_seed=seed)
    machine_, first, last = session.machine, session.first, session.last
    units = unit_store()
    binding = dict(strategy.binding)
    fast = units.get(UnitSpec("c-walk", walk, binding))
    every = units.get(UnitSpec("c-walk-answers", answers, binding))

    arrays = machine_.arrays
    mm = machine_.mm(0)
    if int(mm["map_count"]) != vmas:
        sys.exit(f"c_walk: the address space has {int(mm['map_count'])} VMAs, not {vmas}")
    memory = (
        arrays["vma_base"].ctypes.data,
        machine_.root + mm.dtype.fields["mm_rb"][1],
        arrays["event_base"].ctypes.data,
    )
    every(machine_.root, first, last)
    theirs = np.zeros(last - first, np.int64)
    c.answers(*memory, first, last, theirs.ctypes.data)
    ours = arrays["answer_base"]["vma"][first:last]
    if not np.array_equal(ours, theirs) or fast(machine_.root, first, last) != c.walk(*memory, first, last):
        sys.exit(f"c_walk: the answers differ at {vmas} VMAs")

    once = interleave({"c": lambda: c.walk(*memory, first, last)}, 3)["c"]
    repeat = max(1, round(MIN_SECONDS / min(once)))

    def run_native() -> None:
        for _ in range(repeat):
            fast(machine_.root, first, last)

    def run_c() -> None:
        for _ in range(repeat):
            c.walk(*memory, first, last)

    taken = interleave({"native": run_native, "c": run_c}, rounds, seed)
    ns = {k: Spread(tuple(1e9 * s / repeat / (last - first) for s in v)) for k, v in taken.items()}
    ratio = ratios(taken["native"], taken["c"])
    return [str(vmas), ns["native"].text(1), ns["c"].text(1), ratio.text(3), str(rounds)]


def main() -> None:
    """Parse options, compile, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmas", default="50,1000,20000", help="numbers of VMAs, with commas (default: %(default)s)")
    parser.add_argument("--events", type=int, default=50_000, help="lookups in one pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=300, help="pairs of samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gcc", default="-O2", help="gcc's options (default: %(default)s)")
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        c = Walk(Path(folder), args.gcc.split())
        rows = [compare(int(n), args.events, args.rounds, args.seed, c) for n in args.vmas.split(",")]
    print_table(
        f"rb-tree lookup at random addresses, native against C (gcc {args.gcc}): CPU time, median [25 % .. 75 %]",
        ["VMAs", "native, ns", "C, ns", "native / C", "pairs"],
        rows,
    )


if __name__ == "__main__":
    main()
