"""Workloads after the tests of will-it-scale: page_fault1-3, mmap1-2, brk1, each by threads of one address space or by
processes.

A round of a test is one turn of its loop. As there, tasks share only what the kernel makes them share: threads share
mmap_lock and the index, processes neither. Two are additions of ours: in ``mixed`` some threads fault and others map,
in ``proc-maps`` some map and others read /proc/PID/maps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchframe.api import hookimpl
from benchframe.workloads import NIL, FileEntry, Kind, Parameter, Trace, Workload, stream
from benchframe_workloads._nominal import with_nominal
from benchframe_workloads._together import proc_maps, proc_maps_threads

PAGE = stream.PAGE
BASE, STRIDE = 0x1000_0000_0000, 1 << 33
"""Where the tasks' areas begin, and how far apart they are: 8 GiB."""
RW = stream.READ | stream.WRITE
MAP_SHARED = 0x01
Round = Callable[[int, dict[str, Any], int], list[stream.Rows]]
"""(address, parameters, file) to the rows of one round."""

VARIANT = Parameter("variant", "threads", "tasks in one address space, or one each", choices=("threads", "processes"))


def _pages(mib: int) -> Parameter:
    return Parameter("mib", mib, "MiB of the mapping (will-it-scale: 128)", low=1, high=4096)


def _map(addr: int, length: int, file: int, shared: bool) -> stream.Rows:
    made = stream.mmap(addr, length, RW, flags=0)
    if file != NIL:
        made["file"], made["flags"] = file, MAP_SHARED if shared else stream.MAP_PRIVATE
    return made


def _touch(shared: bool, named: bool) -> Round:
    """Map, write to every page, unmap: page_fault1 (anonymous), 2 (private file), 3 (shared file)."""

    def rows(addr: int, params: dict[str, Any], file: int) -> list[stream.Rows]:
        length = params["mib"] << 20
        return [
            _map(addr, length, file if named else NIL, shared),
            stream.fault(addr + np.arange(0, length, PAGE), stream.WRITE),
            stream.munmap(addr, length),
        ]

    return rows


def _remap(named: bool) -> Round:
    """Map and unmap, touch nothing: mmap1 (anonymous), mmap2 (shared file)."""

    def rows(addr: int, params: dict[str, Any], file: int) -> list[stream.Rows]:
        length = params["mib"] << 20
        once = [_map(addr, length, file if named else NIL, True), stream.munmap(addr, length)]
        return once * int(params["turns"])

    return rows


def _grow(addr: int, params: dict[str, Any], file: int) -> list[stream.Rows]:
    """Move the break up by a page and down again: brk1. Threads share one heap, so all ask for the same break."""
    heap = BASE - STRIDE
    return [stream.rows(Kind.BRK, [heap + PAGE, heap])] * params["turns"]


def _maker(once: Round) -> Callable[[dict[str, Any], int, int], Trace]:
    def make(params: dict[str, Any], seed: int, threads: int) -> Trace:
        processes = params["variant"] == "processes"
        work = [stream.by(i, *once(BASE + i * STRIDE, params, i), mm=i if processes else 0) for i in range(threads)]
        heaps = [stream.by(i, stream.rows(Kind.BRK, BASE - STRIDE), mm=i) for i in range(threads if processes else 1)]
        files = tuple(FileEntry(f"task{i}", 4096 << 20, i + 1) for i in range(threads))
        setup = [stream.begin_threads(threads, processes), *heaps, *work]
        return stream.build_threads(setup, work, map_count=threads + 2, files=files)

    return make


def _alone(make: Callable[[dict[str, Any], int, int], Trace]) -> Callable[[dict[str, Any], int], Trace]:
    """One task: the stream for a replay."""
    return lambda params, seed: make(params, seed, 1)


def mixed(params: dict[str, Any], seed: int, threads: int) -> Trace:
    """``threads`` tasks fault in permanent areas, and ``mappers`` more map, split, touch and unmap areas of their own.

    In a round a faulting task writes to every page of its area in random order, then frees them. A mapping task does
    ``turns`` times: mmap, mprotect of the middle page (two splits), a write to the first page, munmap of all three.
    """
    length, faulting = params["pages"] * PAGE, range(threads)
    work = []
    for i in faulting:
        pages = np.random.default_rng([seed, i]).permutation(params["pages"]) * PAGE
        addr = BASE + i * STRIDE
        work.append(stream.by(i, stream.fault(addr + pages, stream.WRITE), stream.dontneed(addr, length)))
    for i in range(threads, threads + params["mappers"]):
        addr = BASE + i * STRIDE
        once = [
            stream.mmap(addr, 8 * PAGE, RW, flags=0),
            stream.mprotect(addr + 4 * PAGE, PAGE, stream.READ),
            stream.fault(addr, stream.WRITE),
            stream.munmap(addr, 8 * PAGE),
        ]
        work.append(stream.by(i, *once * params["turns"]))
    stay = [stream.mmap(BASE + i * STRIDE, length, RW) for i in faulting]
    setup = [stream.begin_threads(len(work)), *stay, *work]
    return stream.build_threads(setup, work, map_count=threads + 3 * params["mappers"] + 1)


TURNS = Parameter("turns", 200, "turns of the loop in a round", low=1, high=1_000_000)
TESTS: tuple[tuple[str, str, Round, tuple[Parameter, ...]], ...] = (
    ("page_fault1", "map anonymous memory, write to every page, unmap", _touch(False, False), (_pages(8), VARIANT)),
    ("page_fault2", "the same with a private file: every fault copies", _touch(False, True), (_pages(8), VARIANT)),
    ("page_fault3", "the same with a shared file mapping", _touch(True, True), (_pages(8), VARIANT)),
    ("mmap1", "map and unmap anonymous memory, touch nothing", _remap(False), (_pages(128), TURNS, VARIANT)),
    ("mmap2", "map and unmap a shared file, touch nothing", _remap(True), (_pages(128), TURNS, VARIANT)),
    ("brk1", "move the program break up and down by a page", _grow, (TURNS, VARIANT)),
)
STANDS_FOR = "the test of that name in will-it-scale, by which the kernel's test robots judge how mm changes scale"


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """Six tests, and two mixes."""
    tests = [
        Workload(name, summary, STANDS_FOR, parameters, make=_alone(_maker(once)), make_threads=_maker(once))
        for name, summary, once, parameters in TESTS
    ]
    mix = Workload(
        name="mixed",
        summary="some threads fault in permanent areas while others map and unmap",
        stands_for="a program whose allocator or JIT changes mappings while the rest of it runs: what faults pay for "
        "writers (mmap_lock, a version that moved, an invalidated cache) and writers for faults. --threads N are N "
        "faulting threads, and mappers more",
        parameters=(
            Parameter("pages", 512, "pages of a faulting thread's area", low=1, high=1 << 18),
            Parameter("mappers", 1, "threads that map and unmap", low=0, high=64),
            Parameter("turns", 50, "mappings of a mapping thread's round", low=1, high=1_000_000),
        ),
        make=_alone(mixed),
        make_threads=mixed,
    )
    walks = Workload(
        name="proc-maps",
        summary="threads map and unmap pages while others read /proc/PID/maps again and again",
        stands_for="monitoring beside a program: McKenney's test of April 2025, two scanners beside a mapper, by which "
        "reading under one VMA's lock after another (6.17) was judged. --threads N are N mappers, and scanners more; "
        "without threads one task reads all VMAs, and ns/mapping op is the time of one such walk",
        parameters=(
            Parameter("vmas", 1000, "VMAs that do not change", low=7, high=65_000),
            Parameter("scanners", 2, "threads that read all VMAs", low=0, high=64),
            Parameter("turns", 100, "mappings of a mapping thread's round", low=1, high=1_000_000),
            Parameter("lines", 0, "VMAs that a read(2) returns; 0: all; 1: PROCMAP_QUERY", low=0, high=65_000),
        ),
        make=proc_maps,
        make_threads=proc_maps_threads,
    )
    return with_nominal([*tests, mix, walks])
