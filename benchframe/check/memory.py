"""The memory of a scenario under check: arrays at its start, and which places in them tasks were seen to share.

Only *shared* locations are scheduling points: those that two tasks touch, one of them writing or freeing. Which they
are is learned: an execution that meets a new one says so (``Memory.learn``), and the search starts over with it. At
the end no execution has met a conflict outside the set, so nothing was hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from benchframe.check.run import READS
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
