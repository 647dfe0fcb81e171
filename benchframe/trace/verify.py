"""Compare the replay of a trace with what the kernel reported, and name the calls that explain a difference.

Three claims, each with its count: every fault lies in a VMA (or the program got a signal for it); every VMA that
the kernel reported right after a call is a VMA of the replay; every recorded ``/proc/PID/maps`` equals the
replay's layout at that moment.

Calls that were not replayed can explain a difference between the replay and the kernel. A trace names such calls with
their row, address space and range (:class:`~benchframe.trace.meta.Unplayed`). A mark follows the memory: mremap and
fork carry it along, and a new mapping removes it. It explains a later difference that overlaps it and is of its sort:
BORDERS explains that memory of one protection is divided into other VMAs, MAPPINGS that memory is missing, is
additional, or has other permissions.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import CALLS, NIL, UNKNOWN, FaultFlag, Kind
from benchframe.oracle.space import Spans
from benchframe.trace.meta import BORDERS, PAGE, Snapshot, Unplayed
from benchframe.trace.trace import Trace

if TYPE_CHECKING:
    from benchframe.oracle import Limits, Oracle


EXCUSES = ("no mappings that the kernel made", "unmapping was not recorded")
"""Notes of importers that say that the trace is less than the program's whole history."""
FORMER_EXCUSE = "were not replayed"
"""The same for calls without an event, in traces made before each call was stored with its place
(TraceMeta.unplayed)."""
SHOWN = 5
Rows = list[tuple[int, int, int, int, int, int]]


@dataclass
class VerifyResult:
    """Counts of what was held, and a line for each of the first failures.

        ``faults_refused`` are faults in kernel mode that the replay refuses: the call ended in EFAULT, or short.
    ``explained``     counts differences that a call can explain which was not replayed, by the names of those
    calls; they do not fail the     trace, and the other counts do not hold them. ``unplayed``: the history begins
    late, or knows such calls without     their places; then results and a few reported VMAs may differ.
    ``snapshots_hazy`` counts layouts that agree but for     borders within private memory, where the first writes
    decide and were not all recorded.
    """

    faults: int = 0
    faults_outside: int = 0
    faults_refused: int = 0
    signals: int = 0
    calls: int = 0
    calls_differ: int = 0
    reports: int = 0
    reports_differ: int = 0
    snapshots: int = 0
    snapshots_differ: int = 0
    snapshots_hazy: int = 0
    unplayed: bool = False
    explained: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """True if the replay agrees with the recorded run, except for what calls that were not replayed explain."""
        hard = self.faults_outside + self.snapshots_differ + (0 if self.unplayed else self.calls_differ)
        excused = self.unplayed and self.reports_differ * 100 <= self.reports
        return hard == 0 and (self.reports_differ == 0 or excused)

    def note(self, text: str, count: int) -> None:
        """Keep ``text`` if it is among the first of its sort."""
        if count <= SHOWN:
            self.lines.append(text)

    def explain(self, text: str, names: tuple[str, ...]) -> None:
        """Count a difference that the calls ``names`` can explain."""
        why = " or ".join(names)
        self.explained[why] += 1
        self.note(f"{text}; {why}, not replayed, may explain it", self.explained[why])


def verify(trace: Trace) -> VerifyResult:
    """Replay ``trace`` in the oracle and compare. O(events + areas in recorded layouts)."""
    from benchframe.oracle import Replayer

    excuses = EXCUSES if trace.meta.unplayed else (*EXCUSES, FORMER_EXCUSE)
    verdict = VerifyResult(unplayed=any(excuse in note for note in trace.meta.notes for excuse in excuses))
    replayer = Replayer(limits=limits(trace))
    blame = Blame(trace)
    reports = {int(r["row"]): (int(r["vm_start"]), int(r["vm_end"])) for r in trace.reports}
    snapshots: dict[int, list[Snapshot]] = {}
    for snapshot in trace.meta.snapshots:
        snapshots.setdefault(snapshot.row, []).append(snapshot)

    def look(row: int) -> None:
        blame.at(row)
        if row - 1 in reports:
            space = replayer.spaces.get(int(trace.events["mm"][row - 1]))
            _report(trace, row - 1, reports[row - 1], space, verdict, blame)
        for snapshot in snapshots.get(row, ()):
            space = replayer.spaces.get(snapshot.mm)
            layout = space.layout() if space is not None else replayer.layouts.get(snapshot.mm, [])
            exact = trace.meta.level in ("full", "synthetic") or snapshot.when == "attach"
            _snapshot(snapshot, layout, verdict, exact, blame)

    answers = replayer.feed(trace.events, sorted({row + 1 for row in reports} | set(snapshots)), look)
    _rows(trace, answers.ret, answers.vm_start, verdict)
    return verdict


def limits(trace: Trace) -> "Limits":
    """The limits that the recorded programs ran under, as far as they affect the results of calls."""
    from benchframe.oracle import Limits

    known, default = trace.meta.limits, Limits()
    stack = known.get("stack", default.rlimit_stack)
    return Limits(
        max_map_count=known.get("max_map_count", default.max_map_count),
        rlimit_stack=stack if stack >= 0 else 1 << 47,  # RLIM_INFINITY
    )


def _rows(trace: Trace, ret: NDArray[Any], vm_start: NDArray[Any], verdict: VerifyResult) -> None:

    events = trace.events
    fault = events["kind"] == Kind.FAULT
    signal = fault & ((events["flags"] & FaultFlag.SEGV) != 0)
    outside = fault & ~signal & ((vm_start == NIL) | (vm_start > events["addr"]) | (ret < 0))
    refused = outside & ((events["flags"] & FaultFlag.USER) == 0)
    outside &= ~refused
    call = np.isin(events["kind"], CALLS) & (events["ret"] != UNKNOWN)
    differ = call & (ret != events["ret"])
    verdict.faults += int(fault.sum())
    verdict.faults_refused += int(refused.sum())
    verdict.signals += int(signal.sum())
    verdict.calls += int(call.sum())
    blame = Blame(trace)
    for i in np.flatnonzero(outside | differ).tolist():
        event, mm = events[i], int(events["mm"][i])
        addr = int(event["addr"])
        if outside[i]:
            why = "outside every VMA" if ret[i] == 0 or vm_start[i] == NIL else f"refused by the replay ({int(ret[i])})"
            text = f"event {i}: fault at {addr:#x} is {why}"
            end = addr + 1
        else:
            name = Kind(int(event["kind"])).name.lower()
            text = f"event {i}: {name} returned {int(event['ret']):#x}, the replay {int(ret[i]):#x}"
            end = addr + max(int(event["len"]), 1)
        blame.at(i)
        names = blame.explains(mm, addr, end, borders_only=False)
        if names:
            verdict.explain(text, names)
        elif outside[i]:
            verdict.faults_outside += 1
            verdict.note(text, verdict.faults_outside)
        else:
            verdict.calls_differ += 1
            verdict.note(text, verdict.calls_differ)


def _report(
    trace: Trace, row: int, want: tuple[int, int], space: "Oracle | None", verdict: VerifyResult, blame: "Blame"
) -> None:  # fmt: skip
    verdict.reports += 1
    near = space.areas_in(*want, most=3) if space is not None else []
    if near and (near[0].vm_start, near[0].vm_end) == want:
        return
    kind = Kind(int(trace.events["kind"][row])).name.lower()
    text = f"event {row}: after {kind} the kernel reported {_range(want)}, the replay has "
    text += ", ".join(_range((area.vm_start, area.vm_end)) for area in near) or "nothing"
    names: tuple[str, ...] = ()
    if blame:
        every = [area.row() for area in space.areas_in(*want)] if space is not None else []
        covered = every and every[0][0] <= want[0] and every[-1][1] >= want[1]
        alike = all(a[1] == b[0] and a[2:4] == b[2:4] for a, b in pairwise(every))
        low, high = min([want[0], *(a[0] for a in every[:1])]), max([want[1], *(a[1] for a in every[-1:])])
        names = blame.explains(int(trace.events["mm"][row]), low, high, bool(covered and alike))
    if names:
        verdict.explain(text, names)
        return
    verdict.reports_differ += 1
    verdict.note(text, verdict.reports_differ)


def _snapshot(snapshot: Snapshot, layout: Rows, verdict: VerifyResult, every_fault: bool, blame: "Blame") -> None:

    verdict.snapshots += 1
    ours, theirs = {area[:4] for area in layout}, {area[:4] for area in snapshot.areas}
    # File mappings also with their offsets; maps shows none for anonymous memory.
    ours_files = {(a[0], a[4]) for a in layout if a[5] >= 0}
    theirs_files = {(a[0], a[4]) for a in snapshot.areas if a[5] >= 0}
    offsets = {start for start, _ in ours_files ^ theirs_files} & {a[0] for a in ours & theirs}
    files = {start for start, _ in theirs_files} & {start for start, _ in ours_files}
    if ours == theirs and not offsets & files:
        return
    where = f"mm {snapshot.mm} at {snapshot.when} (event {snapshot.row}): "
    if blame and not offsets & files:
        found = clusters(layout, snapshot.areas)
        names = [
            blame.explains(snapshot.mm, _low(mine + other), _high(mine + other), same_memory(mine, other))
            for mine, other in found
        ]
        for (mine, other), why in zip(found, names, strict=True):
            if why:
                verdict.explain(where + _differ(mine, other), why)
        if all(names):
            return
        found = [group for group, why in zip(found, names, strict=True) if not why]
        ours = {area[:4] for mine, _ in found for area in mine}
        theirs = {area[:4] for _, other in found for area in other}
        layout, areas = [a for mine, _ in found for a in mine], [a for _, other in found for a in other]
    else:
        areas = list(snapshot.areas)
    if not every_fault and not offsets & files and _outline(layout) == _outline(areas):
        verdict.snapshots_hazy += 1
        return
    verdict.snapshots_differ += 1
    if ours == theirs:
        where += f"file offset at {min(offsets & files):#x} differs"
    else:
        where += _differ(layout, areas)
    verdict.note(where, verdict.snapshots_differ)


def _low(areas: Rows) -> int:
    return min(area[0] for area in areas)


def _high(areas: Rows) -> int:
    return max(area[1] for area in areas)


def _differ(mine: Rows, other: Rows) -> str:
    """How two layouts differ, in words: the number of differing areas, and the first one."""
    ours, theirs = {area[:4] for area in mine}, {area[:4] for area in other}
    first = min(ours ^ theirs)
    holder = "the replay alone" if first in ours else "the kernel alone"
    return f"{len(ours ^ theirs)} areas differ; first {_range(first[:2])} prot {first[2]}, which {holder} has"


def _outline(areas: "Iterable[tuple[int, int, int, int, int, int]]") -> "list[tuple[int, int, int, int]]":
    """The areas without the borders that depend on anon_vmas: between private neighbours that could be one VMA.

    Two written neighbours with an anon_vma each stay separate (is_mergeable_anon_vma(), mm/vma.c); one without takes
    the other's. Which VMAs have one depends on faults, which ``strace`` does not record, and ``user`` only in part.
    """
    outline: list[tuple[int, int, int, int]] = []
    last: tuple[int, ...] | None = None
    for area in sorted(areas):
        start, end, prot, shared, offset, file = area
        one = last is not None and last[1:4] == (start, prot, shared) and not shared and last[5] == file
        if one and last is not None and (file < 0 or last[4] + start - last[0] == offset):
            outline[-1] = (outline[-1][0], end, prot, shared)
        else:
            outline.append((start, end, prot, shared))
        last = area
    return outline


def _range(area: "tuple[int, ...]") -> str:
    return f"{area[0]:x}-{area[1]:x}"


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
