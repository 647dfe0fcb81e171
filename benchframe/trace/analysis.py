"""Figures about a trace: its events, the locality of its lookups, the growth of its address space."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import NIL, FaultFlag, Kind
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
