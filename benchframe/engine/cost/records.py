"""The data of a counted run: records of memory accesses, the place of each line, and the sums."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.dialect.functions import CCall
from benchframe.dialect.interpreter import wrapped
from benchframe.dialect.records import DialectError, Field, Slab, Struct
from benchframe.errors import EngineError
from benchframe.mm import kmem
from benchframe.mm.layout import FILE, MM, PAGE, PTE, TASK, VMA
from benchframe.mm.machine import Machine
from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# The place of each record for counting: a line number that is the same in every process and on every machine.
#
# Natively a slab begins on a page boundary, wherever that is. Here the slabs stand one behind the other in a fixed
# order, each on a page boundary too, so that record ``i`` of a slab has the same place within its cache line as in the
# timed run. What is memory of the model only (the stream, the answers, the allocators' books) has no place at all.
#
# A *record* of the trace that a counted run leaves is one 64-bit integer: what happened in the high bits
# (:data:`LOAD` ...), the byte address, branch or event in the low ones.

LINE = 64
"""The size of a cache line in bytes."""
BLOCK = 256
"""Records smaller than a line are grouped into blocks of this many bytes: a node made of words is one step."""
SHIFT = 40
"""The number of bits below a record's kind."""
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
"""The names of the model's own structures in a cost table."""


@dataclass(frozen=True)
class Region:
    """One structure's lines: ``first`` is its first line, ``count`` how many, ``step`` how many lines make one step of
    a walk (a record, or a block of small ones), ``size`` the bytes of a record."""

    name: str
    base: str
    first: int
    count: int
    step: int
    size: int


class Memory:
    """The counted slabs of ``machine`` and their places. O(slabs)."""

    def __init__(self, machine: Machine, strategy: Strategy) -> None:
        self.machine = machine
        slabs = [*STRUCTURES, *sorted(((s.name, s) for s in strategy.slabs), key=lambda pair: pair[1].base)]
        slabs += [(kmem.NAMES[s.base], s) for s in (kmem.SLABS if machine.caches else ())]
        self.regions: list[Region] = []
        self._by_base: dict[str, Region] = {}
        self._slabs = [slab for _, slab in slabs]
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
        """One field of all records, for reading and writing in place."""
        return memoryview(self.machine.arrays[slab.base][field])  # type: ignore[arg-type]

    def counts(self, slab: Slab, field: str) -> bool:
        """Whether an access to ``field`` has a cost: not if the kernel has no such memory."""
        return slab.base in self._by_base and not slab.struct.members[field].model

    def code(self, slab: Slab, field: str, kind: int) -> tuple[int, int]:
        """(the record of an access to ``field`` of record 0, the increment per further record)."""
        region = self._by_base[slab.base]
        return (kind << SHIFT) + region.first * LINE + slab.struct.offset(field), region.size

    def slabs(self) -> list[tuple[Slab, Region]]:
        """The counted slabs, each with its lines."""
        return list(zip(self._slabs, self.regions, strict=True))

    def places(self) -> list[tuple[str, int]]:
        """(base, byte address of record 0) of each slab."""
        return [(region.base, region.first * LINE) for region in self.regions]


# ----------------------------------------------------------------------------------------------------------------------
# What rewritten text does with a column: the primitives that write, for one task.


def rmw_add(column: Any, index: int, delta: int, slab: Slab, field: str) -> int:
    """fetch_add on a column; wraps as the hardware does."""
    old: int = column[index]
    column[index] = wrapped(slab.struct, field, old + delta)
    return old


def rmw_xchg(column: Any, index: int, value: int) -> int:
    """xchg on a column."""
    old: int = column[index]
    column[index] = value
    return old


def rmw_cmpxchg(column: Any, index: int, old: int, new: int) -> int:
    """cmpxchg on a column."""
    seen: int = column[index]
    if seen == old:
        column[index] = new
    return seen


def wait_add(column: Any, index: int, mask: int, delta: int) -> int:
    """wait_then_add with one task: raises DialectError if the lock is not free."""
    old: int = column[index]
    if old & mask:
        raise DialectError(f"deadlock: waits for a lock that is {old} (mask {mask})")
    column[index] = old + delta
    return old


def store(column: Any, index: int, value: int) -> int:
    """A store as an expression."""
    column[index] = value
    return 0


FORMS = {"store": "store", "xchg": "rmw_xchg", "cmpxchg": "rmw_cmpxchg", "fetch_add": "rmw_add",
         "wait_then_add": "wait_add"}  # fmt: skip
"""Primitives that write, and the function of this module that implements each."""


# ----------------------------------------------------------------------------------------------------------------------
# C without a twin: counted.c leaves the records of a call.

RUNTIME = Path(__file__).parent / "counted.c"
C_RECORDS = 1 << 22
"""Records that one call may leave; the part not reached takes no memory."""
C_SITES = 1 << 20
"""The number of the first branch of the first C file; rewritten text has fewer."""


class _CRegion(ctypes.Structure):
    """``struct region`` of counted.c."""

    _fields_ = (*((name, ctypes.c_uint64) for name in ("begin", "end", "place", "size")), ("counted", ctypes.c_void_p))


class CCalls:
    """Calls of C functions, with the records of their accesses and branches; ``append`` takes them.

    Each C file is compiled a second time for it (:meth:`benchframe.cstrategy.CSource.counted`), and has its own
    variables here, which must not matter to the compiled functions that run in between: what lasts is in slabs.
    """

    def __init__(self, memory: Memory, append: Callable[[int], None]) -> None:
        self._memory, self._append = memory, append
        self._libraries: dict[Any, ctypes.CDLL] = {}
        self._functions: dict[CCall, Callable[..., int]] = {}

    def function(self, call: CCall) -> Callable[..., int]:
        """A function that makes the call; its first argument is the index of an mm. Raises DialectError if the file
        cannot be compiled for counting; when called EngineError if it leaves too many records."""
        if call not in self._functions:
            if call.source not in self._libraries:
                self._libraries[call.source] = self._library(call)
            self._functions[call] = self._counted(call, self._libraries[call.source])
        return self._functions[call]

    def _library(self, call: CCall) -> ctypes.CDLL:
        kinds = {"LOAD": LOAD, "STORE": STORE, "ATOMIC": ATOMIC, "BARRIER": BARRIER, "BRANCH": BRANCH, "SHIFT": SHIFT}
        library: ctypes.CDLL = call.source.counted(RUNTIME, [f"-D{name}={value}" for name, value in kinds.items()])
        slabs = self._memory.slabs()
        bases = self._memory.machine.arrays  # a slab's base address: rewritten text does not load it
        regions = (_CRegion * len(slabs))()
        fields = []
        for one, (slab, region) in zip(regions, slabs, strict=True):
            array = self._memory.machine.arrays[slab.base]
            counted = np.zeros(slab.struct.size, np.uint8)
            for name, (offset, _) in slab.struct.fields.items():
                counted[offset] = self._memory.counts(slab, name) and name not in bases
            one.begin, one.end = array.ctypes.data, array.ctypes.data + array.nbytes
            one.place, one.size, one.counted = region.first * LINE, region.size, counted.ctypes.data
            fields.append(counted)
        records = np.empty(C_RECORDS, np.int64)
        library.counted_records.restype = ctypes.c_int64
        library.counted_memory.restype = library.counted_begin.restype = None
        library.counted_memory(
            regions, ctypes.c_int64(len(regions)), ctypes.c_void_p(records.ctypes.data), ctypes.c_int64(C_RECORDS),
            ctypes.c_int64(C_SITES * (1 + len(self._libraries))),
        )  # fmt: skip
        library.left, library.kept = records, (regions, fields)  # type: ignore[attr-defined]
        return library

    def _counted(self, call: CCall, library: ctypes.CDLL) -> Callable[..., int]:
        function = getattr(library, call.source.symbol(call.name))
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_int64] * call.arity
        first, size = self._memory.machine.arrays[MM.base].ctypes.data, MM.struct.size
        records: Any = library.left
        begin, number, append = library.counted_begin, library.counted_records, self._append

        def counted(mm: int, *arguments: int) -> int:
            begin()
            result = int(function(first + mm * size, *arguments))
            left = number()
            if not 0 <= left <= C_RECORDS:
                raise EngineError(f"one call of {call.name}() leaves too many records: it cannot be counted")
            for record in records[:left].tolist():
                append(record)
            return result

        return counted


# ----------------------------------------------------------------------------------------------------------------------
# The memory for the sums of a counted run: constants, structs and slabs. One task writes it, so there are no locks.
#
# :mod:`benchframe.engine.cost.sums` adds up in it, :mod:`benchframe.engine.cost.sums` makes it and reads it.

LOW = (1 << SHIFT) - 1
LINE_SHIFT = LINE.bit_length() - 1
IN_LOOKUP, WRITTEN, WRITTEN_IN_LOOKUP, FAR_L1, FAR_L2 = 1, 2, 4, 8, 16
"""How an operation touched a line; and whether a first- or second-level cache has probably lost the line."""
LOOKUP, FAULT, MAPPING, HIT = range(4)
"""The views, in the order of tally.VIEWS."""
KINDS = 11
"""Kinds of records, and MISPREDICTED."""
MISPREDICTED = 10
SUMS = 64
"""The words of a view in SUM: those below, then the lines of each region."""
(N, LOADS, STORES, ATOMICS, BARRIERS, BRANCHES, WRONG, LINES, STEPS, DIRTY, FAR1, FAR1_N, FAR2, FAR2_N, REGIONS) = (
    range(15)
)
PARTS = 8
"""Classes of reuse distances per power of two."""
HOOKS = 16
"""The words of HOOK: how often a strategy counted each COUNT_*."""

summing = Struct(
    "summing",
    [
        Field("record_base", "i8", "slab RECORD: the batch", lock="constant"),
        Field("seen_base", "i8", "slab SEEN, a record per line", lock="constant"),
        Field("sharing_base", "i8", "slab SHARING: of lookups a record per line, then of faults", lock="constant"),
        Field("touch_base", "i8", "slab TOUCH: distinct lines of the operation", lock="constant"),
        Field("region_base", "i8", "slab REGION", lock="constant"),
        Field("operation_base", "i8", "slab OPERATION: one per event of the batch", lock="constant"),
        Field(
            "now_base",
            "i8",
            "slab NOW: records of the operation by kind, outside and inside its lookup",
            lock="constant",
        ),
        Field("sum_base", "i8", "slab SUM", lock="constant"),
        Field("hook_base", "i8", "slab HOOK", lock="constant"),
        Field("reuse_base", "i8", "slab REUSE: reuse times by class", lock="constant"),
        Field("entry_base", "i8", "slab ENTRY of the predictor", lock="constant"),
        ("recent", "i8", "the predictor's history"),
        ("older", "i8", "likewise"),
        Field("lines", "i8", "lines of memory", lock="constant"),
        ("clock", "i8", "lines touched so far by all operations, and 1"),
        ("began", "i8", "the clock when the window began"),
        ("time_l1", "i8", "touches that a first-level cache remembers"),
        ("time_l2", "i8", "touches that a second-level cache remembers"),
        ("operations", "i8", "operations begun in this batch"),
        ("serial", "i8", "operations begun so far"),
        ("touched", "i8", "records of TOUCH in use"),
        ("latest", "i8", "the record of TOUCH used last"),
        ("kind", "i8", "class of the operation"),
        ("depth", "i8", "hooks of the lookup entered and not left"),
        ("hit", "i8", "1 if the cache answered"),
        ("shared_lookup", "i8", "writes of lookups to lines that other lookups touch"),
        ("shared_fault", "i8", "writes of faults likewise"),
        ("between_lookup", "i8", "writes of lookups to lines that other tasks' lookups touch"),
        ("between_fault", "i8", "writes of faults likewise"),
    ],
)
word = Struct("word", [("value", "i8", "the word")])
seen = Struct(
    "seen",
    [
        ("when", "i8", "the clock when it was touched last; 0 = never"),
        ("serial", "i8", "the operation that touched it last"),
        ("slot", "i8", "where it is in that one's TOUCH"),
    ],
)
sharing = Struct(
    "sharing",
    [
        ("touches", "i4", "operations that touched it"),
        ("writes", "i4", "operations that wrote it"),
        ("toucher", "i4", "task + 1 of the first that touched it; -1 once there was another"),
        ("unused", "i4", "pads"),
    ],
)
touch = Struct("touch", [("line", "i8", "the line"), ("how", "i8", "IN_LOOKUP ...")])
region = Struct(
    "region",
    [
        ("first", "i8", "its first line"),
        ("step", "i8", "lines that make one step of a walk"),
        ("walked", "i8", "1 if it counts as a step at all"),
        ("own", "i8", "1 for the task's own record, which nobody else reads"),
    ],
)
operation = Struct(
    "operation",
    [
        ("task", "i8", "who runs it"),
        ("kind", "i8", "CLASS_*"),
        ("hit", "i8", "1 if the cache answered"),
        ("loads", "i8", "all loads"),
        ("lookup_loads", "i8", "those of its lookup"),
        ("lines", "i8", "all distinct lines"),
        ("lookup_lines", "i8", "those of its lookup"),
        ("unused", "i8", "pads"),
    ],
)
RECORD = Slab("RECORD", word, "record_base", first=0)
SEEN = Slab("SEEN", seen, "seen_base", first=0)
SHARING = Slab("SHARING", sharing, "sharing_base", first=0)
TOUCH = Slab("TOUCH", touch, "touch_base", first=0)
REGION = Slab("REGION", region, "region_base", first=0)
OPERATION = Slab("OPERATION", operation, "operation_base", first=0)
NOW = Slab("NOW", word, "now_base", first=0)
SUM = Slab("SUM", word, "sum_base", first=0)
HOOK = Slab("HOOK", word, "hook_base", first=0)
REUSE = Slab("REUSE", word, "reuse_base", first=0)
