"""The update path: mapping calls over many VMAs, with at most one fault each time (``mmap-churn``)."""

from typing import Any

import numpy as np

from benchframe.api import hookimpl
from benchframe.workloads import EVENT, Parameter, Trace, Workload, stream
from benchframe_workloads._nominal import with_nominal

PAGE = stream.PAGE
REMAP, PUNCH, FLIP = range(3)


def mmap_churn(params: dict[str, Any], seed: int) -> Trace:
    """Change random VMAs and change them back, one after the other.

    remap   munmap of the whole VMA, then mmap of the same size: with ``search=1`` and ``gap=0`` a top-down search
            finds the hole again, else the old address is the hint (with gaps a search would place it one page
            higher); ``fault`` of the VMAs are touched right after each mmap
    punch   mprotect(PROT_NONE) of the middle page and back: two splits, then two merges
    flip    mprotect of the whole VMA to its neighbours' protection and back: with ``gap=0`` it merges with both
            neighbours and is split off again, with ``gap=1`` only the flags change

    A pair of calls restores the layout. Which VMAs are touched is decided once per VMA, so the pages are restored too.
    """
    rng = np.random.default_rng(seed)
    weights = np.array([params["remap"], params["punch"], params["flip"]])
    if not weights.sum():
        raise ValueError("remap, punch and flip are all 0, so nothing would happen")
    if params["pages"] < 3 and params["punch"]:
        raise ValueError(f"punch needs a middle page: pages={params['pages']} must be at least 3, or punch 0")
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    pairs = max(1, params["events"] // 2)
    what = rng.choice(3, pairs, p=weights / weights.sum())
    tile = rng.integers(0, len(layout), pairs)
    populated = rng.random(len(layout)) < params["fault"]
    touched = (what == REMAP) & populated[tile]

    begin = np.cumsum(2 + touched) - 2 - touched
    timed = np.empty(int((2 + touched).sum()), EVENT)
    start, prot = layout.vm_start[tile], layout.prot[tile]
    remap, punch, flip = (what == kind for kind in (REMAP, PUNCH, FLIP))

    hint = np.zeros(int(remap.sum()), np.int64) if params["search"] and not params["gap"] else start[remap]
    timed[begin[remap]] = stream.munmap(start[remap], layout.length)
    timed[begin[remap] + 1] = stream.mmap(hint, layout.length, prot[remap], flags=0)
    timed[begin[touched] + 2] = stream.fault(start[touched], layout.access(tile[touched]))

    middle = start[punch] + params["pages"] // 2 * PAGE
    timed[begin[punch]] = stream.mprotect(middle, PAGE, 0)
    timed[begin[punch] + 1] = stream.mprotect(middle, PAGE, prot[punch])

    timed[begin[flip]] = stream.mprotect(start[flip], layout.length, prot[flip] ^ stream.WRITE)
    timed[begin[flip] + 1] = stream.mprotect(start[flip], layout.length, prot[flip])

    first = np.flatnonzero(populated)
    setup = [*layout.setup(), stream.fault(layout.vm_start[first], layout.access(first))]
    return stream.build(setup, timed, map_count=layout.map_count + 2)


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """One load, many mixes."""
    workloads = [
        Workload(
            name="mmap-churn",
            summary="mmap, munmap and mprotect at a constant number of VMAs: what each change costs",
            stands_for="allocators that map and unmap large blocks, JITs that toggle protections, guard pages, "
            "sandboxes: the price that an index pays for its fast lookups, and a cache for its invalidation",
            parameters=(
                Parameter("vmas", 1000, "VMAs in the address space", low=6, high=8_000_000),
                Parameter("pages", 4, "pages of each VMA", low=1, high=1 << 18),
                Parameter("gap", 0, "1: one unmapped page between VMAs; 0: none, protections alternate", low=0, high=1),
                Parameter("search", 1, "1: mmap searches for its hole (gap=0); 0: it gets a hint", low=0, high=1),
                Parameter(
                    "events",
                    20_000,
                    "approximate number of mapping calls; faults are additional",
                    low=2,
                    high=16_000_000,
                ),
                Parameter("remap", 0.5, "weight of munmap and mmap", low=0.0, high=1e6),
                Parameter("punch", 0.25, "weight of mprotect in the middle (split, merge)", low=0.0, high=1e6),
                Parameter("flip", 0.25, "weight of mprotect of whole VMAs", low=0.0, high=1e6),
                Parameter("fault", 0.5, "share of the VMAs that are touched after each mmap", low=0.0, high=1.0),
            ),
            make=mmap_churn,
        )
    ]
    return with_nominal(workloads)
