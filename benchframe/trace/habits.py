"""What a program does with its memory, counted from its trace: what it maps again, gives back and touches again,
touches in order, protects back and forth. Each count is one that the program could lower itself.

Only the trace is read; no strategy takes part. A fault is looked at where the kernel allocated a page for it: those
that ended in a signal, or whose entry was present, are left out, and so is file memory, which the page cache fills.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchframe.events import FaultFlag, Kind
from benchframe.oracle import Replayer
from benchframe.oracle.rules import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    PAGE_SHIFT,
    PMD,
    VM_ACCESS,
    VM_NOHUGEPAGE,
    VM_SHARED,
    VM_WRITE,
    Advice,
)
from benchframe.oracle.space import Area
from benchframe.trace.trace import Trace
from benchframe.trace.verify import limits

STRETCH = 16
"""Pages in address order from which a stretch of faults counts: below it, one call more is no clear gain."""
HALF_HUGE = 256
"""Pages of a 2 MiB range that must be touched for a huge page not to waste more memory than it uses."""
BESIDE = 10_000
"""ns between a fault and another task's mapping call that could have made it wait: what such a call takes."""
WRITERS = (Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.BRK)
"""Calls that hold mmap_lock for write."""


@dataclass
class Layout:
    """The VMAs of the largest address space at its largest, by kind; ``mm`` is its number, ``files`` how many objects
    are mapped there."""

    mm: int = 0
    vmas: int = 0
    guards: int = 0
    """VMAs without any access (PROT_NONE): guard pages and reservations."""
    mapped: int = 0
    """VMAs of files, without the guards among them."""
    files: int = 0


@dataclass
class Habits:
    """The counts; ``touched`` are the faults that were looked at: the first accesses to pages of anonymous memory."""

    touched: int = 0
    again: Counter[str] = field(default_factory=Counter)
    """Of these, faults on pages that the program had given back before, by the call that did: munmap, madvise, brk,
    mmap."""
    in_order: int = 0
    stretches: int = 0
    """Writes page after page by one task, at least STRETCH in a row, and the number of such stretches."""
    huge: int = 0
    huge_ranges: int = 0
    """First touches of 2 MiB ranges that one private anonymous VMA covers, of which at least HALF_HUGE pages are
    touched, and the number of these ranges."""
    mmaps: int = 0
    remapped: int = 0
    """Anonymous mmap calls, and those of a length that the same process had unmapped before."""
    mprotects: int = 0
    toggled: int = 0
    """mprotect calls, and those on exactly a range whose protection another one had changed before."""
    shared_faults: int = 0
    beside: int = 0
    """Faults of address spaces with several tasks, and those less than BESIDE after a mapping call of another task.
    Both are 0 if the trace has no times."""
    layout: Layout = field(default_factory=Layout)


def habits(trace: Trace) -> Habits:
    """Replay ``trace`` in the oracle and count. O(events log VMAs + pages given back); some 3 us an event."""
    reader = _Reader(trace)
    reader.read()
    found = reader.found
    found.shared_faults, found.beside = _beside(trace)
    return found


class _Reader:
    """The state of one pass; pages are page numbers, by mm."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.found = trace, Habits()
        self.replayer = Replayer(limits=limits(trace))
        self.touched: dict[int, set[int]] = {}
        self.gone: dict[int, dict[int, str]] = {}
        self.breaks: dict[int, int] = {}
        self.unmapped: dict[int, Counter[int]] = {}
        self.protected: set[tuple[int, int, int]] = set()
        self.stretch: dict[int, tuple[int, int, int]] = {}
        """By task: the last page that it touched, the start of its VMA, pages in a row."""
        self.huge: Counter[tuple[int, int]] = Counter()
        self.peak = (0, 0, 0)
        """The most VMAs, the row after which they were there, and where."""
        self.done = 0

    def read(self) -> None:
        events = self.trace.events
        kind, mm = events["kind"], events["mm"]
        quick = (kind == Kind.FAULT) | (kind == Kind.LOOKUP)
        cut = np.flatnonzero((np.diff(mm) != 0) | (quick[1:] != quick[:-1]) | ~quick[1:]) + 1
        self.replayer.feed(events, [*cut.tolist(), len(events)], self._look)
        for _, _, length in self.stretch.values():
            self._end_stretch(length)
        full = [count for count in self.huge.values() if count >= HALF_HUGE]
        self.found.huge, self.found.huge_ranges = sum(full), len(full)
        self._classify()

    def _look(self, row: int) -> None:
        """The rows before ``row`` that were not looked at yet have been replayed: one call, or a run of faults."""
        first, self.done = self.done, row
        if first == row:
            return
        part = self.trace.events[first:row]
        if part["kind"][0] in (Kind.FAULT, Kind.LOOKUP):
            self._faults(part)
        else:
            self._call(part[0], row)

    def _faults(self, part: NDArray[np.void]) -> None:
        mm = int(part["mm"][0])
        space = self.replayer.spaces[mm]
        wanted = (part["kind"] == Kind.FAULT) & (part["flags"] & (FaultFlag.SEGV | FaultFlag.PRESENT) == 0)
        rows = part[wanted]
        for addr, task, access in zip(rows["addr"].tolist(), rows["task"].tolist(), rows["prot"].tolist(), strict=True):
            area = space.find_vma(addr)
            if area is not None and area.vm_start <= addr and area.anonymous:
                self._touch(mm, task, addr, access, area)

    def _touch(self, mm: int, task: int, addr: int, access: int, area: Area) -> None:
        page = addr >> PAGE_SHIFT
        known = self.touched.setdefault(mm, set())
        if page in known:  # a read mapped the zero page before
            return
        known.add(page)
        self.found.touched += 1
        before = self.gone.get(mm, {}).pop(page, "")
        if before:
            self.found.again[before] += 1
        start = addr & ~(PMD - 1)
        whole = area.vm_start <= start and start + PMD <= area.vm_end
        if whole and not before and area.vm_flags & (VM_WRITE | VM_SHARED | VM_NOHUGEPAGE) == VM_WRITE:
            self.huge[mm, start] += 1
        last, where, length = self.stretch.get(task, (-1, 0, 0))
        follows = access != 1 and page == last + 1 and where == area.vm_start
        if not follows:
            self._end_stretch(length)
        self.stretch[task] = (page, area.vm_start, length + 1 if follows else 1)

    def _end_stretch(self, length: int) -> None:
        if length >= STRETCH:
            self.found.in_order += length
            self.found.stretches += 1

    def _call(self, event: np.void, row: int) -> None:
        kind, mm, addr, length = (int(event[name]) for name in ("kind", "mm", "addr", "len"))
        flags, ret = int(event["flags"]), int(event["ret"])
        for number in (mm, addr) if kind == Kind.FORK else (mm,):
            space = self.replayer.spaces.get(number)
            if space is not None and space.map_count > self.peak[0]:
                self.peak = (space.map_count, row, number)
        if kind == Kind.EXEC:
            for by_mm in (self.touched, self.gone, self.breaks, self.unmapped):
                by_mm.pop(mm, None)
            self.protected = {key for key in self.protected if key[0] != mm}
        elif -4096 < ret < 0:
            return
        elif kind == Kind.MMAP:
            if flags & MAP_FIXED:
                self._give_back(mm, addr, addr + length, "mmap")
            elif flags & MAP_ANONYMOUS:
                self.found.mmaps += 1
                sizes = self.unmapped.get(mm, Counter())
                if sizes[length] > 0:
                    sizes[length] -= 1
                    self.found.remapped += 1
        elif kind == Kind.MUNMAP:
            self.unmapped.setdefault(mm, Counter())[length] += 1
            self._give_back(mm, addr, addr + length, "munmap")
        elif kind == Kind.MADVISE and flags in (Advice.DONTNEED, Advice.FREE):
            self._give_back(mm, addr, addr + length, "madvise")
        elif kind == Kind.BRK:
            now = self.replayer.spaces[mm].brk_now if mm in self.replayer.spaces else 0
            if 0 < now < self.breaks.get(mm, 0):
                self._give_back(mm, now, self.breaks[mm], "brk")
            self.breaks[mm] = now
        elif kind == Kind.MPROTECT:
            self.found.mprotects += 1
            self.found.toggled += (mm, addr, length) in self.protected
            self.protected.add((mm, addr, length))

    def _give_back(self, mm: int, start: int, end: int, call: str) -> None:
        """The pages of [start, end) that were touched are gone; O(the smaller of pages and touched pages)."""
        known = self.touched.get(mm)
        if not known:
            return
        first, last = start >> PAGE_SHIFT, (end + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT
        if last - first < len(known):
            pages = [page for page in range(first, last) if page in known]
        else:
            pages = [page for page in known if first <= page < last]
        known.difference_update(pages)
        self.gone.setdefault(mm, {}).update(dict.fromkeys(pages, call))

    def _classify(self) -> None:
        """The VMAs at the peak: a second replay as far as that row, so that no layout has to be kept."""
        count, row, mm = self.peak
        if not count:
            return
        replayer = Replayer(limits=limits(self.trace))
        replayer.feed(self.trace.events[:row])
        areas = replayer.spaces[mm].areas
        open_areas = [area for area in areas if area.vm_flags & VM_ACCESS]
        files = [area.vm_file.number for area in open_areas if area.vm_file is not None]
        self.found.layout = Layout(mm, count, len(areas) - len(open_areas), len(files), len(set(files)))


def seconds(trace: Trace) -> float:
    """From the first to the last event; 0 if the trace has no times, where events are numbered instead."""
    time = trace.time
    if not len(time) or np.array_equal(time, np.arange(len(time))):
        return 0.0
    return (int(time[-1]) - int(time[0])) / 1e9


def _beside(trace: Trace) -> tuple[int, int]:
    """(faults of address spaces with several tasks, those right after another task's mapping call there)."""
    events, time = trace.events, trace.time
    if not seconds(trace):
        return 0, 0
    kind, mm, task = events["kind"], events["mm"], events["task"]
    shared = beside = 0
    for number in np.unique(mm).tolist():
        here = mm == number
        faults = np.flatnonzero(here & (kind == Kind.FAULT))
        calls = np.flatnonzero(here & np.isin(kind, WRITERS))
        tasks = np.unique(task[faults])
        if len(np.unique(task[here])) < 2:
            continue
        shared += len(faults)
        for who in tasks.tolist():
            own = time[faults[task[faults] == who]]
            others = time[calls[task[calls] != who]]
            beside += int((np.searchsorted(others, own, "right") > np.searchsorted(others, own - BESIDE)).sum())
    return shared, beside
