"""From what was recorded to a trace: the layout at the start, events in order, accesses that no fault shows."""

import re
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.events import EVENT, NIL, REPORT, FaultFlag, Kind, MapType
from benchframe.record import perf as R
from benchframe.record.perf import CLONE_THREAD, CLONE_VM, CLONES, ENDS, EXECS, NAMES, NR, UNREPLAYED, Rec
from benchframe.trace.check import MAX_INT
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, FileEntry, Snapshot, TraceMeta
from benchframe.trace.trace import Trace

# ----------------------------------------------------------------------------------------------------------------------
# How much of an ELF image the kernel really maps: needed where an exec's layout is known from VMA reports alone.
#
# fs/binfmt_elf.c maps a position-independent image whole, reports that, and unmaps the tail without a report; so the
# first report of a file must be clamped to its first PT_LOAD segment (ELF specification: program headers).

PT_LOAD = 1


def load_segments(path: str) -> list[tuple[int, int, int]]:
    """(file offset, virtual address, file size) of each PT_LOAD segment; empty if ``path`` is no 64-bit ELF file."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
            if head[:5] != b"\x7fELF\x02" or len(head) < 64:
                return []
            table, size, count = struct.unpack_from("<Q14xHH", head, 32)
            if size != 56 or count > 128:
                return []
            file.seek(table)
            data = file.read(size * count)
    except (OSError, OverflowError, ValueError):
        return []
    segments = []
    for at in range(0, len(data) - size + 1, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == PT_LOAD:
            segments.append((offset, address, length))
    return segments


def settle(rows: "list[Row]", files: tuple[FileEntry, ...] | list[FileEntry]) -> "list[Row]":
    """The layout that a sequence of VMA reports during exec leaves behind: later reports lie over earlier ones."""
    areas: list[Row] = []
    seen: set[int] = set()
    for row in rows:
        if row.file >= 0 and row.file not in seen:
            seen.add(row.file)
            segments = load_segments(files[row.file].name)
            if segments:
                offset, address, length = segments[0]
                first = -(-((address & (PAGE - 1)) + length) // PAGE) * PAGE
                if offset // PAGE * PAGE == row.offset and first < row.len:
                    row.len = first
        areas = [part for area in areas for part in _cut(area, row.addr, row.addr + row.len)]
        areas.append(row)
    return sorted(areas, key=lambda area: area.addr)


def _cut(area: "Row", start: int, end: int) -> "list[Row]":
    """What remains of ``area`` outside [start, end)."""
    from dataclasses import replace

    parts = []
    if area.addr < start:
        parts.append(replace(area, len=min(area.addr + area.len, start) - area.addr))
    if area.addr + area.len > end:
        low = max(area.addr, end)
        shift = low - area.addr if area.file >= 0 else 0
        parts.append(replace(area, addr=low, len=area.addr + area.len - low, offset=area.offset + shift))
    return parts


# ----------------------------------------------------------------------------------------------------------------------
# ``/proc/PID/maps`` and ``/proc/PID/stat``: what the kernel itself says about an address space.

_LINE = re.compile(
    r"(?P<start>[0-9a-f]{1,16})-(?P<end>[0-9a-f]{1,16}) (?P<perms>[r-][w-][x-][ps]) (?P<offset>[0-9a-f]{1,16}) "
    r"(?P<dev>[0-9a-f]+:[0-9a-f]+) (?P<inode>\d{1,20})(?:\s+(?P<name>.*))?$"
)
USER_END = 1 << 47


@dataclass(frozen=True)
class MapsRow:
    """One line of a maps file; ``prot`` is 1 r, 2 w, 4 x; ``name`` is a path, ``[stack]``-like, or empty."""

    start: int
    end: int
    prot: int
    shared: bool
    offset: int
    device: str
    inode: int
    name: str
    flags: frozenset[str] = frozenset()
    """Two-letter words of smaps' VmFlags, where they were read (proc(5)): nr no reserve, nh no huge page, lo locked."""


@dataclass
class Maps:
    """A layout seen at ``time`` (CLOCK_MONOTONIC ns) in process ``pid``: ``when`` is exec, exit or attach.

    ``faults`` is the process's minor + major fault count so far, ``start_brk`` from /proc/PID/stat (0: unknown).
    """

    time: int
    pid: int
    when: str
    rows: list[MapsRow] = field(default_factory=list)
    start_brk: int = 0
    faults: int = 0


def parse_maps(text: str) -> list[MapsRow]:
    """Parse a maps file; lines above the user address space ([vsyscall]) are left out.

    Raises ``ValueError`` naming the first line that is none.

    >>> parse_maps("1000-3000 rw-p 00000000 00:00 0 [heap]")[0].name
    '[heap]'
    """
    rows: list[MapsRow] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is not a line of /proc/PID/maps")
        start, end, perms = int(match["start"], 16), int(match["end"], 16), match["perms"]
        if end > USER_END:
            continue
        if start >= end or (rows and start < rows[-1].end):
            raise ValueError(f"line {number}: the areas are not in order")
        prot = (perms[0] == "r") | (perms[1] == "w") << 1 | (perms[2] == "x") << 2
        inode = int(match["inode"]) & ((1 << 63) - 1)
        offset = int(match["offset"], 16)
        rows.append(MapsRow(start, end, prot, perms[3] == "s", offset, match["dev"], inode, match["name"] or ""))
    return rows


def read_maps(pid: int, when: str, time: int, tid: int = 0) -> Maps | None:
    """The layout of ``pid`` now, or None if it is gone or hidden.

    ``tid`` names a thread of it that still lives: a leader that has ended shows no mappings.
    """
    try:
        text = Path(f"/proc/{tid or pid}/maps").read_text(errors="replace")
        stat = Path(f"/proc/{tid or pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # Field 2 may hold spaces and parentheses: count from the last one (proc(5): 10 minflt, 12 majflt, 47 start_brk).
    fields = stat[stat.rindex(")") + 2 :].split()
    rows = parse_maps(text)
    if not rows:
        return None
    if when == "attach":
        rows = _with_flags(rows, tid or pid)
    return Maps(time, pid, when, rows, int(fields[44]), int(fields[7]) + int(fields[9]))


def _with_flags(rows: list[MapsRow], pid: int) -> list[MapsRow]:
    """Add the flags that maps does not show and merges depend on; a process that is held still has equal addresses."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(errors="replace")
    except OSError:
        return rows
    flags: dict[int, frozenset[str]] = {}
    start = 0
    for line in text.splitlines():
        if line.startswith("VmFlags:"):
            flags[start] = frozenset(line.split()[1:])
        elif (match := _LINE.match(line)) is not None:
            start = int(match["start"], 16)
    return [replace(row, flags=flags.get(row.start, frozenset())) for row in rows]


# ----------------------------------------------------------------------------------------------------------------------
# Read, write or execute? What a fault wanted, where nothing says so (the software event has no error code).

GUESSED = "the access of a fault was inferred from its mapping: write if writable, else execute, else read"


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


# ----------------------------------------------------------------------------------------------------------------------
# Rows in recorded order to a trace: sorted, renumbered densely, with its file table and layouts.


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


# ----------------------------------------------------------------------------------------------------------------------
# Records to a trace: one linear order of events that replays to the same address spaces.
#
# The order matters where threads race. An operation takes effect at its first mmap_lock write acquisition inside the
# system call; where locks were not recorded, at the VMA report (MMAP2) inside it, else at entry (munmap, mremap: from
# then on the old range is free) or at exit (the rest). A fault that went on to take the lock is placed at that moment,
# since that is when it may assign an anon_vma or grow the stack.

LOWEST_LOOKUP = PAGE
"""Tree reads below this are not addresses: interrupt numbers and detached trees go through the same tracepoint."""
UNREPORTED = (NR["munmap"], NR["mremap"])
"""Calls whose effect the kernel does not report, and whose old range others may get at once: placed at entry."""
OWN_SEARCH = 200_000
"""ns within which a tree read of a fault's page is the fault's own find_vma."""
QUICK_LOCK = 10_000
"""ns within which a lock acquisition after a fault is the fault's own: a try for the anon_vma, with no search."""
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
FLAG_WORDS = {"nr": 0x4000, "nh": 0x20000, "lo": 0x2000}
"""smaps words to the MAP_* flag that makes such an area: MAP_NORESERVE, MAP_STACK (no huge pages), MAP_LOCKED."""
SPECIAL = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vectors]", "[sigpage]")


@dataclass
class _Call:
    number: int
    args: tuple[Any, ...]
    entered: int
    lock: int = 0
    area: Rec | None = None
    looks: list[int] = field(default_factory=list)


@dataclass
class _Thread:
    task: int
    pid: int
    call: _Call | None = None
    pending: Row | None = None  # a fault that has not yet been seen to take the lock
    locked: int = 0  # when that fault took it
    fault: Row | None = None
    booting: bool = False  # between exec and the end of execve: the kernel builds the image
    imaged: bool = False  # the layout at exec is known from /proc
    started: tuple[int, int] = (0, 0)  # the exec's place in the order
    kernel_maps: list[Row] = field(default_factory=list)


class Builder:
    """Feed :class:`~benchframe.record.perf.Rec` in time order to :meth:`add`, then :meth:`trace`.

    O(records). ``maps`` are the layouts that ptrace saw; an exec without one falls back on VMA reports. Without
    ``calls`` (a recording of faults and reports alone) each report stands for the mmap that led to it.
    """

    def __init__(self, maps: list[Maps], calls: bool = True) -> None:
        self._calls = calls
        self.rows: list[Row] = []
        self.files = FileTable()
        self.skipped: Counter[str] = Counter()
        self.strays = 0
        self._maps = maps
        self._threads: dict[int, _Thread] = {}
        self._mm_of: dict[int, int] = {}  # task -> mm
        self._pid_mm: dict[int, list[tuple[int, int]]] = {}
        self._tid_of: dict[int, int] = {}  # task -> tid
        self._execs: dict[int, list[Maps]] = {}
        self._mms = 0
        for seen in maps:
            if seen.when == "exec":
                self._execs.setdefault(seen.pid, []).append(seen)

    # -- identities -------------------------------------------------------------------------------------------

    def _new_task(self, tid: int, pid: int, mm: int) -> int:
        task = len(self._tid_of)
        self._tid_of[task] = tid
        self._mm_of[task] = mm
        self._threads[tid] = _Thread(task, pid)
        return task

    def _new_mm(self, pid: int, time: int) -> int:
        self._mms += 1
        self._pid_mm.setdefault(pid, []).append((time, self._mms - 1))
        return self._mms - 1

    def _row(self, time: int, kind: Kind, thread: _Thread, **values: Any) -> Row:
        row = Row(time, len(self.rows), kind, thread.task, self._mm_of[thread.task], **values)
        self.rows.append(row)
        return row

    # -- records ----------------------------------------------------------------------------------------------

    def attach(self, seen: Maps, tids: list[int]) -> None:
        """Begin with a layout that exists already, and the threads that live in it."""
        self._exec(Rec(seen.time, R.EXEC, tids[0], (seen.pid,)), seen)
        for tid in tids[1:]:
            self._made(Rec(seen.time, R.NEW, tids[0], (tid, CLONE_VM | CLONE_THREAD)))

    def add(self, rec: Rec) -> None:
        """Take one record; those of tasks outside the tree are ignored."""
        if rec.what == R.EXEC:
            self._exec(rec, None)
            return
        thread = self._threads.get(rec.tid)
        if thread is None:
            self.strays += 1
            return
        _HANDLERS[rec.what](self, rec, thread)

    def _fault(self, rec: Rec, thread: _Thread) -> None:
        addr, code, user = rec.values
        if addr >= ADDRESS_LIMIT:
            return
        if thread.booting and user and not thread.call:
            self._booted(thread)
        access = 0 if code < 0 else 4 if code & 16 else 2 if code & 2 else 1
        flags = (FaultFlag.USER if user else 0) | (FaultFlag.PRESENT if code > 0 and code & 1 else 0)
        row = self._row(rec.time, Kind.FAULT, thread, addr=addr, prot=access, flags=int(flags))
        thread.pending = thread.fault = row
        thread.locked = 0

    def _segv(self, rec: Rec, thread: _Thread) -> None:
        row = thread.fault
        if row is not None and row.addr == rec.values[0]:
            row.flags |= FaultFlag.SEGV

    def _lock(self, rec: Rec, thread: _Thread) -> None:
        _, write = rec.values
        if write and thread.call is not None:
            thread.call.lock = thread.call.lock or rec.time
        elif thread.pending is not None:
            thread.locked = thread.locked or rec.time
            if rec.time < thread.pending.time + QUICK_LOCK and not thread.booting:
                thread.pending.time = rec.time

    def _look(self, rec: Rec, thread: _Thread) -> None:
        addr = rec.values[0]
        if not LOWEST_LOOKUP <= addr < ADDRESS_LIMIT or thread.booting:
            return
        last = thread.fault
        if last is not None and last.addr >> 12 == addr >> 12 and rec.time < last.time + OWN_SEARCH:
            if thread.pending is not None and thread.locked:
                thread.pending.time = thread.locked
            thread.pending = None
            return
        call = thread.call
        if call is None:
            self._row(rec.time, Kind.LOOKUP, thread, addr=addr)
        elif call.number not in EXECS and call.number not in ENDS:
            call.looks.append(addr)

    def _enter(self, rec: Rec, thread: _Thread) -> None:
        number, args = rec.values
        thread.pending = None
        thread.call = _Call(number, args, rec.time)

    def _leave(self, rec: Rec, thread: _Thread) -> None:
        call, thread.call = thread.call, None
        thread.pending = None
        if thread.booting:
            self._booted(thread)
            return
        if call is None or call.number != rec.values[0]:
            return
        ret = rec.values[1]
        if call.number in UNREPLAYED:
            if ret >= 0:
                self.skipped[NAMES[call.number]] += 1
            return
        if call.number in CLONES or call.number in EXECS or call.number in ENDS:
            return
        time = call.lock or (call.area.time if call.area else 0)
        time = time or (call.entered if call.number in UNREPORTED else rec.time)
        for addr in call.looks:
            self._row(time, Kind.LOOKUP, thread, addr=addr)
        report = (call.area.values[0], call.area.values[1]) if call.area and ret >= 0 else None
        self._call(time, call, ret, report, thread)

    def _call(self, time: int, call: _Call, ret: int, report: tuple[int, int] | None, thread: _Thread) -> None:
        a = [_clamp(v) if isinstance(v, int) else 0 for v in call.args[:6]]
        name = NAMES[call.number]
        ret = max(ret, -4095) if ret < 0 else min(ret, ADDRESS_LIMIT)
        values: dict[str, Any] = {"addr": a[0], "len": a[1], "ret": ret, "report": report}
        if name == "mmap":
            values.update(prot=_bits(call.args[2]), flags=_bits(call.args[3]), offset=min(call.args[5], 1 << 62))
            if call.args[3] & MAP_ANONYMOUS:
                values["offset"] = 0  # the kernel ignores it
            else:
                values["file"] = self._mapped_file(call)
            kind = Kind.MMAP
        elif name == "mremap":
            values.update(len=a[1], new_len=a[2], flags=_bits(call.args[3]), offset=a[4])
            if not call.args[3] & 6:  # the fifth argument is garbage unless FIXED or DONTUNMAP
                values["offset"] = 0
            kind = Kind.MREMAP
        elif name in ("mprotect", "pkey_mprotect"):
            values["prot"] = _bits(call.args[2])
            kind = Kind.MPROTECT
        elif name == "madvise":
            values["flags"] = _bits(call.args[2])
            kind = Kind.MADVISE
        elif name == "brk":
            values["len"] = 0
            kind = Kind.BRK
        else:
            kind = {"munmap": Kind.MUNMAP, "munlock": Kind.MUNLOCK}.get(name, Kind.MLOCK)
            if name == "mlock2":
                values["flags"] = _bits(call.args[2])
        self._row(time, kind, thread, **values)

    def _mapped_file(self, call: _Call) -> int:
        fd = call.args[4] & 0xFFFFFFFF
        if len(call.args) > 6:
            device, inode, name, size = call.args[6]
            return self.files.index((device, inode, fd), name, inode, size)
        if call.area is not None:
            (major, minor, inode), name = call.area.values[5:7]
            return self.files.index((major, minor, inode, fd), name, inode)
        return self.files.index(("fd", fd), "", 0)

    def _area(self, rec: Rec, thread: _Thread) -> None:
        if thread.booting:
            thread.kernel_maps.append(self._kernel_map(rec, thread))
        elif thread.call is not None:
            thread.call.area = rec
        elif self._calls and thread.fault is not None and rec.values[0] <= thread.fault.addr < rec.values[1]:
            thread.fault.report = (rec.values[0], rec.values[1])  # the stack grew
        elif not self._calls:
            values = self._kernel_map(rec, thread)
            flags = values.flags & (MAP_SHARED | MAP_PRIVATE) | MAP_FIXED | (MAP_ANONYMOUS if values.file < 0 else 0)
            self._row(rec.time, Kind.MMAP, thread, addr=values.addr, len=values.len, prot=values.prot, flags=flags,
                      offset=values.offset, file=values.file, ret=values.addr)  # fmt: skip

    def _made(self, rec: Rec, thread: _Thread | None = None) -> None:
        child, flags = rec.values
        maker = thread or self._threads[rec.tid]
        mm = self._mm_of[maker.task]
        call = maker.call
        if not flags and call is not None:  # perf's own task records carry no flags: the call does
            flags = call.args[0] if call.number == NR["clone"] else CLONE_VM if call.number == NR["vfork"] else 0
        if flags & CLONE_VM:
            pid = maker.pid if flags & CLONE_THREAD else child
            row = self._row(rec.time, Kind.THREAD, maker)
            row.len = self._new_task(child, pid, mm)
            if not flags & CLONE_THREAD:
                self._pid_mm.setdefault(child, []).append((rec.time, mm))
        else:
            time = (call.lock or call.entered) if call is not None else rec.time
            row = self._row(time, Kind.FORK, maker)
            row.addr = self._new_mm(child, time)
            row.len = self._new_task(child, child, row.addr)

    def _gone(self, rec: Rec, thread: _Thread) -> None:
        self._row(rec.time, Kind.EXIT, thread)
        del self._threads[rec.tid]

    def _exec(self, rec: Rec, seen: Maps | None) -> None:
        pid = rec.values[0]
        thread = self._threads.get(rec.tid)
        if thread is None and self._threads and seen is None and pid not in self._pid_mm:
            self.strays += 1
            return
        mm = self._new_mm(pid, rec.time)
        if thread is None:
            self._new_task(rec.tid, pid, mm)
            thread = self._threads[rec.tid]
        self._mm_of[thread.task] = mm
        thread.booting = seen is None
        if seen is None and self._execs.get(pid):
            seen = self._execs[pid].pop(0)
        row = self._row(rec.time, Kind.EXEC, thread, addr=(seen.start_brk or NIL) if seen else NIL)
        thread.imaged, thread.started = seen is not None, (row.time, row.order)
        thread.kernel_maps = []
        if seen is not None:
            before = None
            for area in seen.rows:
                self._row(rec.time, Kind.MAP, thread, **self._image(area, before))
                before = area
        thread.pending = thread.fault = None

    def _image(self, area: MapsRow, before: MapsRow | None = None) -> dict[str, Any]:
        """The MAP event of a line of the layout at exec; ``before`` is the line above it.

        The kernel keeps two areas apart that look alike in maps (other anon_vma, VM_ACCOUNT history): the replay must
        not merge them either, so the second becomes another open file, or MAP_NORESERVE if it is anonymous.
        """
        flags, file = MAP_SHARED if area.shared else MAP_PRIVATE, NIL
        if area.name == "[stack]":
            flags |= MapType.STACK
        elif area.name == "[heap]":
            flags |= MapType.HEAP
        elif area.name in SPECIAL:
            flags |= MapType.SPECIAL
        for word, bit in FLAG_WORDS.items():
            if word in area.flags and area.name != "[stack]" and area.name not in SPECIAL:
                flags |= bit
        apart = before is not None and _alike(before, area)
        if area.inode:
            key = ("image", area.device, area.inode, *((area.start,) if apart else ()))
            file = self.files.index(key, area.name, area.inode)
        elif apart and not flags & MapType.SPECIAL:
            flags ^= MAP_NORESERVE
        offset = area.offset if area.inode else 0
        size = area.end - area.start
        return {"addr": area.start, "len": size, "prot": area.prot, "flags": int(flags), "offset": offset, "file": file}

    def _kernel_map(self, rec: Rec, thread: _Thread) -> Row:
        start, end, offset, prot, flags, (major, minor, inode), name = rec.values
        area = MapsRow(start, end, prot & 7, bool(flags & MAP_SHARED), offset, f"{major:x}:{minor:x}", inode, name)
        return Row(rec.time, 0, Kind.MAP, thread.task, self._mm_of[thread.task], **self._image(area))

    def _booted(self, thread: _Thread) -> None:
        """execve returned: without a layout from /proc, the kernel's reports since exec are the layout."""
        thread.booting = False
        if thread.imaged:
            return

        for row in settle(thread.kernel_maps, self.files.entries):
            self.rows.append(replace(row, time=thread.started[0], order=thread.started[1]))

    def trace(self, meta: TraceMeta) -> Trace:
        """Sort, number and check: the finished trace."""
        notes = [f"{count} calls of {name} were not replayed" for name, count in sorted(self.skipped.items())]
        meta = replace(meta, files=self.files.table(), notes=meta.notes + tuple(notes))
        return finish(self.rows, self._tid_of, meta, self._maps, self._pid_mm, self.files)


_HANDLERS: dict[int, Any] = {
    R.FAULT: Builder._fault, R.ENTER: Builder._enter, R.LEAVE: Builder._leave, R.LOCK: Builder._lock,
    R.LOOK: Builder._look, R.NEW: Builder._made, R.GONE: Builder._gone, R.AREA: Builder._area, R.SEGV: Builder._segv,
}  # fmt: skip


def _alike(before: MapsRow, area: MapsRow) -> bool:
    """Would the two lines be one area, for all that maps shows?"""
    if before.end != area.start or (before.prot, before.shared) != (area.prot, area.shared):
        return False
    if (before.device, before.inode) != (area.device, area.inode) or (before.flags ^ area.flags) & FLAG_WORDS.keys():
        return False
    return not area.inode or before.offset + before.end - before.start == area.offset


def _clamp(value: int) -> int:
    """An argument as the format holds it: all that lies above the user address space fails alike."""
    return value if 0 <= value <= ADDRESS_LIMIT else ADDRESS_LIMIT


def _bits(value: int) -> int:
    return value if 0 <= value <= MAX_INT else MAX_INT
