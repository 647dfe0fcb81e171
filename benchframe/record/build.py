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
from benchframe.record.maps import Maps, MapsRow
from benchframe.record.records import Rec
from benchframe.record.syscalls import CLONE_THREAD, CLONE_VM, CLONES, ENDS, EXECS, NAMES, NR, UNREPLAYED
from benchframe.trace.check import MAX_INT
from benchframe.trace.format import Trace
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, TraceMeta

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
        from benchframe.record.elf import settle

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
