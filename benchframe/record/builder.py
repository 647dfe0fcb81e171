"""From what was recorded to a trace: the layout at the start, events in order, accesses that no fault shows."""

import contextlib
import errno
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import EVENT, NIL, REPORT, Batch, FaultFlag, Kind, MapType
from benchframe.record import perf as R
from benchframe.record.perf import (
    ALL,
    CLONE_THREAD,
    CLONE_VM,
    CLONES,
    ENDS,
    EXECS,
    I386,
    LIMITS,
    NAMES,
    NR,
    WATCHED,
    Faults,
    Rec,
    from_i386,
)
from benchframe.record.unplayed import (
    MAP_HUGETLB,
    READ_IMPLIES_EXEC,
    Effect,
    attribute_of,
    decided_by_driver,
    effect_of,
)
from benchframe.trace.check import MAX_INT, MAX_MMS, MAX_TASKS, Checker
from benchframe.trace.meta import (
    ADDRESS_LIMIT,
    BORDERS,
    MAPPINGS,
    PAGE,
    FileEntry,
    Process,
    Snapshot,
    TraceMeta,
    Unplayed,
)
from benchframe.trace.trace import Trace

if TYPE_CHECKING:
    from benchframe.oracle import Replayer


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
_DETAIL = re.compile(r"[A-Z]\w*:\s")
"""A line of smaps below an area's own."""
USER_END = 1 << 47
KERNEL_HALF = 1 << 63
MAX_OFFSET = 1 << 62
UNSEEN = -1
NO_LIMIT = 1 << 47
"""An unlimited stack: it may grow over the whole user address space."""


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
    ``bits`` is 32 for a program of i386. ``command`` and ``comm`` say what runs (a process may rewrite both).
    ``stack_limit`` is its RLIMIT_STACK in bytes (:data:`NO_LIMIT`, :data:`UNSEEN`). ``started`` (ticks since boot)
    tells two processes of one number apart; ``personality`` is as personality(2) gives it.
    """

    time: int
    pid: int
    when: str
    rows: list[MapsRow] = field(default_factory=list)
    start_brk: int = 0
    faults: int = 0
    bits: int = 64
    command: tuple[str, ...] = ()
    comm: str = ""
    stack_limit: int = UNSEEN
    started: int = 0
    personality: int = 0


def is_maps_line(line: str) -> bool:
    """Does a line look like one of /proc/PID/maps, whatever area it tells of?"""
    return _LINE.match(line) is not None


def parse_maps(text: str, strict: bool = True) -> list[MapsRow]:
    """Parse a maps or smaps file; [vsyscall] and other kernel addresses are left out.

    Raises ``ValueError`` naming the first line that is none, or whose area no x86-64 process can have: empty, not whole
    pages, inside another, above 2^47. Without ``strict`` areas above 2^47 are left out.

    >>> parse_maps("1000-3000 rw-p 00000000 00:00 0 [heap]")[0].name
    '[heap]'
    >>> parse_maps("1000-1000 rw-p 00000000 00:00 0")
    Traceback (most recent call last):
    ValueError: line 1: the area 1000-1000 is empty
    """
    rows: list[MapsRow] = []
    above: list[str] = []
    areas = place = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (areas and _DETAIL.match(line)):
            if line.startswith("VmFlags:") and rows and place == len(rows):
                rows[-1] = replace(rows[-1], flags=frozenset(line.split()[1:]))
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is not a line of /proc/PID/maps")
        areas += 1
        place = -1
        row = _row(number, match)
        if row.start >= KERNEL_HALF or row.name == "[vsyscall]":
            continue
        if row.end > USER_END:
            above.append(f"line {number}: {row.start:x}-{row.end:x} {row.name}".rstrip())
            continue
        if rows and row.start < rows[-1].end:
            raise ValueError(
                f"line {number}: the areas are not in order: {row.start:x}-{row.end:x} is not above the last"
            )
        rows.append(row)
        place = len(rows)
    if above and strict:
        raise ValueError(
            f"{len(above)} of {areas} areas lie above 2^47 ({above[0][:60]}): this is not the user space of x86-64 "
            "with four page-table levels, which is what is modelled"
        )
    return rows


def _row(number: int, match: "re.Match[str]") -> MapsRow:
    """One line's area, as far as it can be judged alone."""
    start, end, offset = int(match["start"], 16), int(match["end"], 16), int(match["offset"], 16)
    area = f"line {number}: the area {start:x}-{end:x}"
    if start >= end:
        raise ValueError(f"{area} {'is empty' if start == end else 'ends before it begins'}")
    if (start | end) % PAGE:
        raise ValueError(f"{area} is not whole pages of {PAGE} bytes")
    if offset % PAGE or offset > MAX_OFFSET:
        raise ValueError(f"{area} has the file offset {offset:x}, which is {'odd' if offset % PAGE else 'too large'}")
    perms = match["perms"]
    prot = (perms[0] == "r") | (perms[1] == "w") << 1 | (perms[2] == "x") << 2
    inode = int(match["inode"]) & ((1 << 63) - 1)
    return MapsRow(start, end, prot, perms[3] == "s", offset, match["dev"], inode, (match["name"] or "").rstrip())


def proc() -> Path:
    """The proc file system whose process numbers are ours.

    In a PID namespace without a /proc of its own (``unshare -p`` without ``--mount-proc``) /proc shows other numbers:
    then one that is mounted nowhere serves. Raises OSError if the kernel refuses that too.
    """
    global _proc
    if _proc is None:
        if Path("/proc/self").readlink() == Path(str(os.getpid())):
            _proc = Path("/proc")
        else:
            from benchframe.record.perf import detached_mount

            mount = detached_mount("proc")
            if mount < 0:
                raise PermissionError(errno.EACCES, "/proc is that of another PID namespace (try unshare --mount-proc)")
            _proc = Path(f"/proc/self/fd/{mount}")
    return _proc


_proc: Path | None = None


def read_raw(pid: int, when: str, time: int, tid: int = 0) -> dict[str, Any] | None:
    """What /proc says of ``pid`` now, as text that :func:`from_raw` understands; None if it is gone or hidden.

    ``tid`` names a thread of it that still lives: a leader that has ended shows no mappings.
    """
    folder = proc() / str(tid or pid)
    try:
        raw: dict[str, Any] = {"time": time, "pid": pid, "when": when}
        raw["maps"], raw["stat"] = _read(folder / "maps"), _read(folder / "stat")
        # What a thread's number shows counts for the whole process, but for when it began.
        raw["started"] = _fields(_read(proc() / str(pid) / "stat") if tid not in (0, pid) else raw["stat"])[19]
        raw["command"] = _read(folder / "cmdline")[:4096]
        if when != "exit":
            raw["bits"] = word_size(folder / "exe")
            with contextlib.suppress(OSError):  # a set-user-id program's is hidden
                raw["personality"] = int(_read(folder / "personality"), 16)
        raw["limits"] = _read(folder / "limits")
        if when == "attach":
            raw["smaps"] = _read(folder / "smaps")
    except OSError:
        return raw if "stat" in raw else None
    return raw


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def word_size(path: Path) -> int:
    """64 for an x86-64 program (and where nothing is known), 32 for i386, 33 for x32 (64-bit calls, short pointers)."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return 64
    if head[:5] != b"\x7fELF\x01":
        return 64
    return 33 if head[18:20] == b"\x3e\0" else 32


def from_raw(raw: dict[str, Any]) -> Maps | None:
    """The layout that :func:`read_raw` saw; None if it shows no area. Raises ValueError."""
    # proc(5): 10 minflt, 12 majflt, 22 starttime, 47 start_brk
    stat = raw["stat"]
    fields = _fields(stat)
    rows = parse_maps(raw["maps"], strict=False)
    if not rows:
        return None
    if raw.get("smaps"):
        rows = _with_flags(rows, raw["smaps"])
    command = tuple(raw.get("command", "").rstrip("\0").split("\0"))
    faults = int(fields[7]) + int(fields[9])
    return Maps(
        raw["time"], raw["pid"], raw["when"], rows, int(fields[44]), faults, raw.get("bits", 64), command,
        stat[stat.index("(") + 1 : stat.rindex(")")], _stack_limit(raw.get("limits", "")),
        int(raw.get("started", 0)), raw.get("personality", 0),
    )  # fmt: skip


def _fields(stat: str) -> list[str]:
    """/proc/PID/stat from field 3 on. Field 2 may hold spaces and parentheses: what follows the last one counts."""
    return stat[stat.rindex(")") + 2 :].split()


def _stack_limit(text: str) -> int:
    """RLIMIT_STACK as /proc/PID/limits shows it."""
    match = re.search(r"^Max stack size +(\d+|unlimited)", text, re.MULTILINE)
    if match is None:
        return UNSEEN
    return NO_LIMIT if match[1] == "unlimited" else min(int(match[1]), NO_LIMIT)


def read_maps(pid: int, when: str, time: int, tid: int = 0) -> Maps | None:
    """The layout of ``pid`` now, or None if it is gone or hidden."""
    raw = read_raw(pid, when, time, tid)
    return from_raw(raw) if raw is not None else None


def _with_flags(rows: list[MapsRow], text: str) -> list[MapsRow]:
    """Add the flags that maps does not show and merges depend on; a process that is held still has equal addresses."""
    flags = {row.start: row.flags for row in parse_maps(text, strict=False)}
    return [replace(row, flags=flags.get(row.start, frozenset())) for row in rows]


# ----------------------------------------------------------------------------------------------------------------------
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


# ----------------------------------------------------------------------------------------------------------------------
# Rows in recorded order to a trace: sorted, renumbered densely, with its file table and layouts.
#
# Rows are kept as columns, so that ten million faults fit in some 300 MB, and leave in batches.


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
        for name in (*FIELDS, "time", "order"):
            block[name] = [getattr(row, name) for row in done]
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


# ----------------------------------------------------------------------------------------------------------------------
# Records to a trace: one linear order of events that replays to the same address spaces.
#
# The order matters where threads race. An operation takes effect at its first mmap_lock write acquisition inside the
# system call; where locks were not recorded, at the VMA report (MMAP2) inside it, else at entry (munmap, mremap: from
# then on the old range is free) or at exit (the rest). A fault that went on to take the lock is placed at that moment,
# since that is when it may assign an anon_vma or grow the stack.

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
    locked: int = 0  # when that fault took it
    fault: Row | None = None
    booting: bool = False  # between exec and the end of execve: the kernel builds the image
    imaged: bool = False  # the layout at exec is known from /proc
    started: tuple[int, int] = (0, 0)  # the exec's place in the order
    kernel_maps: list[Row] = field(default_factory=list)
    forked: int = 0  # the child that the next NEW is about, as our own PID namespace numbers it
    narrow: bool = False  # a 32-bit program
    executable: bool = False  # under READ_IMPLIES_EXEC


MANY = 16
"""From so many faults in a row on, they are taken as columns."""


class Builder:
    """Feed :class:`~benchframe.record.perf.Rec` in time order to :meth:`add`, then :meth:`trace`.

    O(records). ``maps`` are the layouts that ptrace saw; an exec without one falls back on VMA reports. Without
    ``calls`` (a recording of faults and reports alone) each report stands for the mmap that led to it. Calls of 32-bit
    programs come with the ``numbers_of_i386``, or (from ptrace) in x86-64's terms already.
    """

    def __init__(self, maps: list[Maps], calls: bool = True, numbers_of_i386: bool = True) -> None:
        self._calls, self._numbers_of_i386 = calls, numbers_of_i386
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
        start = int(np.searchsorted(faults.time, since)) if since else 0
        for place, rec in zip(places, others, strict=True):
            if place > start:
                self._add_faults(faults, start, place)
                start = place
            if rec.time >= since:
                self.add(rec)
        if start < len(faults.time):
            self._add_faults(faults, start, len(faults.time))
        self.rows.settle({id(row) for t in self._threads.values() for row in (t.pending, t.fault) if row is not None})

    def _add_faults(self, faults: Faults, start: int, end: int) -> None:
        """Faults with no other record between them: all but each thread's last one can change no more."""
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
