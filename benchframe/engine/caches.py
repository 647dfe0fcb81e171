"""Caches as a program leaves them: what is touched between two events, and the machine's cache sizes.

A replay in a loop finds the model in the first cache. A page fault does not: before it, a program ran. So a replay can
touch other memory before each event (:class:`Caches`), as much as empties a level, or as much as a program touches
between two faults. The sizes come from sysfs. :func:`known_lines` shows that the touching does what it should.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchframe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy.typing as npt

# ----------------------------------------------------------------------------------------------------------------------
# What the user asks for: a level in which lookups find the model's lines, or a footprint.

WARM, L2, LLC, MEMORY, PROGRAM = "warm", "l2", "llc", "memory", "program"
LEVELS = (WARM, L2, LLC, MEMORY, PROGRAM)
LINE = 64
"""Bytes of a cache line on every machine that the dialect compiles for."""
PAGE = 4096
FOOTPRINT = 40 << 10
"""Bytes that a program touches between two page faults, unless the user says otherwise; docs/caches.md has the
estimate."""
MOST = 1 << 30
"""The largest footprint."""
TWICE = 2
"""A level is emptied by reading twice its size: a cache may choose another victim than the oldest line."""
SYSFS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Caches:
    """The state in which an event finds the processor's caches: ``level`` is one of LEVELS, ``touched`` the bytes of
    other memory read before each event (0: warm)."""

    level: str = WARM
    touched: int = 0

    @property
    def warm(self) -> bool:
        """Whether nothing is touched: the usual replay."""
        return self.level == WARM

    def __str__(self) -> str:
        """As a run's manifest stores it: ``llc=1048576``; empty for warm."""
        return "" if self.warm else f"{self.level}={self.touched}"

    @property
    def label(self) -> str:
        """As a table's row names it: the level, for a footprint other than the usual one with its size.

        >>> Caches("llc", 1 << 20).label, Caches("program", 64 << 10).label
        ('llc', 'program=64K')
        """
        declared = self.level == PROGRAM and self.touched != FOOTPRINT
        return f"{self.level}={size_text(self.touched)}" if declared else self.level

    def says(self) -> str:
        """What it means, for a note below a table."""
        read = f"{size_text(self.touched, 'iB')} of other memory are read"
        if self.level == L2:
            return f"before each timed event {read}, so lookups find their lines in L2"
        if self.level == LLC:
            return f"before each timed event {read}, so lookups find their lines in the last-level cache"
        if self.level == MEMORY:
            flushed = "the model's lines are flushed"
            return f"before each timed event {flushed} and {read}, so lookups find their lines in memory"
        if self.level == PROGRAM:
            own = ", an estimate of what a program touches between two faults (docs/caches.md)"
            return f"before each timed event {read}, half of them new{own if self.touched == FOOTPRINT else ''}"
        return "nothing is touched between two events"


UNTOUCHED = Caches()
"""Warm caches."""
USUAL = Caches(PROGRAM, FOOTPRINT)
"""As after a program's work, with the usual footprint: the state of the column beside a warm run's figures."""


def from_text(text: str) -> Caches:
    """What ``str`` made. Raises ValueError for anything else."""
    if not text:
        return Caches()
    level, _, number = text.partition("=")
    if level not in LEVELS[1:] or not number.isdecimal() or not 0 < int(number) <= 2 * MOST:
        raise ValueError(f"not a state of caches: {text[:80]!r}")
    return Caches(level, int(number))


def size_text(size: int, end: str = "") -> str:
    """Bytes in the largest unit that divides them.

    >>> size_text(98304), size_text(1 << 20, "iB"), size_text(100), size_text(100, "iB")
    ('96K', '1 MiB', '100', '100 bytes')
    """
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}{end}" if end else f"{size >> shift}{unit}"
    return f"{size} bytes" if end else str(size)


def footprint(text: str) -> int:
    """Bytes of ``64K``, ``1M``, ``96KiB`` or a plain number. Raises UsageError.

    >>> footprint("96K"), footprint("1MiB"), footprint("4096")
    (98304, 1048576, 4096)
    """
    match = re.fullmatch(r"(\d{1,12})\s*(?:([kKMG])(?:i?B)?|B?)", text.strip())
    size = int(match[1]) << {"k": 10, "K": 10, "M": 20, "G": 30}.get(match[2] or "", 0) if match else 0
    if not LINE <= size <= MOST:
        limits = f"from {LINE} to {size_text(MOST, 'iB')}"
        raise UsageError(f"--caches program={text}: give the bytes that a program touches {limits}, as in program=64K")
    return size


def parse(text: str | None, cpu: int = -1, caches: Sequence[Cache] | None = None) -> list[Caches]:
    """The states that ``--caches`` names: a list with commas; without the option, warm alone. ``caches`` are those of
    the processor; without them, those of ``cpu`` of this machine (-1: any). Raises UsageError, also for what cannot be
    done with them."""
    if text is None:
        return [Caches()]
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"--caches is empty; give one or several of {', '.join(LEVELS)}")
    found = []
    for word in words:
        name, equals, size = word.partition("=")
        if name not in LEVELS:
            raise UsageError(f"--caches {word}: {did_you_mean(name, LEVELS)}")
        if equals and name != PROGRAM:
            raise UsageError(f"--caches {word}: only program takes a footprint, as in program=64K")
        found.append(
            Caches(PROGRAM, footprint(size) if equals else FOOTPRINT) if name == PROGRAM else state(name, cpu, caches)
        )
    return list(dict.fromkeys(found))


# ----------------------------------------------------------------------------------------------------------------------
# The machine's caches, as Linux describes them.


@dataclass(frozen=True)
class Cache:
    """One cache for data: ``size`` in bytes; ``cpus`` share it; a set has ``ways`` lines."""

    level: int
    size: int
    cpus: int
    ways: int = 8


def cpu_caches(cpu: int = -1, root: Path = SYSFS) -> list[Cache]:
    """The data and unified caches of ``cpu`` (-1: the first that this process may use), from the first level on; empty
    where sysfs does not tell them."""
    number = cpu if cpu >= 0 else min(os.sched_getaffinity(0), default=0)
    found = []
    for folder in sorted((root / f"cpu{number}" / "cache").glob("index*")):
        try:
            kind, level, size, shared = (
                (folder / name).read_text(encoding="ascii").strip()
                for name in ("type", "level", "size", "shared_cpu_list")
            )
            match = re.fullmatch(r"(\d{1,9})([KM]?)", size)
            if kind in ("Data", "Unified") and match:
                size_ = int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]
                found.append(Cache(int(level), size_, _count(shared), _ways(folder)))
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda cache: cache.level)


def _ways(folder: Path) -> int:
    """A cache's lines of a set, 8 where it is not told."""
    try:
        return int((folder / "ways_of_associativity").read_text(encoding="ascii")) or 8
    except (OSError, ValueError):
        return 8


def _count(cpus: str) -> int:
    """The number of CPUs in a list such as ``0-3,8``.

    >>> _count("0-3,8")
    5
    """
    pairs = (part.partition("-") for part in cpus.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in pairs)


def state(level: str, cpu: int = -1, caches: Sequence[Cache] | None = None) -> Caches:
    """How to bring about ``level`` on this machine. Raises UsageError if it cannot be done."""
    if level == WARM:
        return Caches()
    caches = cpu_caches(cpu) if caches is None else caches
    sizes = {cache.level: cache.size for cache in caches}
    if not {1, 2} <= set(sizes):
        raise UsageError(
            f"--caches {level}: this machine does not tell the sizes of its caches ({SYSFS}/cpu*/cache); "
            "--caches program=FOOTPRINT needs no size"
        )
    if level == L2:
        if sizes[2] < 2 * TWICE * sizes[1]:
            raise UsageError("--caches l2: this machine's L2 is too small to keep the model while L1 is emptied")
        return Caches(L2, TWICE * sizes[1])
    if level == LLC and max(sizes) < 3:
        raise UsageError("--caches llc: this machine has no cache behind L2; use --caches memory")
    if level == MEMORY and not flushes():
        raise UsageError("--caches memory: benchframe knows no instruction that flushes a line on this processor")
    return Caches(level, TWICE * sizes[2])


def doubts(states: Sequence[Caches], cpu: int = -1) -> list[str]:
    """What this machine cannot guarantee for ``states``, one line each."""
    last = (cpu_caches(cpu) or [Cache(0, 0, 1)])[-1]
    guest = " hypervisor" in _cpuinfo()
    if not guest or all(one.level != LLC for one in states):
        return []
    size = size_text(last.size, "iB")
    others = "may be shared with other guests, which then push lines out to memory"
    return [f"@llc: the last-level cache ({size}, as this virtual machine is told) {others} (selftest --caches llc)."]


def _cpuinfo() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


# ----------------------------------------------------------------------------------------------------------------------
# The code that touches: a few loops in LLVM's own language, since the dialect has no addresses and no flush.

_FLUSH = {
    "x86_64": "call void @llvm.x86.sse2.clflush(ptr %line)",
    "aarch64": 'call void asm sideeffect "dc civac, $0", "r,~{memory}"(ptr %line)',
}
_FENCE = {
    "x86_64": "call void @llvm.x86.sse2.mfence()",
    "aarch64": 'call void asm sideeffect "dsb ish", "~{memory}"()',
}
_TEXT = """
declare void @llvm.x86.sse2.clflush(ptr)
declare void @llvm.x86.sse2.mfence()
declare void @llvm.x86.sse2.lfence()
declare i64 @llvm.readcyclecounter()

define i64 @touch(ptr %at, i64 %lines) {{
entry:
  %none = icmp eq i64 %lines, 0
  br i1 %none, label %out, label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k1, %next ]
  %sum = phi i64 [ 0, %entry ], [ %sum1, %next ]
  %offset = shl i64 %k, 6
  %line = getelementptr i8, ptr %at, i64 %offset
  %word = load volatile i64, ptr %line
  %sum1 = add i64 %sum, %word
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %lines
  br i1 %more, label %next, label %out
out:
  %result = phi i64 [ 0, %entry ], [ %sum1, %next ]
  ret i64 %result
}}

define i64 @flush(ptr %list, i64 %lines) {{
entry:
  %none = icmp eq i64 %lines, 0
  br i1 %none, label %out, label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k1, %next ]
  %at = getelementptr i64, ptr %list, i64 %k
  %address = load i64, ptr %at
  %line = inttoptr i64 %address to ptr
  {flush}
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %lines
  br i1 %more, label %next, label %out
out:
  {fence}
  ret i64 %lines
}}

define i64 @spin(i64 %rounds) {{
entry:
  {order}
  %began = call i64 @llvm.readcyclecounter()
  {order}
  br label %next
next:
  %a = phi i64 [ 1, %entry ], [ %a6, %next ]
  %b = phi i64 [ 3, %entry ], [ %b6, %next ]
  %c = phi i64 [ 5, %entry ], [ %c6, %next ]
  %d = phi i64 [ 7, %entry ], [ %d6, %next ]
  %k = phi i64 [ 0, %entry ], [ %k1, %next ]
  %a1 = shl i64 %a, 13
  %a2 = xor i64 %a, %a1
  %b1 = shl i64 %b, 13
  %b2 = xor i64 %b, %b1
  %c1 = shl i64 %c, 13
  %c2 = xor i64 %c, %c1
  %d1 = shl i64 %d, 13
  %d2 = xor i64 %d, %d1
  %a3 = lshr i64 %a2, 7
  %a4 = xor i64 %a2, %a3
  %b3 = lshr i64 %b2, 7
  %b4 = xor i64 %b2, %b3
  %c3 = lshr i64 %c2, 7
  %c4 = xor i64 %c2, %c3
  %d3 = lshr i64 %d2, 7
  %d4 = xor i64 %d2, %d3
  %a5 = shl i64 %a4, 17
  %a6 = xor i64 %a4, %a5
  %b5 = shl i64 %b4, 17
  %b6 = xor i64 %b4, %b5
  %c5 = shl i64 %c4, 17
  %c6 = xor i64 %c4, %c5
  %d5 = shl i64 %d4, 17
  %d6 = xor i64 %d4, %d5
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %rounds
  br i1 %more, label %next, label %out
out:
  {order}
  %ended = call i64 @llvm.readcyclecounter()
  {order}
  %ab = or i64 %a6, %b6
  %cd = or i64 %c6, %d6
  %all = or i64 %ab, %cd
  %never = icmp eq i64 %all, 0
  %took = sub i64 %ended, %began
  %told = select i1 %never, i64 -1, i64 %took
  ret i64 %told
}}

define i64 @replay(ptr %run, ptr %root, ptr %clocks, ptr %plan, i64 %events,
                   ptr %memory, i64 %lines, i64 %step, i64 %last, i64 %from, ptr %list, i64 %flushed) {{
entry:
  %none = icmp eq i64 %events, 0
  br i1 %none, label %out, label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k1, %timed ]
  %offset = phi i64 [ %from, %entry ], [ %offset1, %timed ]
  %row = mul i64 %k, 7
  %p0 = getelementptr i64, ptr %plan, i64 %row
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %p3 = getelementptr i64, ptr %p0, i64 3
  %p4 = getelementptr i64, ptr %p0, i64 4
  %p5 = getelementptr i64, ptr %p0, i64 5
  %p6 = getelementptr i64, ptr %p0, i64 6
  %first = load i64, ptr %p0
  %index = load i64, ptr %p1
  %between = icmp slt i64 %first, %index
  br i1 %between, label %untimed, label %prepare
untimed:
  %answered = call i64 %run(ptr %root, i64 %first, i64 %index)
  br label %prepare
prepare:
  %c1 = getelementptr i64, ptr %clocks, i64 1
  %c2 = getelementptr i64, ptr %clocks, i64 2
  store i64 0, ptr %clocks
  store i64 0, ptr %c1
  store i64 0, ptr %c2
  %a = load ptr, ptr %p2
  %b = load ptr, ptr %p3
  %c = load ptr, ptr %p4
  %gone = call i64 @flush(ptr %list, i64 %flushed)
  %at = getelementptr i8, ptr %memory, i64 %offset
  %touched = call i64 @touch(ptr %at, i64 %lines)
  %spun = call i64 @spin(i64 {spins})
  store i64 %spun, ptr %p6
  %a0 = load volatile i64, ptr %a
  %behind = getelementptr i8, ptr %a, i64 64
  %a1 = load volatile i64, ptr %behind
  %b0 = load volatile i64, ptr %b
  %c0 = load volatile i64, ptr %c
  br label %timed
timed:
  %stop = add i64 %index, 1
  %result = call i64 %run(ptr %root, i64 %index, i64 %stop)
  %t0 = load i64, ptr %clocks
  %t1 = load i64, ptr %c1
  %t2 = load i64, ptr %c2
  %t01 = add i64 %t0, %t1
  %t = add i64 %t01, %t2
  store i64 %t, ptr %p5
  %ahead = add i64 %offset, %step
  %fits = icmp sle i64 %ahead, %last
  %offset1 = select i1 %fits, i64 %ahead, i64 0
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %events
  br i1 %more, label %next, label %out
out:
  %end = phi i64 [ %from, %entry ], [ %offset1, %timed ]
  ret i64 %end
}}

define i64 @chase(ptr %state, i64 %steps) {{
entry:
  %start = load ptr, ptr %state
  {order}
  %began = call i64 @llvm.readcyclecounter()
  {order}
  %none = icmp eq i64 %steps, 0
  br i1 %none, label %out, label %next
next:
  %p = phi ptr [ %start, %entry ], [ %p1, %next ]
  %k = phi i64 [ 0, %entry ], [ %k1, %next ]
  %p1 = load volatile ptr, ptr %p
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, %steps
  br i1 %more, label %next, label %out
out:
  %last = phi ptr [ %start, %entry ], [ %p1, %next ]
  {order}
  %ended = call i64 @llvm.readcyclecounter()
  {order}
  store ptr %last, ptr %state
  %took = sub i64 %ended, %began
  ret i64 %took
}}

define i64 @walk(ptr %root, i64 %first, i64 %last) {{
  %again = getelementptr i64, ptr %root, i64 1
  %from = load ptr, ptr %again
  store ptr %from, ptr %root
  %count = getelementptr i64, ptr %root, i64 2
  %steps = load i64, ptr %count
  %took = call i64 @chase(ptr %root, i64 %steps)
  %clock = getelementptr i64, ptr %root, i64 3
  %before = load i64, ptr %clock
  %after = add i64 %before, %took
  store i64 %after, ptr %clock
  ret i64 0
}}
"""
_library: Any = None


def architecture() -> str:
    """The first part of the host's triple, as LLVM names it."""
    from llvmlite import binding as llvm

    return str(llvm.get_default_triple()).partition("-")[0]


def flushes() -> bool:
    """Whether a line can be flushed to memory on this processor."""
    return architecture() in _FLUSH


class Toucher:
    """Other memory, and the code that replays a stream and reads that memory before each timed event.

    For a level the same memory is read each time. For a footprint the memory read moves on by half of it from event to
    event, at least by a page, since a fault means that a program has touched a page for the first time.
    """

    PLAN = ("first", "index", "mm", "cursor", "answer", "cycles", "control")
    """The columns of a plan, int64: events from ``first`` on are replayed as they are, the one at ``index`` is timed.
    What a kernel does not have is read before it, so that no event waits for it: the addresses of slabs in the first
    two lines of the mm_struct at ``mm``, and the words at ``cursor`` and ``answer``. ``cycles`` is filled in, and
    ``control``: the cycles of a loop without memory right before the event, the same for all. It is longer when
    something else uses the core."""

    def __init__(self, caches: Caches) -> None:
        import ctypes

        import numpy as np

        from benchframe.mm.machine import carve

        self.caches = caches
        self._lines = -(-caches.touched // LINE)
        touched = self._lines * LINE
        self._step = max(PAGE, touched // 2 // PAGE * PAGE) if caches.level == PROGRAM else 0
        room = max(ROOM, 2 * touched) if self._step else touched
        (self._memory,) = carve([(room // 8 + 8, np.dtype(np.int64))], huge=True)
        self._memory[:] = 1  # memory that was never written is one page of zeros, and a single one in the caches
        self._last, self._offset = room - touched, 0
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        kinds = (pointer, pointer, pointer, pointer, word, pointer, word, word, word, word, pointer, word)
        self._replay = ctypes.CFUNCTYPE(word, *kinds)(_code()["replay"])
        self._touch = ctypes.CFUNCTYPE(word, pointer, word)(_code()["touch"])
        self._flush = ctypes.CFUNCTYPE(word, pointer, word)(_code()["flush"])

    def replay(self, run: int, root: int, clocks: int, plan: npt.NDArray[Any], flushed: npt.NDArray[Any]) -> None:
        """Carry out ``plan`` (see PLAN) by ``run(root, first, last)``, which adds cycles to the three words at
        ``clocks``. Before each timed event the lines at the addresses ``flushed`` are written back to memory and
        dropped from all caches, and then other memory is read."""
        assert plan.flags.c_contiguous
        assert plan.shape[1] == len(self.PLAN)
        where = self._memory.ctypes.data, self._lines, self._step, self._last, self._offset
        lists = plan.ctypes.data, len(plan)
        self._offset = self._replay(run, root, clocks, *lists, *where, flushed.ctypes.data, len(flushed))

    def touch(self) -> None:
        """Read the other memory once, as before an event."""
        self._touch(self._memory.ctypes.data + self._offset, self._lines)

    def flush(self, lines: npt.NDArray[Any]) -> None:
        """Write the lines at these addresses (int64) back to memory, and drop them from all caches."""
        self._flush(lines.ctypes.data, len(lines))


SPARSE = 16
"""A ring has every so many lines of its memory: a processor that fetches a line's neighbour too must not help."""


class Ring:
    """Lines spread over ``size`` bytes, each with the address of the next, in random order; the last leads to the
    first. Some of them are also chained to ``counts`` short chains (at most seven), in other words of the lines. The
    lines are SPARSE apart; or, if they are ``alone``, each is in a page of its own, at a random place of it, so that
    nothing fetched for its neighbourhood has another. O(size)."""

    def __init__(self, size: int, counts: Sequence[int] = (), seed: int = 0, alone: bool = False) -> None:
        import ctypes

        import numpy as np

        from benchframe.mm.machine import carve

        apart = PAGE // LINE if alone else SPARSE
        words, number = LINE // 8, size // (apart * LINE)
        (memory,) = carve([(size // 8, np.dtype(np.int64))], huge=True)
        self._memory = memory
        rng = np.random.default_rng(seed)
        order = rng.permutation(number)
        first = order * apart * words
        if alone:
            first += rng.integers(apart, size=number) * words
        self.lines: npt.NDArray[Any] = memory.ctypes.data + first * 8
        """The lines' addresses (int64) in the order of the ring."""
        memory[first] = np.roll(self.lines, -1)
        self._chains = {0: self.lines[:0]}
        for word, count in enumerate(sorted(set(counts) - {0}), 1):
            places = first[rng.permutation(number)[:count]] + word
            self._chains[count] = memory.ctypes.data + places * 8
            memory[places] = np.roll(self._chains[count], -1)
        (self._state,) = carve([(2 * words, np.dtype(np.int64))])
        self._at = int(self.lines[0])
        self._chase = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(_code()["chase"])

    def chase(self, steps: int) -> int:
        """The cycles of ``steps`` loads, each of the address that the one before found; goes on where the last chase
        ended."""
        self._state[0] = self._at
        cycles = int(self._chase(self._state.ctypes.data, steps))
        self._at = int(self._state[0])
        return cycles

    def timed(self, toucher: Toucher, count: int, events: int) -> npt.NDArray[Any]:
        """The cycles of ``events`` readings of the chain of ``count`` lines, each after ``toucher`` has touched what it
        does: a replay whose event reads known lines."""
        import numpy as np

        chain, where = self._chains[count], int(self._state.ctypes.data)
        self._state[1:8] = 0
        self._state[1], self._state[2] = chain[0] if count else where, count
        index = np.arange(events, dtype=np.int64)
        plan = np.column_stack((index, index, *[np.full(events, where)] * 3, index * 0, index * 0))
        flushed = chain if toucher.caches.level == MEMORY else chain[:0]
        toucher.replay(_code()["walk"], where, where + 3 * 8, plan, flushed)
        cycles: npt.NDArray[Any] = plan[:, 5]
        return cycles


SPINS = 64
"""Turns of the control's loop, six cycles each: long enough to tell a core that is shared, short beside what is
touched."""
ROOM = 64 << 20
"""Bytes through which a program's footprint moves: more than most last-level caches, since a new page is in none."""


def _code() -> dict[str, int]:
    """From name to address; compiled once in a process, in a few ms."""
    global _library
    if _library is None:
        from llvmlite import binding as llvm

        from benchframe.dialect.store import Library

        kind = architecture()
        order = "call void @llvm.x86.sse2.lfence()" if kind == "x86_64" else ""
        text = _TEXT.format(flush=_FLUSH.get(kind, ""), fence=_FENCE.get(kind, ""), order=order, spins=SPINS)
        if kind != "x86_64":
            text = "\n".join(line for line in text.splitlines() if "@llvm.x86" not in line)
        _library = Library(_object(llvm, text))
    return {name: _library.address(name) for name in ("touch", "flush", "replay", "chase", "walk")}


def _object(llvm: Any, text: str) -> bytes:
    from contextlib import suppress

    with suppress(RuntimeError):
        llvm.initialize()  # needed up to llvmlite 0.44, an error after it
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
    module = llvm.parse_assembly(text)
    module.verify()
    return bytes(machine.emit_object(module))


# ----------------------------------------------------------------------------------------------------------------------
# Whether lines cost what a state says, in `selftest --caches`.
#
# Cold replays have a control: known lines cost what a pointer chase says that their level costs. A replay whose only
# event reads n lines, each found through the one before, must take n times the latency of the level in which
# ``--caches`` says that it finds them. The latency is measured beside it, by a chase through a ring of lines that
# fits into that level and into none before; for memory, through lines that were flushed. The known lines are some of
# the ring's, so that TLB and memory's rows are used alike.
#
# For the last level such a ring is not enough. A ring of many lines has several in each page, and processors fetch
# what lies around a line that is read, so a chase finds a part of it in L2; known lines are few, and far apart. A
# ring with one line per page fits into L2. So it is chased after other memory was read. That the touching leaves
# lines in this level, neither before nor behind it, is shown by a second ring with many lines, chased without
# touching: the two latencies must be alike.

COUNTS = (0, 1, 2, 4, 8, 16, 32)
"""How many lines the event reads."""
SMALL_RING = 256 << 10
"""Bytes of the ring where no level is named."""
EVENTS, REPLAYS = 64, 8
STEPS, CHASES, LAPS = 2000, 16, 16
QUARTILE = 0.25
"""Of readings, and of chases, since both see the same machine: others only make them longer."""
WITHIN = 0.15
"""How far a ratio may be from 1."""
ALIKE = 0.3
"""How far a chase of the last level may be from one without touching, which finds a part of its ring in L2. The levels
before and behind it are four times as fast and as slow, or more."""


@dataclass(frozen=True)
class KnownLines:
    """One state of the caches: ``level`` is the chase's ns per line in each round (empty where no level is named),
    ``lines`` those of a known line, ``by_count`` the medians for each of COUNTS but the first, ``untouched`` those of
    the chase without touching (for the last level only)."""

    caches: Caches
    level: tuple[float, ...]
    lines: tuple[float, ...]
    by_count: tuple[float, ...]
    untouched: tuple[float, ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Known line to chase, by round."""
        return [line / level for line, level in zip(self.lines, self.level, strict=True)] if self.level else []

    @property
    def good(self) -> bool:
        """Whether the median ratio is within WITHIN of 1 and the level is the one named, or there is nothing to compare
        with."""
        return not self.level or (abs(median(self.ratios) - 1) <= WITHIN and self.named)

    @property
    def named(self) -> bool:
        """Whether the chase's lines were in the level that the state names, where that is in doubt."""
        return not self.untouched or abs(median(self.untouched) / median(self.level) - 1) <= ALIKE


def ring_size(level: str, caches: Sequence[Cache]) -> int:
    """Bytes of a ring for ``level``: several times the level before, which does not always evict the oldest line. No
    more, so that a line is soon asked for again and others do not push it out of a shared cache. Raises UsageError if
    it does not fit into the level."""
    sizes = {cache.level: cache.size for cache in caches}
    if level == LLC and 2 * 8 * sizes[2] > sizes[max(sizes)]:
        raise UsageError("the last-level cache is too small beside L2 for a ring that fits into it alone")
    before, times = {L2: (1, 4), LLC: (2, 8), MEMORY: (2, 2)}.get(level, (0, 0))
    return times * sizes[before] if before else SMALL_RING


def known_lines(
    states: Sequence[Caches], rounds: int, cpu: int = -1, done: Callable[[int], None] | None = None
) -> list[KnownLines]:
    """Measure each of ``states``, in ``rounds`` that take turns. Raises UsageError and MemoryError."""
    import numpy as np

    caches = cpu_caches(cpu)
    rings = {s: Ring(ring_size(s.level, caches), COUNTS, seed=1, alone=s.level == LLC) for s in states}
    untouched = {s: Ring(ring_size(LLC, caches), seed=1) for s in states if s.level == LLC}
    touchers = {s: Toucher(s) for s in states}
    level: dict[Caches, list[float]] = {s: [] for s in states}
    plain: dict[Caches, list[float]] = {s: [] for s in states}
    cost: dict[Caches, list[list[float]]] = {s: [] for s in states}
    for number in range(rounds):
        for s in states:
            ring, toucher = rings[s], touchers[s]
            ns = _ns_per_cycle(ring)
            chases = _chases(ring, toucher)
            replays = [[ring.timed(toucher, count, EVENTS) for count in COUNTS] for _ in range(REPLAYS)]
            chases += _chases(ring, toucher)
            if s.level in (L2, LLC, MEMORY):
                level[s].append(float(np.quantile(chases, QUARTILE)) * ns)
            if s in untouched:
                plain[s].append(float(np.quantile(_chases(untouched[s]), QUARTILE)) * ns)
            cycles = np.quantile(np.array(replays), QUARTILE, axis=0).mean(axis=1)
            cost[s].append(((cycles[1:] - cycles[0]) * ns).tolist())
        if done is not None:
            done(number)
    counts = np.array(COUNTS[1:])
    found = []
    for s in states:
        rows = np.array(cost[s])
        slopes = (rows @ counts / (counts @ counts)).tolist()
        each = tuple((np.median(rows, axis=0) / counts).tolist())
        found.append(KnownLines(s, tuple(level[s]), tuple(slopes), each, tuple(plain[s])))
    return found


def _chases(ring: Ring, toucher: Toucher | None = None) -> list[float]:
    """Cycles per line of CHASES chases through the ring. Before each, the ring is flushed if the state is that of
    memory, and other memory is read if it is that of the last level. First LAPS untimed ones: a last-level cache learns
    whether what L2 evicts is asked for again."""
    ring.chase(LAPS * len(ring.lines))
    steps, found, level = min(STEPS, len(ring.lines)), [], toucher.caches.level if toucher else ""
    for _ in range(CHASES):
        if toucher and level == MEMORY:
            toucher.flush(ring.lines)
        elif toucher and level == LLC:
            toucher.touch()
        found.append(ring.chase(steps) / steps)
    return found


def _ns_per_cycle(ring: Ring) -> float:
    """By the wall clock, over some ms."""
    began, cycles = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < 0.005:
        cycles += ring.chase(10_000)
    return seconds * 1e9 / cycles


def known_lines_text(found: Sequence[KnownLines]) -> str:
    """A table with a row per state, and what it says."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    heads = ["caches", "ns/line by chase", "ns per known line", "ratio", *(str(count) for count in COUNTS[1:])]
    rows = []
    for one in found:
        ratio = ""
        if one.level:
            ratio = f"{median(one.ratios):.2f} [{min(one.ratios):.2f}, {max(one.ratios):.2f}]"
        chase = f"{median(one.level):.1f}" if one.level else ""
        each = (f"{ns:.1f}" for ns in one.by_count)
        rows.append([one.caches.label, chase, f"{median(one.lines):.1f}", ratio, *each])
    body = tabulate(rows, heads, "simple", colalign=["left", *["right"] * (len(heads) - 1)], disable_numparse=True)
    rounds = max((len(one.lines) for one in found), default=0)
    notes = [
        f"medians of {rounds} rounds; ratio: known line to chase, in brackets the lowest and the highest round.",
        "the last columns: ns per line if the event reads so many lines, each found through the one before.",
    ]
    for one in found:
        if one.untouched:
            notes.append(
                f"{one.caches.label}: the chase follows a reading of other memory; a ring of more lines takes "
                f"{median(one.untouched):.1f} ns per line without it, with help from L2."
            )
        if not one.named:
            notes.append(f"{one.caches.label}: these are more than {100 * ALIKE:.0f} % apart: the lines are elsewhere.")
        elif not one.good:
            percent = f"{100 * WITHIN:.0f} %"
            notes.append(f"{one.caches.label}: a known line does not cost what its level costs, within {percent}.")
    return "\n".join([*(line.rstrip() for line in body.splitlines()), "", *notes, ""])
