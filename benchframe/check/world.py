"""A machine's memory under the scheduler: every access of a strategy's text is announced before it happens.

Only *shared* locations are scheduling points: those that two tasks touch, one of them writing or freeing. Which they
are is learned: an execution that meets a new one says so (``Memory.learn``), and the search starts over with it. At
the end no execution has met a conflict outside the set, so nothing was hidden.

Records have lives. A freed VMA, table or page is never handed out again within an execution, so that each use of a
stale reference shows; every task allocates from slots of its own, so that allocations commute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.check.run import ADDS, READS, WRITES, Broken, Op, World
from benchframe.dialect.interp import proxy_class
from benchframe.dialect.struct import Slab
from benchframe.mm import layout
from benchframe.mm.layout import ARENA_PAGE, ARENA_TABLE, ARENA_VMA
from benchframe.mm.machine import Machine

Key = tuple[str, int]
Location = tuple[Key, Hashable]
PLAIN_SLABS = frozenset({"slab_base", "freed_base", "event_base", "answer_base", "sample_base"})
"""The model's own books: no memory that tasks share in a kernel."""
STATISTICS = frozenset({"rss", "error", "nr_ptes", "nr_anon_vmas", "nr_invalidations", "nr_splits", "nr_merges"})
"""Counters of mm_struct, atomic or per CPU in a kernel: never looked at to decide anything."""
KEY_OF = {ARENA_VMA: "vma_base", ARENA_TABLE: "page_base", ARENA_PAGE: "page_base"}
"""The slab of each arena's records; private arenas have their own."""
_HERE = str(Path(__file__).resolve().parent)
_DIALECT = str(Path(_HERE).parent / "dialect")


class OutOfRecords(Exception):
    """An execution needs more fresh records than the machine of a scenario has: nothing can be said."""


class Memory:
    """The arrays of a machine at the start of a scenario, and what was learned about them: lives through executions."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._saved = {base: array.copy() for base, array in machine.arrays.items()}
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

    def learn(self) -> bool:
        """Make what was discovered since the last call scheduling points; whether there was anything new."""
        new = self.discovered - self.shared
        self.shared |= new
        self.discovered.clear()
        return bool(new)

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
                return lambda ref, value: ref._columns[column].__setitem__(ref.index, value)
            return lambda ref, value: ref.world.write(ref, column, value)

        made = (proxy_class(slab.struct, get, put), columns, len(array))
        self.prepared[slab.base] = made
        return made


class MachineWorld(World):
    """One execution over a :class:`Memory`. The methods that the dialect's primitives call are load, store, rmw, ..."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        memory.restore()
        self.memory = memory
        self.shared = memory.shared
        self.dead: dict[Key, tuple[int, int]] = {}
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

    def ref(self, slab: Slab, index: int) -> Any:
        """The proxy for a record; IndexError outside the slab."""
        kind, columns, count = self.memory.prepared.get(slab.base) or self.memory.prepare(slab)
        if not 0 <= index < count:
            raise IndexError(f"{slab.name}({index}): no such record: a wild reference")
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
            self._stale(key, kind)
        return op

    def _stale(self, key: Key, kind: str) -> None:
        task, when = self.dead[key]
        what = {"vma_base": "VMA", "page_base": "page", "mm_base": "mm_struct"}.get(key[0], f"{key[0][:-5]} record")
        before = when < self.began.get(self.current, 0)
        file, line, function = place()
        raise Broken(
            "use after free",
            f"{self.names[self.current]}: {kind} of {what} #{key[1]}, which {self.names[task]} freed"
            f"{' before this call began' if before else ''}, in {function}",
            (f"{file}:{line}", "dangling" if before else "racing"),
            key,
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
        return before

    def load(self, ref: Any, field: str, ordering: str) -> int:
        """An ordered load."""
        return self.read(ref, _column(ref, field))

    def store(self, ref: Any, field: str, value: int, ordering: str) -> None:
        """An ordered store."""
        self.write(ref, _column(ref, field), value)

    def rmw(self, ref: Any, field: str, operation: str, value: int) -> int:
        """fetch_add or xchg."""
        how = ADDS if field == "mmap_lock" and operation == "add" and abs(value) == 1 else WRITES
        return self.write(ref, _column(ref, field), value, "add" if operation == "add" else "exchange", how)

    def cmpxchg(self, ref: Any, field: str, old: int, new: int) -> int:
        """Compare and exchange."""
        column = _column(ref, field)
        op = self.access(
            "cmpxchg", self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column), WRITES
        )
        before: int = ref._columns[column][ref.index]
        if before == old:
            ref._columns[column][ref.index] = new
        if op is not None:
            op.before, op.value = before, ref._columns[column][ref.index]
        return before

    def wait(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """wait_until and wait_interruptible: 1 if a signal ended it."""
        return self._await(ref, field, lambda seen: seen & mask == value, interruptible)

    def wait_while(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """wait_while and wait_while_interruptible: 1 if a signal ended it."""
        return self._await(ref, field, lambda seen: seen & mask != value, interruptible)

    def _await(self, ref: Any, field: str, over: Callable[[Any], bool], interruptible: bool) -> int:
        column, index = _column(ref, field), ref.index
        view = ref._columns[column]
        signal = ("signal", self.current)
        if interruptible and signal in self.words:
            words = self.words
            op = self._block(
                "wait, signals allowed",
                self.memory.key_of(ref.slab.base, index),
                self.memory.part_of(ref, column),
                READS,
                lambda seen: over(seen[0]) or seen[1],
                lambda: (view[index], words[signal]),
            )
            op.loose = True
            return int(not over(view[index]))
        self._block(
            "wait",
            self.memory.key_of(ref.slab.base, index),
            self.memory.part_of(ref, column),
            READS,
            over,
            lambda: view[index],
        )
        return 0

    def wait_then_add(self, ref: Any, field: str, mask: int, delta: int) -> int:
        """Take a lock."""
        column, index = _column(ref, field), ref.index
        view = ref._columns[column]
        how = ADDS if field == "mmap_lock" and delta == 1 else WRITES
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
        return before

    def _block(
        self,
        kind: str,
        key: Key,
        part: Hashable,
        how: int,
        possible: Callable[[Any], bool],
        load: Callable[[], Any],
    ) -> Op:
        """A blocking operation: a scheduling point if the location is shared, or if it cannot go on now."""
        op = Op(kind, (key, part, how), possible, load)
        op.loose = how == ADDS
        if kind.endswith("allowed"):
            op.accesses.append((("signal", self.current), 0, READS))
        memory = self.memory
        if memory.all_visible or len(op.accesses) > 1 or (key, part) in self.shared or not possible(load()):
            if memory.record:
                op.place = place()
            self.announce(op)
        memory.touch(key, part, how, self.current)
        if key in self.dead:
            self._stale(key, kind)
        op.value = load()
        return op

    # ---- lives --------------------------------------------------------------------------------------------------

    def alloc(self, which: int) -> int:
        """A slot that nobody had in this execution."""
        memory = self.memory
        if which in self.limbo:
            reused = self._reuse(which)
            if reused:
                return reused
        top, capacity = memory.tops[which], int(self.machine_arena(which)["capacity"])
        quota = (capacity - top) // len(self.bodies)
        taken = self._taken.get((which, self.current), 0)
        returned = self._returned.get((which, self.current))
        if taken >= quota and which >= layout.ARENA_PRIVATE0 and returned:
            slot = returned.pop(0)  # a strategy's own scratch records go round
            del self.dead[self._base(which), slot]
            self.machine_arena(which)["live"] += 1
            return slot
        if taken >= quota:
            raise OutOfRecords(
                f"a task takes more than {quota} records of {self._base(which)}: the scenario is too large"
            )
        self._taken[which, self.current] = taken + 1
        slot = int(top + self.current * quota + taken)
        self.machine_arena(which)["live"] += 1
        self.born[self._base(which), slot] = (self.current, self.steps)
        return slot

    def free(self, which: int, slot: int) -> None:
        """The record's life ends."""
        key = (self._base(which), slot)
        memory = self.memory
        memory.touch_free(key, self.current)
        if memory.all_visible or (key, None) in self.shared:
            op = Op("free", (key, None, WRITES))
            if memory.record:
                op.place = place()
            self.announce(op)
        if key in self.dead:
            raise Broken("double free", f"{self.names[self.current]} frees {key[0][:-5]} #{slot} again", (), key)
        self.dead[key] = (self.current, self.steps)
        self._returned.setdefault((which, self.current), []).append(slot)
        self.machine_arena(which)["live"] -= 1

    def _reuse(self, which: int) -> int:
        """The slot that was freed last into a type-safe cache, if any: its next life."""
        self.access("alloc", ("type-safe slab", which), 0, WRITES)
        if not self.limbo[which]:
            return 0
        slot = self.limbo[which].pop()
        key = (self._base(which), slot)
        self._safe.discard(key)
        del self.dead[key]
        self.machine_arena(which)["live"] += 1
        self.born[key] = (self.current, self.steps)
        return slot

    def free_typesafe(self, which: int, slot: int) -> int:
        """Free into a cache that is type-safe by RCU: the next one who allocates gets it."""
        self.access("free, type-safe", ("type-safe slab", which), 0, WRITES)
        self.free(which, slot)
        self._returned[which, self.current].remove(slot)
        self._safe.add((self._base(which), slot))
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
        return 0

    def _base(self, which: int) -> str:
        """The slab of arena ``which``."""
        return KEY_OF.get(which) or layout.PRIVATE_BASES[which - layout.ARENA_PRIVATE0]

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


def _column(ref: Any, field: str) -> int:
    names: Mapping[str, Any] = ref.slab.struct.fields
    for column, name in enumerate(names):
        if name == field:
            return column
    raise Broken("crash", f"{ref.slab.name} has no field {field!r}")


def place() -> tuple[str, int, str]:
    """(file, line, function) of the strategy code that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, _DIALECT)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def describe(key: Key, part: Hashable) -> str:
    """A location in words: ``vma #5.vm_start``."""
    base, index = key
    slabs = {s.base: s for s in (layout.MM, layout.VMA, layout.PAGE, layout.PTE, layout.TASK, layout.FILE)}
    if isinstance(part, tuple):
        return f"{'table' if base == 'page_base' else base[:-5]} #{index}[{part[1]}]"
    if base not in slabs:
        return f"{base} {index}"
    name = slabs[base].name.lower() + f" #{index}"
    if isinstance(part, int):
        return f"{name}.{list(slabs[base].struct.fields)[part]}"
    return name
