"""Page faults over a layout that is (nearly) constant: ``ebizzy``, ``multi-fault-all-split``, ``pft`` and more.

A fault is a lookup and then the rest of its work: page tables, the PTE, and what the strategy updates there. Each
stream frees its pages (munmap or MADV_DONTNEED), so that every replay faults as the first one did.
"""

from typing import Any

import numpy as np

from benchframe.api import hookimpl
from benchframe.workloads import EVENT, Parameter, Trace, Workload, stream
from benchframe_workloads._nominal import with_nominal
from benchframe_workloads._together import (
    ebizzy_threads,
    multi_fault_threads,
    one_vma,
    one_vma_threads,
    other_vmas,
    pft,
    pft_threads,
)

PAGE = stream.PAGE
EVENTS = Parameter(
    "events", 200_000, "approximate number of timed events, rounded to whole rounds", low=1, high=16_000_000
)
GAP = Parameter("gap", 1, "1: one unmapped page between VMAs; 0: none, protections alternate", low=0, high=1)


def ebizzy(params: dict[str, Any], seed: int) -> Trace:
    """Many chunks; each round maps a copy, copies a random chunk into it page by page, and unmaps the copy.

    A round: mmap of the copy wherever a top-down search finds room (right below the floor), per page a lookup in the
    source (with ``source=1``) and a write fault in the copy, munmap. Searching in the copy makes no events, since its
    pages are already present.
    """
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["chunk"], params["gap"])
    width = 1 + params["source"]
    rounds = max(1, params["events"] // (2 + width * params["chunk"]))
    pages = np.full(rounds, params["chunk"])  # at least 2: one page would fit between two chunks
    if params["vary"]:
        rounds = max(1, params["events"] // (2 + width * (params["chunk"] + 2) // 2))
        pages = rng.integers(2, params["chunk"] + 1, rounds)
    copy = layout.floor - pages * PAGE
    source = layout.vm_start[rng.integers(0, len(layout), rounds)]

    copied = np.repeat(np.arange(rounds), pages)
    page = np.arange(len(copied)) - np.repeat(np.cumsum(pages) - pages, pages)
    # One slot per event, round after round: mmap, (lookup, fault) per page, munmap.
    ends = np.cumsum(2 + width * pages)
    timed = np.empty(int(ends[-1]), EVENT)
    begins = ends - 2 - width * pages
    timed[begins] = stream.mmap(np.zeros(rounds, np.int64), pages * PAGE, stream.READ | stream.WRITE, flags=0)
    at = begins[copied] + 1 + width * page
    if params["source"]:
        timed[at] = stream.lookup(source[copied] + page * PAGE)
    timed[at + width - 1] = stream.fault(copy[copied] + page * PAGE, stream.WRITE)
    timed[ends - 1] = stream.munmap(copy, pages * PAGE)
    return stream.build([*layout.setup(), layout.tables()], timed, map_count=layout.map_count + 1)


def multi_fault_all_split(params: dict[str, Any], seed: int) -> Trace:
    """The benchmark of the speculative page fault series of 2009, run by one thread.

    One mapping of ``maps`` areas of 8 MiB, split by one PROT_NONE page between areas. A round touches 2 MiB of each
    area page by page, then frees all of them with MADV_DONTNEED. ``turns`` sweeps the areas one after the other;
    ``lockstep`` touches page k of every area before page k+1 of any, as threads at equal speed would. Nothing is
    random.
    """
    maps, touched, size = params["maps"], stream.PMD_SIZE // PAGE, 4 * stream.PMD_SIZE
    layout = stream.tiles(other_vmas(params, maps), 4, 1)
    area = layout.floor - (1 << 30) - np.arange(maps, 0, -1, dtype=np.int64) * (size + PAGE)
    split = [
        stream.mmap(area[:1], maps * (size + PAGE) - PAGE, stream.READ | stream.WRITE),
        *([stream.mprotect(area[:-1] + size, PAGE, 0)] if maps > 1 else []),
    ]
    grid = area[:, None] + np.arange(touched) * PAGE
    order = grid.T if params["order"] == "lockstep" else grid
    once = np.concatenate([stream.fault(order.ravel(), stream.WRITE), stream.dontneed(area, stream.PMD_SIZE)])
    rounds = max(1, round(params["events"] / len(once)))
    # The first round is part of the setup: page tables and anon_vmas stay from then on.
    setup = [*layout.setup(), layout.tables(), *split, once]
    return stream.build(setup, np.tile(once, rounds), map_count=layout.map_count + 2 * maps - 1)


def fault_scatter(params: dict[str, Any], seed: int) -> Trace:
    """Every page of every VMA is faulted in once per round, in random runs of ``run`` pages, then all pages are freed.

    Runs start at every ``run``-th page of a VMA; a read-only VMA (``gap=0``) is read, any other is written.
    """
    rng = np.random.default_rng(seed)
    layout = stream.tiles(params["vmas"], params["pages"], params["gap"])
    pages, run = params["pages"], min(params["run"], params["pages"])
    if len(layout) * pages > stream.MAX_EVENTS // 2:
        raise ValueError(f"a round touches {len(layout) * pages} pages; take fewer VMAs or pages")
    runs = -(-pages // run)
    first = rng.permutation(len(layout) * runs)
    tile = np.repeat(first // runs, run)
    page = (first % runs * run)[:, None] + np.arange(run)
    kept = page.ravel() < pages
    tile, page = tile[kept], page.ravel()[kept]
    end = int(layout.vm_start[-1]) + layout.length
    whole = stream.dontneed(layout.vm_start[0], end - int(layout.vm_start[0]))
    back = whole if not params["gap"] else stream.dontneed(layout.vm_start, layout.length)
    once = np.concatenate([stream.fault(layout.vm_start[tile] + page * PAGE, layout.access(tile)), back])
    rounds = max(1, round(params["events"] / len(once)))
    # A first write to each tile, so that the anon_vmas too exist before the first round.
    first_write = stream.fault(layout.vm_start, layout.access(np.arange(len(layout))))
    setup = [*layout.setup(), layout.tables(), first_write, back]
    return stream.build(setup, np.tile(once, rounds), map_count=layout.map_count)


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """The workloads that fault."""
    workloads = [
        Workload(
            name="ebizzy",
            summary="copy a random chunk out of many into a fresh mapping, page by page, and unmap it",
            stands_for="web and application servers, as the benchmark program ebizzy does (its -m with -P, or -p for "
            "gap=0, -R for vary=1): large temporary buffers beside a big, randomly read working set. source=1 also "
            "looks up the chunk's pages, as when reclaim or NUMA scanning took their PTEs; source=0 has only the "
            "copy's faults",
            parameters=(
                Parameter("vmas", 1000, "VMAs in the address space, beside the copy", low=6, high=8_000_000),
                Parameter("chunk", 128, "pages of a chunk (ebizzy's default is 512 KiB)", low=2, high=1 << 18),
                GAP,
                EVENTS,
                Parameter("source", 1, "1: the chunk's pages are looked up too; 0: only the copy's", low=0, high=1),
                Parameter("vary", 0, "1: each copy has a random length, 2 pages up to a chunk", low=0, high=1),
            ),
            make=ebizzy,
            make_threads=ebizzy_threads,
        ),
        Workload(
            name="multi-fault-all-split",
            summary="repeatedly touch 2 MiB of each of several areas page by page, and free it",
            stands_for="threads that each fill and drop an arena of their own: the benchmark that came with the "
            "speculative page fault patches of December 2009. Each area's 2 MiB lie in one or two pages of PTEs, the "
            "best case for a cache kept per page of PTEs",
            parameters=(
                Parameter(
                    "maps", 8, "areas of 8 MiB, a PROT_NONE page between; with threads one each", low=1, high=8192
                ),
                Parameter(
                    "vmas",
                    0,
                    "VMAs in the address space, these areas included; 0: 64, or as many as the areas need",
                    low=0,
                    high=8_000_000,
                ),
                EVENTS,
                Parameter("order", "turns", "order of touches by one thread", choices=("turns", "lockstep")),
                Parameter("barrier", 1, "with threads: 1: a barrier before memory is freed; 0: none", low=0, high=1),
            ),
            make=multi_fault_all_split,
            make_threads=multi_fault_threads,
        ),
        Workload(
            name="pft",
            summary="threads touch 2 MiB each of one VMA page by page, give it back, again",
            stands_for="prefaulting a single huge mapping with many threads, as Christoph Lameter's page fault test "
            "does and large databases and supercomputers do: what is counted in the VMA is counted by everybody",
            parameters=(
                Parameter("pages", 512, "pages that a thread touches in a round", low=1, high=512),
                Parameter("vmas", 31, "VMAs in the address space, all but one of them of others", low=7, high=65_000),
                Parameter("barrier", 0, "1: all meet before they give back; 0: they do not", low=0, high=1),
            ),
            make=pft,
            make_threads=pft_threads,
        ),
        Workload(
            name="one-vma",
            summary="threads fault in one VMA, of anonymous memory or of a file, give the pages back, again",
            stands_for="the case on which maintainers disagree: most faults of a large program in a single VMA (Wilcox "
            "and Zijlstra, 2020 and 2021), where a lock per VMA is one lock for all. read and shared are a mapped "
            "database or model file, private a program's data segment; spread=0 adds the contention for page tables",
            parameters=(
                Parameter(
                    "backing",
                    "anonymous",
                    "what is mapped; read: a private file that is only read",
                    choices=("anonymous", "private", "shared", "read"),
                ),
                Parameter("pages", 512, "pages that a thread touches in a round", low=1, high=512),
                Parameter("spread", 1, "1: threads are 4 MiB apart; 0: one behind the other", low=0, high=1),
                Parameter("vmas", 31, "VMAs in the address space, all but one of them of others", low=7, high=65_000),
                Parameter("barrier", 0, "1: all meet before they give back; 0: they do not", low=0, high=1),
            ),
            make=one_vma,
            make_threads=one_vma_threads,
        ),
        Workload(
            name="fault-scatter",
            summary="repeatedly fault in every page of many VMAs in random order, and free all",
            stands_for="first touches without order: a server after start or after reclaim, an allocator that spreads "
            "requests over arenas; run is how many neighbouring pages are touched in one go",
            parameters=(
                Parameter("vmas", 1000, "VMAs in the address space", low=6, high=8_000_000),
                Parameter("pages", 8, "pages of each VMA", low=1, high=1 << 18),
                GAP,
                EVENTS,
                Parameter("run", 1, "neighbouring pages touched in a row", low=1, high=1 << 18),
            ),
            make=fault_scatter,
        ),
    ]
    return with_nominal(workloads)
