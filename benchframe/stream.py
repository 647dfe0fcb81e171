"""Building blocks for synthetic streams: rows in bulk, a layout of many VMAs, and the boundary after the setup.

A maker concatenates blocks of EVENT rows; everything here is vectorised, so a million rows take some tens of
milliseconds. ::

    floor                tiles, lowest first                ceiling
    [none] [rw][r ][rw][r ] ...  (gap = 0)         ... [r ][none ...... ]
    [none] [rw] [rw] [rw] ...    (gap = 1)         ... [rw][none ...... ]
           ^base           one unmapped page between    ^top            ^TASK_SIZE

Two neighbours of equal protection would merge (mm/vma.c), so without gaps the protections alternate. The ceiling
leaves no hole above the tiles: a top-down search (mm/mmap.c, arch_get_unmapped_area_topdown) must look below them,
and a stream can know the address that the search will find.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchframe.events import EVENT, NIL, UNKNOWN, FaultFlag, Kind
from benchframe.trace.meta import FileEntry, TraceMeta
from benchframe.trace.trace import Trace

PAGE = 4096
PMD_SIZE = 1 << 21
"""What one page of PTEs maps: 2 MiB (x86-64)."""
TASK_SIZE = (1 << 47) - PAGE
TOP = 0x7E00_0000_0000
"""Where the tiles end: below any mmap_base that x86-64 picks, 2 MiB aligned."""
READ, WRITE, EXEC = 1, 2, 4
"""PROT_* bits; in a lookup, the kind of access."""
MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x02, 0x10, 0x20
MADV_DONTNEED = 4
SPAN = 1 << 43
"""The most that the tiles of a layout may cover together: 8 TiB, 4 Mi page tables."""
MAX_EVENTS = 1 << 24
"""The most rows of one stream: 1 GiB of events."""
MAX_MAP_COUNT = 65530
"""vm.max_map_count's default (include/linux/mm.h, DEFAULT_MAX_MAP_COUNT)."""

Rows = NDArray[np.void]


def rows(
    kind: Kind,
    addr: ArrayLike,
    length: ArrayLike = 0,
    *,
    prot: ArrayLike = 0,
    flags: ArrayLike = 0,
    new_len: ArrayLike = 0,
) -> Rows:
    """EVENT rows of one kind, one per element of ``addr``; other columns are scalars or arrays of that length.

    All act on mm 0 from task 0, on anonymous memory; ``ret`` is UNKNOWN: the model decides.
    """
    where = np.atleast_1d(np.asarray(addr, np.int64))
    columns = {"addr": where, "len": length, "prot": prot, "flags": flags, "new_len": new_len}
    # One pass writes whole rows with their common values; only the columns that differ need a second pass.
    row = np.zeros(1, EVENT)
    row["kind"], row["file"], row["ret"] = kind, NIL, UNKNOWN
    varying = {name: column for name, column in columns.items() if np.ndim(column)}
    for name in columns.keys() - varying.keys():
        row[name] = columns[name]
    made = np.repeat(row, len(where))
    for name, column in varying.items():
        made[name] = column
    return made


def mmap(addr: ArrayLike, length: ArrayLike, prot: ArrayLike, flags: int = MAP_FIXED) -> Rows:
    """Private anonymous mappings; with ``flags=0`` the address is a hint, and 0 lets the model search."""
    return rows(Kind.MMAP, addr, length, prot=prot, flags=MAP_PRIVATE | MAP_ANONYMOUS | flags)


def munmap(addr: ArrayLike, length: ArrayLike) -> Rows:
    """munmap(2) calls."""
    return rows(Kind.MUNMAP, addr, length)


def mprotect(addr: ArrayLike, length: ArrayLike, prot: ArrayLike) -> Rows:
    """mprotect(2) calls."""
    return rows(Kind.MPROTECT, addr, length, prot=prot)


def dontneed(addr: ArrayLike, length: ArrayLike) -> Rows:
    """madvise(MADV_DONTNEED): drops the pages, keeps the page tables (mm/memory.c, zap_page_range)."""
    return rows(Kind.MADVISE, addr, length, flags=MADV_DONTNEED)


def fault(addr: ArrayLike, access: ArrayLike = READ) -> Rows:
    """User page faults: the lookup, then the rest of the fault."""
    return rows(Kind.FAULT, addr, prot=access, flags=FaultFlag.USER)


def lookup(addr: ArrayLike, access: ArrayLike = READ) -> Rows:
    """A user fault's lookup, as the strategy does it, without the rest of the fault."""
    return rows(Kind.LOOKUP, addr, prot=access, flags=FaultFlag.USER)


def walk(addr: int = 0, length: int = 0, lines: int = 0) -> Rows:
    """One read of /proc/PID/maps, all VMAs in the order of addresses, ``lines`` VMAs with each read(2) (0: all). VMAs
    inside [addr, addr + length) do not count for the answer: give what other threads change meanwhile."""
    return rows(Kind.WALK, addr, length, new_len=lines)


@dataclass(frozen=True)
class Tiles:
    """Many equal VMAs in a row; see the drawing above. Lengths are in bytes, arrays in address order."""

    vm_start: NDArray[np.int64]
    length: int
    prot: NDArray[np.int64]
    floor: int
    map_count: int
    """VMAs of the whole layout: tiles, floor and ceiling."""

    def __len__(self) -> int:
        return len(self.vm_start)

    def setup(self) -> list[Rows]:
        """The mmap calls that make the layout, ceiling first, as a top-down search would fill it.

        Above the default vm.max_map_count the layout is built from the floor up instead: a sorted array moves every
        entry for each new lowest one, which is O(n^2) in total and takes an hour for a million VMAs.
        """
        top = int(self.vm_start[-1]) + self.length
        if self.map_count > MAX_MAP_COUNT:
            return [
                mmap(self.floor, PAGE, 0),
                mmap(self.vm_start, self.length, self.prot),
                mmap(top, TASK_SIZE - top, 0),
            ]
        return [
            mmap(top, TASK_SIZE - top, 0),
            mmap(self.vm_start[::-1], self.length, self.prot[::-1]),
            mmap(self.floor, PAGE, 0),
        ]

    def access(self, tile: NDArray[np.int64]) -> NDArray[np.int64]:
        """The access to each tile: write where it is writable, else read."""
        return np.where(self.prot[tile] & WRITE, WRITE, READ)

    def tables(self, every: bool = True) -> Rows:
        """One read fault per tile and 2 MiB region, so that every lookup finds its page tables.

        ``every=False``: one per region, which is enough for the tables. In a list of 65 530 VMAs a fault takes
        milliseconds.
        """
        first, last = self.vm_start // PMD_SIZE, (self.vm_start + self.length - 1) // PMD_SIZE
        spans = last - first + 1
        tile = np.repeat(np.arange(len(self)), spans)
        nth = np.arange(len(tile)) - np.repeat(np.cumsum(spans) - spans, spans)
        region = first[tile] + nth
        addr = np.maximum(self.vm_start[tile], region * PMD_SIZE)
        return fault(addr if every else addr[np.unique(region, return_index=True)[1]])


def tiles(vmas: int, pages: int, gap: int) -> Tiles:
    """A layout of exactly ``vmas`` VMAs (at least 6): tiles of ``pages`` pages, a floor and a ceiling.

    ``gap`` 1 leaves one unmapped page between tiles, all readable and writable; ``gap`` 0 leaves none and makes
    every second tile read-only. Raises ``ValueError`` if the tiles take more than :data:`SPAN`. O(vmas).
    """
    count, length = vmas - 2, pages * PAGE
    stride = length + gap * PAGE
    if count < 4:
        raise ValueError(f"vmas={vmas} is too small: the layout needs at least 6")
    floor = TOP - (count - 1) * stride - length - (1 + gap) * PAGE
    if TOP - floor > SPAN:
        raise ValueError(f"{vmas} VMAs of {pages} pages do not fit into {SPAN >> 40} TiB; take fewer or smaller ones")
    vm_start = floor + (1 + gap) * PAGE + np.arange(count, dtype=np.int64) * stride
    prot = np.full(count, READ | WRITE, np.int64)
    if not gap:
        # From the top, so that the highest tile is writable whatever the count.
        prot[-2::-2] = READ
    return Tiles(vm_start, length, prot, floor, vmas)


def by(task: int, *blocks: Rows, mm: int = 0) -> Rows:
    """Concatenate the blocks, as calls and faults of ``task`` in address space ``mm``."""
    made = np.concatenate(blocks)
    made["task"], made["mm"] = task, mm
    return made


def begin_threads(threads: int, processes: bool = False) -> Rows:
    """The first rows of a setup: ``threads`` tasks in one address space, or as many address spaces with one task each
    (``processes``).

    Task 0 and its address space already exist; tasks and address spaces have the same numbers.
    """
    others = np.arange(1, threads)
    if not processes:
        return rows(Kind.THREAD, np.zeros(len(others), np.int64), others)
    made = rows(Kind.EXEC, np.full(len(others), NIL, np.int64))
    made["ret"], made["task"], made["mm"] = 0, others, others
    return made


def build_threads(
    setup: Sequence[Rows],
    work: Sequence[Rows],
    *,
    map_count: int,
    barrier: int = NIL,
    files: Sequence[FileEntry] = (),
    notes: Sequence[str] = (),
) -> Trace:
    """A stream for ``len(work)`` real threads: thread ``i`` replays ``work[i]`` again and again, as task ``i``.

    The answers must not depend on which thread is faster: each thread changes only areas of its own, which cannot merge
    with those of another, and leaves them as it found them. The setup includes a first round of every thread, so that
    tables and anon_vmas exist. ``barrier``: before that row of its work each thread waits for all others (NIL: no
    barrier). Raises ``ValueError``.
    """
    if any((block["task"] != task).any() for task, block in enumerate(work)):
        raise ValueError("the rows of thread i must be of task i: make them with stream.by")
    made = build(setup, work, map_count=map_count, notes=notes)
    limits = {**made.meta.limits, "threads": len(work)}
    if barrier != NIL:
        limits["barrier"] = barrier
    return Trace(events=made.events, meta=replace(made.meta, limits=limits, files=tuple(files)))


def build(setup: Sequence[Rows], timed: Sequence[Rows] | Rows, *, map_count: int, notes: Sequence[str] = ()) -> Trace:
    """One address space: an exec, then ``setup``, then ``timed``.

    ``map_count`` is the highest number of VMAs at any time; above the default vm.max_map_count the trace asks for a
    higher limit. The ``timed`` part is replayed again and again without the setup in between, so it must leave the
    layout as it found it. Raises ``ValueError`` above :data:`MAX_EVENTS`.
    """
    parts = [timed] if isinstance(timed, np.ndarray) else list(timed)
    total = sum(len(part) for part in (*setup, *parts))
    if total > MAX_EVENTS:
        raise ValueError(f"{total} events are more than the {MAX_EVENTS} of a stream; take fewer VMAs, pages or events")
    begin = rows(Kind.EXEC, NIL)
    begin["ret"] = 0
    before = np.concatenate([begin, *setup])
    limits = {"setup": len(before)}
    if map_count > MAX_MAP_COUNT:
        limits["max_map_count"] = map_count
    meta = TraceMeta(command=("synthetic",), level="synthetic", limits=limits, notes=tuple(notes))
    return Trace(events=np.concatenate([before, *parts]), meta=meta)
