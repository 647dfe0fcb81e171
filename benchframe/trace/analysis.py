"""Figures about a trace: its events, locality and growth, its rank among recorded programs, the program's habits.

Nominal statistics answer whether a workload is representative: where do they lie among those of recorded programs?
After DaCapo Chopin (Blackburn et al., "Rethinking Java Performance Analysis", ASPLOS 2025): a workload's value says
little alone, but its rank among many programs does. The statistics are those that decide what a VMA lookup costs.

Habits are counts of what a program does with its memory: what it maps again, gives back and touches again, touches in
order, protects back and forth. Each count is one that the program could lower itself. Only the trace is read; no
strategy takes part. A fault is looked at where the kernel allocated a page for it: those that ended in a signal, or
whose entry was present, are left out, and so is file memory, which the page cache fills.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import NIL, FaultFlag, Kind
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

I64 = NDArray[np.int64]
MAPPING = (Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.BRK, Kind.MADVISE)
PMD_SHIFT = 21
"""2 MiB: the span of one page-table page on x86-64."""
REUSE_BINS = (0, 1, 3, 7, 15, 63)
"""Upper ends of the reuse-distance classes, followed by a class for larger distances and one for first touches."""


@dataclass
class Figures:
    """The figures that ``trace info`` prints. Shares are in [0, 1]; ``reuse`` counts lookups by distance class."""

    kinds: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    lookups: int = 0
    operations: int = 0
    same_vma: float = 0.0
    same_pmd: float = 0.0
    same_page: float = 0.0
    reuse: list[int] = field(default_factory=list)
    reuse_rows: int = 0
    peak_vmas: dict[int, int] = field(default_factory=dict)
    vmas: dict[int, list[int]] = field(default_factory=dict)
    layouts: dict[int, list[I64]] = field(default_factory=dict)
    """By mm: at each of ``cuts`` an array of (vm_start, vm_end)."""
    cuts: list[int] = field(default_factory=list)


def figures(trace: Trace, columns: int = 60, reuse_rows: int = 1_000_000, first: int = 0) -> Figures:
    """Count, replay and measure; O(events + columns x VMAs). ``columns``: samples of the layout over time. Lookups and
    mapping operations, and the locality, are those from event ``first`` on."""
    out = Figures()
    kind = trace.events["kind"]
    for number, count in enumerate(np.bincount(kind, minlength=max(Kind) + 1).tolist()):
        if count:
            out.kinds[Kind(number).name] = count
    out.faults = _faults(trace)
    lookup = ((kind == Kind.FAULT) | (kind == Kind.LOOKUP)) & (np.arange(len(kind)) >= first)
    out.lookups, out.operations = int(lookup.sum()), int(np.isin(kind[first:], MAPPING).sum())
    vm_start = _replay(trace, columns, out)
    _locality(trace, np.flatnonzero(lookup), vm_start, out, reuse_rows)
    return out


def _faults(trace: Trace) -> dict[str, int]:
    faults = trace.events[trace.events["kind"] == Kind.FAULT]
    flags, prot = faults["flags"], faults["prot"]
    names = {1: "read", 2: "write", 4: "execute", 0: "unknown access"}
    out = {name: int((prot == value).sum()) for value, name in names.items()}
    out["kernel mode"] = int(((flags & FaultFlag.USER) == 0).sum())
    out["entry was present"] = int(((flags & FaultFlag.PRESENT) != 0).sum())
    out["ended in a signal"] = int(((flags & FaultFlag.SEGV) != 0).sum())
    return {name: count for name, count in out.items() if count}


def _replay(trace: Trace, columns: int, out: Figures) -> I64:
    """The oracle's answers, and samples of every layout, evenly by event: by time, start-ups would be hardly
    visible."""
    from benchframe.oracle import Replayer

    replayer = Replayer(limits=limits(trace))
    out.cuts = np.unique(np.linspace(0, len(trace), columns + 1).astype(np.int64))[1:].tolist()
    column = {cut: number for number, cut in enumerate(out.cuts)}

    def look(row: int) -> None:
        for mm, space in replayer.spaces.items():
            out.vmas.setdefault(mm, [0] * len(out.cuts))[column[row]] = space.map_count
            shots = out.layouts.setdefault(mm, [np.zeros((0, 2), np.int64)] * len(out.cuts))
            shots[column[row]] = np.array([(a.vm_start, a.vm_end) for a in space.areas], np.int64).reshape(-1, 2)

    vm_start = replayer.feed(trace.events, out.cuts, look).vm_start
    out.peak_vmas = dict(sorted(replayer.peaks.items()))
    return vm_start


def _locality(trace: Trace, rows: I64, vm_start: I64, out: Figures, limit: int) -> None:
    """Shares of lookups that repeat the previous one of the same task, and LRU stack distances over VMAs."""
    out.reuse = [0] * (len(REUSE_BINS) + 2)
    if len(rows) < 2:
        return
    task = trace.events["task"][rows]
    order = np.argsort(task, kind="stable")
    rows, task = rows[order], task[order]
    addr, start = trace.events["addr"][rows], vm_start[rows]
    same_task = task[1:] == task[:-1]
    pairs = max(1, int(same_task.sum()))
    hit = same_task & (start[1:] != NIL)
    out.same_vma = float((hit & (start[1:] == start[:-1])).sum() / pairs)
    out.same_pmd = float((same_task & (addr[1:] >> PMD_SHIFT == addr[:-1] >> PMD_SHIFT)).sum() / pairs)
    out.same_page = float((same_task & (addr[1:] >> 12 == addr[:-1] >> 12)).sum() / pairs)
    stacks: dict[int, list[int]] = {}
    seen: dict[int, set[int]] = {}
    far = REUSE_BINS[-1] + 1
    counts: Counter[int] = Counter()
    for who, vma in zip(task[:limit].tolist(), start[:limit].tolist(), strict=True):
        stack, known = stacks.setdefault(who, []), seen.setdefault(who, set())
        if vma not in known:
            known.add(vma)
            distance = -1
        elif vma in stack:
            distance = stack.index(vma)
            del stack[distance]
        else:
            distance = far
        stack.insert(0, vma)
        del stack[far:]
        counts[distance] += 1
    for distance, count in counts.items():
        place = len(REUSE_BINS) + 1 if distance < 0 else int(np.searchsorted(REUSE_BINS, distance))
        out.reuse[place] += count
    out.reuse_rows = sum(counts.values())


def regions(spans: list[tuple[int, int]], rows: int = 20, gap: int = 1 << 30) -> list[tuple[int, int]]:
    """Divide the used part of an address space into about ``rows`` slices at most; holes of ``gap`` bytes are left out.

    >>> [(hex(a), hex(b)) for a, b in regions([(0, 4096), (1 << 40, (1 << 40) + 4096)], rows=2)]
    [('0x0', '0x1000'), ('0x10000000000', '0x10000001000')]
    """
    clusters: list[list[int]] = []
    for start, end in sorted(spans):
        if clusters and start - clusters[-1][1] < gap:
            clusters[-1][1] = max(clusters[-1][1], end)
        else:
            clusters.append([start, end])
    clusters = clusters[:rows]
    used = sum(end - start for start, end in clusters) or 1
    out: list[tuple[int, int]] = []
    for start, end in clusters:
        share = max(1, round((rows - len(clusters)) * (end - start) / used) + (end - start > 1 << 20))
        step = -(-(end - start) // share // 4096) * 4096 or 4096
        out += [(low, min(low + step, end)) for low in range(start, end, step)]
    return out


def picture(trace: Trace, figures: Figures, mm: int, rows: int = 20) -> list[str]:
    """The address space over the events: a line per slice (high addresses first), a column per sample.

    A space is unmapped, ``.`` mapped, and ``-+*#`` mapped with increasingly many faults in that column.
    """
    shots = figures.layouts.get(mm, [])
    spans = np.concatenate([np.zeros((0, 2), np.int64), *shots])
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]  # five times as fast as np.unique by rows
    spans = spans[np.diff(spans, axis=0, prepend=NIL).any(axis=1)]
    slices = regions([(start, end) for start, end in spans.tolist()], rows)
    used = [_overlaps(shot, slices) for shot in shots]
    counts = _heat(trace, figures, mm, slices)
    top = max(int(counts.max(initial=0)), 1)
    lines: list[tuple[int, int, str]] = []
    for i in reversed(range(len(slices))):
        low, high = slices[i]
        cells = []
        for column, mapped in enumerate(used):
            heat = int(counts[i, column])
            if heat:
                cells.append("-+*#"[min(3, int(4 * np.log1p(heat) / np.log1p(top + 1)))])
            else:
                cells.append("." if mapped[i] else " ")
        text = "".join(cells)
        if lines and lines[-1][2] == text and lines[-1][0] == high:
            high = lines.pop()[1]  # nothing new in this slice: one line for both
        lines.append((low, high, text))
    return [f"{low:>12x} {_size(high - low):>8} |{text}|" for low, high, text in lines]


def _overlaps(spans: I64, slices: list[tuple[int, int]]) -> list[bool]:
    """The ``slices`` that contain a part of the sorted ``spans``."""
    if not len(spans):
        return [False] * len(slices)
    low, high = np.array(slices, np.int64).T
    first = np.searchsorted(spans[:, 1], low, "right")
    starts = np.append(spans[:, 0], np.iinfo(np.int64).max)
    found: list[bool] = (starts[first] < high).tolist()
    return found


def _heat(trace: Trace, figures: Figures, mm: int, slices: list[tuple[int, int]]) -> NDArray[Any]:
    counts = np.zeros((max(1, len(slices)), max(1, len(figures.cuts))), np.int64)
    events = trace.events
    rows = np.flatnonzero((events["kind"] == Kind.FAULT) & (events["mm"] == mm))
    if not len(rows) or not slices:
        return counts
    addr = events["addr"][rows]
    lows, highs = np.array([s[0] for s in slices]), np.array([s[1] for s in slices])
    place = np.searchsorted(lows, addr, "right") - 1
    inside = (place >= 0) & (addr < highs[np.maximum(place, 0)])
    column = np.searchsorted(np.array(figures.cuts), rows, "right")
    np.add.at(counts, (place[inside], np.minimum(column[inside], counts.shape[1] - 1)), 1)
    return counts


def _size(size: int) -> str:
    """Bytes in the largest unit that keeps a whole number readable."""
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.0f}{unit}"
    return f"{size}B"


def peaks(by_mm: Mapping[int, int], limit: int = 8) -> str:
    """Each mm's largest number of VMAs; if there are many, the largest ones and a summary of the others.

    >>> peaks({0: 36, 1: 42}), peaks({0: 36, 1: 42, 2: 109, 3: 7}, 2)
    ('mm 0: 36, mm 1: 42', 'mm 1: 42, mm 2: 109, and 2 others with up to 36')
    """
    largest = sorted(by_mm, key=lambda mm: (-by_mm[mm], mm))
    text = ", ".join(f"mm {mm}: {by_mm[mm]}" for mm in sorted(largest[:limit]))
    rest = largest[limit:]
    return text + (f", and {len(rest)} other{'s' * (len(rest) > 1)} with up to {by_mm[rest[0]]}" if rest else "")


BLOCKS, PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*%#"


def sparkline(values: list[int], blocks: str = BLOCKS) -> str:
    """One character per value, scaled to the largest; ``PLAIN`` where the output cannot show ``BLOCKS``.

    >>> sparkline([0, 4, 8])
    ' \\u2584\\u2588'
    """
    top = max(values, default=0) or 1
    return "".join(blocks[round(8 * value / top)] for value in values)


FAR = 16
"""Other VMAs since the last lookup in one from which its reuse is far: more than any cache of VMAs had slots."""
ENOUGH = 5
"""Recorded programs with a statistic, at least, for a rank to mean anything."""


@dataclass(frozen=True)
class Statistic:
    """``title`` for people; ``share``: in [0, 1], compared as it is; else compared by its logarithm."""

    title: str
    share: bool = False


STATISTICS = {
    "vmas": Statistic("VMAs at most, in the largest address space"),
    "faults_per_call": Statistic("faults and lookups per mapping call"),
    "same_vma": Statistic("lookups in the VMA of the task's last one", share=True),
    "same_2mib": Statistic("lookups in the 2 MiB of the task's last one", share=True),
    "far": Statistic(f"lookups in a VMA after {FAR} others or more", share=True),
    "tasks": Statistic("tasks of the busiest address space"),
    "spaces": Statistic("address spaces"),
}
"""By the name in data files. A stream without mapping calls, or without two lookups, lacks what needs them."""


def nominal(trace: Trace) -> dict[str, float]:
    """The statistics of a stream, of its timed part where they are counts of events. O(a replay in the oracle)."""
    found = figures(trace, columns=1, first=trace.setup)
    timed = trace.events[trace.setup :]
    busiest = {int(mm): 0 for mm in timed["mm"]}
    asked = timed[(timed["kind"] == Kind.FAULT) | (timed["kind"] == Kind.LOOKUP)]
    for mm in busiest:
        busiest[mm] = len(set(asked["task"][asked["mm"] == mm].tolist()))
    values = {
        "vmas": float(max(found.peak_vmas.values(), default=0)),
        "tasks": float(max(busiest.values(), default=0) or 1),
        "spaces": float(len(busiest)),
    }
    if found.operations and found.lookups:
        values["faults_per_call"] = found.lookups / found.operations
    if found.reuse_rows > 1:
        values["same_vma"], values["same_2mib"] = found.same_vma, found.same_pmd
        again = found.reuse_rows - found.reuse[-1]
        first_far = REUSE_BINS.index(FAR - 1) + 1
        if again:
            values["far"] = sum(found.reuse[first_far:-1]) / again
    return {name: values[name] for name in STATISTICS if name in values}


@dataclass(frozen=True)
class Standing:
    """One value among those of ``n`` recorded programs: ``rank`` 1 has none above it; ``percentile`` is the share of
    them below it, those equal to it by half. ``low``, ``middle`` and ``high`` are theirs."""

    name: str
    value: float
    rank: int
    n: int
    percentile: float
    low: float
    middle: float
    high: float

    @property
    def outside(self) -> bool:
        """Whether no recorded program is as high, or as low."""
        return not self.low <= self.value <= self.high


def standings(own: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> list[Standing]:
    """Where each value of ``own`` lies; a statistic that fewer than ENOUGH of the others have is left out.

    >>> [found] = standings({"vmas": 30.0}, [{"vmas": float(v)} for v in (10, 20, 30, 40, 50)])
    >>> found.rank, found.n, found.percentile, found.outside
    (3, 5, 0.5, False)
    """
    found = []
    for name, value in own.items():
        theirs = sorted(other[name] for other in others if name in other)
        if len(theirs) < ENOUGH:
            continue
        above, below = sum(v > value for v in theirs), sum(v < value for v in theirs)
        share = (below + (len(theirs) - above - below) / 2) / len(theirs)
        found.append(Standing(name, value, 1 + above, len(theirs), share, theirs[0], median(theirs), theirs[-1]))
    return found


@dataclass(frozen=True)
class Nearest:
    """The recorded program nearest to a stream. ``distance`` is the root mean square of the differences in standard
    deviations among the programs; ``usual`` is the median of each program's distance to its own nearest one, ``most``
    the largest of these."""

    name: str
    distance: float
    usual: float
    most: float


def nearest(own: Mapping[str, float], programs: Mapping[str, Mapping[str, float]]) -> Nearest | None:
    """The nearest of ``programs``, by the statistics that both have; None if fewer than ENOUGH are given.

    O(programs^2)."""
    if len(programs) < ENOUGH:
        return None
    scale = {}
    for name in STATISTICS:
        values = [_axis(name, program[name]) for program in programs.values() if name in program]
        scale[name] = pstdev(values) if len(values) > 1 else 0.0
    by_distance = sorted((_distance(own, program, scale), name) for name, program in programs.items())
    between = [
        min(_distance(program, other, scale) for key, other in programs.items() if key != name)
        for name, program in programs.items()
    ]
    distance, name = by_distance[0]
    return Nearest(name, distance, median(between), max(between))


def _axis(name: str, value: float) -> float:
    return value if STATISTICS[name].share else math.log(max(value, 1e-9))


def _distance(a: Mapping[str, float], b: Mapping[str, float], scale: Mapping[str, float]) -> float:
    parts = [
        ((_axis(name, a[name]) - _axis(name, b[name])) / scale[name]) ** 2
        for name in STATISTICS
        if name in a and name in b and scale[name] > 0
    ]
    return math.sqrt(fmean(parts)) if parts else math.inf


def same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether both are the statistics of one stream, of which one was rounded to six digits in a file."""
    return a.keys() == b.keys() and all(math.isclose(a[name], b[name], rel_tol=1e-5) for name in a)


def lines(own: Mapping[str, float], programs: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The standings as aligned lines, then the nearest program; empty if there are too few programs."""
    found = standings(own, list(programs.values()))
    if not found:
        return []
    width = max(len(STATISTICS[one.name].title) for one in found)
    said = []
    for one in found:
        low, middle, high = (text(one.name, value) for value in (one.low, one.middle, one.high))
        place = f"rank {one.rank} of {one.n}, percentile {100 * one.percentile:.0f}"
        if one.outside:
            place = f"{'above' if one.value > one.high else 'below'} all {one.n}"
        title = f"{STATISTICS[one.name].title.ljust(width)}  {text(one.name, one.value):>8}"
        said.append(f"{title}  {place}  ({low} to {high}, median {middle})")
    if close := nearest_text(own, programs):
        said.append(f"nearest: {close}")
    return said


def nearest_text(own: Mapping[str, float], programs: Mapping[str, Mapping[str, float]]) -> str:
    """The nearest program, its distance, and what is usual among programs; empty if there are too few."""
    close = nearest(own, programs)
    if close is None:
        return ""
    far = "farther than any program is from its nearest one" if close.distance > close.most else ""
    usual = far or f"a program's nearest one is usually at {close.usual:.1f}"
    return f"{close.name}, at {close.distance:.1f} standard deviations; {usual}"


def text(name: str, value: float) -> str:
    """A value for people.

    >>> text("same_vma", 0.734), text("far", 0.0032), text("vmas", 1307.0), text("faults_per_call", 9.46)
    ('73 %', '0.32 %', '1,307', '9.5')
    """
    if STATISTICS[name].share:
        return f"{100 * value:.0f} %" if value >= 0.1 or not value else f"{100 * value:.2g} %"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


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
