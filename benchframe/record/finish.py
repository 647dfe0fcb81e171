"""Rows in recorded order to a trace: sorted, renumbered densely, with its file table and layouts."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.events import EVENT, NIL, REPORT, Kind
from benchframe.record.maps import Maps
from benchframe.trace.format import Trace
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, FileEntry, Snapshot, TraceMeta


@dataclass
class Row:
    """One event before sorting; ``task`` and ``mm`` are provisional numbers."""

    time: int
    order: int
    kind: Kind
    task: int
    mm: int
    addr: int = 0
    len: int = 0
    prot: int = 0
    flags: int = 0
    offset: int = 0
    new_len: int = 0
    file: int = NIL
    ret: int = 0
    report: tuple[int, int] | None = None


class FileTable:
    """The files that mappings name, and which index each open file got."""

    def __init__(self) -> None:
        self.entries: list[FileEntry] = []
        self._of_key: dict[tuple[Any, ...], int] = {}
        self._of_inode: dict[int, int] = {}

    def index(self, key: tuple[Any, ...], name: str, inode: int, size: int = 0) -> int:
        """Index of a file. Linux compares open files, not inodes: ``key`` should tell two opens apart."""
        index = self._of_key.get(key)
        if index is None:
            index = self._of_key[key] = len(self.entries)
            self.entries.append(FileEntry(name, max(0, size), inode))
            self._of_inode.setdefault(inode, index)
        return index

    def of_inode(self, inode: int) -> int:
        """The first file with this inode, NIL if none (or no inode: anonymous memory)."""
        return self._of_inode.get(inode, NIL) if inode else NIL

    def table(self) -> tuple[FileEntry, ...]:
        """The entries, with sizes looked up where the file is still the one that was mapped."""
        return tuple(replace(entry, size=entry.size or _size(entry)) for entry in self.entries)


def _size(entry: FileEntry) -> int:
    if not entry.name.startswith("/") or entry.name.startswith("/dev/"):
        return 0
    try:
        about = Path(entry.name).stat()
    except (OSError, ValueError):
        return 0
    return about.st_size if about.st_ino == entry.inode else 0


def finish(
    rows: list[Row],
    tids: dict[int, int],
    meta: TraceMeta,
    maps: list[Maps],
    mms_of: dict[int, list[tuple[int, int]]],
    files: FileTable,
) -> Trace:
    """The trace of ``rows``; ``tids`` by provisional task, ``mms_of`` (time, provisional mm) by process. O(n log n)."""
    rows = sorted(rows, key=lambda r: (r.time, r.order))
    times = np.fromiter((r.time for r in rows), np.int64, len(rows))
    tasks, mms = _renumber(rows)
    events = np.zeros(len(rows), EVENT)
    for name in ("addr", "len", "offset", "new_len", "ret", "kind", "prot", "flags", "file"):
        events[name] = np.fromiter((getattr(r, name) for r in rows), np.int64, len(rows))
    events["task"] = np.fromiter((tasks[r.task] for r in rows), np.int64, len(rows))
    events["mm"] = np.fromiter((mms[r.mm] for r in rows), np.int64, len(rows))
    for i, row in enumerate(rows):
        if row.kind == Kind.FORK:
            events["addr"][i], events["len"][i] = mms[row.addr], tasks[row.len]
        elif row.kind == Kind.THREAD:
            events["len"][i] = tasks[row.len]
    tid = np.fromiter((tids[r.task] for r in rows), np.int32, len(rows))
    reported = [(i, *r.report) for i, r in enumerate(rows) if r.report is not None and _is_range(r.report)]
    reports = np.array(reported, REPORT) if reported else np.zeros(0, REPORT)
    snapshots = []
    for seen in maps:
        held = [mm for time, mm in mms_of.get(seen.pid, []) if time <= seen.time]
        if held and held[-1] in mms:
            areas = tuple((a.start, a.end, a.prot, int(a.shared), a.offset, files.of_inode(a.inode)) for a in seen.rows)
            at = int(np.searchsorted(times, seen.time, "right"))
            snapshots.append(Snapshot(mms[held[-1]], at, seen.when, areas))
    start = int(times[0]) if len(times) else 0
    return Trace(events, times - start, tid, replace(meta, snapshots=tuple(snapshots)), reports)


def _renumber(rows: list[Row]) -> tuple[dict[int, int], dict[int, int]]:
    """Dense numbers in order of first appearance: a row's own first, then those it makes."""
    tasks: dict[int, int] = {}
    mms: dict[int, int] = {}
    for row in rows:
        tasks.setdefault(row.task, len(tasks))
        mms.setdefault(row.mm, len(mms))
        if row.kind == Kind.FORK:
            mms.setdefault(row.addr, len(mms))
        if row.kind in (Kind.FORK, Kind.THREAD):
            tasks.setdefault(row.len, len(tasks))
    return tasks, mms


def _is_range(report: tuple[int, int]) -> bool:
    return 0 <= report[0] < report[1] <= ADDRESS_LIMIT and not (report[0] | report[1]) & (PAGE - 1)
