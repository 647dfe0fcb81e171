"""Records of a recording: the common stream of ptrace stops, perf rings and importers, and its journal on disk; and the
system calls that change an address space, by number.

The journal is what a recording keeps on disk while it runs: raw perf records by CPU, and what ptrace saw, one JSON line
each. The trace is built from these files afterwards, by whoever is left: the journal survives the death of the
recorder. While one of its processes works on them, a lock says so: nobody else builds a trace of half a recording.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchframe.errors import BenchframeError
from benchframe.events import Attr
from benchframe.record.perf import Tracepoint
from benchframe.record.procfs import Maps, from_raw
from benchframe.trace.meta import BORDERS, MAPPINGS, PAGE

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

    def part(self, chosen: Any) -> Faults:
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


PREFIX = "benchframe-record-"


class Journal:
    """A folder with the files of one recording."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: IO[str] | None = None
        self._lock = -1

    @classmethod
    def make(cls) -> Journal:
        """A new, empty journal in the folder for temporary files, held. Raises OSError."""
        journal = cls(Path(tempfile.mkdtemp(prefix=PREFIX)))
        journal.hold()
        return journal

    def hold(self) -> None:
        """Keep others from building the trace, as long as this process or one that it forks from now on lives: flock(2)
        ends with the last of them, whatever ends it. Raises BenchframeError if others hold it."""
        if self._lock < 0:
            try:
                self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = os.read(self._lock, 20)
                holder = told.decode() if told.isdigit() else "PID"
                self.release()
                raise BenchframeError(
                    f"this recording still runs, or its trace is being written (process {holder})",
                    where=self.folder,
                    hint=f"kill -TERM {holder} ends it, and it writes its trace itself",
                ) from None
            except OSError:  # a file system without locks, or one that can only be read
                self.release()
                return
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """This process has no more to do with it; what it forked may."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    # -- written while recording ------------------------------------------------------------------------------

    def describe(self, **about: Any) -> None:
        """Keep what is known before the start."""
        self._write("about.json", about)

    def identify(self, ids: dict[int, str]) -> None:
        """Keep which event each perf id is."""
        self._write("ids.json", {str(number): name for number, name in ids.items()})

    def end(self, end: dict[str, Any]) -> None:
        """Keep how it ended."""
        self._write("end.json", end)

    def _write(self, name: str, data: object) -> None:
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(data))
        part.replace(self.folder / name)

    def record(self, rec: Rec) -> None:
        """Keep one record of the tracer. Raises OSError."""
        self._line([rec.time, rec.what, rec.tid, rec.values])

    def layout(self, raw: dict[str, Any]) -> None:
        """Keep one layout as /proc showed it. Raises OSError."""
        self._line(raw)

    def begin_threads(self, threads: dict[int, list[int]]) -> None:
        """Keep which threads ran when an attached recording began, by process."""
        self._line({"threads": [[pid, tids] for pid, tids in threads.items()]})

    def _line(self, data: object) -> None:
        if self._lines is None:
            self._lines = (self.folder / "tracer.jsonl").open("w", buffering=1 << 16)
        self._lines.write(json.dumps(data, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand what was kept to the system, so that it survives us. Raises OSError."""
        if self._lines is not None:
            self._lines.flush()

    def close(self) -> None:
        """All is kept. Raises OSError."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def ring(self, number: int) -> IO[bytes]:
        """The file that a CPU's records go to."""
        return (self.folder / f"cpu-{number}.ring").open("w+b", buffering=0)

    # -- read afterwards --------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What :meth:`describe` kept. Raises BenchframeError."""
        try:
            return dict(json.loads((self.folder / "about.json").read_text()))
        except (OSError, ValueError) as error:
            raise BenchframeError(
                f"this is not the folder of a recording ({error})",
                where=self.folder,
                hint=f"their names begin with {PREFIX}",
            ) from None

    def ids(self) -> dict[str, str]:
        """What :meth:`identify` kept."""
        return self._read("ids.json")

    def ended(self) -> dict[str, Any]:
        """How it ended; a journal without an end is one whose recorder was killed."""
        return self._read("end.json") or {"killed": "the recorder was killed"}

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / name).read_text()))
        except (OSError, ValueError):
            return {}

    def streams(self) -> list[Path]:
        """The files of raw perf records."""
        return sorted(self.folder.glob("cpu-*.ring"), key=lambda path: int(path.stem[4:]))

    def tracer(self) -> tuple[list[Rec], list[Maps]]:
        """All records of the tracer in time order, and the layouts; of two ends of one process the later holds."""
        recs: list[Rec] = []
        maps: list[Maps] = []
        ends: dict[tuple[int, int, int], int] = {}
        for data in self._all():
            if isinstance(data, list):
                time, what, tid, values = data
                recs.append(Rec(time, what, tid, tuple(tuple(v) if isinstance(v, list) else v for v in values)))
            elif "maps" in data:
                with contextlib.suppress(ValueError):
                    seen = from_raw(data)
                    if seen is None:
                        continue
                    if seen.when == "exit":
                        place = ends.setdefault((seen.pid, seen.started, seen.start_brk), len(maps))
                        if place < len(maps):
                            maps[place] = seen
                            continue
                    maps.append(seen)
        recs.sort(key=lambda rec: rec.time)
        return [_deep(rec) for rec in recs], maps

    def threads(self) -> dict[int, list[int]]:
        """What :meth:`begin_threads` kept."""
        for data in self._all(lambda line: line.startswith('{"threads"')):
            return {int(pid): [int(tid) for tid in tids] for pid, tids in data["threads"]}
        return {}

    def _all(self, wanted: Callable[[str], bool] = lambda line: True) -> Any:
        with contextlib.suppress(FileNotFoundError), (self.folder / "tracer.jsonl").open() as file:
            for line in file:
                if wanted(line):
                    with contextlib.suppress(ValueError):  # the last line of a killed recorder may be cut
                        yield json.loads(line)


def _deep(rec: Rec) -> Rec:
    """An mmap's file, a list in JSON, is a tuple in a record."""
    values = rec.values
    if len(values) == 2 and isinstance(values[1], tuple) and values[1] and isinstance(values[1][-1], list):
        values = (values[0], (*values[1][:-1], tuple(values[1][-1])))
    return Rec(rec.time, rec.what, rec.tid, values)


# ----------------------------------------------------------------------------------------------------------------------
# System calls, and which calls and states a trace cannot hold.
#
# Of calls and states that a trace cannot hold it is said which change VMAs, and what each can explain. A difference
# between replay and kernel is laid at the door of such a call only where the call could have made it:
# benchframe.trace.verify compares place, time and sort.

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
"""Calls that may change VMAs in ways for which the trace format has no event: benchframe.record.records says which
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


READ_IMPLIES_EXEC = 0x0400000
MAP_HUGETLB = 0x40000
PR_SET_MM, PR_SET_MEMORY_MERGE, PR_SET_VMA = 35, 67, 0x53564D41
EVERYWHERE = (0, 0)

Effect = tuple[str, int, int, int]
"""Name, start and end of what it may have changed (0, 0: anything in the address space), and the sort: BORDERS or
MAPPINGS."""


def effect_of(number: int, args: tuple[int, ...], ret: int, area: tuple[int, int] | None) -> Effect | None:
    """What a call that succeeded may have changed beyond what the trace holds; None if nothing. ``area``: the VMA that
    the kernel reported in it, if it did."""
    start, size = args[0], args[1]
    ranged = (start & -PAGE, (start + size + PAGE - 1) & -PAGE)
    at = area or (ret & -PAGE, (ret & -PAGE) + PAGE)
    if number in (NR["mbind"], NR["set_mempolicy_home_node"]):
        return _effect(number, ranged, BORDERS)
    if number == NR["mlock2"]:
        return ("mlock2(MLOCK_ONFAULT)", *ranged, BORDERS) if args[2] else None
    if number == NR["pkey_mprotect"]:
        return ("pkey_mprotect with a key", *ranged, BORDERS) if 0 < args[3] < 1 << 31 else None
    if number == NR["mmap"]:
        return ("mmap(MAP_HUGETLB)", *at, MAPPINGS) if args[3] & MAP_HUGETLB else None
    if number == NR["remap_file_pages"]:
        return _effect(number, ranged, MAPPINGS)
    if number == NR["shmat"]:
        return _effect(number, at if area else EVERYWHERE, MAPPINGS)
    if number in (NR["io_setup"], NR["map_shadow_stack"]):
        return _effect(number, area or EVERYWHERE, MAPPINGS)
    if number in (NR["shmdt"], NR["io_destroy"]):
        return _effect(number, EVERYWHERE, MAPPINGS)
    if number in (NR["mlockall"], NR["munlockall"], NR["process_madvise"], NR["userfaultfd"], NR["io_uring_setup"]):
        return _effect(number, EVERYWHERE, BORDERS)
    return _by_argument(number, args)


def attribute_of(number: int, args: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """What a call makes of a range that merges compare, as an ATTR event holds it: start, length, which, value.

    What a policy's nodes are, and what a name says, lies in the program's memory and is not known: policies of one mode
    and names at one place pass for equal, which :func:`effect_of` goes on to tell of.
    """
    if number == NR["mseal"]:
        return args[0], args[1], Attr.SEAL, 1
    if number == NR["mbind"]:
        return args[0], args[1], Attr.POLICY, args[2] & 0x1F
    if number == NR["prctl"] and args[0] == PR_SET_VMA and args[1] == 0:
        return args[2], args[3], Attr.NAME, 1 + args[4] % 126 if args[4] else 0
    return None


def _effect(number: int, place: tuple[int, int], sort: int) -> Effect:
    return (next(name for name, nr in NR.items() if nr == number), *place, sort)


def _by_argument(number: int, args: tuple[int, ...]) -> Effect | None:
    """Calls of which most are harmless: the first argument says what is wanted."""
    what = args[0]
    if number == NR["prctl"] and what == PR_SET_VMA:
        return ("prctl(PR_SET_VMA)", args[2] & -PAGE, (args[2] + args[3] + PAGE - 1) & -PAGE, BORDERS)
    if number == NR["prctl"] and what == PR_SET_MM:
        return ("prctl(PR_SET_MM)", *EVERYWHERE, MAPPINGS)
    if number == NR["prctl"] and what == PR_SET_MEMORY_MERGE:
        return ("prctl(PR_SET_MEMORY_MERGE)", *EVERYWHERE, BORDERS)
    if number == NR["arch_prctl"] and (0x2001 <= what <= 0x2003 or what >= 0x5001):
        return (f"arch_prctl({what:#x})", *EVERYWHERE, MAPPINGS)
    return None


def decided_by_driver(name: str) -> bool:
    """Is this the name of a mapped object whose driver chooses the flags of its VMAs (VM_IO, VM_DONTCOPY...)?"""
    if name.startswith("anon_inode:"):
        return True
    return name.startswith("/dev/") and not name.startswith(("/dev/shm/", "/dev/zero", "/dev/hugepages/"))
