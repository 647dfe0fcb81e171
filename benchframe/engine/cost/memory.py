"""Where each record lies for counting: a line number that is the same in every process and on every machine.

Natively a slab begins on a page boundary, wherever that is. Here the slabs stand one behind the other in a fixed
order, each on a page boundary too, so that record ``i`` of a slab has the same place within its cache line as in the
timed run. What is memory of the model only (the stream, the answers, the allocators' books) has no place at all.

A *record* of the trace that a counted run leaves is one 64-bit integer: what happened in the high bits
(:data:`LOAD` ...), the byte address, branch or event in the low ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchframe.dialect.struct import Slab
from benchframe.mm.layout import FILE, MM, PAGE, PTE, TASK, VMA
from benchframe.mm.machine import Machine
from benchframe.strategy import Strategy

LINE = 64
"""Bytes of a cache line."""
BLOCK = 256
"""Records smaller than a line are taken together in blocks of this many bytes: a node made of words is one step."""
SHIFT = 40
"""Bits below a record's kind."""
LOAD, STORE, ATOMIC, BARRIER, BRANCH, OPERAND, EVENT, ENTER, LEAVE, COUNTED = range(10)
"""Kinds of a record. OPERAND: a further operand of ``and`` or ``or`` was evaluated. EVENT: an event begins, the low
bits are its class. ENTER, LEAVE: a hook of the lookup. COUNTED: the strategy called ``count``."""
STRUCTURES: tuple[tuple[str, Slab], ...] = (
    ("mm", MM),
    ("vma", VMA),
    ("page", PAGE),
    ("pte", PTE),
    ("task", TASK),
    ("file", FILE),
)
"""What the model's own structures are called in a cost table."""


@dataclass(frozen=True)
class Region:
    """One structure's lines: ``first`` its first line, ``count`` how many, ``step`` lines that make one step of a walk
    (a record, or a block of small ones), ``size`` bytes of a record."""

    name: str
    base: str
    first: int
    count: int
    step: int
    size: int


class Memory:
    """The counted slabs of ``machine`` with their places. O(slabs)."""

    def __init__(self, machine: Machine, strategy: Strategy) -> None:
        self.machine = machine
        slabs = [*STRUCTURES, *sorted(((s.name, s) for s in strategy.slabs), key=lambda pair: pair[1].base)]
        self.regions: list[Region] = []
        self._by_base: dict[str, Region] = {}
        first = 0
        for name, slab in slabs:
            size = slab.struct.size
            lines = -(-len(machine.arrays[slab.base]) * size // 4096) * (4096 // LINE)
            step = size // LINE if size % LINE == 0 else BLOCK // LINE
            region = Region(name, slab.base, first, lines, step, size)
            self.regions.append(region)
            self._by_base[slab.base] = region
            first += lines
        self.lines = first

    def column(self, slab: Slab, field: str) -> memoryview:
        """One field of all records, read and written in place."""
        return memoryview(self.machine.arrays[slab.base][field])  # type: ignore[arg-type]

    def counts(self, slab: Slab, field: str) -> bool:
        """Whether an access to ``field`` costs anything: not if the kernel has no such memory."""
        return slab.base in self._by_base and not slab.struct.members[field].model

    def code(self, slab: Slab, field: str, kind: int) -> tuple[int, int]:
        """(record of an access to ``field`` of record 0, what one record more adds)."""
        region = self._by_base[slab.base]
        return (kind << SHIFT) + region.first * LINE + slab.struct.offset(field), region.size

    def places(self) -> list[tuple[str, int]]:
        """(base, byte address of record 0) of each slab."""
        return [(region.base, region.first * LINE) for region in self.regions]
