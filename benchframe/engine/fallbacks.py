"""Why a strategy gave up its fast path for mmap_lock: fallbacks of a replay, counted by what was true of the address.

Nothing is added to compiled code: the counted build replays the stream event by event, which shows the events that
fell back, and the oracle tells what the address was in right before each. So a reason is a state of the VMA, not a line
of the strategy, and the same for all strategies. In a replay nobody else is at work: a writer, a VMA that was detached
and a race lost never occur; should one fall back without a reason known here, it is counted as ``other``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from benchframe.events import Kind
from benchframe.oracle import Replayer
from benchframe.oracle.rules import VM_GROWSDOWN, VM_SHARED, VM_WRITE
from benchframe.verify import limits, rules

if TYPE_CHECKING:
    from benchframe.engine.session import Session
    from benchframe.oracle.space import Area

REASONS = {
    "outside": "no VMA holds the address",
    "stack": "below a stack, which has to grow",
    "file": "in a VMA of a file, or of shared memory",
    "no anon_vma": "in a private VMA that has no anon_vma yet; its first write prepares one",
    "file, no anon_vma": "in a writable private VMA of a file without anon_vma: both",
    "other": "none of these: the strategy's own reason, such as an empty cache",
}
"""What each name means."""


def reason(area: Area | None, addr: int) -> str:
    """What is true of ``addr``; ``area`` is its VMA, or the next one above."""
    if area is None:
        return "outside"
    if addr < area.vm_start:
        return "stack" if area.vm_flags & VM_GROWSDOWN else "outside"
    lacks = not area.vm_flags & VM_SHARED and not area.anon_vma
    if area.anonymous:
        return "no anon_vma" if lacks else "other"
    return "file, no anon_vma" if lacks and area.vm_flags & VM_WRITE else "file"


def fallbacks(session: Session) -> Counter[str]:
    """Fallbacks of one replay of the timed part, by REASONS. The answers must be right. Some 20 us an event."""
    rows = _fell_back(session)
    found: Counter[str] = Counter()
    replayer = Replayer(rules(session.parameters), limits(session.parameters))
    events = session.trace.events

    def look(row: int) -> None:
        addr, mm = int(events[row]["addr"]), int(events[row]["mm"])
        found[reason(replayer.space(mm).find_vma(addr), addr)] += rows[row]

    replayer.feed(events, sorted(rows), look)
    return found


def _fell_back(session: Session) -> dict[int, int]:
    """Row to the fallbacks of its event."""
    session.restore()
    events = session.trace.events
    found = {}
    quick = np.isin(events["kind"], (Kind.FAULT, Kind.LOOKUP))
    counters = session.machine.arrays["task_base"]["nr_fallbacks"]
    at = session.first
    for row in (session.first + np.flatnonzero(quick[session.first :])).tolist():
        if at < row:
            session.runner.replay(at, row)
        who = int(events["task"][row]) + 1
        before = int(counters[who])
        session.runner.replay(row, row + 1)
        if more := int(counters[who]) - before:
            found[row] = more
        at = row + 1
    return found
