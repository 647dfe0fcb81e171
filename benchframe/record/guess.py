"""Read, write or execute? What a fault wanted, where nothing says so (the software event has no error code)."""

import numpy as np

from benchframe.events import Kind
from benchframe.trace.format import Trace

GUESSED = "what a fault wanted was guessed from its mapping: write if writable, else execute, else read"


def guess_access(trace: Trace) -> bool:
    """Fill in ``prot`` of faults that have 0, in place; True if there were any.

    It decides merges: the first write to private memory gives it an anon_vma. Where the error code is recorded, most
    faults in writable private memory are writes. O(events log VMAs): the layouts come from a replay.
    """
    from benchframe.oracle import Replayer

    events = trace.events
    unknown = (events["kind"] == Kind.FAULT) & (events["prot"] == 0)
    if not unknown.any():
        return False
    replayer = Replayer()
    mm, quick = events["mm"], np.isin(events["kind"], (Kind.FAULT, Kind.LOOKUP))
    edges = np.flatnonzero((np.diff(mm) != 0) | (np.diff(quick.astype(np.int8)) != 0)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(events)]
    until = dict(zip(starts, ends, strict=True))
    asked = [start for start, end in until.items() if quick[start] and unknown[start:end].any()]

    def look(start: int) -> None:
        space = replayer.spaces.get(int(mm[start]))
        for row in np.flatnonzero(unknown[start : until[start]]) + start:
            area = space.find_vma(int(events["addr"][row])) if space is not None else None
            rights = area.row()[2] if area is not None else 0
            events["prot"][row] = 2 if rights & 2 else 4 if rights & 4 else 1

    replayer.feed(events, asked, look)
    return True
