"""Records to rows: one linear order of events that replays to the same address spaces, from the layout that exec left.

The order matters where threads race. An operation takes effect at its first mmap_lock write acquisition inside the
system call; where locks were not recorded, at the VMA report (MMAP2) inside it, else at entry (munmap, mremap: from
then on the old range is free) or at exit (the rest). A fault that went on to take the lock is placed at that moment,
since that is when it may assign an anon_vma or grow the stack.
"""

import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.events import NIL, FaultFlag, Kind, MapType
from benchframe.record import records as R
from benchframe.record.procfs import NO_LIMIT, UNSEEN, Maps, MapsRow
from benchframe.record.recording import FileTable, Recording, Row, Rows
from benchframe.record.records import (
    ALL,
    CLONE_THREAD,
    CLONE_VM,
    CLONES,
    ENDS,
    EXECS,
    I386,
    LIMITS,
    MAP_HUGETLB,
    NAMES,
    NR,
    READ_IMPLIES_EXEC,
    WATCHED,
    Effect,
    Faults,
    Rec,
    attribute_of,
    decided_by_driver,
    effect_of,
    from_i386,
)
from benchframe.trace.meta import ADDRESS_LIMIT, BORDERS, MAPPINGS, PAGE, FileEntry, TraceMeta, Unplayed
from benchframe.trace.trace import MAX_INT, Trace

MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x100, 0x4000
FLAG_WORDS = {"nr": 0x4000, "nh": 0x20000, "lo": 0x2000}
"""smaps words to the MAP_* flag that makes such an area: MAP_NORESERVE, MAP_STACK (no huge pages), MAP_LOCKED."""
TOLD_BY = frozenset(FLAG_WORDS) | {"gd"}
"""smaps words that tell two areas of a replay apart."""
SPECIAL = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vectors]", "[sigpage]")

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


def settle(rows: list[Row], files: tuple[FileEntry, ...] | list[FileEntry]) -> list[Row]:
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


def _cut(area: Row, start: int, end: int) -> list[Row]:
    """What remains of ``area`` outside [start, end)."""
    parts = []
    if area.addr < start:
        parts.append(replace(area, len=min(area.addr + area.len, start) - area.addr))
    if area.addr + area.len > end:
        low = max(area.addr, end)
        shift = low - area.addr if area.file >= 0 else 0
        parts.append(replace(area, addr=low, len=area.addr + area.len - low, offset=area.offset + shift))
    return parts


def map_event(area: MapsRow, files: FileTable, other: bool = False) -> dict[str, Any]:
    """The values of the MAP event of a line of the layout at exec. ``other``: it must differ from alike neighbours
    (:func:`told_apart`), so it becomes another open file, or MAP_NORESERVE if it is anonymous."""
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
    if area.inode:
        key = ("image", area.device, area.inode, *((area.start,) if other else ()))
        file = files.index(key, area.name, area.inode)
    else:
        flags |= MAP_GROWSDOWN if "gd" in area.flags and area.name != "[stack]" else 0
        flags ^= MAP_NORESERVE if other else 0
    offset = area.offset if area.inode else 0
    size = area.end - area.start
    return {"addr": area.start, "len": size, "prot": area.prot, "flags": int(flags), "offset": offset, "file": file}


def told_apart(rows: list[MapsRow]) -> list[bool]:
    """Which areas of a layout must be made to differ, so that no two alike neighbours merge in the replay. O(n).

    The kernel keeps areas apart that look alike in maps: another name or anon_vma, another history of VM_ACCOUNT. Of
    such neighbours in a row, files become files of their own from the second on, and anonymous ones differ in turn. The
    last one of a heap, and else the first, stays plain: there the program's memory grows on.
    """
    marks: list[bool] = []
    start = 0
    for at in range(1, len(rows) + 1):
        if at < len(rows) and _alike(rows[at - 1], rows[at]):
            continue
        run = rows[start:at]
        if run[0].inode:
            marks += [place > 0 for place in range(len(run))]
        else:
            plain = (len(run) - 1) % 2 if any(row.name == "[heap]" for row in run) else 0
            marks += [place % 2 != plain for place in range(len(run))]
        start = at
    return marks


def _alike(before: MapsRow, area: MapsRow) -> bool:
    """Would the two lines be one area, for all that maps shows?"""
    if before.end != area.start or (before.prot, before.shared) != (area.prot, area.shared):
        return False
    if any(row.name in SPECIAL or row.name == "[stack]" for row in (before, area)):
        return False  # these never merge with others
    if (before.device, before.inode) != (area.device, area.inode) or (before.flags ^ area.flags) & TOLD_BY:
        return False
    return not area.inode or before.offset + before.end - before.start == area.offset


LOWEST_LOOKUP = PAGE
"""Tree reads below this are not addresses: interrupt numbers and detached trees go through the same tracepoint."""
RLIMIT_STACK = 3
SHM_RDONLY, SHM_EXEC = 0o10000, 0o100000
HUGE = 1 << 21
"""The size of a huge page where a mapping does not choose one (x86-64)."""
UNREPORTED = (NR["munmap"], NR["mremap"])
"""Calls whose effect the kernel does not report, and whose old range others may get at once: placed at entry."""
OWN_SEARCH = 200_000
"""ns after a fault, or after it got the lock (for which it may wait long), within which a tree read of its page is its
own find_vma."""
QUICK_LOCK = 10_000
"""ns within which a lock acquisition after a fault is the fault's own: a try for the anon_vma, with no search."""


@dataclass
class _Call:
    number: int
    args: tuple[Any, ...]
    entered: int
    recorded: int  # the number by which it was recorded, which its end has too
    lock: int = 0
    area: Rec | None = None
    looks: list[int] = field(default_factory=list)


@dataclass
class _Thread:
    task: int
    pid: int
    call: _Call | None = None
    pending: Row | None = None  # a fault that has not yet been seen to take the lock
    locked: int = 0  # when that fault took it last
    fault: Row | None = None
    booting: bool = False  # between exec and the end of execve: the kernel builds the image
    imaged: bool = False  # the layout at exec is known from /proc
    started: tuple[int, int] = (0, 0)  # the exec's place in the order
    kernel_maps: list[Row] = field(default_factory=list)
    forked: int = 0  # the child that the next NEW is about, as our own PID namespace numbers it
    narrow: bool = False  # a 32-bit program
    executable: bool = False  # under READ_IMPLIES_EXEC


USER, PRESENT = int(FaultFlag.USER), int(FaultFlag.PRESENT)  # an enumeration's | costs more than all else of a fault
MANY = 16
"""From so many faults in a row on, they are taken as columns."""


class Builder:
    """Feed :class:`~benchframe.record.records.Rec` in time order to :meth:`add`, then :meth:`trace`.

    O(records). ``maps`` are the layouts that ptrace saw; an exec without one falls back on VMA reports. Without
    ``calls`` (a recording of faults and reports alone) each report stands for the mmap that led to it. Calls of 32-bit
    programs come with the ``numbers_of_i386``, or (from ptrace) in x86-64's terms already. Unless the records ``began``
    with the program, those before its exec are of the recorder's child that execs it, and are nobody's.
    """

    def __init__(self, maps: list[Maps], calls: bool = True, numbers_of_i386: bool = True, began: bool = True) -> None:
        self._calls, self._numbers_of_i386, self._began = calls, numbers_of_i386, began
        self.rows = Rows()
        self.files = FileTable()
        self.skipped: Counter[str] = Counter()
        self.strays: Counter[int] = Counter()  # records of tasks outside the tree, by what they are
        self.above = 0  # faults above the user address space that is modelled
        self._maps = maps
        self._threads: dict[int, _Thread] = {}
        self._mm_of: dict[int, int] = {}  # task -> mm
        self._pid_mm: dict[int, list[tuple[int, int]]] = {}
        self._tid_of: dict[int, int] = {}  # task -> tid
        self._execs: dict[int, list[Maps]] = {}
        self._mms = 0
        self._narrow = 0
        self.processes: list[tuple[int, int, Maps]] = []  # (mm, pid, what was seen at its exec)
        self._unplayed: list[Unplayed] = []
        self._attached: dict[int, dict[int, int]] = {}  # by mm: address and length of what shmat and io_setup mapped
        self._breaks: dict[int, int] = {}  # by mm: the end of its heap, where that is known
        self._stack_limit = UNSEEN  # of the root's first exec: the trace's own
        self._limits: dict[int, list[tuple[int, int]]] = {}  # by process: when RLIMIT_STACK was seen, and its value
        for seen in maps:
            if seen.when == "exec":
                self._execs.setdefault(seen.pid, []).append(seen)
            self._limits.setdefault(seen.pid, []).append((seen.time, seen.stack_limit))

    # -- identities -------------------------------------------------------------------------------------------

    def _new_task(self, tid: int, pid: int, mm: int, maker: _Thread | None = None) -> int:
        task = len(self._tid_of)
        self._tid_of[task] = tid
        self._mm_of[task] = mm
        self._threads[tid] = thread = _Thread(task, pid)
        if maker is not None:
            thread.narrow, thread.executable = maker.narrow, maker.executable
        return task

    def _new_mm(self, pid: int, time: int) -> int:
        self._mms += 1
        self._pid_mm.setdefault(pid, []).append((time, self._mms - 1))
        return self._mms - 1

    def _row(self, time: int, kind: Kind, thread: _Thread, **values: Any) -> Row:
        return self.rows.add(Row(time, 0, kind, thread.task, self._mm_of[thread.task], **values))

    # -- records ----------------------------------------------------------------------------------------------

    def attach(self, seen: Maps, tids: list[int]) -> None:
        """Begin with a layout that exists already, and the threads that live in it."""
        self.attach_all([seen], {seen.pid: tids})

    def attach_all(self, layouts: list[Maps], threads: dict[int, list[int]]) -> None:
        """Begin with the layouts of processes that exist already, and the threads that live in them."""
        for seen in layouts:
            self._exec(Rec(seen.time, R.EXEC, threads.get(seen.pid, [seen.pid])[0], (seen.pid,)), seen)
        for seen in layouts:
            first, *others = threads.get(seen.pid, [seen.pid])
            for tid in others:
                self._made(Rec(seen.time, R.NEW, first, (tid, CLONE_VM | CLONE_THREAD)))

    def add_window(self, faults: Faults, others: list[Rec], since: int = 0) -> None:
        """Take a window of records, both parts in time order; what is older than ``since`` is left out."""
        places = np.searchsorted(faults.time, [rec.time for rec in others], "right").tolist()
        few = [column.tolist() for column in faults] if len(others) * MANY > len(faults.time) else None
        start = int(np.searchsorted(faults.time, since)) if since else 0
        for place, rec in zip(places, others, strict=True):
            if place > start:
                self._add_faults(faults, start, place, few)
                start = place
            if rec.time >= since:
                self.add(rec)
        if start < len(faults.time):
            self._add_faults(faults, start, len(faults.time), few)
        self.rows.settle({id(row) for t in self._threads.values() for row in (t.pending, t.fault) if row is not None})

    def _add_faults(self, faults: Faults, start: int, end: int, few: list[list[Any]] | None) -> None:
        """Faults with no other record between them: all but each thread's last one can change no more. ``few``: the
        columns as lists, where faults come by twos and threes."""
        if few is not None and end - start < MANY:
            for time, tid, addr, code, user in zip(*(column[start:end] for column in few), strict=True):
                self.add(Rec(time, R.FAULT, tid, (addr, code, user)))
            return
        if end - start < MANY:
            for i in range(start, end):
                self.add(faults.rec(i))
            return
        part = faults.part(slice(start, end))
        tids, where = np.unique(part.tid, return_inverse=True)
        threads = [self._threads.get(int(tid)) for tid in tids]
        if any(thread is None or (thread.booting and not thread.call) for thread in threads):
            for i in range(start, end):
                self.add(faults.rec(i))
            return
        known = [thread for thread in threads if thread is not None]
        last = np.zeros(len(tids), np.int64)
        last[where] = np.arange(end - start)  # the last assignment to a place stands
        plain = np.ones(end - start, np.bool_)
        plain[last] = False
        above = part.addr >= ADDRESS_LIMIT
        self.above += int((plain & above & (part.addr < R.KERNEL_HALF)).sum())
        plain &= ~above
        code = part.code
        prot = np.where(code < 0, 0, np.where(code & 16, 4, np.where(code & 2, 2, 1)))
        flags = np.where(part.user, int(FaultFlag.USER), 0) | np.where(
            (code > 0) & ((code & 1) != 0), int(FaultFlag.PRESENT), 0
        )
        task = np.array([thread.task for thread in known], np.int64)[where]
        mm = np.array([self._mm_of[thread.task] for thread in known], np.int64)[where]
        self.rows.add_faults(*(column[plain] for column in (part.time, part.addr, task, mm, prot, flags)))
        for i in np.sort(last).tolist():
            self.add(part.rec(i))

    def add(self, rec: Rec) -> None:
        """Take one record; those of tasks outside the tree are ignored."""
        if rec.what == R.EXEC:
            self._exec(rec, None)
            return
        thread = self._threads.get(rec.tid)
        if thread is None:
            if self._began or self._threads:
                self.strays[rec.what] += 1
            return
        _HANDLERS[rec.what](self, rec, thread)

    def _fault(self, rec: Rec, thread: _Thread) -> None:
        addr, code, user = rec.values
        if addr >= ADDRESS_LIMIT:
            self.above += addr < R.KERNEL_HALF  # [vsyscall] and the like are the kernel's
            return
        if thread.booting and user and not thread.call:
            self._booted(thread)
        access = 0 if code < 0 else 4 if code & 16 else 2 if code & 2 else 1
        flags = (USER if user else 0) | (PRESENT if code > 0 and code & 1 else 0)
        row = self._row(rec.time, Kind.FAULT, thread, addr=addr, prot=access, flags=flags)
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
            thread.locked = rec.time
            if rec.time < thread.pending.time + QUICK_LOCK and not thread.booting:
                thread.pending.time = rec.time

    def _look(self, rec: Rec, thread: _Thread) -> None:
        addr = rec.values[0]
        if not LOWEST_LOOKUP <= addr < ADDRESS_LIMIT or thread.booting:
            return
        last = thread.fault
        since = max(thread.locked, last.time) if last is not None else 0
        if last is not None and last.addr >> 12 == addr >> 12 and rec.time < since + OWN_SEARCH:
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
        recorded, args = rec.values
        number = recorded
        thread.pending = None
        if thread.narrow and self._numbers_of_i386:
            if number == I386["old_mmap"]:
                self.skipped["old_mmap"] += 1
                number = -1
            number, args = from_i386(number, args)
        if number not in ALL:  # another program's number for a call that is of no use here
            thread.call = None
            return
        thread.call = _Call(number, args, rec.time, recorded)

    def _leave(self, rec: Rec, thread: _Thread) -> None:
        call, thread.call = thread.call, None
        thread.pending = None
        if thread.booting:
            self._booted(thread)
            return
        if call is None or call.recorded != rec.values[0]:
            return
        ret = rec.values[1]
        if call.number in WATCHED | LIMITS:
            if ret >= 0:
                self._watched(rec.time, call, ret, thread)
            return
        if call.number in CLONES or call.number in EXECS or call.number in ENDS:
            return
        time = call.lock or (call.area.time if call.area else 0)
        time = time or (call.entered if call.number in UNREPORTED else rec.time)
        for addr in call.looks:
            self._row(time, Kind.LOOKUP, thread, addr=addr)
        report = (call.area.values[0], call.area.values[1]) if call.area and ret >= 0 else None
        self._call(time, call, ret, report, thread)

    def _watched(self, time: int, call: _Call, ret: int, thread: _Thread) -> None:
        """A call that the format has no event for and that succeeded: what it is like, or that it was there."""
        number, args = call.number, tuple(v if isinstance(v, int) else 0 for v in call.args[:6])
        mm = self._mm_of[thread.task]
        area = (call.area.values[0], call.area.values[1]) if call.area else None
        attached = self._attached.setdefault(mm, {})
        if number in LIMITS:
            resource, new = (args[1], args[2]) if number == NR["prlimit64"] else args[:2]
            own = number != NR["prlimit64"] or args[0] in (0, thread.pid)
            if own and resource == RLIMIT_STACK and new:
                seen = next(
                    (value for when, value in self._limits.get(thread.pid, []) if when > time and value >= 0), NO_LIMIT
                )
                self._row(time, Kind.RLIMIT, thread, len=seen)
            return
        if number == NR["personality"] and args[0] != 0xFFFFFFFF:
            before, thread.executable = thread.executable, bool(args[0] & READ_IMPLIES_EXEC)
            if before and not thread.executable and mm in self._breaks:  # what the replay knows of the break is old
                self._row(time, Kind.BRK, thread, ret=self._breaks[mm])
        if number in (NR["shmat"], NR["io_setup"]) and area is not None and call.area is not None:
            prot = 3
            if number == NR["shmat"]:
                prot = 1 | (0 if args[2] & SHM_RDONLY else 2) | (4 if args[2] & SHM_EXEC else 0)
            prot = call.area.values[3] & 7 or prot
            attached[area[0]] = area[1] - area[0]
            (_, _, inode), name = call.area.values[5:7]
            file = self.files.index(("attached", len(self.files.entries)), name, inode)
            self._row(call.lock or call.area.time, Kind.MMAP, thread, addr=area[0], len=area[1] - area[0], prot=prot,
                      flags=MAP_SHARED | MAP_FIXED, file=file, ret=area[0], report=area)  # fmt: skip
            self._mark(time, mm, (f"{NAMES[number]} (its VMAs do not join again)", *area, BORDERS), counted=False)
            return
        if number in (NR["shmdt"], NR["io_destroy"]) and args[0] in attached:
            self._row(call.lock or call.entered, Kind.MUNMAP, thread, addr=args[0], len=attached.pop(args[0]))
            return
        when = call.lock or time
        attribute = attribute_of(number, args)
        if attribute is not None:
            start, length, which, value = attribute
            if 0 <= start < ADDRESS_LIMIT and not start % PAGE:
                self._row(when, Kind.ATTR, thread, addr=start, len=min(length, ADDRESS_LIMIT), flags=which, prot=value)
        effect = effect_of(number, args, ret, area)
        if effect is not None:
            self._mark(when, mm, effect, counted=attribute is None)

    def _mark(self, time: int, mm: int, effect: Effect, counted: bool = True) -> None:
        """Keep what an event was that the replay does not follow; it is said in the notes if ``counted``."""
        name, start, end, sort = effect
        if counted:
            self.skipped[name] += 1
        if end > ADDRESS_LIMIT or start > end:
            start, end = 0, 0
        self._unplayed.append(Unplayed(name, mm, time, start, end, sort))

    def _call(self, time: int, call: _Call, ret: int, report: tuple[int, int] | None, thread: _Thread) -> None:
        a = [_clamp(v) if isinstance(v, int) else 0 for v in call.args[:6]]
        mm = self._mm_of[thread.task]
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
            before, self._breaks[mm] = self._breaks.get(mm, ret), ret
            if thread.executable:
                self._executable_heap(time, before, ret, report, thread)
                return
        else:
            kind = {"munmap": Kind.MUNMAP, "munlock": Kind.MUNLOCK}.get(name, Kind.MLOCK)
            if name == "mlock2":
                values["flags"] = _bits(call.args[2])
        if values.get("prot", 0) & 1 and thread.executable and (call.area is None or call.area.values[3] & 4):
            values["prot"] |= 4  # but for files of a file system that is mounted noexec, as the report tells
        if kind == Kind.MMAP and ret >= 0:
            self._as_mapped(values, call)
        self._row(time, kind, thread, **values)
        if ret < 0 or name not in ("mmap", "mlock2", "pkey_mprotect"):
            return
        args = tuple(v if isinstance(v, int) else 0 for v in call.args[:6])
        effect = effect_of(call.number, args, ret, (ret, ret + values["len"]))
        file = self.files.entries[values["file"]].name if values.get("file", NIL) >= 0 else ""
        if effect is None and name == "mmap" and decided_by_driver(file):
            effect = (f"mmap of {file}", ret, ret + (values["len"] + PAGE - 1 & -PAGE), MAPPINGS)
        if effect is not None:
            self._mark(time, mm, effect)

    def _executable_heap(
        self, time: int, before: int, now: int, report: tuple[int, int] | None, thread: _Thread
    ) -> None:  # fmt: skip
        """brk under READ_IMPLIES_EXEC gives memory that can be executed, which a BRK row cannot say: what it mapped or
        unmapped is a row of its own."""
        old, new = -(-before // PAGE) * PAGE, -(-now // PAGE) * PAGE
        if new > old:
            self._row(time, Kind.MMAP, thread, addr=old, len=new - old, prot=7,
                      flags=MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, ret=old, report=report)  # fmt: skip
        elif new < old:
            self._row(time, Kind.MUNMAP, thread, addr=new, len=old - new)

    def _as_mapped(self, values: dict[str, Any], call: _Call) -> None:
        """Huge pages: the length is rounded up to whole ones, and anonymous memory of them is a file of its own."""
        area, flags, start = call.area, call.args[3], values["ret"]
        size = 1 << (flags >> 26 & 63) if flags & MAP_HUGETLB and flags >> 26 & 63 else HUGE
        whole = -(-values["len"] // size) * size
        if flags & MAP_HUGETLB and flags & MAP_ANONYMOUS:
            values.update(len=min(whole, ADDRESS_LIMIT - start), flags=values["flags"] & ~(MAP_ANONYMOUS | MAP_HUGETLB))
            values["file"] = self.files.index(("huge", len(self.files.entries)), "/anon_hugepage", 0)
        elif area is not None and values.get("file", NIL) >= 0 and start % HUGE == 0 and values["len"] % HUGE:
            values["len"] = whole if area.values[:2] == (start, start + whole) else values["len"]  # of hugetlbfs?

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
        child, maker.forked = maker.forked or child, 0
        mm = self._mm_of[maker.task]
        call = maker.call
        if not flags and call is not None:  # perf's own task records carry no flags: the call does
            flags = call.args[0] if call.number == NR["clone"] else CLONE_VM if call.number == NR["vfork"] else 0
        if flags & CLONE_VM:
            pid = maker.pid if flags & CLONE_THREAD else child
            row = self._row(rec.time, Kind.THREAD, maker)
            row.len = self._new_task(child, pid, mm, maker)
            if not flags & CLONE_THREAD:
                self._pid_mm.setdefault(child, []).append((rec.time, mm))
        else:
            time = (call.lock or call.entered) if call is not None else rec.time
            row = self._row(time, Kind.FORK, maker)
            row.addr = self._new_mm(child, time)
            self._attached[row.addr] = dict(self._attached.get(mm, {}))
            if mm in self._breaks:
                self._breaks[row.addr] = self._breaks[mm]
            row.len = self._new_task(child, child, row.addr, maker)

    def _gone(self, rec: Rec, thread: _Thread) -> None:
        self._row(rec.time, Kind.EXIT, thread)
        del self._threads[rec.tid]

    def _exec(self, rec: Rec, seen: Maps | None) -> None:
        pid = rec.values[0]
        thread = self._threads.get(rec.tid)
        if thread is None and self._threads and seen is None and pid not in self._pid_mm:
            self.strays[R.EXEC] += 1
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
        if seen is not None and seen.start_brk and seen.when == "exec":
            self._breaks[mm] = seen.start_brk
        limit = seen.stack_limit if seen is not None else UNSEEN
        if self._stack_limit == UNSEEN:
            self._stack_limit = limit
        if limit not in (UNSEEN, self._stack_limit):
            self._row(rec.time, Kind.RLIMIT, thread, len=limit)
        thread.imaged, thread.started = seen is not None, (row.time, row.order)
        thread.kernel_maps = []
        thread.narrow = seen is not None and seen.bits == 32
        thread.executable = seen is not None and bool(seen.personality & READ_IMPLIES_EXEC)
        self._narrow += thread.narrow
        if seen is not None:
            self.processes.append((mm, pid, seen))
        if seen is not None:
            for area, other in zip(seen.rows, told_apart(seen.rows), strict=True):
                self._row(rec.time, Kind.MAP, thread, **map_event(area, self.files, other))
        thread.pending = thread.fault = None

    def _kernel_map(self, rec: Rec, thread: _Thread) -> Row:
        start, end, offset, prot, flags, (major, minor, inode), name = rec.values
        area = MapsRow(start, end, prot & 7, bool(flags & MAP_SHARED), offset, f"{major:x}:{minor:x}", inode, name)
        return Row(rec.time, 0, Kind.MAP, thread.task, self._mm_of[thread.task], **map_event(area, self.files))

    def _booted(self, thread: _Thread) -> None:
        """execve returned: without a layout from /proc, the kernel's reports since exec are the layout."""
        thread.booting = False
        if thread.imaged:
            return

        for row in settle(thread.kernel_maps, self.files.entries):
            self.rows.add(replace(row, time=thread.started[0]), thread.started[1])

    def _forked(self, rec: Rec, thread: _Thread) -> None:
        thread.forked = rec.values[0]

    def trace(self, meta: TraceMeta) -> Trace:
        """Sort and number: the finished trace, whole in memory."""
        return self.recording(meta).trace()

    def recording(self, meta: TraceMeta, limit: int = 0) -> Recording:
        """Sort and number: the finished recording, which gives its rows in batches; ``limit``: events at most."""
        notes = [f"not replayed: {count} x {name}" for name, count in sorted(self.skipped.items())]
        if self._narrow:
            are = "is a 32-bit program" if self._narrow == 1 else "are 32-bit programs"
            notes.append(f"{self._narrow} of the programs {are} (i386)")
        if self.above:
            notes.append(f"{self.above} faults above 2^47 were left out: page tables of four levels end there")
        if self.strays[R.FAULT]:
            notes.append(f"{self.strays[R.FAULT]} faults of tasks outside the tree were left out")
        limits = dict(meta.limits)
        if self._stack_limit != UNSEEN:
            limits["stack"] = -1 if self._stack_limit == NO_LIMIT else self._stack_limit
        meta = replace(
            meta, files=self.files.table(), notes=meta.notes + tuple(notes), limits=limits,
            unplayed=tuple(self._unplayed),
        )  # fmt: skip
        self.rows.settle(set(), final=True)
        return Recording(self.rows, self._tid_of, meta, self._maps, self._pid_mm, self.files, self.processes, limit)


_HANDLERS: dict[int, Any] = {
    R.FAULT: Builder._fault, R.ENTER: Builder._enter, R.LEAVE: Builder._leave, R.LOCK: Builder._lock,
    R.LOOK: Builder._look, R.NEW: Builder._made, R.GONE: Builder._gone, R.AREA: Builder._area, R.SEGV: Builder._segv,
    R.FORKED: Builder._forked,
}  # fmt: skip


def _clamp(value: int) -> int:
    """An argument as the format holds it: all that lies above the user address space fails alike."""
    return value if 0 <= value <= ADDRESS_LIMIT else ADDRESS_LIMIT


def _bits(value: int) -> int:
    return value if 0 <= value <= MAX_INT else MAX_INT
