"""The events that a trace consists of: the ordered events of an address space, as columns and as native records.

A trace is a table (see docs/trace-format.md); each row is one event. In memory the engines read it as a
NumPy array of :data:`EVENT` (64 bytes a row). All integers are signed; "none" is :data:`NIL` (-1).

=============  ====================================================================================
column         meaning (by kind where it differs)
=============  ====================================================================================
``time``       ns since the recording began, never decreasing (table only)
``tid``        thread id as recorded (table only); ``task`` is its dense index from 0 in order of appearance
``mm``         dense index of the address space, 0 first
``kind``       a :class:`Kind`
``addr``       address; for MMAP the hint that the program passed; for FORK the child's ``mm``
``len``        bytes; MREMAP: old length; FORK and THREAD: the new ``task``; WALK: VMAs inside [addr, addr + len) do not
               count for the answer, because other tasks change them meanwhile
``prot``       PROT_* bits; FAULT and LOOKUP: what the access wanted (1 read, 2 write, 4 execute; 0 unknown)
``flags``      MAP_* for MAP and MMAP, MREMAP_* for MREMAP, advice for MADVISE, FaultFlag for FAULT
``offset``     file offset in bytes (MAP, MMAP); MREMAP: the new address argument
``new_len``    MREMAP: new length; WALK: VMAs that one read(2) returns, 0 for all (1: PROCMAP_QUERY); else 0
``file``       index in the trace's file table, NIL for anonymous
``ret``        what the kernel returned: an address, 0, -errno, or UNKNOWN if it was not recorded; of a WALK always
               UNKNOWN: docs/trace-format.md says what a replay answers
=============  ====================================================================================
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

NIL = -1
UNKNOWN = -(1 << 62)
"""``ret`` of an event whose result was not recorded, as in a synthetic stream: the model decides."""


class Kind(IntEnum):
    """What happened. The numbers are part of the file format and never change."""

    EXEC = 0  # the mm starts empty; addr = start_brk if known, else NIL
    MAP = 1  # a mapping that the kernel made itself: program image, [stack], [vdso]
    MMAP = 2
    MUNMAP = 3
    MPROTECT = 4
    MREMAP = 5
    BRK = 6  # addr = the argument; ret = the new break
    MADVISE = 7
    MLOCK = 8
    MUNLOCK = 9
    FAULT = 10  # a page fault: one lookup, then the fault's work
    LOOKUP = 11  # a find_vma that is not a fault's (futex, GUP, mmap's hint...)
    FORK = 12  # a new mm, copied: addr = its index, len = its first task
    THREAD = 13  # a new task in this mm: len = its index
    EXIT = 14  # a task ends; the last one of an mm ends the mm
    RLIMIT = 15  # from here on RLIMIT_STACK is len bytes (setrlimit; an exec under another limit than the trace's)
    ATTR = 16  # what merges compare changes in [addr, addr + len): flags is an Attr, prot its value (0 none)
    WALK = 17  # all VMAs are read in the order of addresses, as /proc/PID/maps does; not the answer: [addr, addr + len)


CALLS = (
    *(Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.BRK, Kind.MADVISE, Kind.MLOCK, Kind.MUNLOCK),
    Kind.ATTR,
)
"""System calls: the kernel may refuse them, and ``ret`` tells whether it did."""


LIFE = (Kind.EXEC, Kind.FORK, Kind.THREAD, Kind.EXIT)
"""Events that begin or end address spaces and tasks. They return nothing that could be compared."""


class FaultFlag(IntFlag):
    """``flags`` of a FAULT."""

    USER = 1  # raised in user mode
    PRESENT = 2  # x86 error code bit 0: the entry was present (protection or copy-on-write)
    SEGV = 4  # the program got a SIGSEGV (or SIGBUS) for it


class Attr(IntEnum):
    """``flags`` of an ATTR: which attribute of the VMAs changes (vma_modify_policy and similar functions, mm/vma.c)."""

    SEAL = 1  # mseal
    USERFAULTFD = 2  # registered with the userfaultfd of number prot
    POLICY = 3  # mbind: equal numbers are equal policies
    NAME = 4  # prctl(PR_SET_VMA_ANON_NAME)


class MapType(IntFlag):
    """Extra ``flags`` of a MAP event, above the MAP_* bits that mmap(2) knows."""

    STACK = 1 << 24  # VM_GROWSDOWN | VM_ACCOUNT: the main stack
    SPECIAL = 1 << 25  # vdso, vvar: VM_SPECIAL, never merges
    HEAP = 1 << 26  # start_brk is this mapping's start


EVENT = np.dtype(
    [
        ("addr", "i8"),
        ("len", "i8"),
        ("offset", "i8"),
        ("new_len", "i8"),
        ("ret", "i8"),
        ("kind", "i4"),
        ("task", "i4"),
        ("mm", "i4"),
        ("prot", "i4"),
        ("flags", "i4"),
        ("file", "i4"),
    ],
    align=True,
)
"""One event as the engines read it: 64 bytes, one cache line."""

assert EVENT.itemsize == 64

REPORT = np.dtype([("row", "i8"), ("vm_start", "i8"), ("vm_end", "i8")])
"""The VMA that the kernel reported right after the event at ``row`` (perf's MMAP2 record); replays are compared with
it."""


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a trace file; ``row`` is the index of the first. Arrays as in
    :class:`~benchframe.trace.trace.Trace`."""

    row: int
    events: npt.NDArray[np.void]
    time: npt.NDArray[np.int64]
    tid: npt.NDArray[np.int32]
    reports: npt.NDArray[np.void]
