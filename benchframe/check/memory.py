"""Memory that a scheduler sees: an access to shared memory is a step, freed memory is poisoned."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchframe.check.execution import ADDS, READS, WRITES, Broken, Op, World
from benchframe.dialect.functions import _made as instances_made
from benchframe.dialect.interpreter import proxy_class, unusual
from benchframe.dialect.records import Slab
from benchframe.mm import layout
from benchframe.mm.defaults import read_lock
from benchframe.mm.layout import ARENA_PAGE, ARENA_TABLE, ARENA_VMA
from benchframe.mm.locks import (
    IN_THE_WAY,
    down_read,
    down_read_trylock,
    lock_acquired,
    prepare_to_wait,
    read_seqcount_begin,
    refcount_add_not_zero,
    refcount_inc_not_zero_acquire,
    refcount_inc_not_zero_limited_acquire,
    refcount_read,
    spin_lock,
    up_read,
)
from benchframe.mm.machine import Machine

# ----------------------------------------------------------------------------------------------------------------------
# The memory of a scenario under check: arrays at its start, and which places in them tasks were seen to share.
#
# Only *shared* locations are scheduling points: those that two tasks touch, one of them writing or freeing. Which they
# are is learned: an execution that meets a new one says so (``Memory.learn``), and the search starts over with it. At
# the end no execution has met a conflict outside the set, so nothing was hidden.

Key = tuple[str, int]
Location = tuple[Key, Hashable]
PLAIN_SLABS = frozenset({"slab_base", "freed_base", "event_base", "answer_base", "sample_base"})
"""The model's own books: no memory that tasks share in a kernel."""
STATISTICS = frozenset({"rss", "error", "nr_ptes", "nr_anon_vmas", "nr_invalidations", "nr_splits", "nr_merges"})
"""Counters of mm_struct, atomic or per CPU in a kernel: never looked at to decide anything."""
KEY_OF = {ARENA_VMA: "vma_base", ARENA_TABLE: "page_base", ARENA_PAGE: "page_base"}
"""The slab of each arena's records; private arenas have their own."""


POISON = 0x5A5A5A5A5A5A5A5A
"""What stands in each word of a record that was never used."""


class OutOfRecords(Exception):
    """An execution needs more fresh records than the machine of a scenario has: nothing can be said."""


class Memory:
    """The arrays of a machine at the start of a scenario, and what was learned about them: lives through executions."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tops = machine.arrays["slab_base"]["top"].tolist()
        self.shared: set[Location] = set()
        self.all_visible = False
        self.record = False
        self.prepared: dict[str, tuple[type[Any], tuple[Any, ...], int]] = {}
        self._touched: dict[Location, int] = {}
        self._freed: dict[Key, int] = {}
        self.discovered: set[Location] = set()
        self.parts: dict[str, tuple[str, int]] = {"pte_base": ("page_base", 9)}
        """Slabs whose records are parts of others: (slab of the whole, shift of the index)."""
        for slab in machine.private:
            part_of = getattr(slab, "part_of", None)
            if part_of is not None:
                self.parts[slab.base] = (layout.PRIVATE_BASES[part_of[0]], part_of[1])
        self._poison()
        self._saved = {base: array.copy() for base, array in machine.arrays.items()}

    def _poison(self) -> None:
        """Records from a slab cache that nobody has had yet hold garbage (the kernel's POISON_INUSE), and so do the
        arrays that are parts of them: who is shown such a record too early reads that."""
        for slab in self.machine.private:
            if getattr(slab, "kmem_cache", 0):
                top = self.tops[layout.ARENA_PRIVATE0 + layout.PRIVATE_BASES.index(slab.base)]
                parts = {other: shift for other, (whole, shift) in self.parts.items() if whole == slab.base}
                for base, shift in {slab.base: 0, **parts}.items():
                    array = self.machine.arrays[base]
                    for name in array.dtype.names or ():
                        array[name][top << shift :] = POISON

    def key_of(self, base: str, index: int) -> Key:
        """The object that a record belongs to: entries of a page table belong to its page."""
        if base in self.parts:
            whole, shift = self.parts[base]
            return whole, index >> shift
        return base, index

    def part_of(self, ref: Any, column: int) -> Hashable:
        """Which part of the object: the column, or the entry of an array inside it."""
        if ref.slab.base in self.parts:
            return ("entry", ref.index & ((1 << self.parts[ref.slab.base][1]) - 1))
        return column

    @property
    def first(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The arrays as they were at the start."""
        return self._saved

    def restore(self) -> None:
        """As it was at the start."""
        for base, array in self.machine.arrays.items():
            np.copyto(array, self._saved[base])

    def touch(self, key: Key, part: Hashable, how: int, task: int) -> None:
        """Note an access that was not a scheduling point; it becomes one if another task's meets it."""
        location = (key, part)
        seen = self._touched.get(location, 0)
        bit = 1 << task
        if how != READS:
            clash = (seen | seen >> 16) & 0xFFFF & ~bit
            self._touched[location] = seen | bit << 16
        else:
            clash = seen >> 16 & ~bit
            self._touched[location] = seen | bit
        if clash or self._freed.get(key, 0) & ~bit:
            self.discovered.add(location)
            if key in self._freed:
                self.discovered.add((key, None))

    def touch_free(self, key: Key, task: int) -> None:
        """Note that ``task`` freed the whole object."""
        bit = 1 << task
        self._freed[key] = self._freed.get(key, 0) | bit
        for (other, part), seen in self._touched.items():
            if other == key and (seen | seen >> 16) & 0xFFFF & ~bit:
                self.discovered.update({(key, part), (key, None)})

    def seen(self) -> tuple[set[Location], dict[Location, int], dict[Key, int]]:
        """What is known: shared places, who touched which place, who freed what. For :meth:`join`."""
        return self.shared, self._touched, self._freed

    def join(self, shared: set[Location], touched: Mapping[Location, int], freed: Mapping[Key, int]) -> bool:
        """Add what executions elsewhere have shown; whether more is shared now."""
        self.discovered |= shared
        for key, bits in freed.items():
            self._freed[key] = self._freed.get(key, 0) | bits
        for location, bits in touched.items():
            self._touched[location] = self._touched.get(location, 0) | bits
        for (key, part), bits in self._touched.items():
            tasks, gone = (bits | bits >> 16) & 0xFFFF, self._freed.get(key, 0)
            if (bits >> 16 and tasks & (tasks - 1)) or (gone and (gone | tasks) & ((gone | tasks) - 1)):
                self.discovered |= {(key, part), (key, None)} if gone else {(key, part)}
        return self.learn()

    def learn(self) -> bool:
        """Make what was discovered since the last call scheduling points; whether there was anything new."""
        new = self.discovered - self.shared
        self.shared |= new
        self.discovered.clear()
        return bool(new)

    def unseen(self, name: str, column: int) -> Callable[[Any, int], None]:
        """How a field is stored to that is no scheduling point; ``name`` is that of a statistic."""
        return lambda ref, value: ref._columns[column].__setitem__(ref.index, value)

    def prepare(self, slab: Slab) -> tuple[type[Any], tuple[Any, ...], int]:
        """Proxy class, columns and length of a slab."""
        array = self.machine.arrays[slab.base]
        columns = tuple(memoryview(array[field]) for field in slab.struct.fields)  # type: ignore[arg-type]
        names = list(slab.struct.fields)

        def get(column: int) -> Callable[[Any], int]:
            if slab.base in PLAIN_SLABS or (slab.base == "mm_base" and names[column] in STATISTICS):
                return lambda ref: ref._columns[column][ref.index]
            return lambda ref: ref.world.read(ref, column)

        def put(column: int) -> Callable[[Any, int], None]:
            if slab.base in PLAIN_SLABS or (slab.base == "mm_base" and names[column] in STATISTICS):
                return self.unseen(names[column] if slab.base == "mm_base" else "", column)
            return lambda ref, value: ref.world.write(ref, column, value)

        made = (proxy_class(slab.struct, get, put), columns, len(array))
        self.prepared[slab.base] = made
        return made


# ----------------------------------------------------------------------------------------------------------------------
# Where in the text something happened, and which memory it was about, in words.

_HERE = str(Path(__file__).resolve().parent) + os.sep
LOCKS = tuple(
    {
        function.__code__.co_filename: None
        for function in (
            read_lock,
            spin_lock,
            down_read,
            read_seqcount_begin,
            refcount_read,
            prepare_to_wait,
            lock_acquired,
        )
    }
)
"""The files of what locks are made of: who took one is the caller."""
_DIALECT = str(Path(_HERE).parent / "dialect") + os.sep


def place(outside: tuple[str, ...] = ()) -> tuple[str, int, str]:
    """(file, line, function) of the strategy code that is running; ``outside`` of files that begin so, too."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, _DIALECT, *outside)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def running(outside: tuple[str, ...] = ()) -> Iterator[FrameType]:
    """The frames of strategy code and model that are running, the innermost first; ``outside`` of files that begin
    so. Files are told by the folders of this package: a user's own may lie in one that is called check, too."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_HERE) and code.co_name == "_body":
            return  # where the task began
        if not code.co_filename.startswith((_HERE, _DIALECT, *outside)):
            yield frame
        frame = frame.f_back


def program_state() -> tuple[Any, ...]:
    """Where the running task is, and its local variables, up to where it began."""
    return tuple(
        (frame.f_code, frame.f_lasti, tuple(_plain(value) for value in frame.f_locals.values())) for frame in running()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    slab = getattr(value, "slab", None)
    return (slab.base, value.index) if slab is not None else id(value)


def chain(most: int = 4, outside: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of the innermost ``most`` functions of :func:`running`."""
    return tuple(frame.f_code.co_name for frame in islice(running(outside), most))


def line(where: tuple[str, int, str]) -> str:
    """A place as text."""
    return f"{Path(where[0]).name}:{where[1]} {where[2]}"


def record_name(base: str, machine: Machine) -> str:
    """What a finding calls a record of a slab: VMA, page, mm_struct, or its own slab's name."""
    model = {"vma_base": "VMA", "page_base": "page", "mm_base": "mm_struct"}
    return model.get(base) or next((slab.name for slab in machine.private if slab.base == base), base[:-5])


def describe(key: Key, part: Hashable, memory: Memory) -> str:
    """A location in words: ``vma #5.vm_start``, ``maple_node #2.slot[3]``."""
    (base, index), machine = key, memory.machine
    private = {slab.base: slab for slab in machine.private}
    slabs = {s.base: s for s in (layout.MM, layout.VMA, layout.PAGE, layout.PTE, layout.TASK, layout.FILE)} | private
    if isinstance(part, tuple):
        for slab in private.values():
            whole = getattr(slab, "part_of", None)
            if whole is not None and layout.PRIVATE_BASES[whole[0]] == base:
                return _said(slab, (index << whole[1]) + part[1], memory) or f"{slabs[base].name} #{index}[{part[1]}]"
        return f"table #{index}[{part[1]}]"
    if base not in slabs:
        return f"{base} {index}"
    slab = slabs[base]
    if not isinstance(part, int):
        return f"{slab.name.lower()} #{index}"
    return _said(slab, index, memory) or f"{slab.name.lower()} #{index}.{list(slab.struct.fields)[part]}"


def _said(slab: Slab, index: int, memory: Memory) -> str:
    """What the strategy calls a record of its own, by what memory holds now or held at the start; "" if it has no name
    for it."""
    says = getattr(slab, "says", None)
    if says is None:
        return ""
    return says(memory.machine.arrays, index) or says(memory.first, index) or ""


# ----------------------------------------------------------------------------------------------------------------------
# Loops around a compare-and-exchange as one step each: what scenarios run in their place.
#
# ``refcount_inc_not_zero`` and ``down_read_trylock`` look, then exchange, and start over if somebody was faster. All
# turns but the last only looked, so a task that runs the last one alone does the same to memory and gets the same
# answer: under sequential consistency nothing is lost, and far fewer executions differ. With store buffers the loops
# stay.
#
# Readers of a rw_semaphore count themselves in and out; what they find decides only by the bits of writers and of those
# who wait. So two of these steps commute (ADDS), and their order is not tried. References are told their number: their
# order counts.

Step = Callable[..., int]


def update(ref: Any, field: str, how: int, change: Callable[[int], int], ordering: str) -> int:
    """One atomic step: ``change(value)`` is added to a word. Gives the value before."""
    return ref.world.update(ref, field, how, change, ordering)  # type: ignore[no-any-return]


def _add_not_zero(field: str) -> Step:
    return lambda ref, count: update(ref, field, WRITES, lambda old: count if old != 0 else 0, "relaxed")


def _inc_acquire(field: str) -> Step:
    return lambda ref: update(ref, field, WRITES, lambda old: 1 if old != 0 else 0, "acquire")


def _inc_limited(field: str) -> Step:
    def step(ref: Any, limit: int) -> int:
        old = update(ref, field, WRITES, lambda old: 1 if old != 0 and old + 1 <= limit else 0, "acquire")
        return -1 if old != 0 and old + 1 > limit else old

    return step


def _trylock(field: str) -> Step:
    def step(ref: Any) -> int:
        return int(not update(ref, field, ADDS, lambda seen: 0 if seen & IN_THE_WAY else 1, "acquire") & IN_THE_WAY)

    return step


def _up_read(field: str) -> Step:
    return lambda ref: update(ref, field, ADDS, lambda seen: -1, "release") * 0


TEXTS: dict[Any, tuple[str, Callable[[str], Step]]] = {
    refcount_add_not_zero: ("refs", _add_not_zero),
    refcount_inc_not_zero_acquire: ("refs", _inc_acquire),
    refcount_inc_not_zero_limited_acquire: ("refs", _inc_limited),
    down_read_trylock: ("count", _trylock),
    up_read: ("count", _up_read),
}
"""Each text, the name of its word in it, and what makes its step for a field."""


def one_step() -> dict[Any, Step]:
    """Every instance of TEXTS that was made, and the texts themselves, to what ``dejit`` puts in their place."""
    found: dict[Any, Step] = {text: make(word) for text, (word, make) in TEXTS.items()}
    for (text, words), made in instances_made.items():
        if text in TEXTS:
            word, make = TEXTS[text]
            found[made] = make(dict(words).get(word, word))
    return found


# ----------------------------------------------------------------------------------------------------------------------
# A machine's memory under the scheduler: every access of a strategy's text is announced before it happens.
#
# Records have lives. A freed VMA, table or page is never handed out again within an execution, so that each use of a
# stale reference shows; every task allocates from slots of its own, so that allocations commute.


class MachineWorld(World):
    """One execution over a :class:`Memory`. The methods that the dialect's primitives call are load, store, rmw, ..."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        memory.restore()
        self.memory = memory
        self.shared = memory.shared
        self.dead: dict[Key, tuple[int, int]] = {}
        self.freed_by: dict[Key, tuple[str, ...]] = {}
        """Of each record that was freed while places are recorded: the functions that did it, the innermost first."""
        self.born: dict[Key, tuple[int, int]] = {}
        self.began: dict[int, int] = {}
        """Of each task: the step at which its present call began."""
        self.words: dict[Key, Any] = {}
        self._taken: dict[tuple[int, int], int] = {}
        self._returned: dict[tuple[int, int], list[int]] = {}
        self.sections: dict[int, int] = {}
        """Of each task: how deep it is in read-side sections."""
        self.limbo: dict[int, list[int]] = {}
        """Of each arena that is type-safe by RCU: freed slots that keep their kind until they are taken again."""
        self._safe: set[Key] = set()
        self.held: dict[int, dict[Location, tuple[str, int, str]]] = {}
        """The locks of each task, and where it took them."""
        self.order: dict[tuple[Hashable, Hashable], tuple[int, tuple[str, int, str], tuple[str, int, str]]] = {}
        """Which lock was taken inside which, by whom, and where each."""
        self.locks: set[Location] = set()
        """Words that somebody took as a lock."""

    def ref(self, slab: Slab, index: int) -> Any:
        """The proxy for a record; WildAccess outside the slab."""
        kind, columns, count = self.memory.prepared.get(slab.base) or self.memory.prepare(slab)
        if not slab.first <= index < count:
            return unusual(self, slab, index, count)
        return kind(self, slab, index, columns)

    # ---- accesses -----------------------------------------------------------------------------------------------

    def access(self, kind: str, key: Key, part: Hashable, how: int) -> Op | None:
        """A scheduling point if the location is shared; the operation then."""
        memory = self.memory
        op = None
        if memory.all_visible or (key, part) in self.shared:
            op = Op(kind, (key, part, how))
            if memory.record:
                op.place = place()
            self.announce(op)
        else:
            memory.touch(key, part, how, self.current)
        if key in self.dead and not (key in self._safe and self.sections.get(self.current)):
            self.stale(key, kind)
        return op

    def stale(
        self, key: Key, kind: str, at: tuple[str, int, str] | None = None, by: tuple[str, ...] | None = None
    ) -> None:
        """Raise Broken: the current task touches an object whose life is over; ``at`` is the line and ``by`` are the
        functions, if not those that run now."""
        task, when = self.dead[key]
        what = record_name(key[0], self.memory.machine)
        before = when < self.began.get(self.current, 0)
        file, line, function = at or place()
        raise Broken(
            "use after free",
            f"{self.names[self.current]}: {kind} of {what} #{key[1]}, which {self.names[task]} freed"
            f"{' before this call began' if before else ''}, in {function}",
            (f"{file}:{line}", "dangling" if before else "racing"),
            key,
            function,
            chain() if by is None else by or (function,),
        )

    def read(self, ref: Any, column: int) -> int:
        """A load."""
        index = ref.index
        op = self.access("load", self.memory.key_of(ref.slab.base, index), self.memory.part_of(ref, column), READS)
        value: int = ref._columns[column][index]
        if op is not None:
            op.value = value
        return value

    def write(self, ref: Any, column: int, value: int, kind: str = "store", how: int = WRITES) -> int:
        """A store (or the store of an atomic operation); what stood there before."""
        index = ref.index
        op = self.access(kind, self.memory.key_of(ref.slab.base, index), self.memory.part_of(ref, column), how)
        view = ref._columns[column]
        before: int = view[index]
        if kind == "add":
            value = np.int64(before + value).item()
        view[index] = value
        if op is not None:
            op.before, op.value = before, value
            op.loose = how == ADDS
        if self.held and value < before:
            self.unlocked(self.memory.key_of(ref.slab.base, index), self.memory.part_of(ref, column))
        return before

    def load(self, ref: Any, field: str, ordering: str) -> int:
        """An ordered load."""
        return self.read(ref, column_of(ref, field))

    def store(self, ref: Any, field: str, value: int, ordering: str) -> None:
        """An ordered store."""
        self.write(ref, column_of(ref, field), value)

    def rmw(self, ref: Any, field: str, operation: str, value: int, ordering: str = "full") -> int:
        """fetch_add or xchg."""
        how = ADDS if field == "mmap_lock" and operation == "add" and abs(value) == 1 else WRITES
        return self.write(ref, column_of(ref, field), value, "add" if operation == "add" else "exchange", how)

    def update(self, ref: Any, field: str, how: int, change: Callable[[int], int], ordering: str) -> int:
        """One atomic step: ``change(value)`` is added. Gives the value before."""
        column = column_of(ref, field)
        key, part = self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column)
        op = self.access("add", key, part, how)
        view = ref._columns[column]
        before: int = view[ref.index]
        delta = change(before)
        view[ref.index] = before + delta
        if op is not None:
            op.before, op.value, op.loose = before, before + delta, how == ADDS
        if delta > 0:
            self.locked(key, part)
        elif delta < 0 and self.held:
            self.unlocked(key, part)
        return before

    def cmpxchg(self, ref: Any, field: str, old: int, new: int, ordering: str = "full") -> int:
        """Compare and exchange."""
        column = column_of(ref, field)
        op = self.access(
            "cmpxchg", self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column), WRITES
        )
        before: int = ref._columns[column][ref.index]
        if before == old:
            ref._columns[column][ref.index] = new
            if self.locks and new > old:
                self.locked(self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column))
        if op is not None:
            op.before, op.value = before, ref._columns[column][ref.index]
        return before

    def wait(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """wait_until and wait_interruptible: 1 if a signal ended it."""
        return self._await(ref, field, lambda seen: seen & mask == value, interruptible)

    def wait_while(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """wait_while and wait_while_interruptible: 1 if a signal ended it."""
        return self._await(ref, field, lambda seen: seen & mask != value, interruptible)

    def loader(self, ref: Any, column: int) -> tuple[Callable[[], int], bool]:
        """What gives the value that the current task sees now, again and again; whether it may be another than
        memory's."""
        view, index = ref._columns[column], ref.index
        return lambda: view[index], False

    def _await(self, ref: Any, field: str, over: Callable[[Any], bool], interruptible: bool) -> int:
        column, index = column_of(ref, field), ref.index
        load, loose = self.loader(ref, column)
        signal = ("signal", self.current)
        if interruptible and signal in self.words:
            words = self.words
            self._block(
                "wait, signals allowed",
                self.memory.key_of(ref.slab.base, index),
                self.memory.part_of(ref, column),
                READS,
                lambda seen: over(seen[0]) or seen[1],
                lambda: (load(), words[signal]),
                True,
            )
            return int(not over(load()))
        self._block(
            "wait",
            self.memory.key_of(ref.slab.base, index),
            self.memory.part_of(ref, column),
            READS,
            over,
            load,
            loose,
        )
        return 0

    def unlocked(self, key: Key, part: Hashable) -> None:
        """The current task gives a lock back, if the place is one that it holds."""
        mine = self.held.get(self.current)
        if mine is not None and mine.pop((key, part), None) is not None and not mine:
            del self.held[self.current]

    def locked(self, key: Key, part: Hashable) -> None:
        """The current task has taken a lock, if the place is known as one."""
        if (key, part) in self.locks:
            self.held.setdefault(self.current, {})[key, part] = place(LOCKS)

    def _ordered(self, key: Key, part: Hashable) -> None:
        """The current task is about to wait for a lock. Broken if it holds one that was waited for inside this one.

        Locks of different fields are told apart by field (any ptl is a ptl), two of one field by record.
        """
        for held, where in self.held.get(self.current, {}).items():
            outer: tuple[Hashable, Hashable] = (held[0][0], held[1])
            inner: tuple[Hashable, Hashable] = (key[0], part)
            if outer == inner:
                outer, inner = held, (key, part)
            if outer != inner:
                self.nested(outer, inner, (held, (key, part)), (where, place(LOCKS)))

    def nested(
        self,
        outer: tuple[Hashable, Hashable],
        inner: tuple[Hashable, Hashable],
        locks: tuple[Location, Location],
        places: tuple[tuple[str, int, str], tuple[str, int, str]],
    ) -> None:
        """The current task is about to wait for the second of ``locks`` with the first held; ``places`` are where it
        took or takes them, ``outer`` and ``inner`` their kinds. Broken if a task took such in the other order."""
        if (outer, inner) in self.order:
            return
        self.order[outer, inner] = (self.current, *places)
        if (inner, outer) in self.order:
            other, first, second = self.order[inner, outer]
            mine, theirs = describe(*locks[0], self.memory), describe(*locks[1], self.memory)
            where, here = places
            raise Broken(
                "lock order",
                f"{self.names[self.current]} waits for {theirs} ({line(here)}) with {mine} held ({line(where)}); "
                f"{self.names[other]} took them in the other order ({line(first)}, {line(second)})",
                (line(here), line(second)),
                locks[1][0],
                here[2],
            )

    def wait_then_add(self, ref: Any, field: str, mask: int, delta: int) -> int:
        """Take a lock."""
        column, index = column_of(ref, field), ref.index
        view = ref._columns[column]
        how = ADDS if field == "mmap_lock" and delta == 1 else WRITES
        key, part = self.memory.key_of(ref.slab.base, index), self.memory.part_of(ref, column)
        self.locks.add((key, part))
        if self.held:
            self._ordered(key, part)
        op = self._block(
            "lock",
            self.memory.key_of(ref.slab.base, index),
            self.memory.part_of(ref, column),
            how,
            lambda seen: not seen & mask,
            lambda: view[index],
        )
        before: int = view[index]
        view[index] = before + delta
        op.before, op.value = before, before + delta
        if delta > 0:
            self.locked(key, part)
        return before

    def _block(
        self,
        kind: str,
        key: Key,
        part: Hashable,
        how: int,
        possible: Callable[[Any], bool],
        load: Callable[[], Any],
        loose: bool = False,
    ) -> Op:
        """A blocking operation: a scheduling point if the location is shared, or if it cannot go on now."""
        op = Op(kind, (key, part, how), possible, load)
        op.loose = loose or how == ADDS
        if kind.endswith("allowed"):
            op.accesses.append((("signal", self.current), 0, READS))
        memory = self.memory
        if memory.all_visible or len(op.accesses) > 1 or (key, part) in self.shared or not possible(load()):
            if memory.record:
                op.place = place()
            self.announce(op)
        memory.touch(key, part, how, self.current)
        if key in self.dead:
            self.stale(key, kind)
        op.value = load()
        return op

    def where(self, op: Op) -> str:
        """As ``mmap_lock of mm #1``."""
        key, part, _ = op.accesses[0]
        record, dot, field = describe(key, part, self.memory).rpartition(".")  # type: ignore[arg-type]
        return f"{field} of {record}" if dot else field

    # ---- lives --------------------------------------------------------------------------------------------------

    def takers(self) -> int:
        """Among how many tasks the free slots are divided."""
        return len(self.bodies)

    def alloc(self, which: int) -> int:
        """A slot that nobody had in this execution."""
        memory = self.memory
        if which in self.limbo:
            reused = self._reuse(which)
            if reused:
                return reused
        top, capacity = memory.tops[which], int(self.machine_arena(which)["capacity"])
        quota = (capacity - top) // self.takers()
        taken = self._taken.get((which, self.current), 0)
        returned = self._returned.get((which, self.current))
        if taken >= quota and which >= layout.ARENA_PRIVATE0 and returned:
            slot = returned.pop(0)  # a strategy's own scratch records go round
            del self.dead[self.base(which), slot]
            self.count_live(which, 1)
            return slot
        if taken >= quota:
            raise OutOfRecords(
                f"a task takes more than {quota} records of {self.base(which)}: the scenario is too large"
            )
        self._taken[which, self.current] = taken + 1
        slot = int(top + self.current * quota + taken)
        self.count_live(which, 1)
        self.born[self.base(which), slot] = (self.current, self.steps)
        return slot

    def free(self, which: int, slot: int) -> None:
        """The record's life ends."""
        key = (self.base(which), slot)
        memory = self.memory
        memory.touch_free(key, self.current)
        if memory.all_visible or (key, None) in self.shared:
            op = Op("free", (key, None, WRITES))
            if memory.record:
                op.place = place()
            self.announce(op)
        if key in self.dead:
            what = record_name(key[0], memory.machine)
            raise Broken("double free", f"{self.names[self.current]} frees {what} #{slot} again", (), key)
        self.dead[key] = (self.current, self.steps)
        if memory.record and (by := chain()):  # an RCU thread has none: then it is who called kfree_rcu
            self.freed_by[key] = by
        self._returned.setdefault((which, self.current), []).append(slot)
        self.count_live(which, -1)

    def _reuse(self, which: int) -> int:
        """The slot that was freed last into a type-safe cache, if any: its next life."""
        self.access("alloc", ("type-safe slab", which), 0, WRITES)
        if not self.limbo[which]:
            return 0
        slot = self.limbo[which].pop()
        key = (self.base(which), slot)
        self._safe.discard(key)
        del self.dead[key]
        self.count_live(which, 1)
        self.born[key] = (self.current, self.steps)
        return slot

    def free_typesafe(self, which: int, slot: int) -> int:
        """Free into a cache that is type-safe by RCU: the next one who allocates gets it."""
        self.access("free, type-safe", ("type-safe slab", which), 0, WRITES)
        self.free(which, slot)
        self._returned[which, self.current].remove(slot)
        self._safe.add((self.base(which), slot))
        self.limbo[which].append(slot)
        return 0

    def end(self, base: str, index: int) -> int:
        """The life of a record that no arena hands out ends."""
        key = (base, index)
        self.memory.touch_free(key, self.current)
        if self.memory.all_visible or (key, None) in self.shared:
            op = Op("free", (key, None, WRITES))
            if self.memory.record:
                op.place = place()
            self.announce(op)
        self.dead[key] = (self.current, self.steps)
        if self.memory.record:
            self.freed_by[key] = chain()
        return 0

    def base(self, which: int) -> str:
        """The slab of arena ``which``."""
        return KEY_OF.get(which) or layout.PRIVATE_BASES[which - layout.ARENA_PRIVATE0]

    def count_live(self, which: int, change: int) -> None:
        """The records of an arena that are in use."""
        self.machine_arena(which)["live"] += change

    def fill(self, base: str, index: int, **values: int) -> None:
        """A record that nobody else knows yet begins with these."""
        record = self.memory.machine.arrays[base][index]
        for name, value in values.items():
            record[name] = value

    def machine_arena(self, which: int) -> Any:
        """The allocator's record."""
        return self.memory.machine.arrays["slab_base"][which]

    # ---- words of the checker's own: RCU, signals -----------------------------------------------------------------

    def set_word(self, kind: str, key: Key, value: Any) -> None:
        """Store to a word that no array holds."""
        op = self.access(kind, key, 0, WRITES)
        if op is not None:
            op.before, op.value = self.words.get(key), value
        self.words[key] = value

    def await_word(self, kind: str, key: Key, possible: Callable[[Any], bool]) -> None:
        """Block until ``possible(word)``."""
        self._block(kind, key, 0, READS, possible, lambda: self.words.get(key))


def column_of(ref: Any, field: str) -> int:
    """The number of a field in the record. Raises Broken if it has none of that name."""
    names: Mapping[str, Any] = ref.slab.struct.fields
    for column, name in enumerate(names):
        if name == field:
            return column
    raise Broken("crash", f"{ref.slab.name} has no field {field!r}")
