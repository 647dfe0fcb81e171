"""A trace: checked, read and written as Parquet or CSV, split by process, shifted.

Ranges and order are checked before any engine sees the events. An engine uses ``task``, ``mm``,
``file`` and addresses as array indices without further checks, so everything from a file is checked here first. The
checks are vectorised and carry their state from batch to batch, so a stream of any length is checked in the memory of
one batch.

As CSV it has a header of column names and one row per event; the metadata is JSON in the first line, after ``#``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchframe.errors import ENVIRONMENT, TraceError
from benchframe.events import EVENT, NIL, REPORT, UNKNOWN, Batch, Kind, MapType
from benchframe.files import replacing
from benchframe.trace.meta import ADDRESS_LIMIT, BORDERS, PAGE, TraceMeta, Unplayed, fitted_json, meta_from_json

MAX_TASKS = 1 << 20
MAX_MMS = 1 << 20
MAX_ERRNO = 4095
"""Errors are -4095..-1, the range that the kernel keeps for them (include/linux/err.h)."""
MAX_INT = (1 << 31) - 1

_ALIGNED_ADDR = np.zeros(len(Kind), np.bool_)
_ALIGNED_ADDR[[Kind.MAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.MADVISE, Kind.ATTR]] = True
_ALIGNED_RET = np.zeros(len(Kind), np.bool_)
_ALIGNED_RET[[Kind.MMAP, Kind.MREMAP]] = True
_LOOKUPS = np.zeros(len(Kind), np.bool_)
_LOOKUPS[[Kind.FAULT, Kind.LOOKUP]] = True
_NEW_TASK = np.zeros(len(Kind), np.bool_)
_NEW_TASK[[Kind.FORK, Kind.THREAD]] = True


class RowError(ValueError):
    """An invalid row: ``row`` counts from 0 over the whole stream."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(f"event {row}: {what}")
        self.row = row


class Checker:
    """Checks a stream of EVENT batches; call :meth:`check` on each in order.

    O(rows) per batch with one address space, O(rows log rows) with several.
    """

    def __init__(self, files: int) -> None:
        self.files = files
        self.rows = 0
        self.time = 0
        self.tasks = 0
        self.mms = 0
        self._mm_of_task: NDArray[np.int64] = np.full(0, NIL, np.int64)

    def check(self, events: NDArray[np.void], time: NDArray[np.int64], tid: NDArray[np.int32]) -> None:
        """Raise :class:`RowError` for the first kind of error found."""
        if not len(events):
            return
        kind = events["kind"]
        self._demand((kind >= 0) & (kind <= max(Kind)), "kind is unknown")
        self._ranges(events, kind)
        self._demand(np.diff(time, prepend=self.time) >= 0, "time runs backwards")
        self._demand(time < (1 << 62), "time is out of range")
        self._demand(tid >= 0, "tid is negative")
        self._identities(events, kind)
        self.time = int(time[-1])
        self.rows += len(events)

    def _demand(self, good: NDArray[np.bool_], what: str) -> None:
        if not good.all():
            raise RowError(self.rows + int(np.argmin(good)), what)

    def _ranges(self, events: NDArray[np.void], kind: NDArray[np.int32]) -> None:
        lookup = _LOOKUPS[kind]
        for name in ("addr", "len", "new_len"):
            column = events[name]
            low = NIL if name == "addr" else 0
            self._demand((column >= low) & (column <= ADDRESS_LIMIT), f"{name} is outside [0, 2^47]")
        addr, length, ret = events["addr"], events["len"], events["ret"]
        self._demand((addr >= 0) | (kind == Kind.EXEC), "addr is negative")
        self._demand((addr < ADDRESS_LIMIT) | ~lookup, "addr of a lookup is not a user address")
        self._demand(
            (ret >= -MAX_ERRNO) & (ret <= ADDRESS_LIMIT) | (ret == UNKNOWN),
            "ret is not an address, 0, -errno or UNKNOWN",
        )
        self._demand((ret == UNKNOWN) | (kind != Kind.WALK), "ret of a walk is not UNKNOWN")
        well = ret >= 0
        self._demand(((addr & (PAGE - 1)) == 0) | ~_ALIGNED_ADDR[kind] | ~well, "addr is not page-aligned")
        placed = _ALIGNED_RET[kind] & well
        self._demand(((ret & (PAGE - 1)) == 0) | ~placed, "ret is not page-aligned")
        size = np.where(kind == Kind.MREMAP, events["new_len"], length)
        self._demand((ret + size <= ADDRESS_LIMIT) | ~placed, "the mapping ends above the user address space")
        self._demand((size > 0) | ~placed, "a mapping of no bytes was returned")
        made = kind == Kind.MAP
        self._demand(
            ~made | ((length > 0) & ((length & (PAGE - 1)) == 0) & (addr + length <= ADDRESS_LIMIT)),
            "a kernel-made mapping is not whole pages of the user address space",
        )
        self._demand(events["offset"] >= 0, "offset is negative")
        self._demand(events["offset"] <= (1 << 62), "offset is above 2^62")
        self._demand(
            ((events["offset"] & (PAGE - 1)) == 0) | ~(made | (kind == Kind.MMAP) & well), "offset is not page-aligned"
        )
        prot, flags, file = events["prot"], events["flags"], events["file"]
        self._demand((prot >= 0) & (flags >= 0), "prot or flags is negative")
        self._demand(~lookup | (prot <= 4) & (prot != 3), "prot of a lookup is not 0, 1, 2 or 4")
        self._demand((flags <= 7) | (kind != Kind.FAULT), "flags of a fault has unknown bits")
        self._demand((file >= NIL) & (file < self.files), "file is not an index of the file table")

    def _identities(self, events: NDArray[np.void], kind: NDArray[np.int32]) -> None:
        """task and mm numbers appear densely; only EXEC and FORK create an mm; a task acts only in its own mm."""
        task = events["task"].astype(np.int64)
        mm = events["mm"].astype(np.int64)
        self._demand((task >= 0) & (task < MAX_TASKS), f"task is outside [0, {MAX_TASKS})")
        self._demand((mm >= 0) & (mm < MAX_MMS), f"mm is outside [0, {MAX_MMS})")
        fork, execs, spawn = kind == Kind.FORK, kind == Kind.EXEC, _NEW_TASK[kind]
        # Two ids per row, interleaved: the row's own, then the one it creates. A new id is the next unused one.
        made = np.where(spawn, events["len"], task)
        seen = self._highest(task, made, self.tasks)
        self._demand(~spawn | (made == seen[1::2] + 1), "a new task's index is not the next unused one")
        self._demand(spawn | execs | (task <= seen[0::2]), "task was never created")
        self._demand(task <= seen[0::2] + 1, "task is not the next unused one")
        made_mm = np.where(fork, events["addr"], mm)
        seen_mm = self._highest(mm, made_mm, self.mms)
        self._demand(~fork | (made_mm == seen_mm[1::2] + 1), "a fork's mm is not the next unused one")
        self._demand(~execs | (mm == seen_mm[0::2] + 1), "an exec's mm is not the next unused one")
        self._demand(execs | (mm <= seen_mm[0::2]), "mm was never created by an exec or a fork")
        tasks = max(self.tasks, int(task.max()) + 1, int(made.max()) + 1)
        mms = max(self.mms, int(mm.max()) + 1, int(made_mm.max()) + 1)
        if mms > 1:
            self._memberships(task, mm, made, made_mm, execs | spawn, tasks)
        else:
            self._mm_of_task = np.zeros(tasks, np.int64)
        self.tasks, self.mms = tasks, mms

    @staticmethod
    def _highest(own: NDArray[np.int64], made: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """For each of the interleaved ids, the highest id before it."""
        both = np.empty(2 * len(own) + 1, np.int64)
        both[0] = count - 1
        both[1::2] = own
        both[2::2] = made
        return np.maximum.accumulate(both)[:-1]

    def _memberships(
        self,
        task: NDArray[np.int64],
        mm: NDArray[np.int64],
        made: NDArray[np.int64],
        made_mm: NDArray[np.int64],
        assigns: NDArray[np.bool_],
        tasks: int,
    ) -> None:
        """A row's task must live in the row's mm: where the last row that gave it one has put it. O(rows log rows)."""
        home = np.full(tasks, NIL, np.int64)
        home[: len(self._mm_of_task)] = self._mm_of_task
        # Twice as many places as rows: what a row demands comes first, then what it gives. An exec demands nothing.
        takes_part = np.stack([~assigns | (made != task), assigns], 1).ravel()
        place = np.flatnonzero(takes_part)
        who = np.stack([task, made], 1).ravel()[place]
        where = np.stack([mm, made_mm], 1).ravel()[place]
        order = np.argsort(who, kind="stable")  # by task, and of one task in the order of the rows
        who, where, place = who[order], where[order], place[order]
        gives = (place & 1) == 1
        at = np.arange(len(who))
        given = np.maximum.accumulate(np.where(gives, at, NIL))
        first = np.maximum.accumulate(np.where(np.diff(who, prepend=NIL) != 0, at, 0))
        lives = np.where(given >= first, where[given], home[who])
        wrong = place[~gives & (lives != where)]
        if len(wrong):
            raise RowError(self.rows + int(wrong.min()) // 2, "the task does not live in this mm")
        home[who[gives]] = where[gives]  # of several for one task the last stands
        self._mm_of_task = home


# ----------------------------------------------------------------------------------------------------------------------
# Read and write trace files: Parquet, zstd, one flat table and one JSON object (docs/trace-format.md).
#
#     trace = read_trace("python.parquet")     # Trace: events (EVENT rows), time, tid, meta
#     for batch in iter_batches("huge.parquet", 1 << 20): ...
#
# A file is trusted only after checks: sizes before anything is unpacked (``pages``), types and ranges of every
# column (``check``), every member of the metadata (``meta``). What fails ends in one :class:`TraceError`.


__all__ = [
    "MAX_ROWS",
    "Trace",
    "TraceError",
    "iter_batches",
    "read_csv",
    "read_meta",
    "read_trace",
    "write_csv",
    "write_trace",
]

MAX_ROWS = 1 << 24
"""The most rows that read_trace accepts: 16 Mi rows are 1.3 GB in memory. Use iter_batches for larger files."""


@dataclass
class Trace:
    """The ordered events of one program, or of a tree of processes.

    ``events`` is an array of EVENT; ``time`` (ns, i8) and ``tid`` (i4) are parallel arrays. ``reports`` is an array of
    REPORT in row order. Arrays are not checked here: :func:`read_trace` checks them, and a maker of synthetic traces
    may call :meth:`check`.
    """

    events: NDArray[np.void]
    time: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    tid: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    meta: TraceMeta = field(default_factory=TraceMeta)
    reports: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, REPORT))
    setup: int = NIL
    """How many leading events build the initial layout: they are replayed but never timed. NIL: the number from a
    synthetic stream (``meta.limits["setup"]``), else the leading EXEC, MAP and RLIMIT rows."""

    def __post_init__(self) -> None:
        """Without times, events are numbered; without thread ids, the task index is used."""
        if self.setup == NIL:
            other = ~np.isin(self.events["kind"], (Kind.EXEC, Kind.MAP, Kind.RLIMIT))
            begin = int(np.argmax(other)) if other.any() else len(self.events)
            self.setup = min(self.meta.limits.get("setup", begin), len(self.events))
        if not len(self.time):
            self.time = np.arange(len(self.events), dtype=np.int64)
        if not len(self.tid):
            self.tid = np.ascontiguousarray(self.events["task"], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.events)

    @property
    def tasks(self) -> int:
        """The number of tasks: one above the highest index."""
        spawn = np.isin(self.events["kind"], (Kind.FORK, Kind.THREAD))
        return 1 + max(int(self.events["task"].max(initial=NIL)), int(self.events["len"][spawn].max(initial=NIL)))

    @property
    def mms(self) -> int:
        """The number of address spaces: one above the highest index."""
        fork = self.events["kind"] == Kind.FORK
        return 1 + max(int(self.events["mm"].max(initial=NIL)), int(self.events["addr"][fork].max(initial=NIL)))

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over everything that a replay reads: events, clock, threads, file identities, limits.

        It does not depend on how Parquet encodes the table, on provenance or on recorded reports.
        """
        import json

        sha = hashlib.sha256(b"benchframe trace 1\n")
        sha.update(np.ascontiguousarray(self.events, dtype=EVENT).tobytes())
        sha.update(np.ascontiguousarray(self.time, dtype="<i8").tobytes())
        sha.update(np.ascontiguousarray(self.tid, dtype="<i4").tobytes())
        files = [[f.name, f.size, f.inode] for f in self.meta.files]
        sha.update(json.dumps([len(self.events), files, sorted(self.meta.limits.items())]).encode())
        return sha.hexdigest()

    @cached_property
    def image(self) -> NDArray[np.void]:
        """The mappings that the kernel itself made, of all address spaces: the EXEC and MAP rows."""
        return self.events[np.isin(self.events["kind"], (Kind.EXEC, Kind.MAP))]

    def check(self) -> None:
        """Raise ``ValueError``, which names the first invalid row."""
        if not len(self.events) == len(self.time) == len(self.tid):
            raise ValueError("events, time and tid differ in length")
        Checker(len(self.meta.files)).check(self.events, self.time, self.tid)
        _check_reports(self.reports, len(self.events))
        _check_snapshots(self.meta, len(self.events), self.mms)


def read_trace(path: str | Path, max_rows: int = MAX_ROWS) -> Trace:
    """Read and check a whole trace; O(rows), about 0.1 us a row. Raises :class:`TraceError`."""
    from benchframe.trace.parquet import TraceFile

    with TraceFile(Path(path)) as file:
        if file.rows > max_rows:
            raise TraceError(
                path, f"it has {file.rows} events, more than the {max_rows} that fit in memory", "replay it streamed"
            )
        checker = Checker(len(file.meta.files))
        parts = [_checked(path, checker, batch) for batch in file.batches(max(1, min(file.rows, 1 << 20)))]
        meta = file.meta
    if len(parts) == 1:
        whole = parts[0]
    else:
        whole = Batch(
            0,
            np.concatenate([np.zeros(0, EVENT), *(p.events for p in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(p.time for p in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(p.tid for p in parts)]),
            np.concatenate([np.zeros(0, REPORT), *(p.reports for p in parts)]),
        )
    trace = Trace(whole.events, whole.time, whole.tid, meta, whole.reports)
    try:
        _check_snapshots(meta, len(trace), trace.mms)
    except ValueError as error:
        raise TraceError(path, str(error), "record or convert it again") from None
    return trace


def iter_batches(path: str | Path, rows: int = 1 << 20) -> Iterator[Batch]:
    """Yield the trace in checked batches of at most ``rows`` events; memory is bounded by a batch and a row group."""
    from benchframe.trace.parquet import TraceFile

    with TraceFile(Path(path)) as file:
        checker = Checker(len(file.meta.files))
        for batch in file.batches(rows):
            yield _checked(path, checker, batch)


def read_meta(path: str | Path) -> TraceMeta:
    """Only the metadata: cheap, reads no events. Raises :class:`TraceError`."""
    from benchframe.trace.parquet import TraceFile

    with TraceFile(Path(path)) as file:
        return file.meta


def write_trace(path: str | Path, trace: Trace) -> None:
    """Write ``trace`` to ``path``: the file appears completely or not at all (temporary file, fsync, rename).

    Raises :class:`TraceError` if the trace itself is wrong or the disk refuses.
    """
    try:
        trace.check()
    except ValueError as error:
        raise TraceError(path, f"not written: {error}", "this trace is inconsistent") from None
    write_batches(path, trace.meta, [Batch(0, trace.events, trace.time, trace.tid, trace.reports)])


def write_batches(
    path: str | Path, meta: TraceMeta | Callable[[], TraceMeta], batches: list[Batch] | Iterator[Batch]
) -> None:
    """Write a trace that arrives in batches, when it is too large for memory; atomic as write_trace, but unchecked.

    ``meta`` may be a function, called after the last batch. Parts that a reader would refuse are cut, and the metadata
    record it.
    """
    from benchframe.trace.parquet import write_table

    path = Path(path)
    try:
        with replacing(path) as file:
            write_table(file, meta, batches)
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> TraceError:
    """The error for a trace that cannot be written to disk."""
    what = f"cannot be written ({error.strerror or error})"
    return TraceError(path, what, "choose another place with -o, or free space", exit_code=ENVIRONMENT)


def _checked(path: str | Path, checker: Checker, batch: Batch) -> Batch:
    try:
        checker.check(batch.events, batch.time, batch.tid)
    except RowError as error:
        raise TraceError(path, str(error), "the file is damaged: record or convert it again") from None
    return batch


def _check_reports(reports: NDArray[Any], rows: int) -> None:
    row, start, end = reports["row"], reports["vm_start"], reports["vm_end"]
    good = (row >= 0) & (row < rows) & (np.diff(row, prepend=-1) > 0)
    good &= (start >= 0) & (start < end) & (end <= ADDRESS_LIMIT) & ((start | end) & (PAGE - 1) == 0)
    if not good.all():
        raise ValueError(f"report {int(np.argmin(good))} is not a VMA after an event of this trace")


def _check_snapshots(meta: TraceMeta, rows: int, mms: int) -> None:
    for snapshot in meta.snapshots:
        if snapshot.row > rows or snapshot.mm >= mms:
            raise ValueError(
                f"a snapshot belongs to event {snapshot.row} of mm {snapshot.mm}, which is not in the trace"
            )


# ----------------------------------------------------------------------------------------------------------------------
# Parts of a process tree's trace as traces of their own: one address space each, with its layout at the fork.

MAP_SHARED, MAP_PRIVATE, MAP_NORESERVE = 1, 2, 0x4000


def split_trace(trace: Trace) -> list[Trace]:
    """A trace for each address space of ``trace``. O(events log events)."""
    return list(select_all(trace, range(trace.mms)))


def select(trace: Trace, mm: int) -> Trace:
    """Only the address space ``mm``, renumbered to mm 0 and tasks from 0. O(events). Raises ValueError.

    One created by a fork begins with an exec and its layout at the fork, from a replay of its parents. FORK rows are
    dropped; a task created by vfork appears as a thread until its exec.
    """
    return next(select_all(trace, [mm]))


def select_all(trace: Trace, mms: Iterable[int]) -> Iterator[Trace]:
    """The address spaces ``mms``, each as :func:`select` returns it, after one replay for all of them."""
    mms = list(mms)
    for mm in mms:
        if not 0 <= mm < trace.mms:
            raise ValueError(f"there is no address space {mm}; the trace has {trace.mms}, from 0 on")
    kind = trace.events["kind"]
    forks = np.flatnonzero(kind == Kind.FORK)
    fork_of = dict(zip(trace.events["addr"][forks].tolist(), forks.tolist(), strict=True))
    births = _births(trace, sorted(fork_of[mm] for mm in set(mms) if mm in fork_of))
    others = np.flatnonzero(kind != Kind.FORK)
    order = others[np.argsort(trace.events["mm"][others], kind="stable")]
    owner = trace.events["mm"][order]
    for mm in mms:
        low, high = np.searchsorted(owner, [mm, mm + 1])
        yield _part(trace, mm, order[low:high], fork_of.get(mm), births)


def _part(
    trace: Trace, mm: int, rows: NDArray[np.int64], fork: int | None, births: dict[int, NDArray[np.void]]
) -> Trace:
    """One address space, whose events are ``rows``; the fork at row ``fork`` created it."""
    born = births[fork] if fork is not None else np.zeros(0, EVENT)
    events = np.concatenate([born, trace.events[rows].astype(EVENT)])
    events["mm"] = 0
    number: dict[int, int] = {}
    spawn = events["kind"] == Kind.THREAD
    ids: NDArray[np.int64] = np.stack([events["task"], np.where(spawn, events["len"], events["task"])], 1).ravel()
    for task in ids[np.sort(np.unique(ids, return_index=True)[1])].tolist():
        number[task] = len(number)
    events["task"] = [number[t] for t in events["task"].tolist()]
    events["len"][spawn] = [number[t] for t in events["len"][spawn].tolist()]
    place = np.searchsorted(rows, trace.reports["row"])
    kept = np.append(rows, NIL)[place] == trace.reports["row"]
    reports = trace.reports[kept].copy()
    reports["row"] = place[kept] + len(born)
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
        unplayed=_marks(trace, mm, rows, fork, born),
        faults={},
    )
    at, tid = (int(trace.time[fork]), int(trace.tid[rows[0]]) if len(rows) else 0) if fork is not None else (0, 0)
    time = np.concatenate([np.full(len(born), at, np.int64), trace.time[rows]])
    tids = np.concatenate([np.full(len(born), tid, np.int32), trace.tid[rows]])
    return Trace(events, time, tids, meta, reports)


INHERITED = "fork (inherited memory keeps apart from new)"
"""Why VMAs of an address space created by fork may merge in its own replay where the kernel's did not: the child's
anon_vma is one of several in its VMAs' chains, which is_mergeable_anon_vma() considers (mm/vma.c), and the part does
not show this."""


def _marks(
    trace: Trace, mm: int, rows: NDArray[np.int64], fork: int | None, born: NDArray[np.void]
) -> tuple[Unplayed, ...]:
    """What the part's events do not show: its own marks, those that its parents had at the fork, and the fork
    itself."""
    at = len(born)
    own = [
        replace(mark, mm=0, row=int(np.searchsorted(rows, mark.row)) + at)
        for mark in trace.meta.unplayed
        if mark.mm == mm
    ]
    if fork is None:
        return tuple(own)
    forks = trace.events[trace.events["kind"] == Kind.FORK] if trace.meta.unplayed else trace.events[:0]
    line, parent = {mm}, dict(zip(forks["addr"].tolist(), forks["mm"].tolist(), strict=True))
    while mm in parent:
        mm = parent[mm]
        line.add(mm)
    before = [replace(m, mm=0, row=at) for m in trace.meta.unplayed if m.mm in line and m.row <= fork]
    private = born[(born["kind"] == Kind.MAP) & ((born["flags"] & MAP_SHARED) == 0) & ((born["prot"] & 2) != 0)]
    inherited = [
        Unplayed(INHERITED, 0, at, addr, addr + length, BORDERS)
        for addr, length in zip(private["addr"].tolist(), private["len"].tolist(), strict=True)
    ]
    return (*before, *inherited, *own)


def _births(trace: Trace, forks: list[int]) -> dict[int, NDArray[np.void]]:
    """By row of a fork: EXEC and MAP rows for the layout with which its child begins."""
    from benchframe.oracle import Replayer

    births: dict[int, NDArray[np.void]] = {}
    if not forks:
        return births
    replayer = Replayer()
    parent = dict(
        zip(*(trace.events[n][trace.events["kind"] == Kind.FORK].tolist() for n in ("addr", "mm")), strict=True)
    )

    def look(row: int) -> None:
        mm = int(trace.events["addr"][row - 1])
        layout = replayer.spaces[mm].layout() if mm in replayer.spaces else []
        births[row - 1] = _birth(trace, row - 1, layout, parent)

    replayer.feed(trace.events[: forks[-1] + 1], [fork + 1 for fork in forks], look)
    return births


def _birth(
    trace: Trace, fork: int, layout: list[tuple[int, int, int, int, int, int]], parent: dict[int, int]
) -> NDArray[np.void]:
    """The rows that create ``layout``, for the child of the fork at row ``fork``."""
    events = trace.events
    mm, task = int(events["addr"][fork]), int(events["len"][fork])
    stacks, specials, start_brk = _origins(trace, mm, parent)
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


def _origins(trace: Trace, mm: int, parent: dict[int, int]) -> tuple[set[int], set[tuple[int, int]], int]:
    """(a byte of each stack, the special areas, start_brk or NIL) of an mm, from its own exec or its parents'."""
    while mm in parent:
        mm = parent[mm]
    made = trace.image[trace.image["mm"] == mm]
    maps, execs = made[made["kind"] == Kind.MAP], made[made["kind"] == Kind.EXEC]
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
    """The address spaces of a process, in order: the one from its fork, and one for each exec."""
    return [p.mm for p in trace.meta.processes if p.pid == pid]


def largest(trace: Trace) -> int:
    """The address space with the most lookups."""
    lookups = np.isin(trace.events["kind"], (Kind.FAULT, Kind.LOOKUP))
    return int(np.argmax(np.bincount(trace.events["mm"][lookups], minlength=max(1, trace.mms))))


# ----------------------------------------------------------------------------------------------------------------------
# A trace shifted in the address space: every address lower by a number of pages, everything else unchanged.
#
# What lies in one 2 MiB region, and so in one page of page-table entries, depends on where the program was loaded. A
# kernel places it anew in each run (ASLR); a recorded trace has one placement. Moving it by 0 to 511 pages shows the
# others.

PLACED = (Kind.EXEC, Kind.MAP, Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.BRK, Kind.MADVISE, Kind.MLOCK,
          Kind.MUNLOCK, Kind.FAULT, Kind.LOOKUP, Kind.WALK)  # fmt: skip
"""Kinds whose ``addr`` is an address (in a FORK it is the child's mm, in a THREAD unused)."""
GIVEN = (Kind.MAP, Kind.MMAP, Kind.MREMAP, Kind.BRK)
"""Kinds that return an address."""
LOWEST = 1 << 20
"""Addresses below 1 MiB are not shifted: null pointers that the program accessed, and hints of 0."""


def shifted(trace: Trace, pages: int) -> Trace:
    """``trace`` with all addresses lower by ``pages`` (0 to 511). Raises ValueError outside this range. O(events)."""
    if not 0 <= pages < 512:
        raise ValueError(f"a shift of {pages} pages is not in 0..511: 512 pages are 2 MiB, the same placement again")
    if pages == 0:
        return trace
    events = trace.events.copy()
    down = pages * PAGE
    kind = events["kind"]
    for name, kinds in (("addr", PLACED), ("ret", GIVEN), ("offset", (Kind.MREMAP,))):
        chosen = np.isin(kind, kinds) & (events[name] >= LOWEST)
        events[name][chosen] -= down
    notes = (*trace.meta.notes, f"all addresses lower by {pages} pages")
    return Trace(events, meta=replace(trace.meta, snapshots=(), notes=notes), setup=trace.setup)


MARK = "# benchframe "
MAX_LINE = 1 << 23
MAX_BYTES = 1 << 32
NEEDED = ("kind", "addr")
"""Columns that a CSV file must have; the others default to 0, file and reports to NIL."""


def write_csv(path: Path, trace: Trace) -> None:
    """Write ``trace`` as CSV, completely or not at all. Raises TraceError."""

    from benchframe.trace.parquet import COLUMNS

    vm_start = np.full(len(trace), NIL, np.int64)
    vm_end = vm_start.copy()
    vm_start[trace.reports["row"]] = trace.reports["vm_start"]
    vm_end[trace.reports["row"]] = trace.reports["vm_end"]
    extra: dict[str, Any] = {"time": trace.time, "tid": trace.tid, "vm_start": vm_start, "vm_end": vm_end}
    try:
        with replacing(path) as file:
            file.write(f"{MARK}{fitted_json(trace.meta, MAX_LINE - len(MARK))}\n{','.join(COLUMNS)}\n".encode())
            for at in range(0, len(trace), 1 << 16):
                cut = slice(at, at + (1 << 16))
                columns = [(extra[n] if n in extra else trace.events[n])[cut].tolist() for n in COLUMNS]
                file.writelines(f"{','.join(map(str, row))}\n".encode() for row in zip(*columns, strict=True))
    except OSError as error:
        raise not_written(path, error) from None


def read_csv(path: Path) -> Trace:
    """Read and check a CSV trace. Raises TraceError, which says what is wrong."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.csv as pc  # type: ignore[import-untyped]

    from benchframe.trace.parquet import COLUMNS, to_numpy

    try:
        if path.stat().st_size > MAX_BYTES:
            raise TraceError(path, f"it is larger than {MAX_BYTES} bytes", "split it, or make it Parquet")
        with path.open("rb") as file:
            first = file.readline(MAX_LINE)
            meta = TraceMeta()
            start = 0
            if first.startswith(MARK.encode()):
                meta, start = meta_from_json(first[len(MARK) :].decode()), len(first)
            file.seek(start)
            header = file.readline(1 << 16).decode().strip().split(",")
            unknown = [name for name in header if name not in COLUMNS]
            missing = [name for name in NEEDED if name not in header]
            if unknown or missing or len(set(header)) != len(header):
                what = (
                    f"column {unknown[0]!r:.40} is unknown"
                    if unknown
                    else f"columns {missing or 'twice'} in the header"
                )
                raise TraceError(path, what, "see docs/trace-format.md for the columns of a trace")
            types = {name: pa.int64() for name in header}
            options = pc.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False)
            reading = pc.ReadOptions(column_names=header)
            parts, rows = [], 0
            for batch in pc.open_csv(file, read_options=reading, convert_options=options):
                rows += batch.num_rows
                if rows > MAX_ROWS:
                    raise TraceError(path, f"it has more than {MAX_ROWS} events", "split it, or make it Parquet")
                parts.append({name: to_numpy(batch.column(i)) for i, name in enumerate(header)})
    except (OSError, UnicodeDecodeError, ValueError) as error:  # ArrowInvalid is a ValueError
        reason = (str(error).splitlines() or ["unreadable"])[0][:160]
        raise TraceError(path, f"this is not a CSV trace ({reason})", "see docs/trace-format.md") from None
    columns = {name: np.concatenate([part[name] for part in parts]) for name in header} if parts else {}
    try:
        trace = _assemble(columns, meta)
        trace.check()
    except (ValueError, OverflowError) as error:
        raise TraceError(path, str(error), "correct that row") from None
    return trace


def read_file(path: str | Path) -> Trace:
    """A trace file in either form, Parquet or CSV: told apart by how it begins, or by the ending ``.csv``. Raises
    TraceError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            marked = file.read(len(MARK)) == MARK.encode()
    except OSError:
        marked = False  # what is wrong is told by who reads it
    return read_csv(path) if marked or path.suffix == ".csv" else read_trace(path)


def _assemble(columns: dict[str, Any], meta: TraceMeta) -> Trace:
    rows = len(next(iter(columns.values()))) if columns else 0
    events = np.zeros(rows, EVENT)
    events["file"] = NIL
    for name, values in columns.items():
        if name in (EVENT.names or ()):
            kept = values.astype(EVENT[name])
            if not np.array_equal(kept, values):
                raise ValueError(f"column {name} has a number that does not fit 32 bits")
            events[name] = kept
    trace = Trace(events, meta=meta)
    if "time" in columns:
        trace.time = columns["time"]
    if "tid" in columns:
        trace.tid = columns["tid"].astype(np.int32)
        if not np.array_equal(trace.tid, columns["tid"]):
            raise ValueError("column tid has a number that does not fit 32 bits")
    if "vm_start" in columns and "vm_end" in columns:
        at = np.flatnonzero(columns["vm_end"] != NIL)
        trace.reports = np.zeros(len(at), REPORT)
        trace.reports["row"] = at
        trace.reports["vm_start"], trace.reports["vm_end"] = columns["vm_start"][at], columns["vm_end"][at]
    return trace
