"""A recording: its rows in the order in which they came; finished, sorted and numbered, in batches or as a trace.

Rows are kept as columns, so that ten million faults fit in some 300 MB.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import EVENT, NIL, REPORT, Batch, FaultFlag, Kind
from benchframe.record.procfs import Maps
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, FileEntry, Process, Snapshot, TraceMeta
from benchframe.trace.trace import MAX_MMS, MAX_TASKS, Checker, Trace

if TYPE_CHECKING:
    from benchframe.oracle import Replayer


@dataclass(slots=True)
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


FAULT_ROW = np.dtype([("time", "i8"), ("addr", "i8"), ("order", "u4"), ("task", "i4"), ("mm", "i4"), ("what", "u1")])
"""A fault that nothing was added to: ``what`` is its access in the lower 4 bits, its flags above them."""
FIELDS = ("addr", "len", "offset", "new_len", "ret", "kind", "task", "mm", "prot", "flags", "file")
ROW = np.dtype([(name, EVENT[name]) for name in FIELDS]
               + [(name, "i8") for name in ("time", "order", "vm_start", "vm_end")])  # fmt: skip
PLAIN = (*FIELDS, "time", "order")
"""Fields that a row and a column share."""
SETTLED = 1 << 15
"""Rows that are kept as objects at most, but for those that may change."""


class Rows:
    """The rows so far, in the order in which they were added."""

    def __init__(self) -> None:
        self.open: list[Row] = []
        self.settled: list[NDArray[np.void]] = []
        self.faults: list[NDArray[np.void]] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, row: Row, order: int = -1) -> Row:
        """Add one row, in the last place or in that of an earlier one."""
        row.order = self.count if order < 0 else order
        self.count += 1
        self.open.append(row)
        return row

    def add_faults(self, time: Any, addr: Any, task: Any, mm: Any, prot: Any, flags: Any) -> None:
        """Add many faults at once."""
        block = np.empty(len(time), FAULT_ROW)
        block["time"], block["addr"], block["task"], block["mm"] = time, addr, task, mm
        block["what"] = prot | flags << 4
        block["order"] = (self.count + np.arange(len(time))) & 0xFFFFFFFF
        self.count += len(time)
        self.faults.append(block)

    def settle(self, changing: set[int], final: bool = False) -> None:
        """Turn rows into columns, but for those whose ``id()`` is in ``changing``."""
        if not final and len(self.open) < SETTLED:
            return
        done = [row for row in self.open if id(row) not in changing]
        self.open = [row for row in self.open if id(row) in changing]
        block = np.zeros(len(done), ROW)
        if done:
            for name, values in zip(PLAIN, zip(*map(attrgetter(*PLAIN), done), strict=True), strict=True):
                block[name] = values
        block["vm_start"] = [row.report[0] if row.report is not None else NIL for row in done]
        block["vm_end"] = [row.report[1] if row.report is not None else NIL for row in done]
        self.settled.append(block)


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


# Read, write or execute? What a fault wanted, where nothing says so (the software event has no error code).

GUESSED = "the access of a fault was inferred from its mapping: write if writable, else execute, else read"


class Guesser:
    """Fills in what faults wanted, batch by batch; ``guessed`` says whether there were any.

    It decides merges: the first write to private memory gives it an anon_vma. Where the error code is recorded, most
    faults in writable private memory are writes. O(events log VMAs): the layouts come from a replay, which
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
        until = dict(zip(starts, ends, strict=True))
        asked = [start for start, end in until.items() if quick[start] and unknown[start:end].any()]

        def look(start: int) -> None:
            space = replayer.spaces.get(int(mm[start]))
            for row in np.flatnonzero(unknown[start : until[start]]) + start:
                area = space.find_vma(int(events["addr"][row])) if space is not None else None
                rights = area.row()[2] if area is not None else 0
                events["prot"][row] = 2 if rights & 2 else 4 if rights & 4 else 1

        replayer.feed(events, asked, look)


class Recording:
    """What was recorded, in order: metadata, counts, and the events in batches.

    ``tids`` by provisional task, ``mms_of`` (time, provisional mm) by process. O(rows log rows); memory is that of
    the columns and a batch.
    """

    def __init__(
        self,
        rows: Rows,
        tids: dict[int, int],
        meta: TraceMeta,
        maps: list[Maps],
        mms_of: dict[int, list[tuple[int, int]]],
        files: FileTable,
        processes: list[tuple[int, int, Maps]],
        limit: int = 0,
    ) -> None:
        general = np.concatenate([np.zeros(0, ROW), *rows.settled])
        self._general = general[np.lexsort((general["order"], general["time"]))]
        faults = np.concatenate([np.zeros(0, FAULT_ROW), *rows.faults])
        rows.faults.clear()
        self._faults = faults if (np.diff(faults["time"]) >= 0).all() else np.sort(faults, order=("time", "order"))
        # Where each general row lies between the faults: by time, then by order of arrival.
        time = self._faults["time"]
        place = np.searchsorted(time, self._general["time"], "left")
        tied = np.searchsorted(time, self._general["time"], "right") > place
        for i in np.flatnonzero(tied).tolist():
            while (
                place[i] < len(time)
                and time[place[i]] == self._general["time"][i]
                and self._faults["order"][place[i]] < self._general["order"][i]
            ):
                place[i] += 1
        self._at = np.maximum.accumulate(place) + np.arange(len(place))
        self._tids, self._files = tids, files
        self._tasks, self._mms = _numbers(self._general)
        whole = len(self._general) + len(self._faults)
        self.rows = min([whole, *([limit] if limit else []), *self._over()])
        self.cut = whole - self.rows
        self._maps, self._mms_of, self._processes = maps, mms_of, processes
        self.meta = self._described(meta)

    def _over(self) -> list[int]:
        """The first row of a task or an address space that is one more than a reader takes, if there is one."""
        made = np.isin(self._general["kind"], (Kind.FORK, Kind.THREAD))
        task = self._tasks[np.where(made, self._general["len"], self._general["task"])]
        fork = self._general["kind"] == Kind.FORK
        mm = self._mms[np.where(fork, self._general["addr"], self._general["mm"])]
        over = np.flatnonzero((task >= MAX_TASKS) | (mm >= MAX_MMS))
        return [int(self._at[over[0]])] if len(over) else []

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return int((self._tasks >= 0).sum())

    @property
    def mms(self) -> int:
        """Number of address spaces."""
        return int((self._mms >= 0).sum())

    def _described(self, meta: TraceMeta) -> TraceMeta:
        snapshots = []
        times = self._general["time"], self._faults["time"]
        for seen in self._maps:
            held = [mm for time, mm in self._mms_of.get(seen.pid, []) if time <= seen.time]
            at = sum(int(np.searchsorted(column, seen.time, "right")) for column in times)
            if held and held[-1] < len(self._mms) and self._mms[held[-1]] >= 0 and at <= self.rows:
                files = self._files
                areas = tuple(
                    (a.start, a.end, a.prot, int(a.shared), a.offset, files.of_inode(a.inode)) for a in seen.rows
                )
                snapshots.append(Snapshot(int(self._mms[held[-1]]), at, seen.when, areas))
        unplayed = tuple(
            replace(
                mark, mm=int(self._mms[mark.mm]), row=sum(int(np.searchsorted(c, mark.row, "right")) for c in times)
            )
            for mark in sorted(meta.unplayed, key=lambda mark: mark.row)
            if mark.mm < len(self._mms) and self._mms[mark.mm] >= 0
        )
        notes = (f"cut after {self.rows} events; {self.cut} were left out",) if self.cut else ()
        return replace(
            meta, snapshots=tuple(snapshots), faults=self._against_the_kernel(), notes=meta.notes + notes,
            processes=self._process_table(), unplayed=unplayed,
        )  # fmt: skip

    def _against_the_kernel(self) -> dict[str, int]:
        """Recorded faults, and the kernel's own count (getrusage) between each process's first exec and its end.

        The kernel counts one more per exec (it writes the arguments with no event), and faults that get_user_pages
        makes; it does not count a fault that ended in a signal.
        """
        maps = self._maps
        if not maps or self.cut:
            return {}
        since = min(seen.time for seen in maps)
        general = self._general
        good = (general["kind"] == Kind.FAULT) & ((general["flags"] & FaultFlag.SEGV) == 0) & (general["time"] > since)
        recorded = int(good.sum()) + int((self._faults["time"] > since).sum())
        first: dict[tuple[int, int], Maps] = {}
        expected = 0
        begun = {_life(maps[0])} | {_life(seen) for seen in maps if seen.when == "attach"}
        for seen in maps:
            life = _life(seen)
            if seen.when == "exit":
                expected += seen.faults - (first[life].faults if life in first and life in begun else 0)
            elif life in first:
                expected -= 1
            else:
                first[life] = seen
                expected -= 0 if life in begun else 1
        return {"recorded": recorded, "expected": max(expected, 0)}

    def _process_table(self) -> tuple[Process, ...]:
        """Who lived in which address space; the kernel's own count of faults where its end was seen."""
        ends: dict[int, list[Maps]] = {}
        for seen in self._maps:
            if seen.when == "exit":
                ends.setdefault(seen.pid, []).append(seen)
        table: dict[int, Process] = {}
        for mm, pid, seen in self._processes:
            if mm < len(self._mms) and self._mms[mm] >= 0:
                end = next((e for e in ends.get(pid, []) if e.time >= seen.time), None)
                counted = end.faults - seen.faults if end is not None else NIL
                number = int(self._mms[mm])
                table[number] = Process(number, pid, " ".join(seen.command)[:200] or seen.comm, counted)
        for pid, lived in self._mms_of.items():  # forked and never seen to exec
            for born, mm in lived:
                if mm < len(self._mms) and self._mms[mm] >= 0 and int(self._mms[mm]) not in table:
                    end = next((e for e in ends.get(pid, []) if e.time >= born), None)
                    number = int(self._mms[mm])
                    command = " ".join(end.command)[:200] or end.comm if end is not None else ""
                    table[number] = Process(number, pid, command, end.faults if end is not None else NIL)
        return tuple(table[number] for number in sorted(table))

    def batches(self, size: int = 1 << 20) -> Iterator[Batch]:
        """The rows, at most ``size`` at once, checked; what faults wanted is guessed where nothing said so.

        Raises ValueError for what no trace has. ``meta`` is complete when the last batch has been taken.
        """
        checker, guesser = Checker(len(self.meta.files)), Guesser()
        start = int(min(self._general["time"][:1].tolist() + self._faults["time"][:1].tolist(), default=0))
        for row in range(0, self.rows, size):
            batch = self._batch(row, min(size, self.rows - row), start)
            guesser.feed(batch.events)
            checker.check(batch.events, batch.time, batch.tid)
            yield batch
        if guesser.guessed and GUESSED not in self.meta.notes:
            self.meta = replace(self.meta, notes=(*self.meta.notes, GUESSED))

    def _batch(self, row: int, count: int, start: int) -> Batch:
        low, high = np.searchsorted(self._at, [row, row + count]).tolist()
        general, at = self._general[low:high], self._at[low:high] - row
        faults = self._faults[row - low : row - low + count - (high - low)]
        events = np.zeros(count, EVENT)
        time = np.zeros(count, np.int64)
        plain = np.ones(count, np.bool_)
        plain[at] = False
        events["file"] = NIL
        for name, values in (
            ("addr", faults["addr"]), ("task", faults["task"]), ("mm", faults["mm"]), ("kind", int(Kind.FAULT)),
            ("prot", faults["what"] & 15), ("flags", faults["what"] >> 4),
        ):  # fmt: skip
            events[name][plain] = values
        time[plain] = faults["time"]
        for name in FIELDS:
            events[name][at] = general[name]
        time[at] = general["time"]
        tid = self._tid_array[events["task"]]
        made = np.isin(events["kind"], (Kind.FORK, Kind.THREAD))
        events["len"][made] = self._tasks[events["len"][made]]
        forks = events["kind"] == Kind.FORK
        events["addr"][forks] = self._mms[events["addr"][forks]]
        events["task"], events["mm"] = self._tasks[events["task"]], self._mms[events["mm"]]
        ends = general["vm_start"], general["vm_end"]
        good = (ends[0] >= 0) & (ends[0] < ends[1]) & (ends[1] <= ADDRESS_LIMIT)
        good &= ((ends[0] | ends[1]) & (PAGE - 1)) == 0
        reports = np.zeros(int(good.sum()), REPORT)
        reports["row"], reports["vm_start"], reports["vm_end"] = at[good] + row, ends[0][good], ends[1][good]
        return Batch(row, events, time - start, tid, reports)

    @cached_property
    def _tid_array(self) -> NDArray[np.int32]:
        out = np.zeros(max(self._tids, default=0) + 1, np.int32)
        for task, tid in self._tids.items():
            out[task] = tid
        return out

    def trace(self) -> Trace:
        """The whole recording in memory."""
        parts = list(self.batches())
        if not parts:
            return Trace(np.zeros(0, EVENT), meta=self.meta)
        reports = np.concatenate([part.reports for part in parts])
        columns = [np.concatenate(c) for c in zip(*((p.events, p.time, p.tid) for p in parts), strict=True)]
        return Trace(columns[0], columns[1], columns[2], self.meta, reports)


def _life(seen: Maps) -> tuple[int, int]:
    """Which process: numbers are used again."""
    return seen.pid, seen.started


def _numbers(rows: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Dense numbers of tasks and address spaces in order of first appearance: a row's own first, then those it makes.

    Faults need not be asked: a task and its address space begin with a row that is none.
    """
    made = np.isin(rows["kind"], (Kind.FORK, Kind.THREAD))
    fork = rows["kind"] == Kind.FORK
    out = []
    for own, new in (
        (rows["task"], np.where(made, rows["len"], rows["task"])),
        (rows["mm"], np.where(fork, rows["addr"], rows["mm"])),
    ):
        both = np.stack([own, new], 1).ravel().astype(np.int64)
        seen, first = np.unique(both, return_index=True)
        numbers = np.full(int(seen.max(initial=-1)) + 1, NIL, np.int64)
        numbers[seen[np.argsort(first)]] = np.arange(len(seen))
        out.append(numbers)
    return out[0], out[1]
