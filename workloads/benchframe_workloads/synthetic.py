"""Lookups alone, over many VMAs, in three orders: ``uniform``, ``sequential``, ``zipf``.

Nothing changes while these run: no fault's work, no mapping call. So they time the index and whatever cache the
lookup itself keeps up. A cache that is filled by the fault's work alone keeps what the setup left in it; for such
a one see ``fault-scatter`` and the recorded traces.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchframe.api import Parameter, Trace, Workload, hookimpl, stream

LAYOUT = (
    Parameter("vmas", 1000, "VMAs in the address space", low=6, high=8_000_000),
    Parameter("pages", 4, "pages of each VMA", low=1, high=1 << 18),
    Parameter("gap", 1, "1: one unmapped page between VMAs; 0: none, protections alternate", low=0, high=1),
)
EVENTS = Parameter("events", 200_000, "timed events, about", low=1, high=16_000_000)


def _looked_up(layout: stream.Tiles, tile: NDArray[np.int64], page: NDArray[np.int64]) -> Trace:
    """The layout with its page tables, then one lookup per element of ``tile`` and ``page``."""
    timed = stream.lookup(layout.vm_start[tile] + page * stream.PAGE)
    return stream.build([*layout.setup(), layout.tables()], timed, map_count=layout.map_count)


def uniform(params: dict[str, Any], seed: int) -> Trace:
    """Every page of every VMA is equally likely: no locality at all."""
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    n = params["events"]
    return _looked_up(layout, rng.integers(0, len(layout), n), rng.integers(0, params["pages"], n))


def sequential(params: dict[str, Any], seed: int) -> Trace:
    """Each ``stride``-th page in address order, from a random first one, round and round."""
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    total = len(layout) * params["pages"]
    nth = (int(rng.integers(0, total)) + np.arange(params["events"], dtype=np.int64) * params["stride"]) % total
    return _looked_up(layout, nth // params["pages"], nth % params["pages"])


def zipf(params: dict[str, Any], seed: int) -> Trace:
    """The k-th most popular VMA is looked up in proportion to k^-alpha; which VMA is popular is random.

    A visit stays ``run`` lookups in its VMA on average (geometric), each at a random page of it.
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
    return _looked_up(layout, tile, rng.integers(0, params["pages"], n))


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """The three orders."""
    return [
        Workload(
            name="uniform",
            summary="lookups at random addresses over all VMAs: the index without help from any cache",
            stands_for="the worst case for caches: large hash tables and heaps spread over many mappings, as in an "
            "in-memory database; with a few dozen VMAs, a program whose working set misses every one-entry cache",
            parameters=(*LAYOUT, EVENTS),
            make=uniform,
        ),
        Workload(
            name="sequential",
            summary="lookups page after page in address order: all locality there can be",
            stands_for="a first pass over mapped data: loading files by mmap, a garbage collector's sweep, fork and "
            "exit walking an address space",
            parameters=(
                *LAYOUT,
                EVENTS,
                Parameter("stride", 1, "pages from one lookup to the next", low=1, high=1 << 30),
            ),
            make=sequential,
        ),
        Workload(
            name="zipf",
            summary="lookups with popular and unpopular VMAs: the locality of ordinary programs",
            stands_for="ordinary programs, where the heap, the stack and a few libraries take most faults, in bursts; "
            "alpha=0 is uniform, alpha near 1 is typical, run is the burst's length",
            parameters=(
                *LAYOUT,
                EVENTS,
                Parameter("alpha", 1.0, "skew of popularity", low=0.0, high=8.0),
                Parameter("run", 1.0, "mean number of lookups in a row that stay in one VMA", low=1.0, high=1e6),
            ),
            make=zipf,
        ),
    ]
