"""Replay a whole trace in the oracle: the answer that every engine must give, event by event.

A refused call had done nothing before it was refused, unless the range itself explains the errno. The kernel may
refuse what the rules allow: because of a security module, a seccomp filter, a limit or a shortage that the trace does
not show. Then nothing happened. But mprotect, madvise, mlock and munlock go through their range area by area; if they
stop at one, the areas before it stay changed. :func:`acts` tells whether there is such an area.

Runs of consecutive faults and lookups in one address space are answered together with :func:`numpy.searchsorted`.
Only rows that may change something take the exact path: a fault that may grow a stack, or the first write to a
private area (which prepares its anon_vma, and so decides later merges).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchframe.events import CALLS, EVENT, NIL, UNKNOWN, Kind
from benchframe.oracle import rules as f
from benchframe.oracle.calls import Oracle, permitted
from benchframe.oracle.rules import (
    PMD,
    VM_ACCESS,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_SHARED,
    VM_WRITE,
    Advice,
    FaultError,
    Limits,
    Rules,
)
from benchframe.oracle.space import Area, Refused, Space


def acts(space: Space, kind: int, addr: int, length: int, prot: int, flags: int, errno: int) -> bool:
    """Whether the refused call had an effect: a performed one would end in the same ``errno`` because of its range.

    Near ``max_map_count`` a split in the middle may have failed, so the call is performed. O(areas in the range).
    """
    crowded = len(space.areas) >= space.limits.max_map_count - 1
    if kind == Kind.MPROTECT:
        if errno == f.ENOMEM and crowded:
            return True
        return errno in (f.ENOMEM, f.EACCES) and _mprotect(space, addr, length, prot) == errno
    if kind == Kind.MADVISE:
        if errno == f.EAGAIN and crowded:
            return True
        return errno in (f.ENOMEM, f.EINVAL, f.EACCES) and _madvise(space, addr, length, flags) == errno
    if kind in (Kind.MLOCK, Kind.MUNLOCK):
        return errno == f.ENOMEM and (crowded or _mlock(space, addr, length, kind == Kind.MLOCK) == errno)
    return False


def _parts(space: Space, start: int, end: int) -> Iterator[Area | None]:
    """The areas that cover [start, end) in order, with None for each hole."""
    at = space.index(start)
    while start < end:
        area = space.areas[at] if at < len(space.areas) else None
        if area is None or area.vm_start >= end:
            yield None
            return
        if area.vm_start > start:
            yield None
        yield area
        start = area.vm_end
        at += 1


def _mprotect(space: Space, addr: int, length: int, prot: int) -> int:
    grows = f.PROT_GROWSDOWN | f.PROT_GROWSUP
    if prot & grows or prot & ~(f.VM_ACCESS | f.PROT_SEM) or addr % f.PAGE:
        return 0
    for area in _parts(space, addr, addr + f.page_align(length)):
        if area is None:
            return f.ENOMEM
        if prot & f.VM_ACCESS & ~(area.vm_flags >> 4):
            return f.EACCES
    return 0


def _mlock(space: Space, addr: int, length: int, lock: bool) -> int:
    start = addr - addr % f.PAGE
    for area in _parts(space, start, start + f.page_align(length + addr % f.PAGE)):
        if area is None or (lock and not area.vm_flags & (f.VM_ACCESS | f.VM_IO)):
            return f.ENOMEM
    return 0


def _madvise(space: Space, addr: int, length: int, number: int) -> int:
    try:
        advice = Advice(number)
    except ValueError:
        return 0
    if addr % f.PAGE:
        return 0
    populate = advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE)
    right = f.VM_WRITE if advice == Advice.POPULATE_WRITE else f.VM_READ
    hole = False
    for area in _parts(space, addr, addr + f.page_align(length)):
        if area is None:
            if populate:
                return f.ENOMEM
            hole = True
        elif populate:
            if area.vm_flags & f.VM_IO or not area.vm_flags & right:
                return f.EINVAL
        else:
            try:
                permitted(space, area, advice)
            except Refused as refused:
                return refused.errno
    return f.ENOMEM if hole else 0


Row = tuple[int, int, int, int, int, int]
I64 = npt.NDArray[np.int64]

_LONG = 24
"""Shorter runs of faults are answered one by one: below this length, array calls cost more than they save."""
_SHARE = 4
"""A run of fewer rows than a quarter of the areas is answered one by one too: building arrays of all areas would cost
more."""


@dataclass
class Answers:
    """The result of :func:`replay`, one entry per event."""

    ret: I64
    """Calls: the return value. FAULT: 0 or a negative FaultError. LOOKUP and the rest: 0."""
    vm_start: I64
    """FAULT and LOOKUP: start of the first area with addr < vm_end (after stack growth), NIL if none."""
    vm_end: I64
    replayer: Replayer

    @property
    def layouts(self) -> dict[int, list[Row]]:
        """Final layout of each mm: at its last task's EXIT, else at the current event. O(VMAs)."""
        alive = {number: space.layout() for number, space in self.replayer.spaces.items()}
        return {**self.replayer.layouts, **alive}

    @property
    def spaces(self) -> dict[int, Oracle]:
        """The address spaces still alive at the current event."""
        return dict(self.replayer.spaces)


class Replayer:
    """The state between two events: one :class:`Oracle` per mm, and the number of tasks in each.

    A stream may be fed in pieces: the answers do not depend on how the stream was cut. ``peaks`` is the largest number
    of areas in each mm so far.
    """

    def __init__(self, rules: Rules | None = None, limits: Limits | None = None) -> None:
        self.rules, self.limits = rules, limits
        self.spaces: dict[int, Oracle] = {}
        self.layouts: dict[int, list[Row]] = {}
        self.tasks: dict[int, set[int]] = {}
        self.peaks: dict[int, int] = {}

    def space(self, mm: int) -> Oracle:
        """The address space number ``mm``; it is created empty on first use."""
        if mm not in self.spaces:
            self.spaces[mm] = Oracle(self.rules, self.limits)
        return self.spaces[mm]

    def feed(
        self, events: npt.NDArray[np.void], stops: Iterable[int] = (), look: Callable[[int], None] | None = None
    ) -> Answers:
        """Replay one piece of the stream. At each of ``stops``, rows of this piece in order, ``look(row)`` is called to
        inspect the state right before that event. O(events): a run of faults costs the minimum of its length and the
        number of areas.

        Raises:
            TypeError: ``events`` is not an array of EVENT.
        """
        if events.dtype != EVENT:
            raise TypeError(f"replay needs an array of EVENT records, not {events.dtype}")
        count = len(events)
        nil = np.full(count, NIL, np.int64)
        answers = Answers(np.zeros(count, np.int64), nil, nil.copy(), self)
        kind, mm = events["kind"], events["mm"]
        quick = (kind == Kind.FAULT) | (kind == Kind.LOOKUP)
        watched = np.asarray(list(stops), np.int64)
        inner = watched[(watched > 0) & (watched < count)]
        cut = np.flatnonzero((np.diff(mm) != 0) | (quick[1:] != quick[:-1]) | ~quick[1:]) + 1
        cut = np.union1d(cut, inner) if len(inner) else cut
        starts = np.concatenate(([0], cut)) if count else cut
        ends = np.concatenate((cut, [count])) if count else cut
        pending = [row for row in dict.fromkeys(watched.tolist()) if 0 <= row <= count][::-1]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            while look is not None and pending and pending[-1] == start:
                look(pending.pop())
            number = int(mm[start])
            if not quick[start]:
                answers.ret[start] = self._call(events[start])
                space = self.spaces.get(number)
                if space is not None and space.map_count > self.peaks.get(number, 0):
                    self.peaks[number] = space.map_count
                continue
            space = self.space(number)
            if end - start < max(_LONG, space.map_count // _SHARE):
                self._slow_run(space, events, start, end, answers)
            else:
                _quick_run(space, events, start, end, answers)
            self.tasks.setdefault(number, set()).update(_tasks_of(events, start, end))
        while look is not None and pending:
            look(pending.pop())
        return answers

    def _slow_run(self, space: Oracle, events: npt.NDArray[np.void], start: int, end: int, answers: Answers) -> None:
        """Faults and lookups one by one: O(log areas) each."""
        part = events[start:end]
        rows = zip(part["addr"].tolist(), part["kind"].tolist(), part["prot"].tolist(), strict=True)
        for at, (addr, kind, prot) in enumerate(rows, start):
            area = space.find_vma(addr)
            if kind == Kind.FAULT:
                access = 2 if prot & 2 else 4 if prot & 4 else 1
                inside = area is not None and area.vm_start <= addr and not space.guards
                known = _needs(space, area, access) if inside and area is not None else 1
                if known == 1:
                    answers.ret[at] = space.fault(addr, prot or 1)
                    area = space.find_vma(addr)
                else:
                    answers.ret[at] = known
                    if known == 0:
                        space.tables.add(addr // PMD, addr // PMD + 1)
            if area is not None:
                answers.vm_start[at], answers.vm_end[at] = area.vm_start, area.vm_end

    def _call(self, event: np.void) -> int:
        """Perform any event that is not a fault or lookup."""
        kind, mm, task = int(event["kind"]), int(event["mm"]), int(event["task"])
        addr, length, ret = int(event["addr"]), int(event["len"]), int(event["ret"])
        if kind == Kind.EXEC:
            self.spaces[mm] = Oracle(self.rules, self.limits)
            if addr != NIL:
                self.spaces[mm].start_brk = self.spaces[mm].brk_now = addr
            self.tasks[mm] = {task}
            return 0
        space = self.space(mm)
        tasks = self.tasks.setdefault(mm, set())
        tasks.add(task)
        if kind == Kind.FORK:
            self.spaces[addr] = space.fork()
            self.peaks[addr] = self.spaces[addr].map_count
            self.tasks[addr] = {length}
            return 0
        if kind == Kind.THREAD:
            tasks.add(length)
            return 0
        if kind == Kind.RLIMIT:
            space.limits = replace(space.limits, rlimit_stack=length)
            return 0
        if kind == Kind.EXIT:
            tasks.discard(task)
            if not tasks:
                self.layouts[mm] = space.layout()
                del self.spaces[mm]
            return 0
        if kind == Kind.WALK:
            return space.maps(addr, addr + length)
        if kind in CALLS and -4096 < ret < 0:  # refused: reproduced as recorded
            if acts(space, kind, addr, length, int(event["prot"]), int(event["flags"]), -ret):
                perform(space, event)
            return ret
        return perform(space, event)


def _tasks_of(events: npt.NDArray[np.void], start: int, end: int) -> set[int]:
    """The tasks that appear in a run."""
    return set(events["task"][start:end].tolist())


def perform(space: Oracle, event: np.void) -> int:
    """One system call (or kernel-made mapping) of a trace; its mapping goes to the recorded address.

    Raises:
        ValueError: the event is none of those.
    """
    kind, addr, length = int(event["kind"]), int(event["addr"]), int(event["len"])
    prot, flags, ret = int(event["prot"]), int(event["flags"]), int(event["ret"])
    file, offset = int(event["file"]), int(event["offset"])
    at = ret if ret >= 0 else UNKNOWN
    if kind == Kind.MMAP:
        return space.mmap(addr, length, prot, flags, file, offset, at)
    if kind == Kind.MUNMAP:
        return space.munmap(addr, length)
    if kind == Kind.MPROTECT:
        return space.mprotect(addr, length, prot)
    if kind == Kind.MREMAP:
        return space.mremap(addr, length, int(event["new_len"]), flags, offset, at)
    if kind == Kind.BRK:
        if space.start_brk is None or (addr == 0 and ret >= 0 and ret != space.brk_now):
            first = ret if ret >= 0 else max(addr, 0)
            space.start_brk = first if space.start_brk is None else min(space.start_brk, first)
            space.brk_now = first
            return first
        if addr and ret >= 0 and ret != addr:  # brk has no errno: a refused one returns another break than requested
            return ret
        return space.brk(addr)
    if kind == Kind.MADVISE:
        return space.madvise(addr, length, flags)
    if kind == Kind.MLOCK:
        return space.mlock(addr, length)
    if kind == Kind.MUNLOCK:
        return space.munlock(addr, length)
    if kind == Kind.ATTR:
        return space.modify(addr, length, flags, prot)
    if kind == Kind.MAP:
        return space.exec_map(addr, length, prot, flags, file, offset)
    raise ValueError(f"not a call: kind {kind}")


def _needs(space: Oracle, area: Area, access: int) -> int:
    """How a fault inside ``area`` ends: 0 done, -2 refused, 1 if it may change something and needs the exact path."""
    allowed = {2: VM_WRITE, 4: VM_EXEC}.get(access, VM_ACCESS)
    if not area.vm_flags & allowed:
        return -FaultError.ACCERR
    if access == 2 and not area.vm_flags & VM_SHARED and not area.anon_vma:
        return 1
    file = area.vm_file
    bounded = file is not None and file.size < 1 << 62
    return 1 if bounded or space.may_be_huge(area) else 0


def _quick_run(space: Oracle, events: npt.NDArray[np.void], start: int, end: int, answers: Answers) -> None:
    """A run of faults and lookups over a list of areas that only stack growth changes. O(rows log areas)."""
    areas = space.areas
    count = len(areas)
    bounds = np.array([area.vm_end for area in areas], np.int64)
    below = np.array([area.vm_start for area in areas] + [NIL], np.int64)
    addr = np.ascontiguousarray(events["addr"][start:end])
    access = np.clip(events["prot"][start:end], 0, 7)
    is_fault = events["kind"][start:end] == Kind.FAULT
    at = np.searchsorted(bounds, addr, side="right")
    answers.vm_end[start:end] = np.append(bounds, NIL)[at]
    out_start = answers.vm_start[start:end]
    out_start[:] = below[at]
    # The effective access, as in fault(): write before execute before read.
    wanted = np.where(access & 2, 1, np.where(access & 4, 2, 0))
    table = np.full((count + 1, 3), -int(FaultError.MAPERR), np.int64)
    for number, area in enumerate(areas):
        table[number] = [1 if space.guards else _needs(space, area, bit) for bit in (1, 2, 4)]
    outcome = table[at, wanted]
    hole = addr < below[at]
    grows = np.array([bool(area.vm_flags & VM_GROWSDOWN) for area in areas] + [False])
    outcome[hole] = np.where(grows[at[hole]], 1, -int(FaultError.MAPERR))
    outcome[~is_fault] = 0
    answers.ret[start:end] = outcome
    for row in np.flatnonzero(outcome == 1).tolist():
        number, where = int(at[row]), int(addr[row])
        area = areas[number]
        old_start = area.vm_start
        if old_start <= where and not space.guards and (known := _needs(space, area, (1, 2, 4)[int(wanted[row])])) != 1:
            answers.ret[start + row] = known
            continue
        answers.ret[start + row] = space.fault(where, int(access[row]) or 1)
        if area.vm_start != old_start:
            later = out_start[row:]
            later[at[row:] == number] = area.vm_start
            # Rows in the hole just filled are already marked for the exact path.
    good = is_fault & (answers.ret[start:end] == 0)
    for table in np.unique(addr[good] // PMD).tolist():
        space.tables.add(table, table + 1)


def replay(events: npt.NDArray[np.void], rules: Rules | None = None, limits: Limits | None = None) -> Answers:
    """Replay a whole stream from an empty state; see :class:`Answers`. About 0.3 us a fault, 5 us a call.

    Raises:
        TypeError: ``events`` is not an array of EVENT.
    """
    return Replayer(rules, limits).feed(events)
