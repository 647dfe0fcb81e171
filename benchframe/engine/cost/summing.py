"""The memory that the sums of a counted run are made in: constants, structs and slabs. One task writes it, no locks.

:mod:`benchframe.engine.cost.sums` adds up in it, :mod:`benchframe.engine.cost.tally` makes it and reads it.
"""

from __future__ import annotations

from benchframe.dialect import Field, Slab, Struct
from benchframe.engine.cost.memory import LINE, SHIFT

LOW = (1 << SHIFT) - 1
LINE_SHIFT = LINE.bit_length() - 1
IN_LOOKUP, WRITTEN, WRITTEN_IN_LOOKUP, FAR_L1, FAR_L2 = 1, 2, 4, 8, 16
"""How an operation touched a line; a line that a first- or second-level cache is likely to have lost."""
LOOKUP, FAULT, MAPPING, HIT = range(4)
"""The views, in the order of tally.VIEWS."""
KINDS = 11
"""Kinds of records, and MISPREDICTED."""
MISPREDICTED = 10
SUMS = 64
"""Words of a view in SUM: those below, then the lines of each region."""
(N, LOADS, STORES, ATOMICS, BARRIERS, BRANCHES, WRONG, LINES, STEPS, DIRTY, FAR1, FAR1_N, FAR2, FAR2_N, REGIONS) = (
    range(15)
)
PARTS = 8
"""Classes of reuse times per power of two."""
HOOKS = 16
"""Words of HOOK: how often a strategy counted each COUNT_*."""

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
RECORD = Slab("RECORD", word, "record_base")
SEEN = Slab("SEEN", seen, "seen_base")
SHARING = Slab("SHARING", sharing, "sharing_base")
TOUCH = Slab("TOUCH", touch, "touch_base")
REGION = Slab("REGION", region, "region_base")
OPERATION = Slab("OPERATION", operation, "operation_base")
NOW = Slab("NOW", word, "now_base")
SUM = Slab("SUM", word, "sum_base")
HOOK = Slab("HOOK", word, "hook_base")
REUSE = Slab("REUSE", word, "reuse_base")
