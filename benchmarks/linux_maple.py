"""The strategy `maple` against the kernel's own lib/maple_tree.c: ``python benchmarks/linux_maple.py SOURCES...``.

Needs gcc and kernel source trees (docs/kernel-sources.md). For each number of VMAs the model builds one address space,
and the kernel's tree gets the same VMAs. Both look up the same random addresses: index_find of `maple` in a small
native loop; mt_find (find_vma) and mas_walk (lock_vma_under_rcu, which finds nothing in a hole) in one of C. Every
answer is compared first; then all run in turn, and ratios are taken within each turn.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from c_index import MIN_SECONDS, answers, walk_index
from sampling import Spread, interleave, machine, print_table, ratios

from benchframe.engine.session import Session
from benchframe.linux import SHIM, SourceTree, find_trees, options
from benchframe.registry import load
from benchframe.runner import unit_store
from benchframe.units import UnitSpec

DRIVER = Path(__file__).resolve().parent / "linux_maple.c"


def build(tree: SourceTree, flags: list[str], folder: Path) -> ctypes.CDLL:
    """linux_maple.c with the tree's file. Raises SystemExit if gcc refuses."""
    target = folder / f"linux_maple-{tree.name}.so"
    searched = options(tree.path, DRIVER.read_text(), folder / tree.name)
    command = ["gcc", *flags, "-std=gnu11", "-fPIC", "-shared", "-w", "-fno-strict-aliasing", "-include", str(SHIM)]
    try:
        subprocess.run([*command, *searched, "-o", str(target), str(DRIVER)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"linux_maple: Linux {tree.name}: {error}")
    library = ctypes.CDLL(str(target))
    library.new_tree.restype = ctypes.c_void_p
    library.store.argtypes = [ctypes.c_void_p, *3 * [ctypes.c_ulong]]
    for name in ("find", "walk"):
        total, each = getattr(library, f"sum_{name}"), getattr(library, f"each_{name}")
        total.restype, total.argtypes = ctypes.c_int64, [*2 * [ctypes.c_void_p], *2 * [ctypes.c_int64]]
        each.restype, each.argtypes = None, [*total.argtypes, ctypes.c_void_p]
    return library


def compare(vmas: int, events: int, rounds: int, seed: int, libraries: dict[str, ctypes.CDLL]) -> list[list[str]]:
    """A row for each kernel and lookup."""
    known = load()
    strategy = known.strategy("maple")
    session = Session(strategy, known.spec(f"uniform:vmas={vmas},events={events}").trace(seed), layout_seed=seed)
    root, first, last = session.machine.root, session.first, session.last
    units, binding = unit_store(), dict(strategy.binding)
    fast = units.get(UnitSpec("c-index-maple", walk_index, binding))
    every = units.get(UnitSpec("c-index-answers-maple", answers, binding))
    every(root, first, last)
    arrays = session.machine.arrays
    ours = arrays["answer_base"]["vma"][first:last].copy()
    records, stream = arrays["vma_base"], arrays["event_base"]
    inside = np.where(records["vm_start"][ours] <= stream["addr"][first:last], ours, 0)
    jobs, calls = {"native": lambda: fast(root, first, last)}, {}
    for kernel, library in libraries.items():
        tree, vma = library.new_tree(), int(session.machine.mm(0)["mmap"])
        while vma:
            start, end, vma_next = (int(records[vma][name]) for name in ("vm_start", "vm_end", "vm_next"))
            if library.store(tree, start, end - 1, vma):
                sys.exit(f"linux_maple: Linux {kernel} could not store VMA {vma}")
            vma = vma_next
        for name, expected in (("find", ours), ("walk", inside)):
            theirs = np.zeros(last - first, np.int64)
            getattr(library, f"each_{name}")(tree, stream.ctypes.data, first, last, theirs.ctypes.data)
            if not np.array_equal(theirs, expected):
                sys.exit(f"linux_maple: Linux {kernel}, {name}: the answers differ at {vmas} VMAs")
            total = getattr(library, f"sum_{name}")
            calls[kernel, name] = lambda total=total, tree=tree: total(tree, stream.ctypes.data, first, last)
    once = interleave(jobs, 3)["native"]
    repeat = max(1, round(MIN_SECONDS / min(once)))
    jobs |= {f"{kernel} {name}": call for (kernel, name), call in calls.items()}

    def often(call):
        return lambda: [call() for _ in range(repeat)]

    taken = interleave({name: often(call) for name, call in jobs.items()}, rounds, seed)
    ns = {name: Spread(tuple(1e9 * s / repeat / (last - first) for s in all_)) for name, all_ in taken.items()}
    rows = []
    for kernel, name in calls:
        key, called = f"{kernel} {name}", {"find": "mt_find", "walk": "mas_walk"}[name]
        ratio = ratios(taken["native"], taken[key])
        rows.append([kernel, called, str(vmas), ns["native"].text(1), ns[key].text(1), ratio.text(3), str(rounds)])
    return rows


def main() -> None:
    """Parse options, compile, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="kernel source trees, or folders of some")
    parser.add_argument("--vmas", default="50,1000,20000", help="numbers of VMAs, with commas (default: %(default)s)")
    parser.add_argument("--events", type=int, default=50_000, help="lookups in one pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="turns (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gcc", default="-O2", help="gcc's options (default: %(default)s)")
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        trees = [tree for tree in find_trees(args.sources) if not tree.lacks(["lib/maple_tree.c"])]
        libraries = {tree.name: build(tree, args.gcc.split(), Path(folder)) for tree in trees}
        rows = []
        for number in args.vmas.split(","):
            rows += compare(int(number), args.events, args.rounds, args.seed, libraries)
    print_table(
        f"Lookups, maple against lib/maple_tree.c (gcc {args.gcc}): CPU time, median [25 % .. 75 %]",
        ["Linux", "lookup", "VMAs", "maple, ns", "the kernel's, ns", "maple / kernel's", "turns"],
        rows,
    )


if __name__ == "__main__":
    main()
