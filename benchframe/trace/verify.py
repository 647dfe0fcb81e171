"""Does a trace replay to what the kernel showed? The judge of recordings, importers and of the model's rules.

Three claims, each with its count: every fault lies in a VMA (or the program got a signal for it); every VMA that
the kernel reported right after a call is a VMA of the replay; every recorded ``/proc/PID/maps`` equals the
replay's layout at that moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import NIL, UNKNOWN, FaultFlag, Kind
from benchframe.trace.meta import Snapshot
from benchframe.trace.trace import Trace

if TYPE_CHECKING:
    from benchframe.oracle import Limits

EXCUSES = ("were not replayed", "no mappings that the kernel made", "unmapping was not recorded")
"""What a recorder or importer notes when the trace is less than the program's whole history."""
SHOWN = 5
CALLS = (Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.BRK, Kind.MADVISE, Kind.MLOCK, Kind.MUNLOCK)


@dataclass
class Verdict:
    """Counts of what was held, and a line for each of the first failures.

    ``unplayed`` says that the trace knows of calls that it could not hold (mbind...), or of a history that begins late:
    then results and a few reported VMAs may differ, and that alone does not fail it. ``snapshots_hazy`` counts layouts
    that agree but for borders within private memory, where the first writes decide and were not all recorded.
    """

    faults: int = 0
    faults_outside: int = 0
    signals: int = 0
    calls: int = 0
    calls_differ: int = 0
    reports: int = 0
    reports_differ: int = 0
    snapshots: int = 0
    snapshots_differ: int = 0
    snapshots_hazy: int = 0
    unplayed: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """True if the replay is the recorded run."""
        hard = self.faults_outside + self.snapshots_differ + (0 if self.unplayed else self.calls_differ)
        excused = self.unplayed and self.reports_differ * 100 <= self.reports
        return hard == 0 and (self.reports_differ == 0 or excused)

    def note(self, text: str, count: int) -> None:
        """Keep ``text`` while it is among the first of its sort."""
        if count <= SHOWN:
            self.lines.append(text)


def verify(trace: Trace) -> Verdict:
    """Replay ``trace`` through the oracle and compare; O(events + reports x VMAs)."""
    from benchframe.oracle import Replayer

    verdict = Verdict(unplayed=any(excuse in note for note in trace.meta.notes for excuse in EXCUSES))
    replayer = Replayer(limits=_limits(trace))
    reports = {int(r["row"]): (int(r["vm_start"]), int(r["vm_end"])) for r in trace.reports}
    snapshots: dict[int, list[Snapshot]] = {}
    for snapshot in trace.meta.snapshots:
        snapshots.setdefault(snapshot.row, []).append(snapshot)
    cuts = sorted({row + 1 for row in reports} | set(snapshots) | {len(trace)})
    at = 0
    for cut in cuts:
        answers = replayer.feed(trace.events[at:cut])
        _rows(trace, at, cut, answers.ret, answers.vm_start, verdict)
        at = cut
        if cut - 1 in reports:
            space = replayer.spaces.get(int(trace.events["mm"][cut - 1]))
            _report(trace, cut - 1, reports[cut - 1], space.layout() if space is not None else [], verdict)
        for snapshot in snapshots.get(cut, []):
            space = replayer.spaces.get(snapshot.mm)
            layout = space.layout() if space is not None else replayer.layouts.get(snapshot.mm, [])
            _snapshot(snapshot, layout, verdict, trace.meta.level == "full" or trace.meta.level == "synthetic")
    return verdict


def _limits(trace: Trace) -> "Limits":
    """The limits that the recorded programs ran under, as far as they change what calls return."""
    from benchframe.oracle import Limits

    known, default = trace.meta.limits, Limits()
    stack = known.get("stack", default.rlimit_stack)
    return Limits(
        max_map_count=known.get("max_map_count", default.max_map_count),
        rlimit_stack=stack if stack >= 0 else 1 << 46,  # RLIM_INFINITY
    )


def _rows(
    trace: Trace, at: int, cut: int, ret: NDArray[Any], vm_start: NDArray[Any], verdict: Verdict
) -> None:  # fmt: skip
    events = trace.events[at:cut]
    fault = events["kind"] == Kind.FAULT
    signal = fault & ((events["flags"] & FaultFlag.SEGV) != 0)
    outside = fault & ~signal & ((vm_start == NIL) | (vm_start > events["addr"]) | (ret < 0))
    call = np.isin(events["kind"], CALLS) & (events["ret"] != UNKNOWN)
    differ = call & (ret != events["ret"])
    verdict.faults += int(fault.sum())
    verdict.signals += int(signal.sum())
    verdict.calls += int(call.sum())
    for i in np.flatnonzero(outside).tolist():
        verdict.faults_outside += 1
        addr = int(events["addr"][i])
        why = "outside every VMA" if ret[i] == 0 or vm_start[i] == NIL else f"refused by the replay ({int(ret[i])})"
        verdict.note(f"event {at + i}: fault at {addr:#x} is {why}", verdict.faults_outside)
    for i in np.flatnonzero(differ).tolist():
        verdict.calls_differ += 1
        name = Kind(int(events["kind"][i])).name.lower()
        text = f"event {at + i}: {name} returned {int(events['ret'][i]):#x}, the replay {int(ret[i]):#x}"
        verdict.note(text, verdict.calls_differ)


def _report(
    trace: Trace, row: int, want: tuple[int, int], layout: "list[tuple[int, int, int, int, int, int]]", verdict: Verdict
) -> None:
    verdict.reports += 1
    if any(area[:2] == want for area in layout):
        return
    verdict.reports_differ += 1
    near = [area[:2] for area in layout if area[0] < want[1] and area[1] > want[0]][:3]
    kind = Kind(int(trace.events["kind"][row])).name.lower()
    text = f"event {row}: after {kind} the kernel reported {_range(want)}, the replay has "
    verdict.note(text + (", ".join(map(_range, near)) or "nothing"), verdict.reports_differ)


def _snapshot(
    snapshot: Snapshot, layout: "list[tuple[int, int, int, int, int, int]]", verdict: Verdict, every_fault: bool
) -> None:  # fmt: skip
    verdict.snapshots += 1
    ours, theirs = {area[:4] for area in layout}, {area[:4] for area in snapshot.areas}
    # Offsets of file mappings too; anonymous memory shows none in maps.
    ours_files = {(a[0], a[4]) for a in layout if a[5] >= 0}
    theirs_files = {(a[0], a[4]) for a in snapshot.areas if a[5] >= 0}
    offsets = {start for start, _ in ours_files ^ theirs_files} & {a[0] for a in ours & theirs}
    files = {start for start, _ in theirs_files} & {start for start, _ in ours_files}
    if ours == theirs and not offsets & files:
        return
    if not every_fault and not offsets & files and _outline(layout) == _outline(snapshot.areas):
        verdict.snapshots_hazy += 1
        return
    verdict.snapshots_differ += 1
    text = f"mm {snapshot.mm} at {snapshot.when} (event {snapshot.row}): "
    first = min(ours ^ theirs, default=None)
    if first is None:
        text += f"file offset at {min(offsets & files):#x} differs"
    else:
        holder = "the replay alone" if first in ours else "the kernel alone"
        text += f"{len(ours ^ theirs)} areas differ; first {_range(first[:2])} prot {first[2]}, which {holder} has"
    verdict.note(text, verdict.snapshots_differ)


def _outline(areas: "Iterable[tuple[int, int, int, int, int, int]]") -> "list[tuple[int, int, int, int]]":
    """The areas without the borders that an anon_vma decides: between private neighbours that could be one VMA.

    Two written neighbours with an anon_vma each stay two (is_mergeable_anon_vma(), mm/vma.c); one without takes the
    other's. Who has one is told by faults, which ``strace`` does not record, and ``user`` only in part.
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
