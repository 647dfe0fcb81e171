"""A trace as a program for the running kernel: system calls and touches, all of them inside an arena.

Addresses move by whole GiB: stretches that a trace uses keep their order and everything in them its distance, and what
lies unused between them shrinks to 1 GiB. So page tables fill as in the recorded program up to their third level.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchframe.errors import UsageError
from benchframe.events import NIL, UNKNOWN, FaultFlag, Kind, MapType
from benchframe.host.loop import ARENA, CALL, NOTHING, READ, ROOM, WORDS, WRITE
from benchframe.judge.child import BRK as BRK_CALL
from benchframe.judge.child import MADVISE as MADVISE_CALL
from benchframe.judge.child import MLOCK as MLOCK_CALL
from benchframe.judge.child import MMAP as MMAP_CALL
from benchframe.judge.child import MPROTECT as MPROTECT_CALL
from benchframe.judge.child import MREMAP as MREMAP_CALL
from benchframe.judge.child import MUNLOCK as MUNLOCK_CALL
from benchframe.judge.child import MUNMAP as MUNMAP_CALL
from benchframe.judge.child import SYSCALL
from benchframe.mm import flags as f
from benchframe.oracle.rules import Advice
from benchframe.trace.meta import PAGE
from benchframe.trace.trace import Trace

MOST = 1 << 20
"""The most events of a program; a longer trace is cut there."""
MOST_FILES, MOST_INODES = 1024, 512
"""The most open files, and files behind them; more are replaced by anonymous memory."""
FIRST_FILE = 2048
"""The number of the first file descriptor of a program; it must not be one that a process has anyway."""
FILE_BYTES = 1 << 40
"""The largest size of a file's replacement. It has holes: only what is touched takes memory."""
GIB = 30
MAP_FIXED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE = 0x10, 0x20, 0x100000
MAP_LOCKED, MAP_POPULATE, MAP_HUGETLB = 0x2000, 0x8000, 0x40000
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
_KEPT_FLAGS = 0xF | MAP_FIXED | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE | 0x100 | 0x4000 | 0x10000 | 0x20000
"""The flags that a mapping keeps: its type, GROWSDOWN, NORESERVE, NONBLOCK, STACK."""
_ADVICE = frozenset(Advice) - {Advice.COLLAPSE}
"""Advice that is performed: what the oracle knows (so never HWPOISON), without making huge pages."""
_NUMBER = {
    Kind.MMAP: MMAP_CALL, Kind.MUNMAP: MUNMAP_CALL, Kind.MPROTECT: MPROTECT_CALL, Kind.MREMAP: MREMAP_CALL,
    Kind.BRK: BRK_CALL, Kind.MADVISE: MADVISE_CALL, Kind.MLOCK: MLOCK_CALL, Kind.MUNLOCK: MUNLOCK_CALL,
    Kind.MAP: MMAP_CALL,
}  # fmt: skip
CALLS = tuple(_NUMBER)
"""Kinds of events that become a system call."""
_NAMES = {Kind.RLIMIT: "setrlimit", Kind.ATTR: "seals, policies and names", Kind.LOOKUP: "lookups outside of a fault",
          Kind.WALK: "walks of all VMAs"}  # fmt: skip


@dataclass(frozen=True)
class OpenFile:
    """What replaces an open file: ``inode`` numbers the objects behind, ``size`` is in bytes."""

    inode: int
    size: int


@dataclass
class Program:
    """A trace's events as rows for :mod:`benchframe.host.loop`."""

    ops: NDArray[np.int64]
    """(events, WORDS)."""
    kind: NDArray[np.int32]
    """The kind of each event that is performed, NIL for one that is not."""
    expected: NDArray[np.int64]
    """What the call returned when it was recorded, moved into the arena."""
    setup: int
    """So many leading rows build the start state and are not in the figures."""
    files: list[OpenFile] = field(default_factory=list)
    """By the index that an mmap row has as its file descriptor."""
    brk: tuple[int, int] | None = None
    """Where the break begins, and where it is at first."""
    omitted: Counter[str] = field(default_factory=Counter)
    """Reason to how many events are not performed."""
    changed: Counter[str] = field(default_factory=Counter)
    """How to how many events are performed otherwise than recorded."""
    cut: str = ""
    """Why events at the end of the trace are left out; empty if none are."""


@dataclass(frozen=True)
class _Moves:
    """Stretches of GiB: ``first`` of each in the trace, and where it goes; both sorted."""

    first: NDArray[np.int64]
    target: NDArray[np.int64]

    def moved(self, addr: NDArray[np.int64]) -> NDArray[np.int64]:
        """``addr`` in the arena; it must lie in a stretch, or at one's end."""
        at = np.maximum(np.searchsorted(self.first, addr >> GIB, side="right") - 1, 0)
        moved: NDArray[np.int64] = addr - (self.first[at] << GIB) + (self.target[at] << GIB)
        return moved

    def one(self, addr: int) -> int:
        """:meth:`moved` for a single address."""
        return int(self.moved(np.array([addr], np.int64))[0])


def make_program(trace: Trace, memory: int = 1 << 30, most: int = MOST) -> Program:
    """The program of a trace with one address space. O(events log events).

    Args:
        memory: the trace is cut before its touches could need so many bytes.
        most: the most events.

    Raises:
        UsageError: the trace has several address spaces (select one first), or uses too much of the address space.
    """
    if trace.mms > 1:
        raise UsageError(f"the trace has {trace.mms} address spaces; select one")
    events = trace.events[:most]
    cut = f"it has more than {most:,} events" if len(trace.events) > most else ""
    ret = _results(events)
    omitted: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    performed = _performed(events, ret, omitted)
    length = _lengths(events, ret, performed)
    moves = _stretches(events, ret, length, performed)
    events, ret, performed, length, why = _bounded(events, ret, performed, length, memory)
    cut = why or cut
    kind = np.where(performed, events["kind"], NIL).astype(np.int32)
    ops = np.zeros((len(events), WORDS), np.int64)
    faults = kind == Kind.FAULT
    ops[faults, 0] = np.where(events["prot"][faults] & 2, WRITE, READ)
    ops[faults, 1] = moves.moved(events["addr"][faults])
    executed = int((faults & (events["prot"] & 6 == 4)).sum())
    kernel = int((faults & (events["flags"] & FaultFlag.USER == 0)).sum())
    changed.update({"fetches of code touched as reads": executed} if executed else {})
    changed.update({"faults of the kernel touched from user mode": kernel} if kernel else {})
    expected = np.where(kind == Kind.MAP, events["addr"], np.maximum(ret, 0))
    located = np.isin(kind, (Kind.MAP, Kind.MMAP, Kind.MREMAP, Kind.BRK))
    expected[located] = moves.moved(expected[located])
    program = Program(ops, kind, expected, min(trace.setup, len(events)), omitted=omitted, changed=changed, cut=cut)
    files = _Files(trace)
    for row in np.flatnonzero(np.isin(kind, CALLS)).tolist():
        _call(program, row, events[row], int(ret[row]), moves, files)
    program.files = files.used
    if files.lost:
        changed["file mappings replaced by anonymous memory, since there are too many files"] = files.lost
    if files.used:
        changed[f"mappings of {len(files.used):,} files replaced by files in memory (memfd)"] = files.mappings
    program.brk = _brk(events, ret, kind, moves)
    _assert_inside(program)
    return program


def _results(events: NDArray[np.void]) -> NDArray[np.int64]:
    """``ret`` of every event; those that were not recorded, as in a synthetic stream, from the oracle."""
    ret: NDArray[np.int64] = events["ret"].copy()
    unknown = ret == UNKNOWN
    if unknown.any():
        from benchframe.oracle.replayer import replay

        ret[unknown] = replay(events).ret[unknown]
    brk = (events["kind"] == Kind.BRK) & (events["addr"] > 0) & (ret != events["addr"])
    ret[brk] = -12  # brk has no errno: it returns another break than the one requested
    return ret


def _performed(events: NDArray[np.void], ret: NDArray[np.int64], omitted: Counter[str]) -> NDArray[np.bool_]:
    """Which events are performed; the reasons for the others are counted."""
    kind, prot, flags = events["kind"], events["prot"], events["flags"]
    done = np.isin(kind, (*CALLS, Kind.FAULT, Kind.EXEC))

    def leave(rows: NDArray[np.bool_], reason: str) -> None:
        rows = rows & done
        if count := int(rows.sum()):
            omitted[reason] += count
            done[rows] = False

    for other in (Kind.FORK, Kind.THREAD, Kind.EXIT, Kind.RLIMIT, Kind.ATTR, Kind.LOOKUP, Kind.WALK):
        if count := int((kind == other).sum()):
            omitted[_NAMES.get(other, f"{other.name.lower()} of tasks")] += count
    calls = np.isin(kind, CALLS)
    leave((kind == Kind.FAULT) & (flags & FaultFlag.SEGV != 0), "faults that ended in a signal")
    leave(calls & (ret < 0), "calls that were refused")
    leave((kind == Kind.MADVISE) & ~np.isin(flags, list(_ADVICE)), "advice that is unknown, or that makes huge pages")
    leave((kind == Kind.MPROTECT) & (prot & ~15 != 0), "mprotect with PROT_GROWSDOWN or unknown bits")
    moved = (kind == Kind.MREMAP) & (flags & MREMAP_DONTUNMAP != 0) & (ret == events["addr"])
    leave(moved, "mremap with MREMAP_DONTUNMAP that did not move")
    somewhere = np.where(kind == Kind.MMAP, ret, np.where(kind == Kind.BRK, 1, events["addr"]))
    leave(calls & (somewhere <= 0), "calls at address 0")
    leave((kind == Kind.FAULT) & (somewhere <= 0), "faults at address 0")
    done[kind == Kind.EXEC] = False
    return done


def _lengths(events: NDArray[np.void], ret: NDArray[np.int64], performed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Bytes from the event's address (MMAP, MREMAP: from the returned one) that it can reach; 0 if not performed."""
    kind = events["kind"]
    length = np.where(np.isin(kind, CALLS), events["len"], 1).astype(np.int64)
    length = np.where(kind == Kind.MREMAP, np.maximum(events["len"], events["new_len"]), length)
    length = np.where(kind == Kind.BRK, 1, length)
    length = np.maximum(length, 1) + PAGE - 1 & -PAGE
    whole: NDArray[np.int64] = np.where(performed, length, 0)
    return whole


def _stretches(
    events: NDArray[np.void], ret: NDArray[np.int64], length: NDArray[np.int64], performed: NDArray[np.bool_]
) -> _Moves:
    """The stretches of GiB that performed events use, and their places in the arena. Raises UsageError."""
    kind = events["kind"]
    given = performed & np.isin(kind, (Kind.MMAP, Kind.MREMAP, Kind.BRK))
    own = performed & (kind != Kind.MMAP) & (events["addr"] > 0)
    start = np.concatenate([events["addr"][own], ret[given]])
    end = start + np.concatenate([length[own], length[given]])
    heap = events["addr"][(kind == Kind.EXEC) & (events["addr"] > 0)]
    start, end = np.concatenate([start, heap]), np.concatenate([end, heap + PAGE])
    if not len(start):
        return _Moves(np.zeros(1, np.int64), np.array([ARENA >> GIB], np.int64))
    order = np.argsort(start, kind="stable")
    low, high = start[order] >> GIB, end[order] >> GIB  # the end itself too: a break or a hole there
    reach = np.maximum.accumulate(high)
    new = np.concatenate([[True], low[1:] > reach[:-1] + 1])
    first = low[new]
    last = np.concatenate([reach[:-1][new[1:]], reach[-1:]])
    target = (ARENA >> GIB) + 1 + np.concatenate([[0], np.cumsum(last - first + 2)[:-1]])
    if int(target[-1] + last[-1] - first[-1]) + 2 > (ARENA + ROOM) >> GIB:
        raise UsageError(f"the trace uses {int((last - first).sum()):,} GiB of addresses, more than the arena has")
    return _Moves(first, target)


def _bounded(
    events: NDArray[np.void],
    ret: NDArray[np.int64],
    performed: NDArray[np.bool_],
    length: NDArray[np.int64],
    memory: int,
) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], str]:
    """The events before memory could exceed the bound, and why, if that is not all of them.

    Counted as needed, and never as freed: each page address, 2 MiB region and GiB at its first touch (twice: a private
    copy of a file's page), and every byte that a call can populate or move.
    """
    kind, flags = events["kind"], events["flags"]
    need = np.zeros(len(events), np.float64)
    faults = np.flatnonzero(performed & (kind == Kind.FAULT))
    for shift in (12, 21, GIB):
        _, first = np.unique(events["addr"][faults] >> shift, return_index=True)
        need[faults[first]] += PAGE
    populate = (kind == Kind.MMAP) & (flags & (MAP_POPULATE | MAP_LOCKED) != 0)
    populate |= (kind == Kind.MADVISE) & np.isin(flags, (Advice.POPULATE_READ, Advice.POPULATE_WRITE))
    populate = performed & (populate | (kind == Kind.MLOCK))
    touched = float(need.sum() + length[populate].sum(dtype=np.float64))
    need[populate] += length[populate]
    moved = performed & (kind == Kind.MREMAP) & (ret != events["addr"])  # the old place can be filled again
    need[moved] += np.minimum(events["len"][moved], touched)
    total = 2 * np.cumsum(need)
    stop = int(np.searchsorted(total, memory, side="right"))
    if stop == len(events):
        return events, ret, performed, length, ""
    why = f"events from {stop:,} on could need more than {memory >> 20:,} MiB; --memory allows more"
    return events[:stop], ret[:stop], performed[:stop], length[:stop], why


class _Files:
    """The files that mappings use, numbered by first use."""

    def __init__(self, trace: Trace) -> None:
        self.entries = trace.meta.files
        self.number: dict[int, int] = {}
        self.inodes: dict[tuple[str, int], int] = {}
        self.used: list[OpenFile] = []
        self.lost = self.mappings = 0

    def of(self, index: int, end: int) -> int:
        """The number of open file ``index``, of which bytes up to ``end`` are mapped; NIL: anonymous instead."""
        if index not in self.number:
            entry = self.entries[index] if index < len(self.entries) else None
            identity = (entry.name, entry.inode) if entry is not None else ("", -1 - index)
            if len(self.used) >= MOST_FILES or (identity not in self.inodes and len(self.inodes) >= MOST_INODES):
                self.lost += 1
                return NIL
            inode = self.inodes.setdefault(identity, len(self.inodes))
            self.number[index] = len(self.used)
            self.used.append(OpenFile(inode, entry.size if entry is not None else 0))
        self.mappings += 1
        number = self.number[index]
        known = self.used[number]
        if not (index < len(self.entries) and self.entries[index].size):  # its size was not recorded
            self.used[number] = OpenFile(known.inode, max(known.size, end))
        return number


def _call(program: Program, row: int, event: np.void, ret: int, moves: _Moves, files: _Files) -> None:
    """Fill in the row of one system call."""
    kind, addr, length, prot = (int(event[name]) for name in ("kind", "addr", "len", "prot"))
    flags, offset, new_len, file = (int(event[name]) for name in ("flags", "offset", "new_len", "file"))
    at = moves.one(ret if kind in (Kind.MMAP, Kind.MREMAP) else addr) if kind != Kind.BRK or addr else 0
    number = SYSCALL[_NUMBER[Kind(kind)]]
    arguments: tuple[int, ...] = (at, length)
    if kind in (Kind.MMAP, Kind.MAP):
        if flags & MAP_HUGETLB:
            program.changed["mappings of huge pages made of small ones"] += 1
        stack = kind == Kind.MAP and flags & MapType.STACK
        fixed = MAP_FIXED if flags & MAP_FIXED and not flags & MAP_FIXED_NOREPLACE else MAP_FIXED_NOREPLACE
        kept = flags & _KEPT_FLAGS & ~MAP_FIXED | fixed | (f.MAP_GROWSDOWN if stack else 0)
        if not kept & 3:  # a type that the trace does not say
            kept |= f.MAP_PRIVATE
        descriptor = NIL
        if file >= 0 and not flags & MAP_ANONYMOUS and not stack:
            descriptor = files.of(file, min(max(offset, 0) + length, FILE_BYTES))
        if descriptor < 0:
            kept, offset = kept | MAP_ANONYMOUS, 0
        if kept & 0xF == 3 and descriptor < 0:  # MAP_SHARED_VALIDATE needs a file
            kept = kept & ~0xF | f.MAP_SHARED
        arguments = (
            at,
            length,
            prot & 7,
            kept,
            descriptor if descriptor < 0 else FIRST_FILE + descriptor,
            offset & -PAGE,
        )
    elif kind == Kind.MPROTECT:
        arguments = (at, length, prot & 15)
    elif kind == Kind.MREMAP:
        source = moves.one(addr)
        if ret == addr:
            arguments = (source, length, new_len, 0)
        else:
            how = MREMAP_MAYMOVE | MREMAP_FIXED | flags & MREMAP_DONTUNMAP
            arguments = (source, length, new_len, how, at)
    elif kind == Kind.BRK:
        arguments = (at,)
    elif kind == Kind.MADVISE:
        arguments = (at, length, flags)
    program.ops[row, : 2 + len(arguments)] = (CALL, number, *arguments)


def _brk(
    events: NDArray[np.void], ret: NDArray[np.int64], kind: NDArray[np.int32], moves: _Moves
) -> tuple[int, int] | None:
    """Where the break begins and is at first: at the exec, or as the first brk told; None if nothing moves it."""
    breaks = np.flatnonzero(kind == Kind.BRK)
    if not len(breaks):
        return None
    execs = events["addr"][(events["kind"] == Kind.EXEC) & (events["addr"] > 0)]
    start = int(execs[0]) if len(execs) else int(ret[breaks[0]])
    heaps = events[(kind == Kind.MAP) & (events["flags"] & MapType.HEAP != 0)]
    end = start + int(heaps["len"][0]) if len(heaps) and int(heaps["addr"][0]) == start & -PAGE else start
    return moves.one(start), moves.one(end)


def _assert_inside(program: Program) -> None:
    """Whatever the trace says, every row stays in the arena: the last look before the kernel gets it."""
    ops = program.ops
    low, high = ARENA, ARENA + ROOM

    def inside(start: NDArray[np.int64], size: NDArray[np.int64] | int) -> bool:
        length = np.asarray(size)
        return bool(((start >= low) & (length >= 0) & (length <= ROOM) & (start <= high - PAGE - length)).all())

    touches = np.isin(ops[:, 0], (READ, WRITE))
    calls = ops[ops[:, 0] == CALL]
    breaks = calls[calls[:, 1] == SYSCALL[BRK_CALL]]
    maps = calls[calls[:, 1] == SYSCALL[MMAP_CALL]]
    moves = calls[calls[:, 1] == SYSCALL[MREMAP_CALL]]
    others = calls[calls[:, 1] != SYSCALL[BRK_CALL]]
    targets = moves[moves[:, 5] & MREMAP_FIXED != 0]
    good = bool(np.isin(ops[:, 0], (NOTHING, READ, WRITE, CALL)).all())
    good &= set(calls[:, 1].tolist()) <= set(SYSCALL.values())
    good &= inside(ops[touches, 1], 1) and inside(others[:, 2], others[:, 3])
    good &= inside(breaks[breaks[:, 2] != 0, 2], 0)
    good &= bool((maps[:, 5] & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0).all())
    good &= inside(moves[:, 2], moves[:, 4]) and inside(targets[:, 6], targets[:, 4])
    good &= bool((moves[:, 5] & (MREMAP_MAYMOVE | MREMAP_FIXED) != MREMAP_MAYMOVE).all())
    if not good:
        raise AssertionError("a row of the program leaves the arena")
