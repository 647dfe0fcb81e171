"""Read, write or execute? What a fault wanted, where nothing says so (the software event has no error code)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchframe.events import NIL, Kind

if TYPE_CHECKING:
    from benchframe.oracle import Replayer

GUESSED = "what a fault wanted was guessed from its mapping: write if writable, else execute, else read"


class Guesser:
    """Fills in what faults wanted, batch by batch; ``guessed`` says whether there were any.

    It decides merges: the first write to private memory gives it an anon_vma. Where the error code is recorded, most
    faults in writable private memory are writes. O(events + changes x VMAs): the layouts come from a replay, which
    begins with the first unknown access and needs all batches from the start.
    """

    def __init__(self) -> None:
        self._replayer: Replayer | None = None
        self._idle = False
        self._first = True
        self.guessed = False

    def feed(self, events: NDArray[np.void]) -> None:
        """Take the next batch of EVENT rows and change ``prot`` of its faults that have 0, in place."""
        unknown = (events["kind"] == Kind.FAULT) & (events["prot"] == 0)
        if self._first:  # one recording knows all accesses or none
            self._first = False
            faults = events["kind"] == Kind.FAULT
            self._idle = bool(faults.any()) and not bool(unknown.any())
        if self._idle and not unknown.any():
            return
        from benchframe.oracle import Replayer

        self.guessed |= bool(unknown.any())
        self._replayer = replayer = self._replayer or Replayer()
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
