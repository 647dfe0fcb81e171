"""An uncontended vma_hold and vma_release, compiled, against the same atomics in C: ``python benchmarks/hold_pair.py``.

Needs cc. Both run on the same VMA record in turn; the ratio is taken within each pair of samples. The aim is 1.2.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sampling import Spread, interleave, machine, print_table, ratios

from benchframe.dialect import native
from benchframe.mm.layout import mm_struct, vm_area_struct
from benchframe.runner import unit_store
from benchframe.units import UnitSpec
from benchframe_plugins import pmdcache, pmdcache_rcu

HERE = Path(__file__).resolve().parent
LAYOUT = (vm_area_struct.size, vm_area_struct.offset("cache_access"), vm_area_struct.offset("cache_wait"))
hold_rcu, release_rcu = pmdcache_rcu.vma_hold, pmdcache_rcu.vma_release
hold_rfc, release_rfc = pmdcache.vma_hold, pmdcache.vma_release
TURNS = 1_000_000


@native
def pair_rcu(mm, vma, turns):
    """pmdcache_rcu's pair, ``turns`` times."""
    i = 0
    while i < turns:
        hold_rcu(mm, vma)
        release_rcu(mm, vma)
        i += 1
    return 0


@native
def pair_rfc(mm, vma, turns):
    """The RFC's pair."""
    i = 0
    while i < turns:
        hold_rfc(mm, vma)
        release_rfc(mm, vma)
        i += 1
    return 0


def in_c(folder: Path) -> ctypes.CDLL:
    """hold_pair.c, compiled with -O2. Raises SystemExit with the compiler's words if it cannot be."""
    target = folder / "hold_pair.so"
    command = ["cc", "-O2", "-fPIC", "-shared", "-Wall", "-Werror", "-o", str(target), str(HERE / "hold_pair.c")]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"hold_pair: {' '.join(command)}: {error}; install a C compiler")
    library = ctypes.CDLL(str(target))
    seen = tuple((ctypes.c_int64 * len(LAYOUT)).in_dll(library, "layout"))
    if seen != LAYOUT:
        sys.exit(f"hold_pair: hold_pair.c has another layout than benchframe.mm.layout: {seen}, not {LAYOUT}")
    for name in ("pair_rcu", "pair_rfc"):
        getattr(library, name).argtypes = [ctypes.c_int64] * 3
        getattr(library, name).restype = None
    return library


def aligned(count: int, dtype: np.dtype[np.void]) -> np.ndarray:  # type: ignore[type-arg]
    """Zeroed records on a page boundary: a line of a record is a cache line."""
    raw = np.zeros(count * dtype.itemsize + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + count * dtype.itemsize].view(dtype)


def main() -> None:
    """Parse options, compile, run in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="pairs of samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(machine())
    mm, vmas = aligned(2, mm_struct.dtype), aligned(4, vm_area_struct.dtype)
    mm[1]["vma_base"] = vmas.ctypes.data
    root = int(mm.ctypes.data) + mm_struct.size
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        library = in_c(Path(folder))
        for label, function in (("pmdcache_rcu", pair_rcu), ("pmdcache", pair_rfc)):
            unit = unit_store().get(UnitSpec(f"hold-{label}", function, {}))
            theirs: Callable[[int, int, int], None] = getattr(library, function.__name__)
            base = int(vmas.ctypes.data)

            def ours(unit: Callable[..., int] = unit) -> None:
                unit(root, 1, TURNS)

            def c(theirs: Callable[[int, int, int], None] = theirs, base: int = base) -> None:
                theirs(base, 1, TURNS)

            taken = interleave({"native": ours, "c": c}, args.rounds, args.seed)
            if vmas[1]["cache_access"] != 0:
                sys.exit("hold_pair: a hold was not given back")
            ns = {k: Spread(tuple(1e9 * s / TURNS for s in v)) for k, v in taken.items()}
            ratio = ratios(taken["native"], taken["c"])
            rows.append([label, ns["native"].text(2), ns["c"].text(2), ratio.text(3), str(args.rounds)])
    print_table(
        "vma_hold and vma_release, uncontended, native against C (cc -O2): CPU time of a pair, median [25 % .. 75 %]",
        ["strategy", "native, ns", "C, ns", "native / C", "pairs"],
        rows,
    )


if __name__ == "__main__":
    main()
