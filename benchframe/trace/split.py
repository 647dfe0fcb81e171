"""Parts of a trace of a process tree that stand alone: one address space each, with the layout it was born with."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchframe.events import EVENT, NIL, Kind, MapType
from benchframe.trace.format import Trace

MAP_SHARED, MAP_PRIVATE, MAP_NORESERVE = 1, 2, 0x4000


def split_trace(trace: Trace) -> list[Trace]:
    """A trace for each address space of ``trace``. O(events x mms)."""
    return [select(trace, mm) for mm in range(trace.mms)]


def select(trace: Trace, mm: int) -> Trace:
    """The address space ``mm`` alone, renumbered to mm 0 and tasks from 0. O(events). Raises ValueError.

    One that a fork made begins with an exec and the layout that it was born with, as the replay of its parents gives
    it. FORK rows are dropped; a task that came through vfork appears as a thread until its exec.
    """
    if not 0 <= mm < trace.mms:
        raise ValueError(f"there is no address space {mm}; the trace has {trace.mms}, from 0 on")
    keep = (trace.events["mm"] == mm) & (trace.events["kind"] != Kind.FORK)
    rows = np.flatnonzero(keep)
    forks = np.flatnonzero((trace.events["kind"] == Kind.FORK) & (trace.events["addr"] == mm))
    born = _birth(trace, int(forks[0])) if len(forks) else np.zeros(0, EVENT)
    events = np.concatenate([born, trace.events[rows].astype(EVENT)])
    events["mm"] = 0
    number: dict[int, int] = {}
    spawn = events["kind"] == Kind.THREAD
    ids: NDArray[np.int64] = np.stack([events["task"], np.where(spawn, events["len"], events["task"])], 1).ravel()
    for task in ids[np.sort(np.unique(ids, return_index=True)[1])].tolist():
        number[task] = len(number)
    events["task"] = [number[t] for t in events["task"].tolist()]
    events["len"][spawn] = [number[t] for t in events["len"][spawn].tolist()]
    place = np.full(len(trace) + 1, NIL, np.int64)
    place[rows] = np.arange(len(rows)) + len(born)
    reports = trace.reports[keep[trace.reports["row"]]].copy()
    reports["row"] = place[reports["row"]]
    snapshots = tuple(
        replace(s, mm=0, row=int(np.searchsorted(rows, s.row)) + len(born)) for s in trace.meta.snapshots if s.mm == mm
    )
    own = next((process for process in trace.meta.processes if process.mm == mm), None)
    note = f"address space {mm} of a process tree" + (", born by fork" if len(born) else "")
    meta = replace(
        trace.meta,
        snapshots=snapshots,
        notes=(*trace.meta.notes, note),
        processes=(replace(own, mm=0),) if own is not None else (),
        faults={},
    )
    at, tid = (int(trace.time[forks[0]]), _tid_of(trace, int(forks[0]))) if len(forks) else (0, 0)
    time = np.concatenate([np.full(len(born), at, np.int64), trace.time[rows]])
    tids = np.concatenate([np.full(len(born), tid, np.int32), trace.tid[rows]])
    return Trace(events, time, tids, meta, reports)


def _tid_of(trace: Trace, fork: int) -> int:
    """The thread id of a fork's child, if it did anything."""
    own = np.flatnonzero(trace.events["task"] == trace.events["len"][fork])
    return int(trace.tid[own[0]]) if len(own) else 0


def _birth(trace: Trace, fork: int) -> NDArray[np.void]:
    """EXEC and MAP rows for the layout that the child of the fork at row ``fork`` begins with."""
    from benchframe.oracle import Replayer

    events = trace.events
    mm, task = int(events["addr"][fork]), int(events["len"][fork])
    replayer = Replayer()
    replayer.feed(events[: fork + 1])
    layout = replayer.spaces[mm].layout() if mm in replayer.spaces else []
    stacks, specials, start_brk = _origins(events[: fork + 1], mm)
    out = np.zeros(1 + len(layout), EVENT)
    out["task"], out["mm"], out["file"] = task, mm, NIL
    out["kind"], out["kind"][0], out["addr"][0] = Kind.MAP, Kind.EXEC, start_brk
    before: tuple[int, ...] | None = None
    apart = 0
    for row, (start, end, prot, shared, offset, file) in zip(out[1:], layout, strict=True):
        flags = MAP_SHARED if shared else MAP_PRIVATE
        if (start, end) in specials:
            flags |= MapType.SPECIAL
        elif any(start <= low < end for low in stacks):
            flags |= MapType.STACK
        elif start == start_brk:
            flags |= MapType.HEAP
        alike = before is not None and before[1:4] == (start, prot, shared) and before[5] == file < 0
        apart = MAP_NORESERVE - apart if alike else 0  # two that the kernel keeps apart must not merge
        row["addr"], row["len"], row["prot"], row["flags"] = start, end - start, prot, int(flags) | apart
        row["offset"], row["file"] = (offset if file >= 0 else 0), file
        before = (start, end, prot, shared, offset, file)
    return out


def _origins(events: NDArray[np.void], mm: int) -> tuple[set[int], set[tuple[int, int]], int]:
    """(a byte of each stack, the special areas, start_brk or NIL) that an mm has from its own exec or its parents'."""
    line = [mm]
    for row in events[events["kind"] == Kind.FORK][::-1]:
        if row["addr"] == line[-1]:
            line.append(int(row["mm"]))
    of_root = events[events["mm"] == line[-1]]
    maps = of_root[of_root["kind"] == Kind.MAP]
    execs = of_root[of_root["kind"] == Kind.EXEC]
    stacks = maps[(maps["flags"] & MapType.STACK) != 0]
    specials = maps[(maps["flags"] & MapType.SPECIAL) != 0]
    return (
        set((stacks["addr"] + stacks["len"] - 4096).tolist()),
        {(int(m["addr"]), int(m["addr"] + m["len"])) for m in specials},
        int(execs["addr"][0]) if len(execs) else NIL,
    )


def of_command(trace: Trace, name: str) -> list[int]:
    """The address spaces of the processes whose command is ``name``: its first word, with or without folders."""

    def first(command: str) -> str:
        return command.split(" ")[0]

    return [
        p.mm for p in trace.meta.processes if name in (p.command, first(p.command), first(p.command).rpartition("/")[2])
    ]


def of_pid(trace: Trace, pid: int) -> list[int]:
    """The address spaces of a process, in order: one from each exec on, and the one that it was forked with."""
    return [p.mm for p in trace.meta.processes if p.pid == pid]


def largest(trace: Trace) -> int:
    """The address space with the most lookups."""
    lookups = np.isin(trace.events["kind"], (Kind.FAULT, Kind.LOOKUP))
    return int(np.argmax(np.bincount(trace.events["mm"][lookups], minlength=max(1, trace.mms))))
