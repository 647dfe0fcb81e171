"""The memory of a simulated machine: its parameters, sizes and arrays, and its boot; an address space on it.

:class:`Space` has the system calls of one address space: the compiled model behind the same methods as the oracle's.
Each call is one event on the machine (:meth:`Machine.call`), so the hooks of the machine's strategy take part. It is
meant for tests and the judge, not for timing: a call costs some 20 us of Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchframe.dialect.records import Slab
from benchframe.events import NIL, UNKNOWN, FaultFlag, Kind
from benchframe.mm import flags, kmem, layout
from benchframe.mm.layout import ANSWER, ARENA, EVENT, FILE, FREED, MM, PAGE, PTE, SAMPLE, TASK, VMA
from benchframe.mm.smp import BUCKETS, CLASSES, CREW, HISTOGRAM, ORDER, RCU_HEAD, THREAD
from benchframe.mm.vma import CHECKSUM, COUNT_SHIFT
from benchframe.oracle.rules import smaps_flags

# ----------------------------------------------------------------------------------------------------------------------
# The memory of a machine's records: one mapping, divided up in order.
#
# Where a record lies decides which set of a cache its line falls into. Memory from the heap lies where the heap has
# room, which depends on all the process did before; a mapping of its own does not. With 4 KiB pages the physical
# address, which chooses the set in all but the first cache, is random anyway; huge pages fix it within 2 MiB.
# That is also how the kernel sees its own records: through the direct map, which has pages of 2 MiB and 1 GiB.

Array = npt.NDArray[Any]
_PAGE = 4096
_LINE = 64
HUGE = 2 << 20
"""Bytes of a huge page."""


def carve(parts: Sequence[tuple[int, np.dtype[Any]]], *, huge: bool = False, shift: int = 0) -> list[Array]:
    """A zeroed array for each (records, dtype), page-aligned, so that a record of 64 bytes is one cache line.

    The arrays lie one after the other in one mapping, which lives as long as any of them; the kernel allocates pages on
    first use. ``huge`` asks for huge pages; the first array then begins ``shift`` pages after a huge page's boundary.
    Raises MemoryError.
    """
    sizes = [-(-count * dtype.itemsize // _PAGE) * _PAGE for count, dtype in parts]
    total = sum(sizes) + shift * _PAGE + _PAGE
    room = -(-total // HUGE) * HUGE + HUGE if huge else total
    try:
        memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no room for {room:,} bytes: {error}") from None
    raw = np.frombuffer(memory, np.uint8)
    at = 0
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        at = -raw.ctypes.data % HUGE
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    at += shift * _PAGE
    found = []
    for (count, dtype), size in zip(parts, sizes, strict=True):
        found.append(raw[at : at + count * dtype.itemsize].view(dtype))
        at += size
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The memory of a model: every slab as a NumPy array, set up, saved and restored; and the runner that runs code on it.
#
# A :class:`Machine` holds one or more address spaces, their tasks and the pages they share. It does not know how
# strategy code runs: a *runner* (native or interpreted) does, see :class:`Runner`.

TABLE_WINDOW = 512
"""Of its first page tables, this many, a machine for threads hands out every second one, in random order; then all
others."""
COLOURS = 512
"""Pages in a huge page: the possible starting positions of the memory in the first one."""
NO_LIMIT = 1 << 47
"""RLIMIT_STACK for a program whose stack may grow over the whole address space."""
ENDLESS = 1 << 62
"""The size of a file whose size is not known."""


@dataclass(frozen=True)
class Parameters:
    """Limits and rules of an address space; the defaults are those of Linux 6.18 on x86-64. In bytes unless stated."""

    task_size: int = layout.TASK_SIZE
    mmap_base: int = 0x7FFFF7FFF000
    """Top of the region in which mmap searches for a hole."""
    mmap_min_addr: int = 65536
    max_map_count: int = layout.DEFAULT_MAX_MAP_COUNT
    stack_limit: int = 8 << 20
    stack_guard_gap: int = 256 * layout.PAGE_SIZE
    fault_around: int = 16
    """Pages."""
    thp: int = 0
    """Transparent huge pages: 0 never, 1 madvise, 2 always. A recorded trace has one fault per huge page already."""
    rules: int = flags.RULE_ANON_VMA_616 | flags.RULE_MREMAP_617 | flags.RULE_GUARD_FLAG | flags.RULE_DROPPABLE
    """RULE_* bits: differences between kernel versions. RULE_DONTNEED_TABLES (6.14: MADV_DONTNEED frees empty page
    tables) is off: every kernel that had one of the caches modelled here kept the tables."""

    @staticmethod
    def of(limits: Mapping[str, int]) -> Parameters:
        """The parameters for a trace, from the limits in its metadata; a ``stack`` below 0 is unlimited."""
        own = Parameters()
        stack = limits.get("stack", own.stack_limit)
        return Parameters(
            max_map_count=limits.get("max_map_count", own.max_map_count),
            stack_limit=stack if stack >= 0 else NO_LIMIT,
        )


@dataclass(frozen=True)
class Sizes:
    """Capacities, in records. Memory is allocated only on first use."""

    mms: int = 8
    tasks: int = 64
    vmas: int = 1 << 17
    tables: int = 1 << 15
    pages: int = 1 << 20
    files: int = 1 << 12
    events: int = 1
    threads: bool = False
    """Whether to allocate the records of a run with threads (mm.smp)."""
    rcu_batch: int = kmem.RCU_BATCH
    """Objects of a cache for which a CPU asks for a grace period at once, where a strategy names an allocator."""

    @staticmethod
    def of(events: Array) -> Sizes:
        """Enough for replaying ``events`` (dtype events.EVENT) once; generous, since unused memory costs nothing."""
        kind = events["kind"]
        forks = int(np.count_nonzero(kind == Kind.FORK))
        quick = (kind == Kind.FAULT) | (kind == Kind.LOOKUP)
        calls = len(events) - int(np.count_nonzero(quick))
        faults = int(np.count_nonzero(kind == Kind.FAULT))
        born = events["len"][(kind == Kind.FORK) | (kind == Kind.THREAD)]
        tasks = int(max(events["task"].max(initial=0), born.max(initial=0)))
        mms = int(max(events["mm"].max(initial=0), events["addr"][kind == Kind.FORK].max(initial=0)))
        populates = np.isin(kind, (Kind.MLOCK, Kind.MADVISE)) | (
            (kind == Kind.MMAP) & ((events["flags"] & (flags.MAP_POPULATE | flags.MAP_LOCKED)) != 0)
        )
        extra = int(np.clip(events["len"][populates], 0, 1 << 34).sum() >> 12)
        spread = forks + 1
        return Sizes(
            mms=mms + 2,
            tasks=tasks + 2,
            vmas=min((2 * calls + 64) * spread, 1 << 22),
            tables=min(4 * (faults + calls + extra // 256 + 64) * min(spread, 8), 1 << 18),
            pages=min(faults + extra + 4096, 1 << 24),
            files=int(events["file"].max(initial=0)) + calls + 8,
            events=max(len(events), 1),
        )


@dataclass(frozen=True)
class Saved:
    """Part of a saved machine: ``records`` of slab ``base`` from index ``start``."""

    base: str
    start: int
    records: Array
    target: int
    """The address from which the records came."""
    source: int
    """The address of the copy."""


class Runner(Protocol):
    """Runs strategy code on a machine's memory."""

    def attach(self, machine: Machine) -> None:
        """Called once, when the machine's arrays exist."""

    def replay(self, first: int, last: int) -> None:
        """Run events [first, last), answers to ANSWER (mm.replay.replay_checked)."""


def _records(slab: Slab, vmas: int, tasks: int) -> int:
    """Records of a private slab beside record 0: what it says, or one per VMA."""
    records = getattr(slab, "records", None)
    return vmas if records is None else int(records(vmas, tasks))


class Machine:
    """Arrays for every slab, one booted address space (record 1 of ``mm``), and calls on it.

    ``private`` are the strategy's own slabs. ``layout_seed`` 0 allocates VMA records in order; any other value shuffles
    them, as in a slab cache that has been in use. With ``huge`` all memory is in huge pages, and the seed decides the
    offset in the first one.
    """

    def __init__(
        self,
        runner: Runner,
        sizes: Sizes | None = None,
        parameters: Parameters | None = None,
        private: Sequence[Slab] = (),
        layout_seed: int = 0,
        huge: bool = False,
    ) -> None:
        self.parameters = parameters or Parameters()
        self.runner = runner
        self.caches = {layout.ARENA_VMA: VMA.struct.size} if getattr(runner, "allocator", None) else {}
        """From each slab whose objects come from the strategy's allocator to the bytes of an object."""
        self._on_stack: dict[int, int] = {}
        for slab in private if self.caches else ():
            which = layout.ARENA_PRIVATE0 + layout.PRIVATE_BASES.index(slab.base)
            if size := getattr(slab, "kmem_cache", 0):
                self.caches[which] = size
            self._on_stack[which] = getattr(slab, "on_stack", 0)
        if self.caches:
            self.caches |= kmem.OBJECT_SIZES
        self.sizes = s = self._with_parked(sizes or Sizes())
        counts: list[tuple[Slab, int]] = [
            (MM, s.mms + 1),
            (VMA, s.vmas),
            (PAGE, s.tables + s.pages),
            (PTE, s.tables * layout.PTRS_PER_TABLE),
            (TASK, s.tasks + 1),
            (FILE, s.files + 1),
            (EVENT, s.events),
            (ANSWER, s.events),
            (SAMPLE, s.events),
        ]
        capacities = [s.vmas, s.tables, s.tables + s.pages, s.files + 1]
        for slab in sorted(private, key=lambda p: p.base):
            capacity = _records(slab, s.vmas, s.tasks) + 1
            counts.append((slab, capacity + (self.cpus * getattr(slab, "on_stack", 0) if self.caches else 0)))
            while len(capacities) < layout.ARENA_PRIVATE0 + layout.PRIVATE_BASES.index(slab.base):
                capacities.append(0)
            capacities.append(capacity)
        if self.caches:
            capacities += [0] * (kmem.ARENA_ANON_VMA - len(capacities)) + [s.vmas, kmem.CHAINS * s.vmas]
        counts += [(ARENA, len(capacities)), (FREED, sum(capacities))]
        caches, room = self._caches(capacities)
        counts += room
        if s.threads:
            counts += [
                (CREW, s.mms + 2),
                (THREAD, s.tasks + 2),
                (RCU_HEAD, sum(capacities)),
                (HISTOGRAM, (s.tasks + 2) * CLASSES * BUCKETS),
                (ORDER, s.events),
            ]
        self._huge, self._shift = huge, layout_seed % COLOURS if huge else 0
        memory = carve([(count, slab.struct.dtype) for slab, count in counts], huge=self._huge, shift=self._shift)
        self.arrays = {slab.base: array for (slab, _), array in zip(counts, memory, strict=True)}
        self.private = [slab for slab, _ in counts if slab in private]
        """The strategy's own slabs."""
        self._set_arenas(capacities, layout_seed)
        self._set_mm()
        if self.caches:
            self._set_caches(caches)
        self.zero_page = s.tables
        self.arrays["page_base"][self.zero_page]["flags"] = flags.PG_RESERVED
        self.arrays["file_base"]["size"] = ENDLESS
        runner.attach(self)
        self.boot(0)

    @property
    def cpus(self) -> int:
        """The highest CPU of an allocator's records: with threads a task's number, else 1."""
        return self.sizes.tasks + 1 if self.sizes.threads else 1

    def _with_parked(self, sizes: Sizes) -> Sizes:
        """``sizes`` with room for what an allocator keeps for each CPU."""
        cpus = sizes.tasks + 1 if sizes.threads else 1
        parked = kmem.PARKED + 2 * sizes.rcu_batch + kmem.RCU_SLACK
        return replace(sizes, vmas=sizes.vmas + parked * cpus) if self.caches else sizes

    def _caches(self, capacities: Sequence[int]) -> tuple[list[dict[str, int]], list[tuple[Slab, int]]]:
        """The constants of each slab's KMEM record, and how many records each slab of an allocator has."""
        if not self.caches:
            return [], []
        found = []
        node = cpu = object_ = sheaf = slab = 0
        for which, capacity in enumerate(capacities):
            size = self.caches.get(which)
            if size is None:
                found.append({"objects": -self._on_stack.get(which, 0), "first_object": capacity})
                continue
            objects, partial = kmem.order_objects(size, self.cpus), kmem.cpu_partial(size)
            sheaves = capacity // kmem.SHEAF_CAPACITY + 3 * self.cpus + 32 * kmem.NODES
            found.append(
                {
                    "objects": objects, "cpu_partial_slabs": -(-2 * partial // objects),
                    "slab_batch": max(kmem.PAGE_BATCH // -(-objects * size // 4096), 2),
                    "rcu_batch": self.sizes.rcu_batch,
                    "sheaf_capacity": 0 if which in kmem.OBJECT_SIZES else kmem.SHEAF_CAPACITY,
                    "first_node": node, "first_cpu": cpu, "first_object": object_, "first_slab": slab,
                    "first_sheaf": sheaf, "max_sheaves": sheaves - self.cpus - 1,  # CPUs may look at the same time
                }
            )  # fmt: skip
            node, cpu, object_ = node + kmem.NODES, cpu + self.cpus + 1, object_ + capacity
            sheaf, slab = sheaf + sheaves, slab + capacity // objects + self.cpus + 2
        anon = (capacities[kmem.ARENA_ANON_VMA], capacities[kmem.ARENA_ANON_VMA_CHAIN], capacities[layout.ARENA_VMA])
        room = (len(capacities), node, cpu, object_, slab + 1, sheaf + 1, (sheaf + 1) * kmem.SHEAF_CAPACITY, *anon)
        return found, list(zip(kmem.SLABS, room, strict=True))

    def _set_caches(self, caches: Sequence[Mapping[str, int]]) -> None:
        self.arrays["slab_base"]["kmem_base"] = self.arrays[kmem.KMEM.base].ctypes.data
        for record, constants in zip(self.arrays[kmem.KMEM.base], caches, strict=True):
            for slab in kmem.SLABS[1:]:
                record[slab.base] = self.arrays[slab.base].ctypes.data
            for name, value in constants.items():
                record[name] = value

    def _set_arenas(self, capacities: list[int], layout_seed: int) -> None:
        arenas = self.arrays["slab_base"]
        arenas["capacity"] = capacities
        arenas["top"] = 1
        arenas["stack"] = np.concatenate(([0], np.cumsum(capacities)[:-1]))
        arenas["top"][layout.ARENA_PAGE] = self.sizes.tables + 1
        arenas["top"][layout.ARENA_FILE] = max(self.sizes.files // 2, 1)
        if self.sizes.threads:  # as from a used page allocator: neighbours' locks are not in one pair of cache lines
            window = min(self.sizes.tables - 1, TABLE_WINDOW)
            order = np.random.default_rng(layout_seed).permutation(np.arange(1, window + 1, 2))
            stack = int(arenas["stack"][layout.ARENA_TABLE])
            self.arrays["freed_base"]["slot"][stack : stack + len(order)] = order
            arenas["free"][layout.ARENA_TABLE] = len(order)
            arenas["top"][layout.ARENA_TABLE] = window + 1
        if layout_seed:
            slots = np.random.default_rng(layout_seed).permutation(np.arange(1, self.sizes.vmas))
            stack = int(arenas["stack"][layout.ARENA_VMA])
            self.arrays["freed_base"]["slot"][stack : stack + len(slots)] = slots
            arenas["free"][layout.ARENA_VMA] = len(slots)
            arenas["top"][layout.ARENA_VMA] = self.sizes.vmas

    def _set_mm(self) -> None:
        mm = self.mm(0)
        for base, array in self.arrays.items():
            if base in mm.dtype.names:
                mm[base] = array.ctypes.data
            elif base not in kmem.NAMES:
                self.arrays["crew_base"][0][base] = array.ctypes.data
        mm["id"] = 1
        mm["zero_page"] = self.sizes.tables
        p = self.parameters
        for name in ("task_size", "mmap_base", "mmap_min_addr", "max_map_count", "stack_limit", "stack_guard_gap"):
            mm[name] = getattr(p, name)
        self.arrays["mm_base"][0]["stack_limit"] = p.stack_limit
        mm["fault_around"], mm["thp"], mm["rules"] = p.fault_around, p.thp, p.rules

    def mm(self, number: int) -> Any:
        """The mm_struct record of trace mm ``number`` (0 is the first), a view."""
        return self.arrays["mm_base"][number + 1]

    @property
    def root(self) -> int:
        """Address of MM record 1."""
        array = self.arrays["mm_base"]
        return int(array.ctypes.data) + array.dtype.itemsize

    # ---- running ------------------------------------------------------------------------------------------

    def boot(self, number: int) -> None:
        """Make trace mm ``number`` an empty address space."""
        self.call(Kind.EXEC, addr=NIL, mm=number)

    def call(self, kind: int, **columns: int) -> int:
        """Run one event (columns of benchframe.events) outside any stream; returns its result.

        Uses event slot 0. Raises MemoryError when a slab is full.
        """
        event = self.arrays["event_base"][0]
        saved = event.copy()
        for name in event.dtype.names:
            event[name] = {"ret": UNKNOWN, "file": NIL}.get(name, 0)
        event["kind"] = kind
        for name, value in columns.items():
            event[name] = value
        self.runner.replay(0, 1)
        self.arrays["event_base"][0] = saved
        self.raise_if_full()
        return int(self.arrays["answer_base"][0]["ret"])

    def raise_if_full(self) -> None:
        """Raise MemoryError if a slab ran out: then the results so far are invalid."""
        full = self.arrays["mm_base"]["error"].max()
        if full:
            private = (f"private slab {number}" for number in range(len(layout.PRIVATE_BASES)))
            names = ("VMAs", "page tables", "pages", "files", *private, "anon_vmas", "anon_vma_chains")
            which = names[full - 1]
            raise MemoryError(f"the model ran out of {which}: give Sizes more (now {self.sizes})")

    # ---- save and restore ---------------------------------------------------------------------------------

    def save(self) -> list[Saved]:
        """A copy of everything in use, for :meth:`restore`."""
        used = [(base, start, self.arrays[base][start:stop]) for base, start, stop in self._used()]
        copies = carve([(len(original), original.dtype) for _, _, original in used], huge=self._huge, shift=self._shift)
        parts = []
        for (base, start, original), records in zip(used, copies, strict=True):
            records[:] = original
            parts.append(Saved(base, start, records, original.ctypes.data, records.ctypes.data))
        return parts

    def restore(self, saved: Sequence[Saved]) -> None:
        """Return to ``saved``. Cost: a memcpy of what was in use then; private records used since are zeroed.

        Uses plain memmoves: this runs between two timed replays, which may take less time than NumPy needs to begin.
        """
        if self.private:
            kept = {part.base: part.start + len(part.records) for part in saved}
            for base, _, stop in self._used():
                if base in layout.PRIVATE_BASES and stop > kept[base]:
                    self.arrays[base][kept[base] : stop] = np.zeros((), self.arrays[base].dtype)
        for part in saved:
            ctypes.memmove(part.target, part.source, part.records.nbytes)

    def _used(self) -> list[tuple[str, int, int]]:
        """(base, first, last + 1) of the records that hold state."""
        arenas = self.arrays["slab_base"]
        top = arenas["top"].tolist()
        stacks = [("freed_base", int(a["stack"]), int(a["stack"] + a["free"])) for a in arenas if a["free"]]
        used = [
            ("vma_base", 0, top[layout.ARENA_VMA]),
            ("pte_base", 0, top[layout.ARENA_TABLE] * layout.PTRS_PER_TABLE),
            ("page_base", 0, top[layout.ARENA_TABLE]),
            ("page_base", self.sizes.tables, top[layout.ARENA_PAGE]),
            *((base, 0, len(self.arrays[base])) for base in ("mm_base", "task_base", "file_base", "slab_base")),
            *stacks,
        ]
        for slab in self.private:
            number = layout.ARENA_PRIVATE0 + layout.PRIVATE_BASES.index(slab.base)
            by_vma = _records(slab, top[layout.ARENA_VMA], self.sizes.tasks) + 1
            used.append((slab.base, 0, min(len(self.arrays[slab.base]), max(top[number], by_vma))))
        for which in self.caches:
            k = self.arrays[kmem.KMEM.base][which]
            first, sheaves = int(k["first_sheaf"]), int(k["nr_sheaves"]) + 1
            used.append((kmem.KMEM_OBJECT.base, int(k["first_object"]), int(k["first_object"]) + top[which]))
            used.append((kmem.KMEM_SLAB.base, int(k["first_slab"]), int(k["first_slab"] + k["nr_slabs"]) + 1))
            used.append((kmem.KMEM_SHEAF.base, first, first + sheaves))
            used.append((kmem.IN_SHEAF.base, first * kmem.SHEAF_CAPACITY, (first + sheaves) * kmem.SHEAF_CAPACITY))
        if self.caches:
            used += [(slab.base, 0, len(self.arrays[slab.base])) for slab in kmem.SLABS[:3]]
            used.append((kmem.ANON_VMA.base, 0, top[kmem.ARENA_ANON_VMA]))
            used.append((kmem.ANON_VMA_CHAIN.base, 0, top[kmem.ARENA_ANON_VMA_CHAIN]))
            used.append((kmem.VMA_ANON.base, 0, top[layout.ARENA_VMA]))
        return used

    def lines(self) -> Array:
        """The addresses (int64) of all cache lines that hold state or have held some since the start. O(records).

        Of VMAs and of records that a strategy keeps per VMA only those that were used, since a shuffled slab gives out
        all its slots.
        """
        found = []
        for base, start, stop in self._used():
            records = self.arrays[base][start:stop]
            size, at = records.dtype.itemsize, int(records.ctypes.data)
            words = np.arange(0, len(records) * size, 8)
            if base == VMA.base or base in layout.PRIVATE_BASES:
                used = np.flatnonzero(records.view(np.uint8).reshape(len(records), size).any(axis=1))
                words = (used[:, None] * size + np.arange(0, size, 8)).ravel()
            found.append(np.unique((at + words) // _LINE))
        lines: Array = np.concatenate(found) * _LINE
        return lines


Row = tuple[int, int, int, int, int, int]
"""(vm_start, vm_end, prot, shared 0/1, file offset in bytes, file number or NIL)."""
_COLUMNS = ("vm_start", "vm_end", "vm_next", "vm_flags", "vm_pgoff", "vm_file")
_SMAPS_GUARD = 0x800
"""The position of the flag that the model keeps at VM_GUARD, in the kernel's vm_flags."""


def _signed(word: int) -> int:
    """The low 64 bits of ``word`` as the signed number that an event's column holds."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


class Space:
    """Trace mm ``number`` of ``machine``; ``task`` makes the calls. Calls return 0, an address or -errno.

    Any call raises MemoryError if a slab is full afterwards: results so far are invalid.
    """

    def __init__(self, machine: Machine, number: int = 0, task: int | None = None) -> None:
        self.machine = machine
        self.number = number
        self.task = number if task is None else task
        vmas = machine.arrays["vma_base"]
        self._columns = {
            name: vmas[name] for name in ("vm_start", "vm_end", "vm_next", "vm_flags", "vm_pgoff", "vm_file")
        }

    def _call(self, kind: Kind, **columns: int) -> int:
        words = {name: _signed(value) for name, value in columns.items()}
        return self.machine.call(kind, mm=self.number, task=self.task, **words)

    # ---- calls --------------------------------------------------------------------------------------------------

    def exec(self, start_brk: int = NIL) -> int:
        """Empty the address space; the heap will begin at ``start_brk`` (NIL: at the address of the first brk)."""
        return self._call(Kind.EXEC, addr=start_brk)

    def mmap(
        self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0, at: int = UNKNOWN
    ) -> int:
        """mmap(2): the address, or -errno. ``at``: the recorded result, used instead of a search."""
        return self._call(Kind.MMAP, addr=addr, len=length, prot=prot, flags=flags, file=file, offset=offset, ret=at)

    def shmat(self, addr: int, length: int) -> int:
        """shmat(2) of a new segment with SHM_REMAP: shared memory whose VMAs have vm_ops->close. The address, or
        -errno."""
        kind = flags.MAP_SHARED | flags.MAP_FIXED | flags.MAP_ANONYMOUS
        at = self.mmap(addr, length, flags.PROT_READ | flags.PROT_WRITE, kind)
        for slot in self.vmas() if at >= 0 else ():
            if self._columns["vm_start"].item(slot) == at:
                self.machine.arrays["file_base"]["flags"][self._columns["vm_file"].item(slot)] |= flags.FILE_CLOSES
        return at

    def exec_map(self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0) -> int:
        """A mapping that the kernel made itself: ``flags`` are MAP_* and MapType bits."""
        return self._call(Kind.MAP, addr=addr, len=length, prot=prot, flags=flags, file=file, offset=offset)

    def munmap(self, addr: int, length: int) -> int:
        """munmap(2)."""
        return self._call(Kind.MUNMAP, addr=addr, len=length)

    def mprotect(self, addr: int, length: int, prot: int) -> int:
        """mprotect(2)."""
        return self._call(Kind.MPROTECT, addr=addr, len=length, prot=prot)

    def mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0, at: int = UNKNOWN) -> int:
        """mremap(2): the new address, or -errno."""
        return self._call(Kind.MREMAP, addr=addr, len=old_len, new_len=new_len, flags=flags, offset=new_addr, ret=at)

    def brk(self, addr: int) -> int:
        """brk(2): the break afterwards."""
        return self._call(Kind.BRK, addr=addr)

    def madvise(self, addr: int, length: int, advice: int) -> int:
        """madvise(2)."""
        return self._call(Kind.MADVISE, addr=addr, len=length, flags=advice)

    def mlock(self, addr: int, length: int) -> int:
        """mlock(2)."""
        return self._call(Kind.MLOCK, addr=addr, len=length)

    def munlock(self, addr: int, length: int) -> int:
        """munlock(2)."""
        return self._call(Kind.MUNLOCK, addr=addr, len=length)

    def fault(self, addr: int, access: int, user: bool = True) -> int:
        """A page fault (``access``: 1 read, 2 write, 4 execute): 0 or FAULT_*. In kernel mode if not ``user``."""
        return self._call(Kind.FAULT, addr=addr, prot=access, flags=int(FaultFlag.USER) if user else 0)

    def find_vma(self, addr: int, user: bool = False) -> tuple[int, int] | None:
        """(vm_start, vm_end) of the first VMA with ``addr < vm_end``; with ``user`` through the strategy's accessor."""
        self._call(Kind.LOOKUP, addr=addr, flags=int(FaultFlag.USER) if user else 0)
        answer = self.machine.arrays["answer_base"][0]
        return (int(answer["vm_start"]), int(answer["vm_end"])) if answer["vma"] else None

    def maps(self, lines: int = 0) -> tuple[int, int]:
        """Read all VMAs, ``lines`` of them with each read(2) (0: all): their number and the checksum of their
        ranges."""
        found = self._call(Kind.WALK, new_len=lines)
        return found >> COUNT_SHIFT, found & CHECKSUM

    def fork(self, task: int | None = None) -> Space:
        """The child's address space, called by its first task (the lowest free number if not given).

        Raises RuntimeError when the machine has no free mm or task record.
        """
        child = self._free("mm_base", "pgd")
        first = self._free("task_base", "mm") if task is None else task
        self._call(Kind.FORK, addr=child, len=first)
        return Space(self.machine, child, first)

    def thread(self, task: int | None = None) -> Space:
        """This address space, called by a new task (the lowest free number if not given). Raises RuntimeError without a
        free task record."""
        task = self._free("task_base", "mm") if task is None else task
        self._call(Kind.THREAD, len=task)
        return Space(self.machine, self.number, task)

    def exit(self, last: bool = True) -> int:
        """This task ends, and the address space too if it was the ``last`` one."""
        return self._call(Kind.EXIT, len=int(last))

    def _free(self, base: str, used: str) -> int:
        """The lowest number of a record whose field ``used`` is 0, except the first record."""
        column = self.machine.arrays[base][used]
        for number in range(1, len(column) - 1):
            if column[number + 1] == 0 and not (base == "task_base" and number == self.task):
                return number
        raise RuntimeError(f"no free record in {base}: give Sizes more")

    # ---- files --------------------------------------------------------------------------------------------------

    @property
    def _first_object(self) -> int:
        """FILE records from here on are shared anonymous objects."""
        return max(self.machine.sizes.files // 2, 1)

    def set_file(
        self,
        file: int,
        size: int,
        readable: bool = True,
        writable: bool = True,
        inode: int = 0,
        closes: bool = False,
    ) -> None:
        """Set the size in bytes of file ``file``, how it was opened, and whether its VMAs have vm_ops->close. Files not
        set are endless and open for both.

        ``inode`` exists for the oracle's signature only: the model compares opened files. Raises ValueError for a
        number beyond the machine's records, and for a file not open for reading (no trace has mappings of one).
        """
        if not 0 <= file < self._first_object - 1:
            raise ValueError(f"file {file}: this machine has room for files 0 to {self._first_object - 2}")
        if not readable:
            raise ValueError(f"file {file}: the model has no files that cannot be read")
        record = self.machine.arrays["file_base"][file + 1]
        record["size"] = size
        record["flags"] = (0 if writable else flags.FILE_NOWRITE) | (flags.FILE_CLOSES if closes else 0)

    # ---- answers ------------------------------------------------------------------------------------------------

    def vmas(self) -> list[int]:
        """Slab indices of all VMAs in address order."""
        following = self._columns["vm_next"]
        slot, found = int(self.machine.mm(self.number)["mmap"]), []
        while slot:
            found.append(slot)
            slot = following.item(slot)
        return found

    @property
    def map_count(self) -> int:
        """The number of VMAs, by the mm's own count."""
        return int(self.machine.mm(self.number)["map_count"])

    def layout(self) -> list[Row]:
        """Every VMA as a row, in the oracle's format."""
        return [self._row(slot) for slot in self.vmas()]

    def _row(self, slot: int) -> Row:
        of = self._columns
        word, file = of["vm_flags"].item(slot), of["vm_file"].item(slot)
        return (
            of["vm_start"].item(slot),
            of["vm_end"].item(slot),
            word & flags.VM_ACCESS,
            1 if word & flags.VM_MAYSHARE else 0,
            of["vm_pgoff"].item(slot) << layout.PAGE_SHIFT if file else 0,
            file - 1 if 0 < file < self._first_object else NIL,
        )

    def layout_flags(self) -> list[str]:
        """Every VMA's flags as the VmFlags line of smaps shows them, words sorted."""
        words = self._columns["vm_flags"][self.vmas()].tolist()
        return [smaps_flags((w & ~_SMAPS_GUARD) | (_SMAPS_GUARD if w & flags.VM_GUARD else 0)) for w in words]

    def fault_kind(self) -> str:
        """What this task's last successful fault did, by name (flags.FAULT_KINDS)."""
        return flags.FAULT_KINDS[int(self.machine.arrays["task_base"][self.task + 1]["fault_kind"])]
