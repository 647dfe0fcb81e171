"""A trace moved in the address space: every address lower by a number of pages, nothing else changed.

What lies in one 2 MiB region, and so in one page of page-table entries, depends on where the program was loaded. A
kernel places it anew in each run (ASLR); a recorded trace has one placement. Moving it by 0 to 511 pages shows the
others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchframe.events import Kind
from benchframe.trace.format import Trace

PAGE = 4096
PLACED = (Kind.EXEC, Kind.MAP, Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.BRK, Kind.MADVISE, Kind.MLOCK,
          Kind.MUNLOCK, Kind.FAULT, Kind.LOOKUP)  # fmt: skip
"""Kinds whose ``addr`` is an address (a FORK's is the child's mm, a THREAD's nothing)."""
GIVEN = (Kind.MAP, Kind.MMAP, Kind.MREMAP, Kind.BRK)
"""Kinds that return an address."""
LOWEST = 1 << 20
"""Addresses below 1 MiB stay: null pointers that the program touched, and hints of 0."""


def shifted(trace: Trace, pages: int) -> Trace:
    """``trace`` with all addresses lower by ``pages`` (0 to 511). ValueError outside that. O(events)."""
    if not 0 <= pages < 512:
        raise ValueError(f"a shift of {pages} pages is not in 0..511: 512 pages are 2 MiB, the same placement again")
    if pages == 0:
        return trace
    events = trace.events.copy()
    down = pages * PAGE
    kind = events["kind"]
    for field, kinds in (("addr", PLACED), ("ret", GIVEN), ("offset", (Kind.MREMAP,))):
        chosen = np.isin(kind, kinds) & (events[field] >= LOWEST)
        events[field][chosen] -= down
    notes = (*trace.meta.notes, f"all addresses lower by {pages} pages")
    return Trace(events, meta=replace(trace.meta, snapshots=(), notes=notes), setup=trace.setup)
