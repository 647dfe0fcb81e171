"""Lookups over many VMAs in three orders: ``uniform``, ``sequential``, ``zipf``.

With ``faults=0`` nothing changes while they run: they do only lookups, no rest of a fault and no mapping call. They
time the index, and a cache that lookups fill. A cache that only faults fill (``pmdcache``) keeps what the setup left in
it; for such a cache use ``faults=1``: each access is a page fault, and after every 64 the pages are freed. ``writes``
adds pairs of mprotect calls at equal distances: the accesses after them pay for what they invalidate.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchframe.api import hookimpl
from benchframe.workloads import EVENT, Parameter, Trace, Workload, stream
from benchframe_workloads._nominal import with_nominal

LAYOUT = (
    Parameter("vmas", 1000, "VMAs in the address space", low=6, high=8_000_000),
    Parameter("pages", 4, "pages of each VMA", low=1, high=1 << 18),
    Parameter("gap", 1, "1: one unmapped page between VMAs; 0: none, protections alternate", low=0, high=1),
)
EVENTS = Parameter("events", 200_000, "timed accesses", low=1, high=16_000_000)
FAULTS = Parameter("faults", 0, "0: bare lookups; 1: page faults, with pages freed after every 64", low=0, high=1)
TOUCH = Parameter("touch", 1, "1: the setup reads every VMA once; 0: one VMA per 2 MiB, for long lists", low=0, high=1)
WRITES = Parameter("writes", 0.0, "mapping calls per access: mprotect of a random VMA and back", low=0.0, high=100.0)
BATCH = 64


def _accessed(
    layout: stream.Tiles,
    tile: NDArray[np.int64],
    page: NDArray[np.int64],
    params: dict[str, Any],
    rng: np.random.Generator,
) -> Trace:
    """The layout with its page tables, then one access per element of ``tile`` and ``page``, and the mapping calls."""
    pairs = round(len(tile) * params["writes"] / 2)
    if not params["faults"]:
        timed = _written(stream.lookup(layout.vm_start[tile] + page * stream.PAGE), layout, pairs, rng)
        setup = [*layout.setup(), layout.tables(every=bool(params["touch"]))]
        return stream.build(setup, timed, map_count=layout.map_count)
    first_write = stream.fault(layout.vm_start, layout.access(np.arange(len(layout))))
    emptied = stream.dontneed(layout.vm_start, layout.length)
    setup = [*layout.setup(), layout.tables(), first_write, emptied]
    timed = _written(_faulted(layout, tile, page), layout, pairs, rng)
    return stream.build(setup, timed, map_count=layout.map_count)


def _written(timed: NDArray[np.void], layout: stream.Tiles, pairs: int, rng: np.random.Generator) -> NDArray[np.void]:
    """``timed`` with ``pairs`` of mprotect calls at equal distances: a random VMA loses its write permission, or gets
    it if it has none, and is then restored."""
    if not pairs:
        return timed
    tile = np.repeat(rng.integers(0, len(layout), pairs), 2)
    prot = layout.prot[tile]
    prot[::2] ^= stream.WRITE
    calls = stream.mprotect(layout.vm_start[tile], layout.length, prot)
    at = np.repeat((np.arange(pairs) + 1) * len(timed) // (pairs + 1), 2)
    made = np.empty(len(timed) + len(calls), EVENT)
    place = at + np.arange(len(calls))
    own = np.ones(len(made), bool)
    own[place] = False
    made[own], made[place] = timed, calls
    return made


def _faulted(layout: stream.Tiles, tile: NDArray[np.int64], page: NDArray[np.int64]) -> NDArray[np.void]:
    """Batches of 64 faults, each followed by MADV_DONTNEED of the VMAs that it touched.

    A further visit to a VMA within a batch takes the page after the previous visit's. Only if a VMA is visited more
    often than it has pages does a fault find its page present, as it does after losing a race with another thread.
    """
    n, pages = len(tile), layout.length // stream.PAGE
    visited = np.arange(n) // BATCH * len(layout) + tile
    order = np.argsort(visited, kind="stable")
    groups, first, size = np.unique(visited[order], return_index=True, return_counts=True)
    page = page.copy()
    page[order] = (np.repeat(page[order[first]], size) + np.arange(n) - np.repeat(first, size)) % pages
    batch = groups // len(layout)
    given_back = np.cumsum(np.bincount(batch, minlength=int(batch[-1]) + 1))
    timed = np.empty(n + len(groups), EVENT)
    before = np.concatenate([[0], given_back])[np.arange(n) // BATCH]
    timed[np.arange(n) + before] = stream.fault(layout.vm_start[tile] + page * stream.PAGE, layout.access(tile))
    after = np.minimum((batch + 1) * BATCH, n) + np.arange(len(groups))
    timed[after] = stream.dontneed(layout.vm_start[groups % len(layout)], layout.length)
    return timed


def uniform(params: dict[str, Any], seed: int) -> Trace:
    """Every page of every VMA is equally likely: no locality at all."""
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    n = params["events"]
    return _accessed(layout, rng.integers(0, len(layout), n), rng.integers(0, params["pages"], n), params, rng)


def sequential(params: dict[str, Any], seed: int) -> Trace:
    """Every ``stride``-th page in address order, from a random first one, starting over at the end."""
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    total = len(layout) * params["pages"]
    nth = (int(rng.integers(0, total)) + np.arange(params["events"], dtype=np.int64) * params["stride"]) % total
    return _accessed(layout, nth // params["pages"], nth % params["pages"], params, rng)


def zipf(params: dict[str, Any], seed: int) -> Trace:
    """The k-th most popular VMA is looked up in proportion to k^-alpha; the order of popularity is random.

    A visit makes ``run`` lookups in its VMA on average (geometric), each at a random page of it.
    """
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    n = params["events"]
    share = np.cumsum(np.arange(1, len(layout) + 1, dtype=np.float64) ** -params["alpha"])
    moves = rng.random(n) < 1.0 / params["run"]
    moves[0] = True
    rank = np.searchsorted(share, rng.random(int(moves.sum())) * share[-1], side="right")
    place = rng.permutation(len(layout))
    tile = place[np.minimum(rank, len(layout) - 1)][np.cumsum(moves) - 1]
    return _accessed(layout, tile, rng.integers(0, params["pages"], n), params, rng)


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """The three orders."""
    workloads = [
        Workload(
            name="uniform",
            summary="accesses at random addresses over all VMAs, where no cache helps the index",
            stands_for="the worst case for caches: large hash tables and heaps spread over many mappings, as in an "
            "in-memory database; with a few dozen VMAs, a program whose working set misses every one-entry cache",
            parameters=(*LAYOUT, EVENTS, FAULTS, WRITES, TOUCH),
            make=uniform,
        ),
        Workload(
            name="sequential",
            summary="lookups page by page in address order: maximal locality",
            stands_for="a first pass over mapped data: loading files by mmap, a garbage collector's sweep, fork and "
            "exit walking an address space",
            parameters=(
                *LAYOUT,
                EVENTS,
                FAULTS,
                WRITES,
                TOUCH,
                Parameter("stride", 1, "pages from one lookup to the next", low=1, high=1 << 30),
            ),
            make=sequential,
        ),
        Workload(
            name="zipf",
            summary="lookups with popular and unpopular VMAs: the locality of ordinary programs",
            stands_for="ordinary programs, where the heap, the stack and a few libraries take most faults, in bursts; "
            "alpha=0 is uniform, alpha near 1 is typical; run is the burst's length, and run=2 gives a cache of the "
            "last VMA a hit rate of about one half, as measured on desktops (mmap_cache, before 3.15)",
            parameters=(
                *LAYOUT,
                EVENTS,
                FAULTS,
                WRITES,
                TOUCH,
                Parameter("alpha", 1.0, "skew of popularity", low=0.0, high=8.0),
                Parameter("run", 2.0, "mean number of lookups in a row that stay in one VMA", low=1.0, high=1e6),
            ),
            make=zipf,
        ),
    ]
    return with_nominal(workloads)
