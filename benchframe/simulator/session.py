"""One strategy and one stream on simulated CPUs: answers compared, address space validated, figures read out.

A :class:`~benchframe.engine.threads.ThreadSession` has laps of real threads; this has runs of simulated ones, from the
same beginning. In a run every answer is compared with the oracle's, at no simulated cost, so every counted operation is
checked.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.functions import Hook
from benchframe.dialect.store import Unit
from benchframe.engine.session import Correctness, Histogram
from benchframe.engine.threads import FIGURES, LOCKS, CrewRunner, CrewSession
from benchframe.errors import EngineError
from benchframe.events import NIL
from benchframe.mm import kmem
from benchframe.mm.defaults import count_event
from benchframe.mm.hooks import ALL, flush_tlb, hook_entry, show_map
from benchframe.mm.layout import ANSWER, ARENA, EVENT, FILE, FREED, MM, PAGE, PTE, SAMPLE, TASK, VMA, mm_struct
from benchframe.mm.machine import Machine as Memory
from benchframe.mm.machine import Sizes
from benchframe.mm.replay import mapping_event
from benchframe.mm.smp import BUCKETS, CLASSES, CREW, HISTOGRAM, ORDER, RCU_HEAD, THREAD
from benchframe.mm.smp_replay import RUN, thread_entry
from benchframe.runner import allocating
from benchframe.simulator.access import LATEST
from benchframe.simulator.build import Runtime, first_frame, replacements, runtime
from benchframe.simulator.machines import (
    BREATH,
    DEADLOCK,
    ENDED,
    KINDS,
    MAIN,
    MAX_CPUS,
    MAX_PAIRS,
    MAX_REGIONS,
    MAX_WORDS,
    MEMORY_WAYS,
    NEW,
    PARKED,
    PARTS,
    WAYS,
    WORKS,
    Layout,
    Machine,
    SimulateError,
    Work,
    as_it_is,
    cpu,
    line,
    pair,
    region,
    target_key,
)
from benchframe.simulator.machines import field as field_struct
from benchframe.units import Units, UnitSpec

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

Array = npt.NDArray[Any]
STACK = 256 << 10
"""Bytes of a simulated CPU's stack; memory is allocated on first use."""
CANARY = 0x5CA1AB1E
LOOK = 1 << 16
"""Accesses between two checks of a run's progress."""
PATIENCE = 50_000_000_000
"""ps that threads may take to finish their round at no cost (50 ms); spinning takes time."""
NAMED = 32
"""So many of a strategy's larger records are asked what a word in them is."""
FREE_SLABS = frozenset({EVENT.base, ANSWER.base, SAMPLE.base, HISTOGRAM.base})
"""Slabs that no kernel has: accesses cost nothing."""
NAMES = {
    MM.base: "mm", VMA.base: "vma", PAGE.base: "page", PTE.base: "pte", TASK.base: "task", FILE.base: "file",
    ARENA.base: "slab", FREED.base: "freed", CREW.base: "crew", THREAD.base: "thread", RCU_HEAD.base: "rcu_head",
    ORDER.base: "order", **kmem.NAMES,
}  # fmt: skip
"""Names of the model's slabs in figures."""
_KNOWN = (MM, VMA, PAGE, PTE, TASK, FILE, ARENA, FREED, EVENT, ANSWER, SAMPLE, CREW, THREAD, RCU_HEAD, HISTOGRAM, ORDER)
_SLABS = {slab.base: slab for slab in (*_KNOWN, *kmem.SLABS)}
_MAP = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


class SimulatedUnits(Units):
    """Units of the simulated build, stored beside the others under their own keys."""

    def key(self, spec: UnitSpec) -> str:
        """As :meth:`UnitSpec.key`, but for the fixed processor instead of the host's."""
        import hashlib

        from benchframe.dialect.functions import Identities

        order = "" if spec.binding is not None else ",".join(h.name for h in self.hooks)
        identity = Identities(spec.binding, spec.replace).of(spec.entry)
        return hashlib.sha256(repr(("simulated 1", identity, self.mm.layout, order, target_key())).encode()).hexdigest()

    def missing(self, specs: Sequence[UnitSpec]) -> list[UnitSpec]:
        """Those of ``specs`` that are not in the store. Nothing is loaded, since units refer to the simulator."""
        return [s for s in specs if self.store.load(s.name, self.key(s)) is None]

    def get(self, spec: UnitSpec, note: Callable[[str], None] | None = None) -> Unit:
        """As :meth:`Units.get`, after mapping the simulator."""
        runtime(note)
        return super().get(spec, note)

    def compile(self, spec: UnitSpec) -> bytes:
        """Make the object file. Raises DialectError."""
        from benchframe.simulator.build import compile_simulated

        return compile_simulated(spec, self)


def shared_spec() -> UnitSpec:
    """The unit shared by all strategies that name no allocator."""
    return UnitSpec("mapping-simulated", mapping_event, None, replacements({}))


def specs(strategy: Strategy) -> list[UnitSpec]:
    """The units that a simulation of ``strategy`` needs: the mapping operations, which strategies with the same
    allocator share, and two of its own."""
    binding = {**strategy.binding, "count": count_event}
    replace = replacements(allocating(strategy))
    own = UnitSpec(f"mapping-simulated-{strategy.name}", mapping_event, None, replace)
    return [
        shared_spec() if strategy.allocator is None else own,
        UnitSpec(f"hooks-simulated-{strategy.name}", hook_entry, binding, replace),
        UnitSpec(f"simulated-{strategy.name}", thread_entry, binding, replace),
    ]


def simulated_units() -> SimulatedUnits:
    """The loader of simulated units."""
    return SimulatedUnits(mm_struct, ALL)


def _bit(hook: Hook) -> int:
    """The bit of ``hook`` in ``mm.hook_mask``."""
    return 1 << ALL.index(hook)


class SimulatedRunner(CrewRunner):
    """``strategy``'s simulated build. Raises DialectError if it cannot be compiled."""

    def __init__(self, strategy: Strategy, note: Callable[[str], None] | None = None) -> None:
        self.strategy = strategy
        self.simulator: Runtime = runtime(note)
        self.allocator = allocating(strategy)
        self.units = simulated_units()
        self._mapping, self._hooks, self._entry = (self.units.get(spec, note) for spec in specs(strategy))
        self._machine: Memory | None = None
        self._root = 0

    def attach(self, machine: Memory) -> None:
        """As CrewRunner's; and calls of the hook that the simulator fills are made."""
        super().attach(machine)
        machine.mm(0)["hook_mask"] |= _bit(show_map)

    @property
    def entry(self) -> int:
        """Address of the thread's function."""
        return self._entry.address

    @property
    def root(self) -> int:
        """Address of MM record 1."""
        return self._root


@dataclass(frozen=True)
class Depth:
    """The length of a run: a CPU makes ``rounds`` on average after ``warm_rounds`` that do not count, but there are at
    most ``accesses`` accesses in total (a quarter of that before)."""

    rounds: float = 10.0
    warm_rounds: float = 1.0
    accesses: int = 6_000_000


class Stopped(SimulateError):
    """The simulated threads did not end: a deadlock or a livelock. The address space is invalid."""


@dataclass
class Arena:
    """The simulator's own slabs for one session, in one mapping whose memory is allocated on first use."""

    memory: mmap.mmap
    arrays: dict[str, Array] = field(default_factory=dict)


class SimulatedSession(CrewSession):
    """``strategy`` and ``trace`` on ``cpus`` simulated CPUs.

    Raises EngineError (nothing to play, memory), DialectError (code that cannot be compiled), SimulateError (a host
    without a stack switch). ``note`` is called with each unit that has to be compiled.
    """

    runner: SimulatedRunner

    def __init__(
        self,
        strategy: Strategy,
        trace: Trace,
        cpus: int,
        *,
        rcu_batch: int = kmem.RCU_BATCH,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._rcu_batch = rcu_batch
        super().__init__(strategy, trace, cpus)
        if self.threads > MAX_CPUS:
            raise EngineError(f"the workload has {self.threads} threads; at most {MAX_CPUS} CPUs are simulated")
        runner = SimulatedRunner(strategy, note)
        self.simulator = runner.simulator
        self._bare()
        self.set_up(runner)
        self.memory, arrays = self.machine, self.machine.arrays
        self._kept = {base: arrays[base].copy() for base in ("crew_base", "thread_base")}
        self._used = False
        self._parts: dict[int, str] = {}
        """What words of the strategy's own memory are, by the number of their field."""
        self._stacks = mmap.mmap(-1, (self.threads + 1) * STACK, flags=_MAP)

    def _sizes(self) -> Sizes:
        return replace(super()._sizes(), rcu_batch=self._rcu_batch)

    # ---- the simulator's memory --------------------------------------------------------------------------------------

    def _bare(self) -> None:
        """Outside a run nothing is modelled: compiled code of this session can be called like any other."""
        header = self.simulator.header
        for name in header.dtype.names:
            header[name] = 0
        self._idle = np.zeros(1, cpu.dtype), np.zeros(CLASSES * BUCKETS, np.int64)
        header["cpu_base"], header["histogram_base"] = (array.ctypes.data for array in self._idle)
        header["free"] = 1
        header["top"] = header["mark"] = header["breath"] = LATEST

    def _regions(self, layout: Layout) -> tuple[Array, Array, int]:
        """REGION and REMAP records, and the total number of lines."""
        arrays = self.memory.arrays
        low, high = self._span()
        lines = (high - low + 63) // 64
        private = {s.base: s for s in self.strategy.slabs}
        found = np.zeros(MAX_REGIONS, region.dtype)
        remap: list[int] = []
        self.named: list[tuple[str, Any]] = []
        """(name, slab) of each region."""
        if len(arrays) > MAX_REGIONS:
            raise SimulateError(f"{len(arrays)} slabs; the simulator tells {MAX_REGIONS} apart")
        for number, (base, array) in enumerate(arrays.items()):
            slab = _SLABS.get(base) or private[base]
            r = found[number]
            r["base"], r["size"], r["record"] = array.ctypes.data, array.nbytes, slab.struct.size
            name = NAMES.get(base, slab.name)
            r["counted"], r["remap"] = base not in FREE_SLABS and name not in layout.free, -1
            words = layout.words(name, slab.struct, costless(slab))
            if words is None:  # what it is a part of is the record that figures name
                r["record"] *= together(slab)
            else:
                r["remap"], r["lines"] = len(remap), max(words) + 1
                if any(line not in (-1, word // 8) for word, line in enumerate(words)):
                    r["first"] = lines
                    lines += (max(words) + 1) * len(array)
                remap += words
            self.named.append((name, slab))
        return found, np.array(remap or [0], np.int64), lines

    def _prepare_simulator(self, machine: Machine, work: Work, layout: Layout, seed: int) -> None:
        """Fresh memory for the directory, the caches and the figures."""
        regions, remap, lines = self._regions(layout)
        numbers = machine.header()
        cpus = self.threads
        llc = numbers["llc_sets"] * MEMORY_WAYS * machine.sockets * machine.domains
        parts: dict[str, tuple[int, Any]] = {
            "line": (lines, line.dtype),
            "cpu": (MAX_CPUS + 1, cpu.dtype),
            "heap": (MAX_CPUS + 2, np.dtype(np.int64)),
            "near_tag": (cpus * numbers["l1_sets"] * WAYS, np.dtype(np.int64)),
            "far_tag": (cpus * numbers["l2_sets"] * WAYS, np.dtype(np.int64)),
            "llc_tag": (max(llc, 1), np.dtype(np.int64)),
            "region": (MAX_REGIONS, region.dtype),
            "field": (MAX_REGIONS * MAX_WORDS * KINDS, field_struct.dtype),
            "pair": (MAX_PAIRS, pair.dtype),
            "histogram": (CLASSES * BUCKETS, np.dtype(np.int64)),
            "socket": (8, np.dtype(np.int64)),
            "remap": (len(remap), np.dtype(np.int64)),
        }
        sizes = {name: -(-count * dtype.itemsize // 4096) * 4096 for name, (count, dtype) in parts.items()}
        try:
            memory = mmap.mmap(-1, sum(sizes.values()), flags=_MAP)
        except (OSError, OverflowError) as error:
            raise EngineError(f"no room for the directory of {lines:,} lines: {error}") from None
        raw = np.frombuffer(memory, np.uint8)
        self._arena = Arena(memory)
        at = 0
        for name, (count, dtype) in parts.items():
            self._arena.arrays[name] = raw[at : at + count * dtype.itemsize].view(dtype)
            at += sizes[name]
        own = self._arena.arrays
        own["region"][:] = regions
        own["remap"][:] = remap
        self._set_run(machine, work, seed)

    def _span(self) -> tuple[int, int]:
        """The first modelled address, and the end."""
        arrays = self.memory.arrays.values()
        return min(a.ctypes.data for a in arrays), max(a.ctypes.data + a.nbytes for a in arrays)

    def _set_run(self, machine: Machine, work: Work, seed: int) -> None:
        """Set the simulator's and the CPUs' records for the beginning of a run; directory and caches do not change."""
        own, header, numbers = self._arena.arrays, self.simulator.header, machine.header()
        for name in header.dtype.names:
            header[name] = 0
        for name, value in numbers.items():
            header[name] = value
        for name, array in own.items():
            header[f"{name}_base"] = array.ctypes.data
        for name in WORKS:
            header[f"work_{name}"] = round(1000 * work.numbers[name].value)
        low, high = self._span()
        header["seed"], header["low"], header["span"] = seed, low, high - low
        header["cpus"], header["regions"] = self.threads, len(self.named)
        header["entry"], header["root"], header["command"] = self.runner.entry, self.runner.root, RUN
        own["cpu"].view(np.int64)[:] = 0
        own["socket"][:] = 0
        self._set_cpus(numbers, seed)
        self._set_nodes(numbers["per_socket"])

    def _set_nodes(self, per_socket: int) -> None:
        """A memory node for each socket: an allocator's CPUs take and give objects there."""
        for which in self.memory.caches:
            first = int(self.memory.arrays[kmem.KMEM.base]["first_cpu"][which])
            for number, work in enumerate(self.program.works):
                node = min(number // per_socket, kmem.NODES - 1)
                self.memory.arrays[kmem.KMEM_CPU.base]["node"][first + work.task] = node

    def _set_cpus(self, numbers: Mapping[str, int], seed: int) -> None:
        """A record and a stack for each CPU, all ready, a nanosecond apart."""
        own, header = self._arena.arrays, self.simulator.header
        cpus, works = own["cpu"], self.program.works
        per_domain, per_socket = numbers["per_domain"], numbers["per_socket"]
        stacks = np.frombuffer(self._stacks, np.uint8)
        base = stacks.ctypes.data
        base += -base % 64
        events = self.memory.arrays["event_base"]
        everybody = np.arange(self.threads)
        for number, work in enumerate(works):
            c = cpus[number]
            c["task"], c["clock"], c["state"] = work.task, 1000 * number, NEW
            c["keep_line"], c["domain"], c["socket"] = -1, 1 << number // per_domain, number // per_socket
            sockets_domains = per_socket // per_domain
            c["domains"] = ((1 << sockets_domains) - 1) << (number // per_socket * sockets_domains)
            mms = np.unique(events["mm"][work.first : work.last])
            c["mm"] = int(mms[0]) + 1 if len(mms) == 1 else 0
            c["random"] = np.uint64((0x9E3779B97F4A7C15 * (seed * 1000 + number + 1)) % (1 << 64)).astype(np.int64)
            for prefix, per in (("near", per_domain), ("same", per_socket)):
                mask = sum(1 << int(i) for i in everybody[everybody // per == number // per])
                for word in range(MAX_CPUS // 64):
                    c[f"{prefix}{word}"] = np.uint64(mask >> 64 * word & (1 << 64) - 1).astype(np.int64)
            # Stacks begin at different offsets within a page: otherwise all compete for one set of the host's cache.
            top = base + (number + 1) * STACK - 4096 - number * 192 % 2048 & ~63
            pointer, content = first_frame(top)
            ctypes.memmove(pointer, content, len(content))
            ctypes.c_int64.from_address(base + number * STACK).value = CANARY
            c["sp"] = pointer
            own["heap"][number + 1] = (1000 * number) << 8 | number
        self._stack_base = base
        header["ready"], header["alive"], header["current"] = self.threads, self.threads, MAIN
        header["top"] = int(own["heap"][1])

    # ---- runs --------------------------------------------------------------------------------------------------------

    def _rewind(self) -> None:
        """Restore the address space of the session's beginning: tasks hold no frames, nothing waits for RCU."""
        if self._used:
            self.runner.drain()
            self.memory.restore(self._saved)
            for base, copy in self._kept.items():
                self.memory.arrays[base][:] = copy
        self._used = True

    def _set_crew(self, rounds: int) -> None:
        """The crew's records, as :meth:`CrewRunner.run` sets them."""
        arrays, works = self.memory.arrays, self.program.works
        if self.program.ordered:
            arrays["order_base"]["done"] = 0
            rounds = 1
        crew = arrays["crew_base"][0]
        for name in ("stop", "ready", "arrived", "stopped", "mapped"):
            crew[name] = 0
        for often, cycles in LOCKS.values():
            arrays["crew_base"][often] = arrays["crew_base"][cycles] = 0
        crew["parties"], crew["go"] = len(works), 1
        threads = arrays["thread_base"]
        for work in works:
            t = threads[work.task]
            for name in t.dtype.names:
                if name not in ("pages", "nr_pages", "rcu_seen", "leader"):
                    t[name] = 0
            played = np.unique(arrays["event_base"]["task"][work.first : work.last]) + 1
            threads["leader"][played] = work.task
            t["first"], t["last"], t["barrier"] = work.first, work.last, work.barrier
            t["rounds"], t["checks"], t["ordered"] = rounds or 1 << 62, 1, self.program.ordered

    def _set_phases(self, least: int, most: int, seed: int) -> None:
        """Each thread plays between ``least`` and ``most`` rounds, by chance; all the same where they meet at
        barriers."""
        works = self.program.works
        draws = np.random.default_rng(seed).integers(least, most + 1, len(works))
        for work, rounds in zip(works, draws.tolist(), strict=True):
            alone = work.barrier == NIL
            self.memory.arrays["thread_base"][work.task]["rounds"] = rounds if alone else most

    def _go(self, depth: Depth | None, tick: Callable[[], None] | None = None) -> Figures:
        """Run the simulator until all threads have ended: by themselves, or after the part given by ``depth``; returns
        the figures of that part. Raises Stopped."""
        header = self.simulator.header
        header["mark"], header["breath"] = LATEST, LOOK
        found = None
        warming = depth is not None
        self._begin_figures(0)
        began = time.perf_counter()
        while (why := self.simulator.resume()) == BREATH:
            header["breath"] = int(header["accesses"]) + LOOK
            if tick is not None:
                tick()
            if depth is None or found is not None:
                continue
            rounds, accesses = self._progress()
            if warming and (rounds >= depth.warm_rounds or accesses >= depth.accesses // 4):
                warming = False
                self._begin_figures(self._now())
            elif not warming and (rounds >= depth.rounds or accesses >= depth.accesses):
                found = self._end_figures(self._now(), time.perf_counter() - began)
                # The rest of the round costs nothing: it only restores the address space.
                self.memory.arrays["crew_base"]["stop"][0] = 1
                self._coast()
        self.memory.arrays["crew_base"]["go"][0] = 0
        if why != ENDED:
            raise Stopped(self._why_stopped(why))
        if found is None:
            clocks = self._arena.arrays["cpu"]["clock"][: self.threads]
            found = self._end_figures(int(clocks.max()), time.perf_counter() - began)
        for number in range(self.threads):
            if ctypes.c_int64.from_address(self._stack_base + number * STACK).value != CANARY:
                raise SimulateError(
                    f"the stack of CPU {number} overflowed: {STACK >> 10} KiB are not enough for this code"
                )
        return found

    def _coast(self) -> None:
        """From now on nothing costs anything, and threads that do not end are detected."""
        header = self.simulator.header
        header["free"] += 1
        header["coast"] = 1
        header["mark"] = self._now() + PATIENCE

    def _now(self) -> int:
        """The smallest clock: that of the CPU that runs."""
        return int(self._arena.arrays["cpu"]["clock"][int(self.simulator.header["current"])])

    def _progress(self) -> tuple[float, int]:
        """The average number of rounds per CPU, and the number of accesses, since counting began."""
        cpus = self._arena.arrays["cpu"][: self.threads]
        done = sum(int(cpus[f"done_{name}"].sum()) for name in FIGURES)
        return done / max(1, sum(w.last - w.first for w in self.program.works)), int(cpus["accesses"].sum())

    def _why_stopped(self, why: int) -> str:
        """One line about which CPUs wait where."""
        cpus = self._arena.arrays["cpu"][: self.threads]
        parked = np.flatnonzero(cpus["state"] == PARKED)
        fields: dict[str, list[int]] = {}
        for number in parked.tolist():
            fields.setdefault(self._field(int(cpus["parked_field"][number])), []).append(number)
        told = "; ".join(
            f"CPU {', '.join(map(str, who[:8]))}{', ...' if len(who) > 8 else ''} for a write to {name}"
            for name, who in list(fields.items())[:4]
        )
        if why == DEADLOCK:
            return f"deadlock: all remaining threads wait ({told})"
        return f"no thread comes to an end: a livelock or a lost wake-up{f' ({told})' if told else ''}"

    def _field(self, number: int) -> str:
        which, word = divmod(number, MAX_WORDS)
        if which >= len(self.named):
            return "?"
        name, slab = self.named[which]
        if int(self._arena.arrays["region"]["record"][which]) > slab.struct.size:
            if number not in self._parts:
                self._parts[number] = part_name(slab, word, self.memory.arrays)
            return self._parts[number]
        names = {offset // 8: field for field, (offset, _) in slab.struct.fields.items()}
        return f"{name}.{names.get(word, f'+{8 * word}')}"

    def _settle(self, now: int) -> None:
        """Account for waiting until ``now``, so that an unfinished wait counts too."""
        own = self._arena.arrays
        cpus = own["cpu"][: self.threads]
        for number in np.flatnonzero(cpus["state"] == PARKED).tolist():
            c = cpus[number]
            waited = max(now - int(c["clock"]), 0)
            c["t_waiting"] += waited
            c["clock"] += waited
            own["field"]["wait"][int(c["parked_field"]) * KINDS] += max(int(c["clock"]) - int(c["parked_at"]), 0)
            c["parked_at"] = c["clock"]

    def line_of(self, number: int) -> int:
        """The number of a field's line within its record."""
        which, word = divmod(number, MAX_WORDS)
        remap = int(self._arena.arrays["region"]["remap"][which])
        return int(self._arena.arrays["remap"][remap + word]) if remap >= 0 else word // 8

    def _begin_figures(self, now: int) -> None:
        """Discard what was counted before time ``now``."""
        self._settle(now)
        own = self._arena.arrays
        cpus = own["cpu"][: self.threads]
        for name in cpu.fields:
            if name.startswith(("t_", "done_", "in_")) or name in ("accesses", "transfers"):
                cpus[name] = 0
        cpus["counted_from"] = 0  # an event in progress counts from here on
        for name in ("field", "pair", "histogram"):
            own[name].view(np.int64)[:] = 0
        self._then = now
        self._since = cpus["clock"].copy()
        self._threads_then = self.memory.arrays["thread_base"].copy()
        self._crew_then = self.memory.arrays["crew_base"].copy()

    def _end_figures(self, now: int, host: float) -> Figures:
        window = max(now - self._then, 1)
        self._parts.clear()
        self._settle(now)
        return read_figures(self, window, host, self._since, self._threads_then, self._crew_then, self._field)

    @property
    def own(self) -> Mapping[str, Array]:
        """The simulator's slabs of the current run."""
        return self._arena.arrays

    def run(
        self,
        machine: Machine,
        work: Work,
        *,
        seed: int = 1,
        rounds: int = 0,
        depth: Depth | None = None,
        layout: Layout | None = None,
        free_rounds: tuple[int, int] = (1, 1),
        tick: Callable[[], None] | None = None,
    ) -> Figures:
        """Simulate: ``rounds`` of every thread, or as much as ``depth`` says (a recorded stream: once).

        The address space is that of the session's beginning after ``free_rounds`` without cost (from, to: how many a
        CPU makes is drawn): tasks have their frames, page tables exist, caches hold what was used last, and what an
        allocator does in bursts is at another point on each CPU. Then comes a part that does not count. Every answer
        is compared. The same arguments give the same figures, whatever ran before. Raises Stopped and SimulateError;
        :attr:`verdict` says whether the answers were right.
        """
        if self.threads > machine.cpus:
            raise SimulateError(f"{self.threads} threads on {machine.name}, which has {machine.cpus} CPUs")
        layout = layout or as_it_is()
        ordered = self.program.ordered
        self._rewind()
        if machine.numbers["ipi_send"].value:
            self.memory.arrays["mm_base"]["hook_mask"] |= _bit(flush_tlb)
        try:
            if not ordered:
                self._prepare_simulator(machine, work, layout, seed)
                self._set_crew(1)
                self._set_phases(*free_rounds, seed)
                self.simulator.header["current"] = 0
                self._coast()
                self.simulator.header["warming"] = 1
                self.simulator.header["current"] = MAIN
                self._go(None)
                self._set_run(machine, work, seed)
            else:
                self._prepare_simulator(machine, work, layout, seed)
            self._set_crew(rounds)
            found = self._go(None if rounds or ordered else depth or Depth(), tick)
        finally:
            self._bare()
        self.verdict = self.judge(self.memory.arrays["thread_base"][[w.task for w in self.program.works]])
        return found

    def right_run(self, machine: Machine, work: Work, *, depth: Depth, layout: Layout | None = None) -> Figures:
        """As :meth:`run`; raises SimulateError, too, if an answer was wrong."""
        found = self.run(machine, work, depth=depth, layout=layout)
        if not self.verdict.ok:
            raise SimulateError(f"{self.strategy.name} on {self.threads} CPUs: {self.verdict.what}")
        return found

    verdict: Correctness = Correctness(False, "nothing has run")
    """For the last run: whether all answers were right, and the address space at rest is valid."""


def together(slab: Any) -> int:
    """How many records of ``slab`` make one of what its strategy names: 32 words a node; 1 if it names none."""
    return slab.first if getattr(slab, "says", None) else 1


def part_name(slab: Any, place: int, arrays: Mapping[str, Array]) -> str:
    """What the ``place``-th record of each larger one is, as memory is now: in nodes of two types a word may be either,
    ``maple_node.pivot[10]|slot[1]``. O(NAMED) calls of the slab's ``says``."""
    step, count = together(slab), len(arrays[slab.base])
    told = (slab.says(arrays, number) for number in range(step + place, min(count, (NAMED + 1) * step), step))
    names = dict.fromkeys(re.sub(r" #\d+", "", name) for name in told if name)
    whole = {name.partition(".")[0] for name in names}
    if len(whole) != 1:
        return f"{slab.name}[{place}]"
    return f"{whole.pop()}.{'|'.join(sorted(name.partition('.')[2] for name in names))}"


def costless(slab: Any) -> set[int]:
    """Words of a record that no kernel has."""
    found = set()
    for name, (offset, _) in slab.struct.fields.items():
        addresses = slab.base == MM.base and (
            (name.endswith("_base") and name != "mmap_base") or name in ("hook_entry", "mapping_entry", "hook_mask")
        )
        member = slab.struct.members[name]
        if addresses or member.model or member.doc.startswith("counted runs"):
            found.add(offset // 8)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The results of a run: throughput, where the time was spent and on which lines, how long operations took.

COUNTED = tuple(FIGURES)
"""Figures whose operations are counted."""
KEPT_LINES, KEPT_PAIRS = 24, 24
PS = 0.001
"""A picosecond in ns."""


@dataclass(frozen=True)
class Field:
    """A field that had costs: transactions by kind, and ns summed over all CPUs for transfers of its line, for queueing
    and for waiting for it; ``far`` of them came from another socket."""

    name: str
    line: int
    """The number of its line within the record."""
    loads: int
    stores: int
    atomics: int
    transfer: float
    queue: float
    wait: float
    far: int

    @property
    def ns(self) -> float:
        """The sum of its times."""
        return self.transfer + self.queue + self.wait


@dataclass(frozen=True)
class Pair:
    """``reader`` had to fetch a line because ``writer`` was written (empty: from memory or a cache): how often, and for
    how many ns."""

    reader: str
    writer: str
    n: int
    ns: float


@dataclass(frozen=True)
class Figures:
    """One run. ``window`` is ps of simulated time; ``operations`` by figure (fault, lookup, mapping); ``cpus`` each
    CPU's operations; ``parts`` ns of all CPUs by PARTS; ``clock`` their expected sum."""

    window: int
    host: float
    operations: Mapping[str, int]
    cpus: tuple[int, ...]
    parts: Mapping[str, float]
    clock: float
    accesses: int
    inside: Mapping[str, int]
    """Accesses inside the operations of a figure; the rest are those of the threads' own loop, RCU and the barrier."""
    transfers: int
    fields: tuple[Field, ...]
    pairs: tuple[Pair, ...]
    histograms: Mapping[str, Histogram]
    shares: Mapping[str, float]
    """Shares of the threads' time: ``lock`` (mmap_lock), ``table``, ``vma``, ``barrier``, ``order``."""

    @property
    def seconds(self) -> float:
        """The simulated seconds."""
        return self.window * 1e-12

    @property
    def rates(self) -> dict[str, float]:
        """Operations per second by figure, for figures that occur."""
        return {name: n / self.seconds for name, n in self.operations.items() if n}

    @property
    def throughput(self) -> float:
        """Operations of all figures per second."""
        return sum(self.operations.values()) / self.seconds

    def each(self, figure: str) -> float:
        """Accesses per operation of ``figure``."""
        return self.inside[figure] / max(1, self.operations[figure])


def read_figures(
    session: Any,
    window: int,
    host: float,
    since: Array,
    threads_then: Array,
    crew_then: Array,
    field_name: Callable[[int], str],
) -> Figures:
    """Read a run's figures out of the simulator's memory."""
    own = session.own
    cpus = own["cpu"][: session.threads]
    done = {name: int(cpus[f"done_{name}"].sum()) for name in COUNTED}
    fields = own["field"].reshape(-1, KINDS)
    rows = []
    touched = (fields["n"].sum(axis=1) > 0) | (fields["wait"].sum(axis=1) > 0)
    for number in np.flatnonzero(touched).tolist():
        f = fields[number]
        loads, stores, atomics = (int(n) for n in f["n"])
        rows.append(
            Field(
                name=field_name(number),
                line=session.line_of(number),
                loads=loads,
                stores=stores,
                atomics=atomics,
                transfer=float(f["time"].sum()) * PS,
                queue=float(f["queue"].sum()) * PS,
                wait=float(f["wait"].sum()) * PS,
                far=int(f["far"].sum()),
            )
        )
    rows.sort(key=lambda row: (-row.ns, row.name))
    pairs = []
    for p in own["pair"][own["pair"]["n"] > 0]:
        reader, writer = divmod(int(p["key"]) - 1, 1 << 16)
        told = field_name(writer) if writer != 0xFFFF else ""
        pairs.append(Pair(field_name(reader), told, int(p["n"]), float(p["time"]) * PS))
    pairs.sort(key=lambda row: (-row.ns, row.reader, row.writer))
    counts = own["histogram"].reshape(CLASSES, BUCKETS)
    return Figures(
        window=window,
        host=host,
        operations=done,
        cpus=tuple(int(sum(c[f"done_{name}"] for name in COUNTED)) for c in cpus),
        parts={name: float(cpus[f"t_{name}"].sum()) * PS for name in PARTS},
        clock=float((cpus["clock"] - since).sum()) * PS,
        accesses=int(cpus["accesses"].sum()),
        inside={name: int(cpus[f"in_{name}"].sum()) for name in COUNTED},
        transfers=int(cpus["transfers"].sum()),
        fields=tuple(rows[:KEPT_LINES]),
        pairs=tuple(pairs[:KEPT_PAIRS]),
        histograms={
            name: Histogram(counts[number].copy(), PS) for number, name in enumerate(COUNTED) if counts[number].any()
        },
        shares=_shares(session, window, threads_then, crew_then, rows),
    )


LOCK_FIELDS = {"lock": ("mm.mmap_lock", "mm.mmap_lock_head"), "table": ("page.ptl",)}
"""Locks, and the fields for whose writes their waiters wait."""


def _shares(session: Any, window: int, threads_then: Array, crew_then: Array, rows: list[Field]) -> dict[str, float]:
    """Shares of the CPUs' time spent waiting for locks, the barrier and the order of a trace. Locks by the fields that
    were waited for, so that an unfinished wait counts; the rest from what the threads recorded."""
    arrays, tasks = session.memory.arrays, [w.task for w in session.program.works]
    span = max(1, window * len(tasks))
    found = {
        name: sum(row.wait for row in rows if row.name in fields) / PS / span for name, fields in LOCK_FIELDS.items()
    }
    for name, column in (("barrier", "barrier_cycles"), ("order", "order_cycles")):
        found[name] = float((arrays["thread_base"][column][tasks] - threads_then[column][tasks]).sum()) / span
    cycles = LOCKS["vma"][1]
    found["vma"] = float((arrays["crew_base"][cycles] - crew_then[cycles]).sum()) / span
    return {name: min(1.0, max(0.0, share)) for name, share in found.items()}
