"""Read, write or execute? What a fault wanted, where nothing says so (the software event has no error code)."""

import numpy as np

from benchframe.events import NIL, Kind
from benchframe.trace.format import Trace

GUESSED = "what a fault wanted was guessed from its mapping: write if writable, else execute, else read"


def guess_access(trace: Trace) -> bool:
    """Fill in ``prot`` of faults that have 0, in place; True if there were any.

    It decides merges: the first write to private memory gives it an anon_vma. Where the error code is recorded, most
    faults in writable private memory are writes. O(events + changes x VMAs): the layouts come from a replay.
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
    for start, end in zip(starts, ends, strict=True):
        if quick[start] and unknown[start:end].any():
            space = replayer.spaces.get(int(mm[start]))
            areas = np.array(space.layout() if space is not None else [], np.int64).reshape(-1, 6)
            addr = events["addr"][start:end]
            at = np.searchsorted(areas[:, 1], addr, "right") if len(areas) else np.zeros(len(addr), np.int64)
            prot = np.append(areas[:, 2], NIL)[np.minimum(at, len(areas))]
            want = np.where(prot & 2, 2, np.where(prot & 4, 4, 1)).astype(np.int32)
            part = events["prot"][start:end]
            part[unknown[start:end]] = want[unknown[start:end]]
        replayer.feed(events[start:end])
    return True
