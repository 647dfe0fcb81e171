"""Records to a trace: one linear order of events that replays to the same address spaces.

The order matters where threads race. An operation takes effect at its first mmap_lock write acquisition inside the
system call; where locks were not recorded, at the VMA report (MMAP2) inside it, else at entry (munmap, mremap: from
then on the old range is free) or at exit (the rest). A fault that went on to take the lock is placed at that moment,
since that is when it may assign an anon_vma or grow the stack.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from benchframe.events import NIL, FaultFlag, Kind, MapType
from benchframe.record import records as R
from benchframe.record.finish import FileTable, Row, finish
from benchframe.record.maps import NO_LIMIT, UNSEEN, Maps, MapsRow
from benchframe.record.records import Rec
from benchframe.record.syscalls import CLONE_THREAD, CLONE_VM, CLONES, ENDS, EXECS, LIMITS, NAMES, NR, WATCHED
from benchframe.record.unplayed import (
    MAP_HUGETLB,
    READ_IMPLIES_EXEC,
    Effect,
    attribute_of,
    decided_by_driver,
    effect_of,
)
from benchframe.trace.check import MAX_INT
from benchframe.trace.format import Trace
from benchframe.trace.meta import ADDRESS_LIMIT, BORDERS, MAPPINGS, PAGE, TraceMeta, Unplayed

LOWEST_LOOKUP = PAGE
"""Tree reads below this are not addresses: interrupt numbers and detached trees go through the same tracepoint."""
RLIMIT_STACK = 3
SHM_RDONLY, SHM_EXEC = 0o10000, 0o100000
HUGE = 1 << 21
"""The size of a huge page where a mapping does not choose one (x86-64)."""
UNREPORTED = (NR["munmap"], NR["mremap"])
"""Calls whose effect the kernel does not report, and whose old range others may get at once: placed at entry."""
OWN_SEARCH = 200_000
"""ns within which a tree read of a fault's page is the fault's own find_vma."""
QUICK_LOCK = 10_000
"""ns within which a lock acquisition after a fault is the fault's own: a try for the anon_vma, with no search."""
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x100, 0x4000
FLAG_WORDS = {"nr": 0x4000, "nh": 0x20000, "lo": 0x2000}
"""smaps words to the MAP_* flag that makes such an area: MAP_NORESERVE, MAP_STACK (no huge pages), MAP_LOCKED."""
TOLD_BY = frozenset(FLAG_WORDS) | {"gd"}
"""smaps words that tell two areas of a replay apart."""
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
    """Feed :class:`~benchframe.record.records.Rec` in time order to :meth:`add`, then :meth:`trace`.

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
        self._unplayed: list[Unplayed] = []
        self._attached: dict[int, dict[int, int]] = {}  # by mm: address and length of what shmat and io_setup mapped
        self._readable_is_executable: set[int] = set()  # processes under READ_IMPLIES_EXEC
        self._stack_limit = UNSEEN  # of the root's first exec: the trace's own
        self._limits: dict[int, list[tuple[int, int]]] = {}  # by process: when RLIMIT_STACK was seen, and its value
        for seen in maps:
            if seen.when == "exec":
                self._execs.setdefault(seen.pid, []).append(seen)
            self._limits.setdefault(seen.pid, []).append((seen.time, seen.stack_limit))

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
                seen = next((value for when, value in self._limits.get(thread.pid, []) if when > time), NO_LIMIT)
                self._row(time, Kind.RLIMIT, thread, len=seen)
            return
        if number == NR["personality"] and args[0] != 0xFFFFFFFF:
            (self._readable_is_executable.add if args[0] & READ_IMPLIES_EXEC else self._readable_is_executable.discard)(
                thread.pid
            )
        if number in (NR["shmat"], NR["io_setup"]) and area is not None and call.area is not None:
            prot = 3
            if number == NR["shmat"]:
                prot = 1 | (0 if args[2] & SHM_RDONLY else 2) | (4 if args[2] & SHM_EXEC else 0)
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
        if values.get("prot", 0) & 1 and thread.pid in self._readable_is_executable:
            values["prot"] |= 4
        if kind == Kind.MMAP and ret >= 0:
            self._as_mapped(values, call)
        self._row(time, kind, thread, **values)
        if ret < 0 or name not in ("mmap", "mlock2", "pkey_mprotect"):
            return
        mm, args = self._mm_of[thread.task], tuple(v if isinstance(v, int) else 0 for v in call.args[:6])
        effect = effect_of(call.number, args, ret, (ret, ret + values["len"]))
        file = self.files.entries[values["file"]].name if values.get("file", NIL) >= 0 else ""
        if effect is None and name == "mmap" and decided_by_driver(file):
            effect = (f"mmap of {file}", ret, ret + (values["len"] + PAGE - 1 & -PAGE), MAPPINGS)
        if effect is not None:
            self._mark(time, mm, effect)

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
            self._attached[row.addr] = dict(self._attached.get(mm, {}))
            if maker.pid in self._readable_is_executable:
                self._readable_is_executable.add(child)
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
        self._readable_is_executable.discard(pid)
        limit = seen.stack_limit if seen is not None else UNSEEN
        if self._stack_limit == UNSEEN:
            self._stack_limit = limit
        if limit not in (UNSEEN, self._stack_limit):
            self._row(rec.time, Kind.RLIMIT, thread, len=limit)
        thread.imaged, thread.started = seen is not None, (row.time, row.order)
        thread.kernel_maps = []
        if seen is not None:
            for area, other in zip(seen.rows, told_apart(seen.rows), strict=True):
                self._row(rec.time, Kind.MAP, thread, **self._image(area, other))
        thread.pending = thread.fault = None

    def _image(self, area: MapsRow, other: bool = False) -> dict[str, Any]:
        """The MAP event of a line of the layout at exec. ``other``: it must differ from alike neighbours
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
            file = self.files.index(key, area.name, area.inode)
        else:
            flags |= MAP_GROWSDOWN if "gd" in area.flags and area.name != "[stack]" else 0
            flags ^= MAP_NORESERVE if other else 0
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
        from benchframe.record.elf import settle

        for row in settle(thread.kernel_maps, self.files.entries):
            self.rows.append(replace(row, time=thread.started[0], order=thread.started[1]))

    def trace(self, meta: TraceMeta) -> Trace:
        """Sort, number and check: the finished trace."""
        notes = [f"not replayed: {count} x {name}" for name, count in sorted(self.skipped.items())]
        limits = dict(meta.limits)
        if self._stack_limit != UNSEEN:
            limits["stack"] = -1 if self._stack_limit == NO_LIMIT else self._stack_limit
        meta = replace(meta, files=self.files.table(), notes=meta.notes + tuple(notes), limits=limits)
        return finish(self.rows, self._tid_of, replace(meta, unplayed=tuple(self._unplayed)), self._maps, self._pid_mm,
                      self.files)  # fmt: skip


_HANDLERS: dict[int, Any] = {
    R.FAULT: Builder._fault, R.ENTER: Builder._enter, R.LEAVE: Builder._leave, R.LOCK: Builder._lock,
    R.LOOK: Builder._look, R.NEW: Builder._made, R.GONE: Builder._gone, R.AREA: Builder._area, R.SEGV: Builder._segv,
}  # fmt: skip


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


def _clamp(value: int) -> int:
    """An argument as the format holds it: all that lies above the user address space fails alike."""
    return value if 0 <= value <= ADDRESS_LIMIT else ADDRESS_LIMIT


def _bits(value: int) -> int:
    return value if 0 <= value <= MAX_INT else MAX_INT
