"""A trace as a program for the running kernel: calls and touches inside an arena, and the timed loops as machine code.

LLVM builds the timed loops here, and a small process runs them without Numba or NumPy. Each is
one function without relocations, so its bytes run wherever they are mapped. The clock is ``rdtsc`` between two
``lfence``: it is read after what precedes and before what follows. A system call is the instruction itself, so no
library code is timed.

Addresses move by whole GiB: stretches that a trace uses keep their order and everything in them its distance, and what
lies unused between them shrinks to 1 GiB. So page tables fill as in the recorded program up to their third level.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchframe.errors import UsageError
from benchframe.events import NIL, UNKNOWN, FaultFlag, Kind, MapType
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

NOTHING, READ, WRITE, CALL = range(4)
"""What a row of a program does: its first word."""
WORDS = 8
"""Words of a row: the action, the address or the number of the system call, six arguments."""
TIMES = 3
"""Words of an answer: clock before, clock after, result. A touch returns 0, or SIGNALLED; in a counting run the number
of page faults that it caused."""
SIGNALLED = -1
"""Result of a touch that raised SIGSEGV or SIGBUS."""
ARENA, ROOM = 0x100000000000, 1 << 45
"""The addresses that programs use: 32 TiB from 16 TiB on, far from where Linux loads programs and libraries."""
GETRUSAGE, FORK, EXIT_GROUP, WAIT4 = 98, 57, 231, 61
"""System call numbers of x86-64."""

_CLOCK = """
  call void asm sideeffect "lfence", "~{memory}"()
  %NAME = call i64 asm sideeffect "rdtsc; shlq $$32, %rdx; orq %rdx, %rax", "={rax},~{rdx},~{memory},~{flags}"()
  call void asm sideeffect "lfence", "~{memory}"()
"""
_SYSCALL = (
    'call i64 asm sideeffect "syscall", "={rax},0,{rdi},{rsi},{rdx},{r10},{r8},{r9},~{rcx},~{r11},~{memory}"'
    "(i64 NUMBER, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f)"
)


def _clock(name: str) -> str:
    return _CLOCK.replace("NAME", name)


def _simple(number: int, first: str = "0", second: str = "0", third: str = "0") -> str:
    text = _SYSCALL.replace("NUMBER", str(number))
    for name, value in zip("abcdef", (first, second, third, "0", "0", "0"), strict=True):
        text = text.replace(f"i64 %{name}", f"i64 {value}")
    return text


def _faults(name: str) -> str:
    """The number of page faults of this process so far: ru_minflt + ru_majflt."""
    return f"""
  %{name}.done = {_simple(GETRUSAGE, "0", "%usage.at")}
  %{name}.minor.at = getelementptr i8, ptr %usage, i64 64
  %{name}.minor = load volatile i64, ptr %{name}.minor.at
  %{name}.major.at = getelementptr i8, ptr %usage, i64 72
  %{name}.major = load volatile i64, ptr %{name}.major.at
  %{name} = add i64 %{name}.minor, %{name}.major
"""


def _touch(kind: str, instruction: str) -> str:
    """A touch, alone or between two counts of page faults. The handler of a signal (:func:`trap`) skips the two bytes
    of the instruction and stores 1 in rcx."""
    asm = f'call i64 asm sideeffect "{instruction}", "={{rcx}},0,{{rdi}},~{{rax}},~{{memory}}"(i64 0, i64 %second)'
    return f"""
{kind}:
  br i1 %counting, label %{kind}.counted, label %{kind}.timed
{kind}.timed:
{_clock(f"{kind}.t0")}
  %{kind}.signal = {asm}
{_clock(f"{kind}.t1")}
  %{kind}.result = sub i64 0, %{kind}.signal
  br label %next
{kind}.counted:
{_faults(f"{kind}.before")}
{_clock(f"{kind}.c0")}
  %{kind}.csignal = {asm}
{_clock(f"{kind}.c1")}
{_faults(f"{kind}.after")}
  %{kind}.faults = sub i64 %{kind}.after, %{kind}.before
  %{kind}.failed = icmp ne i64 %{kind}.csignal, 0
  %{kind}.count = select i1 %{kind}.failed, i64 -1, i64 %{kind}.faults
  br label %next
"""


_ARGUMENTS = "\n".join(
    f"  %{name}.at = getelementptr i64, ptr %code.at, i64 {at}\n  %{name} = load i64, ptr %{name}.at"
    for at, name in enumerate("abcdef", 2)
)
_RUN = f"""
define void @run(ptr %ops, i64 %n, ptr %out, ptr %usage) nounwind "no-jump-tables"="true" {{
entry:
  %usage.at = ptrtoint ptr %usage to i64
  %counting = icmp ne i64 %usage.at, 0
  %none = icmp eq i64 %n, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [0, %entry], [%following, %next]
  %row = mul i64 %i, {WORDS}
  %code.at = getelementptr i64, ptr %ops, i64 %row
  %code = load i64, ptr %code.at
  %second.at = getelementptr i64, ptr %code.at, i64 1
  %second = load i64, ptr %second.at
  switch i64 %code, label %nothing [i64 {READ}, label %read i64 {WRITE}, label %write i64 {CALL}, label %call]
nothing:
{_clock("n0")}{_clock("n1")}
  br label %next
{_touch("read", "movb (%rdi), %al")}
{_touch("write", "movb %al, (%rdi)")}
call:
{_ARGUMENTS}
{_clock("call.t0")}
  %call.result = {_SYSCALL.replace("NUMBER", "%second")}
{_clock("call.t1")}
  br label %next
next:
  %before = phi i64 [%n0, %nothing], [%read.t0, %read.timed], [%read.c0, %read.counted], [%write.t0, %write.timed],
    [%write.c0, %write.counted], [%call.t0, %call]
  %after = phi i64 [%n1, %nothing], [%read.t1, %read.timed], [%read.c1, %read.counted], [%write.t1, %write.timed],
    [%write.c1, %write.counted], [%call.t1, %call]
  %result = phi i64 [0, %nothing], [%read.result, %read.timed], [%read.count, %read.counted],
    [%write.result, %write.timed], [%write.count, %write.counted], [%call.result, %call]
  %place = mul i64 %i, {TIMES}
  %before.at = getelementptr i64, ptr %out, i64 %place
  store i64 %before, ptr %before.at
  %after.at = getelementptr i64, ptr %before.at, i64 1
  store i64 %after, ptr %after.at
  %result.at = getelementptr i64, ptr %before.at, i64 2
  store i64 %result, ptr %result.at
  %following = add i64 %i, 1
  %done = icmp eq i64 %following, %n
  br i1 %done, label %end, label %loop
end:
  ret void
}}
"""

_RSI, _RIP, _RCX = 16, 168, 152
"""Offsets of si_addr in siginfo_t, of RIP and RCX in ucontext_t (x86-64)."""
_TRAP = f"""
define void @trap(i32 %signal, ptr %info, ptr %context) nounwind {{
entry:
  %where.at = getelementptr i8, ptr %info, i64 {_RSI}
  %where = load i64, ptr %where.at
  %offset = sub i64 %where, {ARENA}
  %ours = icmp ult i64 %offset, {ROOM}
  br i1 %ours, label %skip, label %die
skip:
  %rip.at = getelementptr i8, ptr %context, i64 {_RIP}
  %rip = load i64, ptr %rip.at
  %later = add i64 %rip, 2
  store i64 %later, ptr %rip.at
  %rcx.at = getelementptr i8, ptr %context, i64 {_RCX}
  store i64 1, ptr %rcx.at
  ret void
die:
  %gone = {_simple(EXIT_GROUP, "139")}
  ret void
}}
"""

_FORKS = f"""
define void @forks(i64 %n, ptr %out) nounwind "no-jump-tables"="true" {{
entry:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [0, %entry], [%following, %parent]
  %place = mul i64 %i, 4
  %start.at = getelementptr i64, ptr %out, i64 %place
  %forked.at = getelementptr i64, ptr %start.at, i64 1
  %exits.at = getelementptr i64, ptr %start.at, i64 2
  %gone.at = getelementptr i64, ptr %start.at, i64 3
{_clock("start")}
  %pid = {_simple(FORK)}
  %child = icmp eq i64 %pid, 0
  br i1 %child, label %exit, label %parent
exit:
{_clock("exits")}
  store volatile i64 %exits, ptr %exits.at
  %never = {_simple(EXIT_GROUP)}
  ret void
parent:
{_clock("forked")}
  %reaped = {_simple(WAIT4, "%pid")}
{_clock("gone")}
  store volatile i64 %start, ptr %start.at
  store volatile i64 %forked, ptr %forked.at
  %refused = icmp slt i64 %pid, 0
  %ended = select i1 %refused, i64 %pid, i64 %gone
  store volatile i64 %ended, ptr %gone.at
  %following = add i64 %i, 1
  %done = icmp eq i64 %following, %n
  br i1 %done, label %end, label %loop
end:
  ret void
}}
"""


@cache
def machine_code() -> dict[str, bytes]:
    """The functions by name. ``run(ops, n, out, usage)`` performs n rows; ``usage`` 0, or a buffer of 144 bytes: count
    page faults of touches. ``trap`` is a handler of SIGSEGV and SIGBUS. ``forks(n, out)`` forks and waits n times: four
    words each, clock before fork, after it in the parent, in the child before it exits, after the parent's wait."""
    return {name: _compiled(text) for name, text in (("run", _RUN), ("trap", _TRAP), ("forks", _FORKS))}


def _compiled(text: str) -> bytes:
    """The text section of a module with one function; LLVM IR in, position-independent code out."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    triple = llvm.get_default_triple()
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}')
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=2, reloc="pic", codemodel="small")
    parts = llvm.ObjectFileRef.from_data(machine.emit_object(module)).sections()
    sections = {_text(part.name()): part.data() for part in parts}
    moved = [name for name in sections if name.startswith(".rel") and ".text" in name]
    assert not moved, f"the loop must not need relocations: {moved}"
    return bytes(sections[".text"])


def _text(name: str | bytes | None) -> str:
    """A section's name: llvmlite gives text or bytes, by its version, and None for the first."""
    return name.decode() if isinstance(name, bytes) else name or ""


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
    """A trace's events as rows for :mod:`benchframe.host.program`."""

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


def write_program(path: Path, program: Program) -> None:
    """What of a program is performed, for :func:`read_program` in a guest."""
    told = {"setup": program.setup, "files": [(file.inode, file.size) for file in program.files], "brk": program.brk}
    arrays = {"ops": program.ops, "kind": program.kind, "expected": program.expected}
    np.savez(path, told=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def read_program(path: Path | None) -> Program:
    """The program in a file; None: one that does nothing."""
    if path is None:
        return Program(np.zeros((0, WORDS), np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64), 0)
    with np.load(path) as arrays:
        told = json.loads(arrays["told"].tobytes())
        files = [OpenFile(*file) for file in told["files"]]
        brk = tuple(told["brk"]) if told["brk"] else None
        return Program(arrays["ops"], arrays["kind"], arrays["expected"], told["setup"], files, brk)


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
