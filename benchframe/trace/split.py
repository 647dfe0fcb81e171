"""One trace of a process tree to one trace per address space."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchframe.events import EVENT, NIL, Kind
from benchframe.trace.format import Trace


def split_trace(trace: Trace) -> list[Trace]:
    """A trace for each address space that begins with an exec, renumbered from mm 0 and task 0. O(events x mms).

    A forked address space that never calls exec begins as a copy of its parent, so it stays out: it cannot be
    replayed alone. FORK rows are dropped; a task that came through vfork appears as a thread until its exec.
    """
    execs = trace.events["mm"][trace.events["kind"] == Kind.EXEC]
    return [_one(trace, int(mm)) for mm in execs]


def _one(trace: Trace, mm: int) -> Trace:
    keep = (trace.events["mm"] == mm) & (trace.events["kind"] != Kind.FORK)
    rows = np.flatnonzero(keep)
    events = trace.events[rows].astype(EVENT)
    events["mm"] = 0
    number: dict[int, int] = {}
    spawn = events["kind"] == Kind.THREAD
    ids: NDArray[np.int64] = np.stack([events["task"], np.where(spawn, events["len"], events["task"])], 1).ravel()
    for task in ids[np.sort(np.unique(ids, return_index=True)[1])].tolist():
        number[task] = len(number)
    events["task"] = [number[t] for t in events["task"].tolist()]
    events["len"][spawn] = [number[t] for t in events["len"][spawn].tolist()]
    place = np.full(len(trace) + 1, NIL, np.int64)
    place[rows] = np.arange(len(rows))
    reports = trace.reports[keep[trace.reports["row"]]].copy()
    reports["row"] = place[reports["row"]]
    snapshots = tuple(
        replace(s, mm=0, row=int(np.searchsorted(rows, s.row))) for s in trace.meta.snapshots if s.mm == mm
    )
    meta = replace(trace.meta, snapshots=snapshots, notes=(*trace.meta.notes, f"address space {mm} of a process tree"))
    return Trace(events, trace.time[rows], trace.tid[rows], meta, reports)
