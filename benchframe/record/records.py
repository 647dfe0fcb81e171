"""Raw perf records to :class:`Rec` tuples: the one stream that ptrace stops, perf rings and importers all speak."""

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchframe.record.perf import Source
from benchframe.record.tracefs import Tracepoint

FAULT, ENTER, LEAVE, LOCK, LOOK, NEW, EXEC, GONE, AREA, SEGV = range(10)
"""What a Rec is: page fault; system call entry, exit; mmap_lock taken; tree read; new task; exec; task ended; a VMA
that the kernel reported; a signal for a bad access."""

KERNEL_HALF = 1 << 63
"""Addresses from here on are the kernel's: a program that touches them gets a signal, whatever is mapped."""

RECORD_LOST, RECORD_COMM, RECORD_EXIT, RECORD_SAMPLE, RECORD_MMAP2 = 2, 3, 4, 9, 10
MISC_COMM_EXEC = 1 << 13


class Rec(NamedTuple):
    """One recorded fact: CLOCK_MONOTONIC ns, what, thread id, and values by kind.

    FAULT (addr, error code or -1, from user mode) - ENTER (number, args) - LEAVE (number, ret) -
    LOCK (mm pointer, write) - LOOK (addr,) - NEW (child tid, clone flags) - EXEC (pid,) - GONE () -
    AREA (vm_start, vm_end, pgoff in bytes, prot, flags, (major, minor, inode), name) - SEGV (addr,)
    """

    time: int
    what: int
    tid: int
    values: tuple[Any, ...] = ()


def hash_name(name: str) -> int:
    """A number that stands for an inode where only a name was recorded (FNV-1a, 62 bits)."""
    value = 0xCBF29CE484222325
    for byte in name.encode(errors="surrogateescape"):
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value >> 2 or 1


_U64 = struct.Struct("=Q")
_SAMPLE = struct.Struct("=QIIQ")
_MMAP2 = struct.Struct("=IIQQQIIQQII")


class Reader:
    """Parses the streams of a :class:`~benchframe.record.perf.Recorder`."""

    def __init__(
        self, ids: dict[int, Source], points: dict[str, Tracepoint], functions: dict[int, str] | None = None
    ) -> None:
        self.lost = 0
        self.bad = 0
        wanted = {"mt_find", "mtree_load"}
        self._lookups = {address for address, name in (functions or {}).items() if name in wanted}
        makers = {name: self._maker(point) for name, point in points.items()}
        self._makers: dict[int, Callable[[int, int, bytes, int], Rec | None]] = {
            number: makers.get(source.name, self._software) for number, source in ids.items()
        }

    def read(self, data: bytes) -> Iterator[Rec]:
        """Yield what one CPU's stream holds."""
        at, end = 0, len(data)
        while at + 8 <= end:
            kind, misc, size = struct.unpack_from("=IHH", data, at)
            if size < 8 or at + size > end:
                self.bad += 1
                return
            if kind == RECORD_SAMPLE:
                number, _, tid, time = _SAMPLE.unpack_from(data, at + 8)
                maker = self._makers.get(number)
                rec = maker(time, tid, data, at + 32) if maker else None
                if rec is not None:
                    yield rec
            elif kind == RECORD_MMAP2:
                yield self._area(data, at, size)
            elif kind == RECORD_COMM and misc & MISC_COMM_EXEC:
                pid, tid = struct.unpack_from("=II", data, at + 8)
                yield Rec(self._time(data, at, size), EXEC, tid, (pid,))
            elif kind == RECORD_EXIT:
                tid = struct.unpack_from("=I", data, at + 16)[0]
                yield Rec(self._time(data, at, size), GONE, tid)
            elif kind == RECORD_LOST:
                self.lost += _U64.unpack_from(data, at + 16)[0]
            at += size

    @staticmethod
    def _time(data: bytes, at: int, size: int) -> int:
        # sample_id trailer: pid, tid, time, identifier
        return int(_U64.unpack_from(data, at + size - 16)[0])

    def _area(self, data: bytes, at: int, size: int) -> Rec:
        _, tid, start, length, pgoff, major, minor, inode, _, prot, flags = _MMAP2.unpack_from(data, at + 8)
        name = data[at + 8 + _MMAP2.size : at + size - 24].split(b"\0", 1)[0].decode(errors="replace")
        values = (start, start + length, pgoff, prot, flags, (major, minor, inode), name)
        return Rec(self._time(data, at, size), AREA, tid, values)

    @staticmethod
    def _software(time: int, tid: int, data: bytes, at: int) -> Rec | None:
        return Rec(time, FAULT, tid, (_U64.unpack_from(data, at)[0], -1, True))

    def _maker(self, point: Tracepoint) -> Callable[[int, int, bytes, int], Rec | None]:
        """A function that reads this tracepoint's raw data, which begins after a 4-byte size."""
        field = {name: _field(offset + 4, size) for name, (offset, size) in point.fields.items()}
        name = point.name
        if name.startswith("exceptions:page_fault"):
            user = name.endswith("user")
            address, code = field["address"], field["error_code"]
            return lambda t, tid, d, at: Rec(t, FAULT, tid, (address(d, at), code(d, at), user))
        if name == "raw_syscalls:sys_enter":
            number = field["id"]
            args = struct.Struct("=6Q")
            first = point.fields["args"][0] + 4
            return lambda t, tid, d, at: Rec(t, ENTER, tid, (number(d, at), args.unpack_from(d, at + first)))
        if name == "raw_syscalls:sys_exit":
            number, ret = field["id"], struct.Struct("=q")
            where = point.fields["ret"][0] + 4
            return lambda t, tid, d, at: Rec(t, LEAVE, tid, (number(d, at), ret.unpack_from(d, at + where)[0]))
        if name == "task:task_newtask":
            child, flags = field["pid"], field["clone_flags"]
            return lambda t, tid, d, at: Rec(t, NEW, tid, (child(d, at), flags(d, at)))
        if name == "maple_tree:ma_read":
            function, index = field["fn"], field["index"]
            lookups = self._lookups

            def tree_read(t: int, tid: int, d: bytes, at: int) -> Rec | None:
                if lookups and function(d, at) not in lookups:
                    return None
                return Rec(t, LOOK, tid, (index(d, at),))

            return tree_read
        if name == "mmap_lock:mmap_lock_acquire_returned":
            mm, write, success = field["mm"], field["write"], field["success"]
            return lambda t, tid, d, at: Rec(t, LOCK, tid, (mm(d, at), bool(write(d, at)))) if success(d, at) else None
        raise ValueError(f"no reader for {name}")


def _field(offset: int, size: int) -> Callable[[bytes, int], int]:
    form = struct.Struct({1: "=B", 2: "=H", 4: "=I", 8: "=Q"}.get(size, "=Q"))
    return lambda data, at: int(form.unpack_from(data, at + offset)[0])
