"""``multi-fault-all-split``, ``pft``, ``ebizzy`` and ``proc-maps`` for threads: one address space, in which each thread
has areas of its own."""

from typing import Any

import numpy as np

from benchframe.workloads import EVENT, FileEntry, Trace, stream

PAGE = stream.PAGE
MAP_SHARED = 0x01


def other_vmas(params: dict[str, Any], areas: int) -> int:
    """How many VMAs ``multi-fault-all-split`` has beside its ``areas`` and the pages between them. Raises ValueError if
    ``vmas`` are fewer than these need."""
    split, least = 2 * areas - 1, 6
    vmas = params["vmas"] or max(64, split + least)
    if vmas < split + least:
        raise ValueError(f"{areas} areas make {split} VMAs; vmas must be at least {split + least}, or 0")
    return int(vmas) - split


def multi_fault_threads(params: dict[str, Any], seed: int, threads: int) -> Trace:
    """The benchmark of December 2009 as posted: thread ``i`` touches 2 MiB of area ``i`` page by page, waits for the
    others, frees the 2 MiB with MADV_DONTNEED, and begins again. One area of 8 MiB per thread, all in one mapping
    divided by PROT_NONE pages."""
    size, touched = 4 * stream.PMD_SIZE, stream.PMD_SIZE // PAGE
    layout = stream.tiles(other_vmas(params, threads), 4, 1)
    area = layout.floor - (1 << 30) - np.arange(threads, 0, -1, dtype=np.int64) * (size + PAGE)
    setup = [
        stream.begin_threads(threads),
        *layout.setup(),
        layout.tables(),
        stream.mmap(area[:1], threads * (size + PAGE) - PAGE, stream.READ | stream.WRITE),
        *([stream.mprotect(area[:-1] + size, PAGE, 0)] if threads > 1 else []),
    ]
    work = [
        stream.by(
            i,
            stream.fault(area[i] + np.arange(touched) * PAGE, stream.WRITE),
            stream.dontneed(area[i], stream.PMD_SIZE),
        )
        for i in range(threads)
    ]
    barrier = touched if params["barrier"] else -1
    return stream.build_threads([*setup, *work], work, map_count=layout.map_count + 2 * threads - 1, barrier=barrier)


def pft_threads(params: dict[str, Any], seed: int, threads: int) -> Trace:
    """Every thread faults in ``pages`` pages of its own, page by page, frees them, and begins again; all in one VMA, 4
    MiB apart, so that no two threads share a page table."""
    return one_vma_threads({"backing": "anonymous", "spread": 1, **params}, seed, threads)


def pft(params: dict[str, Any], seed: int) -> Trace:
    """The same with one thread."""
    return pft_threads(params, seed, 1)


def one_vma_threads(params: dict[str, Any], seed: int, threads: int) -> Trace:
    """The same in memory of any ``backing``. ``spread=0`` puts the threads' pages one behind the other, so that
    threads also share page tables, as long as ``pages`` of all fit in one."""
    backing = params["backing"]
    layout = stream.tiles(params["vmas"] - 1, 4, 1)
    base = layout.floor - (1 << 40)
    apart = 2 * stream.PMD_SIZE if params["spread"] else params["pages"] * PAGE
    length = -(-threads * apart // stream.PMD_SIZE) * stream.PMD_SIZE
    area = base + np.arange(threads, dtype=np.int64) * apart
    access = stream.READ if backing == "read" else stream.WRITE
    work = [
        stream.by(
            i,
            stream.fault(area[i] + np.arange(params["pages"]) * PAGE, access),
            stream.dontneed(area[i], params["pages"] * PAGE),
        )
        for i in range(threads)
    ]
    one = stream.mmap(base, length, stream.READ if backing == "read" else stream.READ | stream.WRITE)
    files: tuple[FileEntry, ...] = ()
    if backing != "anonymous":
        one["file"] = 0
        one["flags"] = MAP_SHARED | stream.MAP_FIXED if backing == "shared" else stream.MAP_PRIVATE | stream.MAP_FIXED
        files = (FileEntry("data", length, 1),)
    setup = [stream.begin_threads(threads), *layout.setup(), layout.tables(), one, *work]
    barrier = params["pages"] if params["barrier"] else -1
    return stream.build_threads(setup, work, map_count=layout.map_count + 1, barrier=barrier, files=files)


def one_vma(params: dict[str, Any], seed: int) -> Trace:
    """The same with one thread."""
    return one_vma_threads(params, seed, 1)


def ebizzy_threads(params: dict[str, Any], seed: int, threads: int) -> Trace:
    """``ebizzy -t``: the threads read shared chunks; each copies into a mapping of its own and unmaps it."""
    chunk = params["chunk"]
    layout = stream.tiles(params["vmas"], chunk, params["gap"])
    width = 1 + params["source"]
    rounds = max(1, params["events"] // (2 + width * chunk))
    work = []
    for thread in range(threads):
        rng = np.random.default_rng([seed, thread])
        copy = layout.floor - (1 << 30) - (thread + 1) * (chunk + 2) * PAGE
        blocks = []
        for _ in range(rounds):
            pages = int(rng.integers(2, chunk + 1)) if params["vary"] else chunk
            page = np.arange(pages) * PAGE
            source = layout.vm_start[rng.integers(0, len(layout))]
            touch = np.empty(pages * width, EVENT)
            if params["source"]:
                touch[::width] = stream.lookup(source + page)
            touch[width - 1 :: width] = stream.fault(copy + page, stream.WRITE)
            blocks += [
                stream.mmap(copy, pages * PAGE, stream.READ | stream.WRITE, flags=0),
                touch,
                stream.munmap(copy, pages * PAGE),
            ]
        work.append(stream.by(thread, *blocks))
    setup = [stream.begin_threads(threads), *layout.setup(), layout.tables()]
    return stream.build_threads([*setup, *work], work, map_count=layout.map_count + threads)


def proc_maps_threads(params: dict[str, Any], seed: int, threads: int) -> Trace:
    """``threads`` tasks map and unmap a page each, in the middle of the address space; ``scanners`` more read all
    VMAs. The others do not change, so that every walk must give the same."""
    layout = stream.tiles(params["vmas"] + threads, 4, 1)
    first = (len(layout) - threads) // 2
    gone = layout.vm_start[first : first + threads]
    low, length = int(gone[0]), int(gone[-1] - gone[0]) + layout.length
    count = threads + params["scanners"]
    work = []
    for i, addr in enumerate((gone + PAGE).tolist()):
        once = [stream.mmap(addr, PAGE, stream.READ | stream.WRITE), stream.munmap(addr, PAGE)]
        work.append(stream.by(i, *once * params["turns"]))
    work += [stream.by(i, stream.walk(low, length, params["lines"])) for i in range(threads, count)]
    setup = [stream.begin_threads(count), *layout.setup(), stream.munmap(gone, layout.length), *work]
    return stream.build_threads(setup, work, map_count=layout.map_count)


def proc_maps(params: dict[str, Any], seed: int) -> Trace:
    """One task that reads all VMAs ``turns`` times."""
    layout = stream.tiles(params["vmas"], 4, 1)
    reads = [stream.walk(lines=params["lines"])] * params["turns"]
    return stream.build(layout.setup(), reads, map_count=layout.map_count)
