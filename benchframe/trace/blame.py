"""Find the calls that were not replayed and can explain a difference between the replay and the kernel.

A trace names such calls with their row, address space and range (:class:`~benchframe.trace.meta.Unplayed`). A mark
follows the memory: mremap and fork carry it along, and a new mapping removes it. It explains a later difference that
overlaps it and is of its sort: BORDERS explains that memory of one protection is divided into other VMAs, MAPPINGS that
memory is missing, is additional, or has other permissions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchframe.events import Kind
from benchframe.oracle.space import Spans
from benchframe.trace.meta import BORDERS, PAGE, Unplayed
from benchframe.trace.trace import Trace


@dataclass
class _Mark:
    name: str
    sort: int
    spans: Spans | None
    """The marked ranges; None: anywhere in the address space."""

    def copy(self) -> "_Mark":
        return _Mark(self.name, self.sort, self.spans.copy() if self.spans is not None else None)


class Blame:
    """The marks of each address space during the replay. O(calls after the first mark x marks)."""

    def __init__(self, trace: Trace) -> None:
        self._events = trace.events
        self._pending: list[Unplayed] = sorted(trace.meta.unplayed, key=lambda mark: mark.row, reverse=True)
        self._marks: dict[int, list[_Mark]] = {}
        first = self._pending[-1].row if self._pending else len(trace)
        kinds = (Kind.MMAP, Kind.MUNMAP, Kind.MREMAP, Kind.FORK, Kind.EXEC)
        after = np.isin(trace.events["kind"][first:], kinds) if self._pending else np.zeros(0, np.bool_)
        self._rows: list[int] = (np.flatnonzero(after) + first)[::-1].tolist()

    def __bool__(self) -> bool:
        """Whether there are marks, now or later."""
        return bool(self._pending or self._marks)

    def at(self, row: int) -> None:
        """Advance to the state right before event ``row``; rows never decrease."""
        while True:
            call = self._rows[-1] if self._rows else row
            mark = self._pending[-1].row if self._pending else row + 1
            if mark <= min(call, row):
                self._add(self._pending.pop())
            elif call < row:
                self._follow(self._events[self._rows.pop()])
            else:
                return

    def _add(self, told: Unplayed) -> None:
        spans = Spans([(told.start, told.end)]) if told.end else None
        marks = self._marks.setdefault(told.mm, [])
        for mark in marks:
            if (mark.name, mark.sort) == (told.name, told.sort):
                if spans is None:
                    mark.spans = None
                elif mark.spans is not None:
                    mark.spans.add(told.start, told.end)
                return
        marks.append(_Mark(told.name, told.sort, spans))

    def _follow(self, event: np.void) -> None:
        kind, mm = int(event["kind"]), int(event["mm"])
        if kind == Kind.EXEC:
            self._marks.pop(mm, None)
        elif kind == Kind.FORK:
            if mm in self._marks:
                self._marks[int(event["addr"])] = [mark.copy() for mark in self._marks[mm]]
        elif mm in self._marks and int(event["ret"]) >= 0:
            addr, length, ret = int(event["addr"]), int(event["len"]), int(event["ret"])
            for mark in self._marks[mm]:
                if mark.spans is None:
                    continue
                if kind == Kind.MREMAP:
                    _move(mark.spans, addr, length, ret, int(event["new_len"]))
                else:
                    start = ret if kind == Kind.MMAP else addr
                    mark.spans.discard(start, _up(start + length))

    def explains(self, mm: int, start: int, end: int, borders_only: bool) -> tuple[str, ...]:
        """Names of the calls that can explain a difference in [start, end) of ``mm`` now."""
        names = []
        for mark in self._marks.get(mm, ()):
            if mark.sort == BORDERS and not borders_only:
                continue
            if mark.spans is None or mark.spans.clip(start - 1, end + 1):
                names.append(mark.name)
        return tuple(dict.fromkeys(names))


def _up(addr: int) -> int:
    return -(-addr // PAGE) * PAGE


def _move(spans: Spans, old: int, old_len: int, new: int, new_len: int) -> None:
    """mremap: marks move along; marks at the new place, and in the part that was cut off, are removed."""
    kept = spans.clip(old, min(old + old_len, old + new_len))
    spans.discard(old, _up(old + old_len))
    if new != old:
        spans.discard(new, _up(new + new_len))
    spans.add_all((start - old + new, end - old + new) for start, end in kept)


Row = tuple[int, int, int, int, int, int]


def clusters(ours: Iterable[Row], theirs: Iterable[Row]) -> list[tuple[list[Row], list[Row]]]:
    """The differing areas of two layouts, grouped by place: overlapping ones are one difference. O(n log n)."""
    mine, other = {area[:4]: area for area in ours}, {area[:4]: area for area in theirs}
    both = [(area, 0) for key, area in mine.items() if key not in other]
    both += [(area, 1) for key, area in other.items() if key not in mine]
    out: list[tuple[list[Row], list[Row]]] = []
    end = -1
    for area, side in sorted(both):
        if area[0] >= end:
            out.append(([], []))
        out[-1][side].append(area)
        end = max(end, area[1])
    return out


def same_memory(ours: list[Row], theirs: list[Row]) -> bool:
    """Whether the two groups of areas differ only in their borders."""
    return _runs(ours) == _runs(theirs)


def _runs(areas: list[Row]) -> list[tuple[int, int, int, int]]:
    """The areas, with adjacent ones of the same protection joined."""
    out: list[tuple[int, int, int, int]] = []
    for start, end, prot, shared, *_ in sorted(areas):
        if out and out[-1][1:] == (start, prot, shared):
            out[-1] = (out[-1][0], end, prot, shared)
        else:
            out.append((start, end, prot, shared))
    return out
