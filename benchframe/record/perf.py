"""Recording with perf events: ring buffers, tracefs, and their records."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import re
import resource
import select
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchframe.errors import BenchframeError

# ----------------------------------------------------------------------------------------------------------------------
# The system calls that change an address space, by number (x86-64: arch/x86/entry/syscalls/syscall_64.tbl).

NR = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28, "shmat": 30, "clone": 56,
    "fork": 57, "vfork": 58, "execve": 59, "exit": 60, "shmdt": 67, "personality": 135, "mlock": 149, "munlock": 150,
    "mlockall": 151, "munlockall": 152, "prctl": 157, "arch_prctl": 158, "setrlimit": 160, "io_setup": 206,
    "io_destroy": 207, "remap_file_pages": 216, "exit_group": 231, "mbind": 237, "prlimit64": 302, "execveat": 322,
    "userfaultfd": 323, "mlock2": 325, "pkey_mprotect": 329, "io_uring_setup": 425, "clone3": 435,
    "process_madvise": 440, "set_mempolicy_home_node": 450, "map_shadow_stack": 453, "mseal": 462,
}  # fmt: skip
NAMES = {number: name for name, number in NR.items()}

EXECS = frozenset(NR[name] for name in ("execve", "execveat"))
CLONES = frozenset(NR[name] for name in ("clone", "fork", "vfork", "clone3"))
ENDS = frozenset(NR[name] for name in ("exit", "exit_group"))
REPLAYED = frozenset(
    NR[name]
    for name in "mmap mprotect munmap brk mremap madvise mlock munlock mlock2 pkey_mprotect".split()  # noqa: SIM905
)
LIMITS = frozenset(NR[name] for name in ("setrlimit", "prlimit64"))
"""Calls that change how far a stack may grow."""
WATCHED = frozenset(NR.values()) - EXECS - CLONES - ENDS - REPLAYED - LIMITS
"""Calls that may change VMAs in ways for which the trace format has no event: benchframe.record.unplayed says which
do."""
MM_CALLS = REPLAYED | WATCHED | LIMITS
ALL = MM_CALLS | CLONES | EXECS | ENDS

I386 = {
    "fork": 2, "execve": 11, "brk": 45, "old_mmap": 90, "munmap": 91, "clone": 120, "mprotect": 125, "mlock": 150,
    "munlock": 151, "mlockall": 152, "munlockall": 153, "mremap": 163, "vfork": 190, "mmap2": 192, "madvise": 219,
    "remap_file_pages": 257, "mbind": 274, "execveat": 358, "mlock2": 376, "pkey_mprotect": 380,
    "shmat": 397, "shmdt": 398, "clone3": 435, "process_madvise": 440, "setrlimit": 75, "ipc": 117, "personality": 136,
    "prctl": 172, "io_setup": 245, "io_destroy": 246, "prlimit64": 340, "userfaultfd": 374, "arch_prctl": 384,
    "io_uring_setup": 425, "set_mempolicy_home_node": 450, "map_shadow_stack": 453, "mseal": 462,
}  # fmt: skip
"""Numbers of a 32-bit program (arch/x86/entry/syscalls/syscall_32.tbl); ``mmap2`` counts its offset in pages."""
_OF_I386 = {
    number: NR[{"mmap2": "mmap", "old_mmap": "mmap"}.get(name, name)] for name, number in I386.items() if name != "ipc"
}
IPC_SHMAT, IPC_SHMDT = 21, 22
"""Operations of i386's ipc(2) (include/uapi/linux/ipc.h); C libraries attach System V memory with it."""
ARCH_X86_64, ARCH_I386 = 0xC000003E, 0x40000003
"""AUDIT_ARCH_* (include/uapi/linux/audit.h)."""
CLONE_VM, CLONE_THREAD = 0x100, 0x10000


def from_i386(number: int, args: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """A call of a 32-bit program as the equivalent x86-64 call; the number is -1 for calls that are not needed.

    ``old_mmap`` takes its arguments in memory: a caller that can read them passes them here.
    """
    if number == I386["mmap2"]:
        args = (*args[:5], args[5] << 12)
    if number == I386["ipc"]:
        if args[0] & 0xFFFF == IPC_SHMAT:
            return NR["shmat"], (args[1], args[4], args[2], 0, 0, 0)
        return (NR["shmdt"] if args[0] & 0xFFFF == IPC_SHMDT else -1), (args[4], 0, 0, 0, 0, 0)
    return _OF_I386.get(number, -1), args


def tracepoint_filter() -> str:
    """The filter text for raw_syscalls: these calls only, by the numbers of x86-64 and i386.

    i386's fork (2 is open on x86-64) is left out: C libraries use clone.
    """
    return "||".join(f"id=={number}" for number in sorted(ALL | set(I386.values()) - {I386["fork"]}))


# ----------------------------------------------------------------------------------------------------------------------
# The kernel's tracepoints: the place of tracefs, the number of an event, the offsets of its fields.

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_FIELD = re.compile(r"field:(?P<decl>[^;]*);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>\d)")


class TracefsError(BenchframeError):
    """tracefs cannot be used; the text says why, and what would help."""


@dataclass(frozen=True)
class Tracepoint:
    """One event: its id for perf_event_open, and (offset, size) in bytes of each field of its raw data."""

    name: str
    id: int
    fields: dict[str, tuple[int, int]]


@contextmanager
def tracefs() -> Iterator[tuple[Path, str]]:
    """Yield (tracefs folder, what was done to get it); mounts it if it is not mounted and the user may, and unmounts it
    afterwards. The mount is in a private folder, so that two concurrent recordings do not disturb each other.

    Raises :class:`TracefsError`.
    """
    for place in PLACES:
        try:
            if os.access(place, os.R_OK | os.X_OK) and Path(place, "events").is_dir():
                yield Path(place), ""
                return
        except OSError:
            continue
    if os.geteuid() != 0:
        raise TracefsError("tracefs is not readable (root, or a mount with mode=0755, would change that)")
    libc = ctypes.CDLL(None, use_errno=True)
    detached = detached_mount("tracefs")
    if detached >= 0:
        try:
            yield Path(f"/proc/self/fd/{detached}"), "tracefs was mounted for this recording alone, at no place"
        finally:
            os.close(detached)
        return
    with tempfile.TemporaryDirectory(prefix="benchframe-tracefs-") as place:
        if libc.mount(b"nodev", place.encode(), b"tracefs", 0, None) != 0:
            raise TracefsError(f"tracefs cannot be mounted ({os.strerror(ctypes.get_errno())})")
        try:
            yield Path(place), "mounted tracefs for the duration of the recording"
        finally:
            libc.umount2(place.encode(), 2)  # MNT_DETACH: our own descriptors may be open still


def detached_mount(kind: str) -> int:
    """A file system without a mount point (fsmount(2), Linux 5.2), which disappears with the descriptor however this
    process ends; -1 if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.syscall
    context = call(430, kind.encode(), 1)  # fsopen, FSOPEN_CLOEXEC
    if context < 0:
        return -1
    try:
        if call(431, context, 6, None, None, 0) < 0:  # fsconfig, FSCONFIG_CMD_CREATE
            return -1
        return int(call(432, context, 1, 0))  # fsmount, FSMOUNT_CLOEXEC
    finally:
        os.close(context)


def tracepoint(root: Path, name: str) -> Tracepoint:
    """Read ``events/<system>/<event>/{id,format}`` of ``system:event``. Raises :class:`TracefsError`."""
    folder = root / "events" / name.replace(":", "/")
    try:
        number = int((folder / "id").read_text())
        text = (folder / "format").read_text()
    except (OSError, ValueError) as error:
        raise TracefsError(f"tracepoint {name} is missing ({error})") from None
    return Tracepoint(name, number, parse_format(text))


def parse_format(text: str) -> dict[str, tuple[int, int]]:
    """From field name to (offset, size), from an event's ``format`` file.

    >>> parse_format("field:unsigned long address;\\toffset:8;\\tsize:8;\\tsigned:0;")
    {'address': (8, 8)}
    """
    fields = {}
    for match in _FIELD.finditer(text):
        name = re.sub(r"\[.*\]$", "", match["decl"].split()[-1])
        fields[name] = (int(match["offset"]), int(match["size"]))
    return fields


def function_names(root: Path) -> dict[int, str]:
    """From address to text of ``printk_formats``: what a tracepoint's ``fn`` pointer names. Empty if unreadable."""
    names = {}
    try:
        lines = (root / "printk_formats").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        address, _, text = line.partition(" : ")
        try:
            names[int(address, 16)] = text.strip().strip('"')
        except ValueError:
            continue
    return names


# ----------------------------------------------------------------------------------------------------------------------
# Raw perf records to :class:`Rec` tuples: the common stream of ptrace stops, perf rings and importers.

FAULT, ENTER, LEAVE, LOCK, LOOK, NEW, EXEC, GONE, AREA, SEGV, FORKED = range(11)
"""The kinds of a Rec: page fault; system call entry, exit; mmap_lock taken; tree read; new task; exec; task ended; a
VMA that the kernel reported; a signal for a bad access; a new task's number in our own PID namespace, just before
NEW."""

KERNEL_HALF = 1 << 63
"""Addresses from here on belong to the kernel: a program that accesses them gets a signal, whatever is mapped."""

RECORD_LOST, RECORD_COMM, RECORD_EXIT, RECORD_FORK, RECORD_SAMPLE, RECORD_MMAP2 = 2, 3, 4, 7, 9, 10
MISC_COMM_EXEC = 1 << 13


class Rec(NamedTuple):
    """One recorded fact: CLOCK_MONOTONIC ns, kind, thread id, and values that depend on the kind.

    FAULT (addr, error code or -1, from user mode) - ENTER (number, args) - LEAVE (number, ret) -
    LOCK (mm pointer, write) - LOOK (addr,) - NEW (child tid, clone flags) - EXEC (pid,) - GONE () -
    AREA (vm_start, vm_end, pgoff in bytes, prot, flags, (major, minor, inode), name) - SEGV (addr,) -
    FORKED (child tid, whether it is a thread)
    """

    time: int
    what: int
    tid: int
    values: tuple[Any, ...] = ()


def hash_name(name: str) -> int:
    """A number that represents an inode where only a name was recorded (FNV-1a, 62 bits)."""
    value = 0xCBF29CE484222325
    for byte in name.encode(errors="surrogateescape"):
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value >> 2 or 1


_U64 = struct.Struct("=Q")
_HEAD = struct.Struct("=IHH")
_SAMPLE = struct.Struct("=QIIQ")
_MMAP2 = struct.Struct("=IIQQQIIQQII")


class Faults(NamedTuple):
    """Page faults as columns: ns, thread id, address (unsigned), error code (-1: unknown), from user mode."""

    time: NDArray[np.int64]
    tid: NDArray[np.int64]
    addr: NDArray[np.uint64]
    code: NDArray[np.int64]
    user: NDArray[np.bool_]

    def part(self, chosen: Any) -> "Faults":
        """Some of them: a slice, a mask or indices."""
        return Faults(*(column[chosen] for column in self))

    def rec(self, i: int) -> Rec:
        """One of them as a record."""
        return Rec(
            int(self.time[i]), FAULT, int(self.tid[i]), (int(self.addr[i]), int(self.code[i]), bool(self.user[i]))
        )


NO_FAULTS = Faults(
    np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.bool_)
)
RUN = 16
"""From this many consecutive samples of one size on, they are read as an array."""


def together(parts: list[Faults]) -> Faults:
    """Faults of several parts, in time order."""
    parts = [part for part in parts if len(part.time)]
    if not parts:
        return NO_FAULTS
    whole = Faults(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if len(parts) > 1 or (np.diff(whole.time) < 0).any():
        whole = whole.part(np.argsort(whole.time, kind="stable"))
    return whole


class Reader:
    """Parses raw records of a :class:`~benchframe.record.perf.Recorder`; ``ids`` are the events' names by perf id."""

    def __init__(
        self, ids: dict[int, str], points: dict[str, Tracepoint], functions: dict[int, str] | None = None
    ) -> None:
        self.lost = 0
        self.bad = 0
        wanted = {"mt_find", "mtree_load"}
        self._lookups = {address for address, name in (functions or {}).items() if name in wanted}
        makers = {name: self._maker(point) for name, point in points.items()}
        self._makers: dict[int, Callable[[int, int, bytes, int], Rec | None]] = {
            number: makers.get(name, self._software) for number, name in ids.items()
        }
        self._forms = {number: _fault_form(points.get(name)) for number, name in ids.items() if is_fault(name)}
        self._user = {number for number, name in ids.items() if not name.endswith("kernel")}

    def read(self, data: bytes) -> Iterator[Rec]:
        """Yield the contents of a whole stream, in its order except for faults, which come first."""
        faults, others, used = self.parse(data)
        if used < len(data):
            self.bad += 1
        for i in range(len(faults.time)):
            yield faults.rec(i)
        yield from others

    def parse(self, data: bytes) -> tuple[Faults, list[Rec], int]:
        """(faults, other records, bytes used) of a piece of a CPU's stream; a truncated record at the end is not
        used."""
        parts: list[Faults] = []
        few: list[tuple[int, int, int, int, bool]] = []
        others: list[Rec] = []
        at, end = 0, len(data)
        words = np.frombuffer(data, "=u8", end // 8)
        while at + 8 <= end:
            kind, misc, size = _HEAD.unpack_from(data, at)
            if size < 8 or size & 7 or at + size > end:
                if size < 8 or size & 7:
                    self.bad += 1
                    at = end
                break
            if kind == RECORD_SAMPLE:
                number, _, tid, time = _SAMPLE.unpack_from(data, at + 8)
                form = self._forms.get(number)
                if form is not None:
                    # A run's sixteenth sample begins as its first does: asking that first spares most samples the rest.
                    far = at + (RUN - 1) * size
                    count = _run_length(words, at // 8, size // 8) if data[at : at + 16] == data[far : far + 16] else 1
                    if count >= RUN and form.size(size):
                        parts += [_columns(few), form.columns(data, at, count, size, number in self._user)]
                        few = []
                        at += count * size
                        continue
                    addr, code = form.one(data, at + 32)
                    few.append((time, tid, addr, code, number in self._user))
                else:
                    maker = self._makers.get(number)
                    rec = maker(time, tid, data, at + 32) if maker else None
                    if rec is not None:
                        others.append(rec)
            elif kind == RECORD_MMAP2:
                others.append(self._area(data, at, size))
            elif kind == RECORD_COMM and misc & MISC_COMM_EXEC:
                pid, tid = struct.unpack_from("=II", data, at + 8)
                others.append(Rec(self._time(data, at, size), EXEC, tid, (pid,)))
            elif kind == RECORD_FORK:
                pid, parent_pid, tid, parent = struct.unpack_from("=IIII", data, at + 8)
                others.append(Rec(self._time(data, at, size), FORKED, parent, (tid, pid == parent_pid)))
            elif kind == RECORD_EXIT:
                tid = struct.unpack_from("=I", data, at + 16)[0]
                others.append(Rec(self._time(data, at, size), GONE, tid))
            elif kind == RECORD_LOST:
                self.lost += _U64.unpack_from(data, at + 16)[0]
            at += size
        return together([*parts, _columns(few)]), others, at

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


def is_fault(name: str) -> bool:
    """Whether this is the name of a page-fault event."""
    return name.startswith(("exceptions:page_fault", "page-faults"))


def _run_length(words: NDArray[np.uint64], at: int, step: int) -> int:
    """How many records from word ``at`` on have the same header and event id; looks ahead in growing steps."""
    count, ahead = 1, RUN
    while True:
        room = min(ahead, (len(words) - at) // step)
        if room <= count:
            return count
        view = words[at : at + room * step].reshape(room, step)
        same = (view[count:, 0] == words[at]) & (view[count:, 1] == words[at + 1])
        good = int(np.argmin(same)) if not same.all() else len(same)
        count += good
        if good < len(same) or count < room:
            return count
        ahead *= 8


class _Form:
    """The offsets of a fault's address and error code after the common part of a sample."""

    def __init__(self, addr: int, code: int) -> None:
        self.addr, self.code = addr, code

    def size(self, size: int) -> bool:
        return 32 + max(self.addr, self.code) + 8 <= size

    def one(self, data: bytes, at: int) -> tuple[int, int]:
        addr = _U64.unpack_from(data, at + self.addr)[0]
        return addr, _U64.unpack_from(data, at + self.code)[0] if self.code >= 0 else -1

    def columns(self, data: bytes, at: int, count: int, size: int, user: bool) -> Faults:
        names = {"tid": ("=u4", 20), "time": ("=i8", 24), "addr": ("=u8", 32 + self.addr)}
        if self.code >= 0:
            names["code"] = ("=i8", 32 + self.code)
        kind = np.dtype(
            {"names": list(names), "formats": [f for f, _ in names.values()], "offsets": [o for _, o in names.values()],
             "itemsize": size}
        )  # fmt: skip
        rows = np.frombuffer(data, kind, count, at)
        code = rows["code"].copy() if self.code >= 0 else np.full(count, -1, np.int64)
        return Faults(
            rows["time"].copy(), rows["tid"].astype(np.int64), rows["addr"].copy(), code, np.full(count, user)
        )


def _fault_form(point: Tracepoint | None) -> _Form:
    if point is None:  # the software event: the address follows at once
        return _Form(0, -1)
    return _Form(point.fields["address"][0] + 4, point.fields["error_code"][0] + 4)


def _columns(few: list[tuple[int, int, int, int, bool]]) -> Faults:
    if not few:
        return NO_FAULTS
    time, tid, addr, code, user = zip(*few, strict=True)
    return Faults(
        np.array(time, np.int64), np.array(tid, np.int64), np.array(addr, np.uint64), np.array(code, np.int64),
        np.array(user, np.bool_),
    )  # fmt: skip


class _Stream:
    """One CPU's file, read in pieces."""

    PIECE = 1 << 22

    def __init__(self, path: Path, reader: Reader, wanted: tuple[int, ...] | None) -> None:
        self.file = path.open("rb")
        self.size = max(1, path.stat().st_size)
        self.reader, self.wanted = reader, wanted
        self.rest = b""
        self.faults: list[Faults] = []
        self.others: list[Rec] = []
        self.last = -1
        self.done = False

    def fill(self) -> None:
        """Read on until there are records, or the end."""
        before = self.last
        while not self.done and self.last == before:
            piece = self.file.read(self.PIECE)
            data = self.rest + piece
            faults, others, used = self.reader.parse(data)
            self.rest = data[used:]
            if not piece:
                self.done = True
                if self.rest:
                    self.reader.bad += 1
                self.file.close()
            if self.wanted is not None:
                others = [rec for rec in others if rec.what in self.wanted]
            self.faults.append(faults)
            self.others += others
            ends = [int(faults.time[-1])] if len(faults.time) else []
            self.last = max([self.last, *ends, *([others[-1].time] if others else [])])

    def take(self, until: int) -> tuple[list[Faults], list[Rec]]:
        """The records up to a time."""
        faults = together(self.faults)
        cut = int(np.searchsorted(faults.time, until, "right"))
        self.faults = [faults.part(slice(cut, None))]
        others = [rec for rec in self.others if rec.time <= until]
        self.others = [rec for rec in self.others if rec.time > until]
        return [faults.part(slice(cut))], others


def merged(
    reader: Reader,
    paths: list[Path],
    recs: list[Rec],
    wanted: tuple[int, ...] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[Faults, list[Rec]]]:
    """All streams and ``recs`` in time order, as windows of (faults, other records); memory is a piece of each stream.

    ``wanted`` selects records of the streams by kind; ``progress`` is called with the share that has been read.
    """
    streams = [_Stream(path, reader, wanted) for path in paths]
    whole = sum(stream.size for stream in streams)
    at = 0
    while True:
        running = [stream for stream in streams if not stream.done]
        if running:
            slowest = min(running, key=lambda stream: stream.last)
            slowest.fill()
            running = [stream for stream in streams if not stream.done]
        until = min((stream.last for stream in running), default=1 << 62)
        parts = [stream.take(until) for stream in streams]
        start = at
        while at < len(recs) and recs[at].time <= until:
            at += 1
        others = sorted([rec for _, found in parts for rec in found] + recs[start:at], key=lambda rec: rec.time)
        yield together([part for faults, _ in parts for part in faults]), others
        if progress is not None:
            progress(sum(stream.size if stream.done else stream.file.tell() for stream in streams) / max(1, whole))
        if not running:
            return


def _field(offset: int, size: int) -> Callable[[bytes, int], int]:
    form = struct.Struct({1: "=B", 2: "=H", 4: "=I", 8: "=Q"}.get(size, "=Q"))
    return lambda data, at: int(form.unpack_from(data, at + offset)[0])


# ----------------------------------------------------------------------------------------------------------------------
# perf_event_open(2) through ctypes: events on a process tree, one ring per CPU, drained while the program runs.
#
# Layouts are those of include/uapi/linux/perf_event.h (Linux 6.0 for PERF_FORMAT_LOST): ``struct perf_event_attr``,
# ``struct perf_event_mmap_page`` and the PERF_RECORD_* records.

NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
TYPE_SOFTWARE, TYPE_TRACEPOINT = 1, 2
COUNT_SW_PAGE_FAULTS = 2
SAMPLE_IP, SAMPLE_TID, SAMPLE_TIME, SAMPLE_ADDR, SAMPLE_READ = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4
SAMPLE_CALLCHAIN, SAMPLE_ID, SAMPLE_CPU, SAMPLE_PERIOD, SAMPLE_STREAM = 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9
SAMPLE_RAW, SAMPLE_IDENTIFIER = 1 << 10, 1 << 16
"""perf_event_attr.sample_type (include/uapi/linux/perf_event.h) of the recorder, and of perf.data's reader."""
FORMAT_ID, FORMAT_LOST = 1 << 2, 1 << 4
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HV, MMAP, COMM = 1, 1 << 1, 1 << 5, 1 << 6, 1 << 8, 1 << 9
ENABLE_ON_EXEC, TASK, WATERMARK, MMAP_DATA, SAMPLE_ID_ALL = 1 << 12, 1 << 13, 1 << 14, 1 << 17, 1 << 18
MMAP2, COMM_EXEC, USE_CLOCKID = 1 << 23, 1 << 24, 1 << 25
IOC_ENABLE, IOC_DISABLE, IOC_SET_OUTPUT, IOC_SET_FILTER = 0x2400, 0x2401, 0x2405, 0x40082406
FLAG_FD_CLOEXEC = 1 << 3
CLOCK_MONOTONIC = 1
ATTR = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
HEAD, TAIL = 1024 // 8, 1032 // 8

_libc = ctypes.CDLL(None, use_errno=True)


class PerfError(OSError):
    """perf_event_open or the ring was refused; ``strerror`` explains why to the user."""


@dataclass(frozen=True)
class Source:
    """One event to open: perf type and config, more attr flags, an optional tracepoint filter."""

    name: str
    type: int
    config: int
    flags: int = 0
    filter: str = ""
    sample: int = SAMPLE_RAW


def open_event(source: Source, pid: int, cpu: int, flags: int, watermark: int, lost: bool) -> int:
    """One perf_event_open; returns the descriptor. Raises PerfError."""
    number = NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise PerfError(38, f"recording is not written for {platform.machine()}")
    sample = SAMPLE_IDENTIFIER | SAMPLE_TID | SAMPLE_TIME | source.sample
    bits = DISABLED | INHERIT | WATERMARK | SAMPLE_ID_ALL | USE_CLOCKID | flags | source.flags
    read_format = FORMAT_ID | (FORMAT_LOST if lost else 0)
    attr = ATTR.pack(
        source.type, ATTR.size, source.config, 1, sample, read_format, bits, watermark, 0,
        0, 0, 0, 0, 0, CLOCK_MONOTONIC, 0, 0, 0, 0,
    )  # fmt: skip
    fd = _libc.syscall(ctypes.c_long(number), attr, pid, cpu, -1, ctypes.c_ulong(FLAG_FD_CLOEXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise PerfError(code, f"perf_event_open of {source.name}: {os.strerror(code)}")
    return int(fd)


class Recorder:
    """Rings on all CPUs for one process and its children.

    ``Recorder(sources, [pid])`` opens everything disabled; the first source also carries the side band (MMAP2, COMM
    with the exec bit, FORK, EXIT). Events start at the process's exec, or at :meth:`enable`. :meth:`start` begins to
    drain the rings into temporary files (bounded memory), :meth:`stop` ends this, :meth:`streams` returns each CPU's
    raw records.
    """

    def __init__(
        self,
        sources: list[Source],
        pids: list[int],
        pages: int,
        on_exec: bool = True,
        spool: Callable[[int], IO[bytes]] | None = None,
        often: Callable[[], None] = lambda: None,
    ) -> None:
        """``spool`` returns the file for a CPU's records (by default a temporary one); ``often`` is called after each
        draining. Raises PerfError."""
        self.ids: dict[int, Source] = {}
        self.drained = 0
        self._spool = spool or _temporary
        self._often = often
        self.lost = 0
        self.counts_lost = True
        self._fds: list[int] = []
        self._rings: list[tuple[mmap.mmap, memoryview, IO[bytes]]] = []
        self._size = pages * mmap.PAGESIZE
        self._poll = select.poll()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: OSError | None = None
        # One descriptor per event, CPU and thread: raise the limit. The program was forked before, with its own limit.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        try:
            for cpu in sorted(os.sched_getaffinity(0) | _online()):
                self._open_cpu(sources, pids, cpu, on_exec)
        except BaseException:
            self.close()
            raise

    def _open_cpu(self, sources: list[Source], pids: list[int], cpu: int, on_exec: bool) -> None:
        leader = -1
        for pid in pids:
            for i, source in enumerate(sources):
                flags = ENABLE_ON_EXEC if on_exec else 0
                if i == 0:
                    flags |= MMAP | MMAP2 | MMAP_DATA | COMM | COMM_EXEC | TASK
                fd = self._open_one(source, pid, cpu, flags)
                self._fds.append(fd)
                if source.filter:
                    fcntl.ioctl(fd, IOC_SET_FILTER, source.filter.encode() + b"\0")
                if leader < 0:
                    leader = fd
                    self._map(fd, cpu)
                else:
                    fcntl.ioctl(fd, IOC_SET_OUTPUT, leader)
                self.ids[self._read(fd)[1]] = source

    def _open_one(self, source: Source, pid: int, cpu: int, flags: int) -> int:
        if self.counts_lost:
            try:
                return open_event(source, pid, cpu, flags, self._size // 8, True)
            except PerfError as error:
                if error.errno != 22:  # EINVAL: a kernel before 6.0 does not have PERF_FORMAT_LOST
                    raise
                fd = open_event(source, pid, cpu, flags, self._size // 8, False)
                self.counts_lost = False
                return fd
        return open_event(source, pid, cpu, flags, self._size // 8, False)

    def _map(self, fd: int, cpu: int) -> None:
        try:
            ring = mmap.mmap(fd, self._size + mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            limit = "ulimit -v" if error.errno == errno.ENOMEM else "kernel.perf_event_mlock_kb"
            raise PerfError(error.errno, f"the ring buffer was refused ({error.strerror}; see {limit})") from None
        view = memoryview(ring)
        self._rings.append((ring, view, self._spool(cpu)))
        self._poll.register(fd, select.POLLIN)

    def _read(self, fd: int) -> tuple[int, ...]:
        size = 24 if self.counts_lost else 16
        data = os.read(fd, 24)
        return struct.unpack(f"={len(data) // 8}Q", data[:size])

    def enable(self) -> None:
        """Start recording now (for a running process)."""
        for fd in self._fds:
            fcntl.ioctl(fd, IOC_ENABLE, 0)

    def disable(self) -> None:
        """Stop recording."""
        for fd in self._fds:
            fcntl.ioctl(fd, IOC_DISABLE, 0)

    def start(self) -> None:
        """Drain the rings in a thread: a full ring drops events, and may not even report it."""
        self._thread = threading.Thread(target=self._run, name="benchframe-drain", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._poll.poll(20)
                self._drain()
                self._often()
        except (OSError, ValueError) as error:  # a full disk: keep the records so far; the recording ends
            self.error = error if isinstance(error, OSError) else OSError(str(error))

    def _drain(self) -> None:
        for _, view, spool in self._rings:
            control = view[: mmap.PAGESIZE].cast("Q")
            head, tail = control[HEAD], control[TAIL]
            if head == tail:
                continue
            data = view[mmap.PAGESIZE :]
            start, count = tail % self._size, head - tail
            first = min(count, self._size - start)
            spool.write(data[start : start + first])
            spool.write(data[: count - first])
            self.drained += count
            control[TAIL] = head

    def stop(self) -> None:
        """Stop draining, take the last records and sum up the lost events; ``error`` tells if the disk was full."""
        self.disable()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.error is None:
            try:
                self._drain()
            except OSError as error:
                self.error = error
        if self.counts_lost:
            self.lost = sum(self._read(fd)[2] for fd in self._fds)

    def close(self) -> None:
        """Close descriptors, rings and temporary files."""
        for ring, view, spool in self._rings:
            view.release()
            with contextlib.suppress(BufferError):
                ring.close()
            spool.close()
        self._rings.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _temporary(cpu: int) -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="benchframe-")


def _online() -> set[int]:
    try:
        with open("/sys/devices/system/cpu/online") as file:  # noqa: PTH123
            text = file.read().strip()
    except OSError:
        return set()
    cpus: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        cpus |= set(range(int(low), int(high or low) + 1))
    return cpus
