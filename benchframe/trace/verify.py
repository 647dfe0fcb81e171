"""Compare the replay of a trace with what the kernel reported: the test of recordings, importers and the model's rules.

Three claims, each with its count: every fault lies in a VMA (or the program got a signal for it); every VMA that
the kernel reported right after a call is a VMA of the replay; every recorded ``/proc/PID/maps`` equals the
replay's layout at that moment.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import CALLS, NIL, UNKNOWN, FaultFlag, Kind
from benchframe.trace.meta import Snapshot
from benchframe.trace.trace import Trace

if TYPE_CHECKING:
    from benchframe.oracle import Limits, Oracle
    from benchframe.trace.blame import Blame

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
    from benchframe.trace.blame import Blame

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
    from benchframe.trace.blame import Blame

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
    from benchframe.trace.blame import clusters, same_memory

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
