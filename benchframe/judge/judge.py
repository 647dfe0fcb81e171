"""The running kernel as judge: the same calls on kernel, oracle and model, compared; a difference shrunk."""

from __future__ import annotations

import os
import platform
import resource
import select
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from benchframe.errors import BenchframeError
from benchframe.events import Kind
from benchframe.judge import child
from benchframe.judge.child import (
    ARENA,
    ARENA_END,
    BRK_BASE,
    FORK,
    MADVISE,
    MASK,
    MMAP,
    MPROTECT,
    MREMAP,
    SHMAT,
    TOUCH,
    find_task_size,
    harmless,
)
from benchframe.judge.programs import NAMES, ZONES, Calls, Make, Op, Row, apply, file_table, generator, words_of
from benchframe.mm import flags
from benchframe.mm.machine import Machine, Runner, Saved, Sizes, Space
from benchframe.oracle import Limits, Oracle, Rules
from benchframe.oracle.rules import SMAPS
from benchframe.verify import parameters

_MALLOC = {"MALLOC_TOP_PAD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Lets the judging process's malloc take its heap before the break moves to the arena, and never ask for more."""


class JudgeError(BenchframeError):
    """The kernel could not be used; the message says why and what to do."""


@dataclass
class Answer:
    """The kernel's answer to one batch."""

    results: list[int]
    layouts: list[list[int]]
    """After each operation, four words per area: start, end, access bits with 8 for shared, file offset."""
    flags: list[str] = field(default_factory=list)
    """At the end, each area's VmFlags words, sorted; empty if not requested."""


def supported() -> str:
    """Why this machine cannot judge, or an empty string if it can."""
    if not sys.platform.startswith("linux"):
        return f"the judge is the running Linux kernel; this is {sys.platform}"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the judge knows the system calls of x86-64 only; this is {platform.machine()}"
    if not Path("/proc/self/maps").exists():
        return "/proc is not mounted"
    return ""


def ended(status: int) -> str:
    """How a process ended: with this exit code, or by the signal with this number, negated.

    >>> ended(-11), ended(1)
    ('was killed by SIGSEGV', 'ended with status 1')
    """
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


class Kernel:
    """A judging process. Use as a context manager; it ends with the block.

    Args:
        timeout: seconds that one batch may take before the process is killed. An emulated processor may need a minute.
        text_maps: read /proc/PID/maps as text even where the kernel has PROCMAP_QUERY.

    Raises:
        JudgeError: this machine cannot judge, or the process does not start.
    """

    def __init__(self, timeout: float = 300.0, text_maps: bool = False) -> None:
        reason = supported()
        if reason:
            raise JudgeError(reason)
        self.timeout = timeout
        self.options = child.TEXT_MAPS if text_maps else 0
        self.sent: Sequence[Op] = ()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(child.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
            env={**os.environ, **_MALLOC},
        )
        query, moved, self.task_size = array("q", self._read(24))
        self.has_query, self.has_brk = bool(query), bool(moved)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the judging process and wait for it."""
        process = self.process
        if process.poll() is None:  # it leads a process group of its own: its workers end with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self, count: int) -> bytes:
        """Exactly ``count`` bytes of the answer, within the timeout."""
        assert self.process.stdout is not None
        source = self.process.stdout.fileno()
        end = time.monotonic() + self.timeout
        parts = []
        while count:
            ready, _, _ = select.select([source], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.close()
                raise JudgeError(f"the judging process gave no answer for {self.timeout:g} s; it was killed")
            part = os.read(source, min(count, 1 << 20))
            if not part:
                raise JudgeError(f"the judging process {ended(self.process.wait())} during a batch")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def send(self, ops: Sequence[Op], with_flags: bool = False) -> None:
        """Begin a batch; :meth:`receive` waits for its end. Only one batch may be in progress.

        Raises:
            ValueError: an operation could change memory outside the arena.
        """
        words = array("Q")
        for op in ops:
            if not child.harmless(op, self.task_size):
                raise ValueError(f"{op} could reach outside the arena")
            words.extend(op)
        head = array("q", [len(ops), self.options | (child.WITH_FLAGS if with_flags else 0)])
        assert self.process.stdin is not None
        data = memoryview(head.tobytes() + words.tobytes())
        try:
            while data:
                data = data[os.write(self.process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise JudgeError("the judging process is gone") from None
        self.sent = ops

    def receive(self) -> Answer:
        """Wait for the end of the current batch.

        Raises:
            JudgeError: the process died or did not answer in time.
        """
        count = array("q", self._read(8))[0]
        if count == child.ENDED:
            at, how = array("q", self._read(16))
            raise JudgeError(f"the judging process {ended(how)} in operation {at} of the batch: {self.sent[at]}")
        words = array("q", self._read(8 * count))
        results: list[int] = []
        layouts: list[list[int]] = []
        at = 0
        for _ in range(len(self.sent)):
            count = words[at + 1]
            results.append(words[at])
            at += 2
            if count == child.SAME:
                layouts.append(layouts[-1])
            else:
                layouts.append(words[at : at + 4 * count].tolist())
                at += 4 * count
        text = self._read(words[at]).decode()
        return Answer(results, layouts, text.split("\n") if text else [])

    def run(self, ops: Sequence[Op], with_flags: bool = False) -> Answer:
        """Run one batch from an empty arena."""
        self.send(ops, with_flags)
        return self.receive()


# ----------------------------------------------------------------------------------------------------------------------
# The judged side: a factory of fresh address spaces that match the judging process (files, break, limits).

Side = Callable[[Rules, Limits], Calls]
"""Makes a judged side for a kernel with these rules: files as in ``file_table()``, break at ``BRK_BASE``."""

_CAP_IPC_LOCK, _CAP_SYS_RAWIO = 14, 17


def oracle_side(rules: Rules, limits: Limits) -> Oracle:
    """The naive oracle as judged side."""
    side = Oracle(rules, limits)
    side.start_brk = side.brk_now = BRK_BASE
    for number, size, readable, writable, inode in file_table():
        side.set_file(number, size, readable, writable, inode)
    return side


def _number(path: str, default: int) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return default


def host_limits() -> Limits:
    """The limits that a process on this machine lives under, from /proc and getrlimit."""
    known, task_size = Limits(), find_task_size()
    caps = 0
    memory = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            caps = int(line.split()[1], 16)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(("MemTotal:", "SwapTotal:")):
            memory += int(line.split()[1]) * 1024
    heuristic = _number("/proc/sys/vm/overcommit_memory", 0) == 0
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    memlock, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = memlock == resource.RLIM_INFINITY or caps >> _CAP_IPC_LOCK & 1
    return Limits(
        task_size=task_size,
        mmap_min_addr=_number("/proc/sys/vm/mmap_min_addr", known.mmap_min_addr),
        may_map_low=bool(caps >> _CAP_SYS_RAWIO & 1),
        max_map_count=_number("/proc/sys/vm/max_map_count", known.max_map_count),
        rlimit_stack=task_size if stack == resource.RLIM_INFINITY else stack,
        rlimit_memlock=known.rlimit_memlock if unlimited else memlock,
        overcommit_max=memory if heuristic else known.overcommit_max,
    )


def maker(side: Side, rules: Rules, limits: Limits) -> Make:
    """A factory of fresh judged sides."""
    return partial(side, rules, limits)


# ----------------------------------------------------------------------------------------------------------------------
# The comparison itself: both sides perform the same operations; results, areas and flags must be equal.

Accept = Callable[[Op], bool]
BATCH = 256
"""Operations in a batch; each batch begins with an empty arena on both sides."""
SHOWN = frozenset(SMAPS.values())
"""The VmFlags words that are compared; others depend on the kernel's configuration."""


@dataclass
class Mismatch:
    """One disagreement: a program whose last operation ends differently on the two sides."""

    ops: list[Op]
    what: str
    """One line: what differs."""
    before: list[int]
    """The areas before the last operation, four words each, where both sides still agreed."""
    expected: tuple[int, list[int]]
    """The kernel's result and areas."""
    got: tuple[int, list[int]]
    """The judged side's."""
    flags: tuple[list[str], list[str]] | None = None
    """VmFlags of the kernel and of the judged side, if they differ."""


@dataclass
class JudgeResult:
    """The whole run."""

    ops: int = 0
    seconds: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)
    flag_checks: int = 0
    areas: int = 0
    """Sum over all operations of the number of areas."""
    errnos: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(call, errno) -> how often the kernel refused so."""
    forks: int = 0
    grew: int = 0
    """Operations after which there were more areas."""
    shrank: int = 0

    @property
    def rate(self) -> float:
        """Checked operations a second."""
        return self.ops / self.seconds if self.seconds else 0.0

    def add(self, other: JudgeResult) -> None:
        """Count another run in."""
        for name in ("ops", "seconds", "flag_checks", "areas", "forks", "grew", "shrank"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.mismatches += other.mismatches
        self.errnos += other.errnos


@dataclass
class Expected:
    """What the judged side said to a batch."""

    ops: list[Op] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    layouts: list[list[int]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def rehearse(make: Make, ops: Sequence[Op]) -> Expected:
    """Run a given program on a fresh judged side."""
    side = make()
    told = Expected()
    for op in ops:
        side, result = apply(side, op)
        _note(told, op, result, side.layout())
    told.flags = _flags(side)
    return told


def _note(told: Expected, op: Op, result: int, layout: list[Row]) -> None:
    """Note one operation's result and areas."""
    told.ops.append(op)
    told.results.append(result)
    told.layouts.append(words_of(layout))


def _flags(side: Calls) -> list[str]:
    """The flags of the side's areas that lie in the arena."""
    flags = side.layout_flags()
    if not flags:
        return []
    return [words for row, words in zip(side.layout(), flags, strict=True) if ARENA <= row[0] < ARENA_END]


def compose(make: Make, name: str, seed: str, count: int, accept: Accept = harmless) -> Expected:
    """Let a generator write a program of ``count`` accepted operations while the judged side performs it; ``accept``
    must let none through that is not harmless."""
    side = make()
    source = generator(name, seed)
    told = Expected()
    layout = side.layout()
    while len(told.ops) < count:
        op = source.next(layout)
        if not accept(op):
            continue
        side, result = apply(side, op)
        layout = side.layout()
        _note(told, op, result, layout)
    told.flags = _flags(side)
    return told


def compare(told: Expected, kernel: Kernel, outcome: JudgeResult | None = None) -> Mismatch | None:
    """Fetch the kernel's answer to ``told.ops``, which was sent, and find the first difference."""
    said = kernel.receive()
    before: list[int] = []
    for at, op in enumerate(told.ops):
        result, layout = said.results[at], said.layouts[at]
        if result != told.results[at] or layout != told.layouts[at]:
            what = f"{op} returned {told.results[at]}, the kernel says {result}"
            if result == told.results[at]:
                what = f"after {op} the areas differ"
            pair = (result, layout), (told.results[at], told.layouts[at])
            return Mismatch(told.ops[: at + 1], what, before, *pair)
        if outcome is not None:
            outcome.ops += 1
            outcome.areas += len(layout) // 4
            outcome.grew += len(layout) > len(before)
            outcome.shrank += len(layout) < len(before)
            outcome.forks += NAMES[op.code] == "fork"
            if -4096 < result < 0:
                outcome.errnos[NAMES[op.code], -result] += 1
        before = layout
    if told.flags and said.flags:
        if outcome is not None:
            outcome.flag_checks += 1
        pairs = zip(told.flags, said.flags, strict=True)
        if any(_shown(one) != _shown(other) for one, other in pairs):
            last = said.results[-1], before
            return Mismatch(told.ops, "the flags of the areas differ", before, last, last, (said.flags, told.flags))
    return None


def _shown(words: str) -> set[str]:
    return set(words.split()) & SHOWN


def check(make: Make, ops: Sequence[Op], kernel: Kernel) -> Mismatch | None:
    """Run one program on both sides."""
    told = rehearse(make, ops)
    kernel.send(told.ops, with_flags=True)
    return compare(told, kernel)


def judge(
    make: Make,
    ops: int,
    seed: int,
    name: str,
    kernel: Kernel,
    minutes: float | None = None,
    stop_after: int = 1,
    progress: Callable[[JudgeResult], None] | None = None,
    accept: Accept = harmless,
    first: int = 0,
) -> JudgeResult:
    """Random differential run of ``ops`` operations (or until ``minutes`` are over) with one generator.

    Batch number n of a run depends on (seed, generator, n) only. While the kernel runs one batch, the judged side
    composes the next.

    Args:
        make: makes a fresh judged side, with an empty arena and the break at BRK_BASE.
        stop_after: give up after this many mismatches; each costs the rest of its batch.
        progress: called after each batch.
        accept: which operations the judged side speaks; others are left out.
        first: number of the first batch, to go on where an earlier run ended.

    Raises:
        ValueError: no such generator.
        JudgeError: the judging process failed.
    """
    if name not in ZONES:
        generator(name, "")
    outcome = JudgeResult()
    began = time.monotonic()
    number = first

    def fits(op: Op) -> bool:
        return harmless(op, kernel.task_size) and accept(op)

    running: Expected | None = None
    while True:
        spent = time.monotonic() - began
        under_way = outcome.ops + (BATCH if running else 0)
        more = under_way < ops and (minutes is None or spent < minutes * 60)
        upcoming = compose(make, name, f"{seed}/{name}/{number}", BATCH, fits) if more else None
        number += 1
        if running is not None:
            mismatch = compare(running, kernel, outcome)
            if mismatch is not None:
                outcome.mismatches.append(mismatch)
        if running is None and upcoming is None:
            break
        if len(outcome.mismatches) >= stop_after:
            break
        if upcoming is not None:
            kernel.send(upcoming.ops, with_flags=True)
        running = upcoming
        outcome.seconds = time.monotonic() - began
        if progress is not None:
            progress(outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


# ----------------------------------------------------------------------------------------------------------------------
# Make a failing program small: delta debugging over the list of operations, each try run on the kernel again.


def shrink(make: Make, mismatch: Mismatch, kernel: Kernel, tries: int = 2000) -> Mismatch:
    """The smallest program found that still ends in a disagreement (not always the same one).

    Removes ever smaller runs of operations until none can go (ddmin), or ``tries`` programs were run. Returns the
    mismatch as it was if it cannot be repeated.
    """
    best = check(make, mismatch.ops, kernel)
    if best is None:
        return mismatch
    size = max(1, len(best.ops) // 2)
    while True:
        at, removed = 0, False
        while at < len(best.ops) and tries > 0:
            tries -= 1
            smaller = _without(best.ops, at, at + size)
            found = check(make, smaller, kernel) if smaller else None
            if found is not None:
                best, removed = found, True
            else:
                at += size
        if tries <= 0 or (size == 1 and not removed):
            return best
        size = max(1, size // 2) if not removed or size > 1 else 1


def _without(ops: Sequence[Op], start: int, end: int) -> list[Op]:
    return [*ops[:start], *ops[end:]]


# ----------------------------------------------------------------------------------------------------------------------
# The compiled model as judged side: the same calls as the oracle's, made as single events on a Machine.
#
# The machine runs whatever strategy its runner holds, so that the running kernel judges the model with the strategy's
# hooks in place. One machine serves all sides in turn: a fresh side is the saved state restored.

_READABLE = tuple(number for number, _, readable, _, _ in file_table() if readable)
_MMS = 64
"""The number of address spaces: limits the forks in one batch."""
_SIZES = Sizes(mms=_MMS, tasks=_MMS + 2, vmas=1 << 14, tables=1 << 13, pages=1 << 17, files=1 << 12, events=1)


def speaks(op: Op) -> bool:
    """Whether an operation can be an event of a trace: numbers below 2**63, a file that is open for reading."""
    file_known = op.code != MMAP or op.d & flags.MAP_ANONYMOUS or op.e in _READABLE
    return bool(file_known) and all(word < 1 << 63 for word in op[1:5]) and (op.code == MMAP or op.e < 1 << 63)


def readable_only(accept: Accept) -> Accept:
    """``accept`` without operations that request PROT_EXEC alone: with protection keys such memory cannot be read, and
    the model has no keys."""
    return lambda op: accept(op) and not (op.code in (MMAP, MPROTECT) and op.c & 7 == flags.PROT_EXEC)


class ModelSide(Space):
    """One fresh address space of a machine; the previous side of the machine must not be used any more."""

    def __init__(self, machine: Machine, saved: list[Saved]) -> None:
        machine.restore(saved)
        machine.runner.attach(machine)  # it may have served a machine with other rules in between
        super().__init__(machine)
        self._forks = 0
        self.exec(BRK_BASE)

    def fault(self, addr: int, access: int, user: bool = False) -> int:
        """As a Space's, but in kernel mode by default."""
        return super().fault(addr, access, user)

    def fork(self, task: int | None = None) -> ModelSide:
        """The child's address space: this object, now in the child.

        Raises:
            RuntimeError: more forks in one batch than there are address spaces.
        """
        self._forks += 1
        if self._forks >= _MMS - 1:
            raise RuntimeError(f"more than {_MMS - 2} forks in one program")
        self._call(Kind.FORK, addr=self._forks, len=self._forks)
        self.number = self.task = self._forks
        return self


def model_side(runner: Runner) -> Side:
    """What makes judged sides of the model that ``runner`` runs; its memory is laid out at the first use.

    The factory keeps one machine for each pair of rules and limits.
    """
    machines: dict[tuple[Rules, Limits], tuple[Machine, list[Saved]]] = {}

    def make(rules: Rules, limits: Limits) -> ModelSide:
        known = machines.get((rules, limits))
        if known is None:
            machine = Machine(runner, _SIZES, parameters(rules, limits))
            for number, size, _, writable, _ in file_table():
                record = machine.arrays["file_base"][number + 1]
                record["size"], record["flags"] = size, 0 if writable else flags.FILE_NOWRITE
            known = machines[rules, limits] = machine, machine.save()
        return ModelSide(*known)

    return make


# ----------------------------------------------------------------------------------------------------------------------
# The rules that the running kernel follows: one small program per switch, run on the kernel and on the oracle.
#
# A switch gets the value with which the oracle gives the kernel's answers. Kernel names and version numbers are
# never looked at: vendors move rules between versions.

_P = 4096
_A = ARENA + (64 << 20)
_FIXED = 0x32  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def _anon(page: int, pages: int, prot: int = 3, flags: int = _FIXED) -> Op:
    return Op(MMAP, _A + page * _P, pages * _P, prot, flags, MASK, 0)


def _advise(page: int, pages: int, advice: int) -> Op:
    return Op(MADVISE, _A + page * _P, pages * _P, advice)


def _protect(page: int, pages: int, prot: int) -> Op:
    return Op(MPROTECT, _A + page * _P, pages * _P, prot)


def _write(page: int) -> Op:
    return Op(TOUCH, _A + page * _P, 2)


def _move(page: int, pages: int, flags: int, target: int) -> Op:
    return Op(MREMAP, _A + page * _P, pages * _P, pages * _P, flags, _A + target * _P)


PROBES: dict[str, list[Op]] = {
    "execute_only": [_anon(0, 1, prot=4), Op(TOUCH, _A, 1)],
    "thp": [_anon(0, 1), _advise(0, 1, 15)],
    "ksm": [_anon(0, 1), _advise(0, 1, 12)],
    "droppable": [_anon(0, 1, flags=0x38)],
    "swap": [_anon(0, 1), _advise(0, 1, 3)],
    "guard": [_anon(0, 1), _advise(0, 1, 103)],
    "guard_file": [Op(MMAP, _A, _P, 3, 0x12, 0, 0), _advise(0, 1, 103)],
    "guard_flag": [_anon(0, 1), _write(0), _advise(0, 1, 102)],
    # Two areas that differ only in protection; one gets a guard region, one is written: equal again, do they merge?
    "guard_prepares_anon_vma": [_anon(0, 2), _anon(4, 2), _advise(0, 1, 102), _write(5), _anon(2, 2), _write(2)],
    # A faulted area, made equal to its unfaulted neighbour.
    "anon_vma_merge_both_ways": [_anon(0, 4), _protect(2, 2, 7), _write(0), _protect(0, 2, 7)],
    "mmap_joins_both": [_anon(0, 2), _anon(4, 2), _write(4), _anon(2, 2)],
    "mremap_checks_length_first": [Op(MREMAP, _A, _P, 1 << 62, 1, 0)],
    "mremap_checks_first": [_anon(0, 2), _anon(8, 8), Op(MREMAP, _A, 4 * _P, 6 * _P, 3, _A + 8 * _P)],
    "mremap_many": [_anon(0, 2), _anon(2, 2, prot=1), _move(0, 4, 3, 16)],
    # Two VMAs of one segment: may one grow over a part of the other?
    "merge_closing": [Op(SHMAT, _A, 4 * _P), _protect(2, 2, 1), _protect(2, 1, 3)],
    "account_unfaulted": [_anon(0, 1), _protect(0, 1, 1), _anon(1, 1, prot=1)],
    "stack_nohuge": [_anon(0, 1), _anon(1, 1, flags=_FIXED | 0x20000)],
    "populate_stops_at_hole": [_anon(1, 1, prot=0), _advise(0, 2, 22)],
    "dontunmap_clears_account": [_anon(0, 2), _move(0, 2, 7, 16)],
    "dontunmap_merges_source": [_anon(0, 2), _move(0, 2, 7, 2)],
    "dontunmap_merges_beside_source": [_anon(0, 2), _anon(4, 2), _move(0, 2, 7, 2)],
    "dontunmap_splits_locked": [_anon(0, 2, flags=_FIXED | 0x2000), _move(0, 1, 7, 16)],
    "dontunmap_rounds_lengths": [Op(MREMAP, _A, _P - 8, _P, 7, _A + 16 * _P)],
    # A written area is moved, so its offset is not that of its address; what stays of it then meets a new neighbour.
    "dontunmap_resets_pgoff": [_anon(0, 2), _write(0), _move(0, 2, 3, 16), _move(16, 2, 7, 32), _anon(18, 2)],
    # The copy of a written area merges with an unwritten neighbour: does it hand its anon_vma on? A write to the
    # area between them and a change of protection show it.
    "anon_vma_copied_from": [
        _anon(0, 4),
        _protect(2, 2, 1),
        _write(0),
        Op(FORK),
        _move(0, 2, 3, 16),
        _protect(2, 2, 3),
        _move(16, 2, 3, 0),
    ],
    "dontneed_frees_tables": [
        _anon(0, 1024),
        _protect(512, 512, 1),
        Op(TOUCH, _A, 1),
        _advise(0, 512, 4),
        _advise(0, 1024, 14),
        Op(TOUCH, _A, 1),
        Op(FORK),
        _protect(512, 512, 3),
    ],
    # As the next one, for an area without MADV_HUGEPAGE.
    "thp_always": [
        _anon(0, 2048),
        Op(TOUCH, _A + 512 * _P, 1),
        _anon(2048, 512, prot=1),
        Op(FORK),
        _protect(2048, 512, 3),
    ],
    # Huge pages may be forbidden altogether: the read then leaves the area without an anon_vma.
    "thp_read_prepares_anon_vma": [
        _anon(0, 2048),
        _advise(0, 2048, 14),
        Op(TOUCH, _A + 512 * _P, 1),
        _anon(2048, 512, prot=1),
        _advise(2048, 512, 14),
        Op(FORK),
        _protect(2048, 512, 3),
    ],
}
"""For each switch that may have either value, a program that distinguishes them."""
NEEDS = {"guard_file": "guard", "guard_flag": "guard", "guard_prepares_anon_vma": "guard", "stack_nohuge": "thp"}
"""Switches that have an effect only if another one is on: they are not probed otherwise."""


@dataclass
class Probed:
    """The result of probing."""

    rules: Rules
    changed: list[str] = field(default_factory=list)
    """Switches that differ from the defaults."""
    unclear: list[str] = field(default_factory=list)
    """Switches with which the oracle is wrong at either value: a rule that it does not know."""


def probe(kernel: Kernel, limits: Limits) -> Probed:
    """Find the switches of the running kernel; some 15 small programs, about 0.1 s."""
    found = Probed(Rules())
    for name, program in PROBES.items():
        if name in NEEDS and not getattr(found.rules, NEEDS[name]):
            continue
        default = bool(getattr(found.rules, name))
        agrees = {
            value: check(maker(oracle_side, replace(found.rules, **{name: value}), limits), program, kernel) is None
            for value in (True, False)
        }
        if not any(agrees.values()):
            found.unclear.append(name)
        elif not agrees[default]:
            found.rules = replace(found.rules, **{name: not default})
            found.changed.append(name)
    return found
