"""Sequential conformance: random calls one after the other, compared with the oracle, on poisoned memory.

Records are reused as in native runs, last freed first, so both errors of a stale reference show: it points to a freed
record, or to one that now belongs to something else.

Calls cover a task's whole life: fork, clone, exec, exit, lookups and stores in another process's address space. The
next one gets what one gave back: a VMA record, the number of a task or of an mm.

Runs by the interpreter, so a wild index is an error with a line and nothing needs compiling. Hypothesis draws the calls
and shrinks a program that fails: fewer calls, smaller numbers. What it leaves is cut call by call once more.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchframe.check.execution import MISTAKES, PACKAGE, Broken, Endless, patience, told
from benchframe.check.memory import KEY_OF
from benchframe.dialect.interpreter import NullRef, PlainWorld
from benchframe.dialect.primitives import Listening
from benchframe.dialect.records import DialectError, Slab, WildAccess
from benchframe.mm import layout
from benchframe.mm.layout import arena_alloc, arena_free, free_typesafe_by_rcu, kfree_rcu
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.validate import ValidationError
from benchframe.runner import InterpretedRunner
from benchframe.scenario import BASE, Setup
from benchframe.strategy import Strategy
from benchframe.verify import oracle

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


class UseAfterFree(WildAccess):
    """Strategy code reads or writes a freed record."""

    kind = "use after free"


class DoubleFree(WildAccess):
    """Strategy code frees a record a second time."""

    kind = "double free"


class FreedRef(NullRef):
    """A reference to a freed record: reading or writing through it raises."""

    def __repr__(self) -> str:
        return f"<{self.slab.name} {self.index}, freed>"

    def dereference(self, field: str) -> WildAccess:
        """The error for an access to ``field``."""
        return UseAfterFree(f"{self.slab.name}(mm, {self.index}).{field}")


class PoisonedWorld(PlainWorld):
    """Plain memory that knows which records are free."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.arrays)
        self.freed: dict[str, set[int]] = {}
        self._shifts = {"pte_base": ("page_base", 9)}
        for slab in machine.private:
            part_of = getattr(slab, "part_of", None)
            if part_of is not None:
                self._shifts[slab.base] = (layout.PRIVATE_BASES[part_of[0]], part_of[1])

    def ref(self, slab: Slab, index: int) -> Any:
        """The proxy, or a :class:`FreedRef`."""
        base, shift = self._shifts.get(slab.base, (slab.base, 0))
        freed = self.freed.get(base)
        if freed and index >> shift in freed:
            return FreedRef(self, slab, index)
        return super().ref(slab, index)


def _base(which: int) -> str:
    return KEY_OF.get(which) or layout.PRIVATE_BASES[which - layout.ARENA_PRIVATE0]


class PoisoningRunner(InterpretedRunner):
    """Runs ``strategy`` in the interpreter, one task after the other. It counts nothing."""

    world: PoisonedWorld | None

    def __init__(self, strategy: Strategy) -> None:
        alloc: Callable[..., int] = arena_alloc
        free: Callable[..., int] = arena_free

        def allocated(mm: Any, which: int) -> int:
            slot: int = alloc(mm, which)
            mm.world.freed.get(_base(which), set()).discard(slot)
            return slot

        def freed(mm: Any, which: int, slot: int) -> int:
            if which == layout.ARENA_FILE:
                return free(mm, which, slot)
            gone = mm.world.freed.setdefault(_base(which), set())
            if slot in gone:
                raise DoubleFree(f"{_base(which)[:-5]} #{slot}")
            gone.add(slot)
            return free(mm, which, slot)

        replace: dict[Any, Callable[..., Any]] = {
            arena_alloc: allocated,
            arena_free: freed,
            kfree_rcu: freed,
            free_typesafe_by_rcu: lambda mm, which, slot: free(mm, which, slot),
        }
        super().__init__(strategy, counting=False, replace=replace)

    def attach(self, machine: Machine) -> None:
        """Create the world over the machine's arrays; nothing is free yet."""
        self.world = PoisonedWorld(machine)

    def forget(self) -> None:
        """Start over with a new machine: nothing was freed."""
        if self.world is not None:
            self.world.freed.clear()


PAGE = layout.PAGE_SIZE
Operation = tuple[Any, ...]
LIFE = ("fork", "thread", "exit", "exec", "exec_anew")
"""What begins and ends tasks and address spaces."""
CHURN, CHURN_CHECKED = 320, 5
"""Calls of a long program, and after how many the invariants are looked at. Those are part of runs of so many."""
CLIMB = 150
"""Neighbouring VMAs at the end of that program: a node of ten children under a root fills up, and the last leaf below
it."""
SEARCHES = 60
"""Calls of an address space in the program that searches holes."""
LENGTH = 30
"""Calls of one random program."""
PATIENCE, IMPATIENCE = 5.0, 0.3
"""Seconds of CPU time that a program may take, some hundred times what any needs; once one took them, less."""
TRACED = 12
"""Values of ``trace`` that are told with a failure."""
ENDLESS_SHRINKS = 10
"""Programs tried to make one simpler that does not end."""
SHRINKS = 100
"""Programs tried to make a failing one simpler."""
SIZES = Sizes(mms=4, tasks=5, vmas=256, tables=256, pages=1024, files=8)
PARAMETERS = Parameters(stack_guard_gap=2 * PAGE)
"""A guard gap so small that stacks meet other VMAs."""
MMAP_BASE = PARAMETERS.mmap_base
HEAP, STACK = BASE + 24 * PAGE, BASE + 512 * PAGE
"""Where a program's heap begins, right behind the pages that calls use most; where its stack is."""
EDGES = (0, PAGE, layout.TASK_SIZE - PAGE, layout.TASK_SIZE, 1 << 47)


@dataclass(frozen=True)
class Sequential:
    """How many calls agreed, or the shortest program found that does not, with what it showed."""

    calls: int
    seconds: float
    failure: str = ""
    program: tuple[Operation, ...] = ()
    endless: bool = False
    """It has no end, even alone."""
    traced: tuple[str, ...] = ()
    """What strategy code traced last in ``program``, TRACED at most."""


class _Enough(BaseException):
    """Ends Hypothesis's search, which takes an Exception for one more failure."""


class Conformance:
    """``strategy`` beside the oracle. ``shrinks`` programs are tried to make a failing one simpler (None: SHRINKS), and
    no line is looked for if it is 0; ``seconds`` of CPU time is what a program may take (None: PATIENCE)."""

    def __init__(self, strategy: Strategy, shrinks: int | None = None, seconds: float | None = None) -> None:
        self.strategy = strategy
        self._shrinks = SHRINKS if shrinks is None else shrinks
        self._runner = PoisoningRunner(strategy)
        self._machine = Machine(self._runner, SIZES, PARAMETERS, strategy.slabs)
        Setup(self._machine).exec(HEAP)
        self._patience = self._patient = PATIENCE if seconds is None else seconds
        self._endless = False
        self._saved = {base: array.copy() for base, array in self._machine.arrays.items()}

    def run(self, calls: int, seed: int, deadline: float) -> Sequential:
        """``calls`` random calls or a few more, in programs of up to LENGTH, or until ``deadline`` (time.monotonic)."""
        from hypothesis import HealthCheck, Phase, find, settings
        from hypothesis import strategies as st
        from hypothesis.errors import Flaky, NoSuchExample

        began, done, tries = time.monotonic(), 0, 0
        found: list[Operation] = []
        first = ""

        def wrong(program: list[Operation]) -> bool:
            nonlocal done, tries, found, first
            if found:
                tries += 1
                if tries > self._shrinks or time.monotonic() >= deadline:
                    raise _Enough
            elif done >= calls or (done and time.monotonic() >= deadline):
                return False
            failure = self.fails(program)
            if not found:
                done += len(program)
            if failure and (not found or _simpler(program, found)):
                found, first = list(program), failure
            return bool(failure)

        options = settings(
            max_examples=max(3 * calls // LENGTH, 1),
            phases=(Phase.generate, Phase.shrink),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        programs = st.integers(1, LENGTH // 2).flatmap(lambda n: st.lists(phrases(), min_size=n, max_size=n))
        with suppress(NoSuchExample, Flaky, _Enough):  # nothing is wrong; or it is simple enough
            find(programs.map(flat), wrong, settings=options, random=random.Random(seed))
        used: list[dict[str, int]] = []
        for program in (churning(seed), searching(seed, 2), searching(seed, 3)) if calls >= CHURN else ():
            if not found and time.monotonic() < deadline:
                done += len(program)
                if first := self.fails(program, CHURN_CHECKED):
                    found = self._pieces(program) if self._shrinks else program
                used.append(self._in_use())
        if not found and len(used) == 3 and (leak := _leaked(*used[1:])):
            return Sequential(done, time.monotonic() - began, leak)
        if not found:
            return Sequential(done, time.monotonic() - began)
        if not self._shrinks:
            return Sequential(done, time.monotonic() - began, first, tuple(found))
        shortest = self._shrink(found, deadline)
        traced: list[str] = []
        with Listening(lambda x, name, file, line: traced.append(f"{int(x):#x}, in {name} ({file}:{line})")):
            failure = self.fails(shortest) or first
        failure += "" if self._endless else self._blame(shortest)
        took = time.monotonic() - began
        return Sequential(done, took, failure, tuple(shortest), self._endless, tuple(traced[-TRACED:]))

    def _blame(self, program: list[Operation]) -> str:
        """Which line of the strategy gave the wrong answer of the last call of ``program``; empty if none did."""
        returned = Returns()
        with suppress(*MISTAKES, Endless, Broken, DialectError), patience(self._patience):
            self._restore()
            processes = _Processes(self._machine)
            for number, call in enumerate(program[:-1]):
                processes.perform(call, user=number % 2 == 0)
            with returned:
                got, wanted = processes.perform(program[-1], user=len(program) % 2 == 1)
            if got != wanted:
                return returned.of(int(self._machine.arrays["answer_base"][0]["vma"]))
        return ""

    def _restore(self) -> None:
        for base, array in self._machine.arrays.items():
            array[:] = self._saved[base]
        self._runner.forget()

    def _in_use(self) -> dict[str, int]:
        """The records that each arena has handed out, by the name of the record."""
        names = ["VMA", "page table", "page", "file"]
        arenas = self._machine.arrays["slab_base"]
        by_number = {layout.PRIVATE_BASES.index(slab.base): slab.name for slab in self._machine.private}
        names += [by_number.get(number, "") for number in range(len(arenas) - len(names))]
        counts = (arenas["top"] - arenas["free"]).tolist()
        return {name: count for name, count in zip(names, counts, strict=True) if name}

    def fails(self, program: list[Operation], every: int = 1) -> str:
        """What goes wrong first in ``program``; empty if nothing does. Layouts and invariants are looked at after
        ``every`` so many calls, and at the end."""
        with patience(self._patience):
            return self._fails(program, every)

    def _fails(self, program: list[Operation], every: int) -> str:
        self._restore()
        processes = _Processes(self._machine)
        where = "before the first call"
        try:
            for number, call in enumerate(program):
                where = f"call {number + 1}, {shown(call)}"
                got, wanted = processes.perform(call, user=number % 2 == 0)
                if got != wanted:
                    return f"{where}: gave {_hex(got)}, the oracle {_hex(wanted)}"
                if (number + 1) % every and number + 1 < len(program):
                    continue
                if processes.differ():
                    return f"{where}: the VMAs afterwards differ from the oracle's"
                self._runner.validate(self._machine)
        except Endless as error:
            self._endless, self._patience = True, IMPATIENCE
            self._shrinks = min(self._shrinks, ENDLESS_SHRINKS)
            return f"{where}: {told(error)}"
        except MISTAKES as error:
            return f"{where}: {told(error)}"
        except Exception as error:
            if isinstance(error, (ValidationError, Broken, DialectError)):
                return f"{where}: {str(error).splitlines()[0]}"
            raise
        return ""

    def _pieces(self, program: list[Operation]) -> list[Operation]:
        """A long failing program with pieces left out, larger ones first, in a third of ``shrinks`` tries."""
        tries, size = self._shrinks // 3, len(program) // 2
        while size and tries > 0:
            at = len(program) - size
            while at > -size and tries > 0:
                shorter = program[: max(at, 0)] + program[at + size :]
                tries -= 1
                if shorter and self.fails(shorter, CHURN_CHECKED):
                    program = shorter
                at -= size
            size //= 2
        return program

    def _shrink(self, program: list[Operation], deadline: float) -> list[Operation]:
        at, tries = len(program) - 1, 0
        while (
            at >= 0
            and tries <= max(self._shrinks, LENGTH)
            and (self._patience == self._patient or time.monotonic() < deadline)
        ):
            shorter = program[:at] + program[at + 1 :]
            tries += 1
            if shorter and self.fails(shorter):
                program = shorter
            at -= 1
        return program


class Returns:
    """Which functions of strategies return what while it is entered: the innermost first."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, str, str, int]] = []

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return None if frame.f_code.co_filename.startswith((PACKAGE, "<")) else self._leave

    def _leave(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self.seen.append((argument, frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno))
        return self._leave

    def of(self, value: int) -> str:
        """Who returned ``value`` first, in words."""
        for given, name, file, line in self.seen:
            if given == value:
                return f"; returned by {name} ({file}:{line})"
        return ""


class _Processes:
    """The tasks alive on a machine, and an oracle for each address space."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tasks: list[Any] = [Setup(machine)]
        self.right: dict[int, Any] = {0: self._empty()}

    def _empty(self) -> Any:
        """What a program begins with."""
        made = oracle(self.machine.parameters)
        made.start_brk = made.brk_now = HEAP
        return made

    def differ(self) -> bool:
        """Is any address space other than the oracle's?"""
        return any(Setup(self.machine, n).layout() != right.layout() for n, right in self.right.items())

    def perform(self, call: Operation, user: bool) -> tuple[Any, Any]:
        """(what the strategy gave, what the oracle gave). A call that cannot be made now is left out."""
        who, (name, *arguments) = (call[0], call[1:]) if isinstance(call[0], int) else (0, call)
        task = self.tasks[who % len(self.tasks)]
        if name in LIFE:
            getattr(self, f"_{name}")(task)
            return None, None
        if name in ("peek", "poke"):
            other, addr = self.tasks[arguments[0] % len(self.tasks)], arguments[1]
            task, user = Setup(self.machine, other.number, task.task), False
            name, arguments = ("find_vma", [addr]) if name == "peek" else ("fault", [addr, 2])
        right = self.right[task.number]
        if name == "stack":
            name, arguments = "exec_map", [STACK, 4 * PAGE, 3, 0x22 | 1 << 24]
        if name == "find_vma":
            area = right.find_vma(*arguments)
            return task.find_vma(*arguments, user=user), None if area is None else (area.vm_start, area.vm_end)
        if name == "fault":
            return task.fault(*arguments, user=user), right.fault(*arguments)
        return getattr(task, name)(*arguments), getattr(right, name)(*arguments)

    def _others(self, task: Any) -> list[Any]:
        """The other tasks of its address space."""
        return [other for other in self.tasks if other.number == task.number and other is not task]

    def _room(self, mm: bool = False) -> bool:
        """Is there a record for one more task, and for its mm?"""
        return len(self.tasks) < SIZES.tasks - 1 and (not mm or len(self.right) < SIZES.mms - 1)

    def _fork(self, task: Any) -> None:
        if self._room(mm=True):
            child = task.fork()
            self.right[child.number] = self.right[task.number].fork()
            self.tasks.append(child)

    def _thread(self, task: Any) -> None:
        if self._room():
            self.tasks.append(task.thread())

    def _exit(self, task: Any) -> None:
        if len(self.tasks) > 1:
            last = not self._others(task)
            task.exit(last=last)
            self.tasks.remove(task)
            if last:
                del self.right[task.number]

    def _exec(self, task: Any) -> None:
        """In the same record; the other tasks end (de_thread)."""
        for other in self._others(task):
            self._exit(other)
        task.exec(HEAP)
        self.right[task.number] = self._empty()

    def _exec_anew(self, task: Any) -> None:
        """In a record of its own, as by a child of vfork: others may stay behind in the old one."""
        if not self._room(mm=True):
            return
        number = next(n for n in range(1, SIZES.mms) if n not in self.right)
        last = not self._others(task)
        task.exit(last=last)
        if last:
            del self.right[task.number]
        new = Setup(self.machine, number, task.task)
        new.exec(HEAP)
        self.right[number] = self._empty()
        self.tasks[self.tasks.index(task)] = new


def _simpler(program: list[Operation], than: list[Operation]) -> bool:
    return (len(program), repr(program)) < (len(than), repr(than))


def flat(program: list[tuple[Operation, ...]]) -> list[Operation]:
    """The calls of all phrases, LENGTH at most."""
    return [call for phrase in program for call in phrase][:LENGTH]


def phrases() -> SearchStrategy[tuple[Operation, ...]]:
    """Random calls: few pages, so that calls meet, near the end of a 2 MiB region now and then, or at an edge (0 and
    the end of user addresses); by the first task, mostly. One by one, or a few that belong together: what a cache keeps
    of one page while a task's life goes on, or while another address space is looked at.
    """
    from hypothesis import strategies as st

    near = st.integers(0, 7)
    page = near | near | st.integers(0, 23) | st.integers(500, 523)
    inside = page.map(lambda number: BASE + number * PAGE)
    place = st.one_of(*[inside] * 8, st.sampled_from(EDGES))
    length = st.sampled_from([1, 1, 2, 3, 4, 8, 16]).map(lambda pages: pages * PAGE)
    rights = st.sampled_from([3, 3, 1, 7])
    who = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3])

    def call(name: str, *arguments: SearchStrategy[Any]) -> SearchStrategy[Operation]:
        return st.tuples(st.just(name), *arguments)

    mmap = call("mmap", place, length, rights, st.sampled_from([0x32, 0x32, 0x22]))
    munmap = call("munmap", place, length)
    mprotect = call("mprotect", place, length, rights)
    fault = call("fault", place, st.sampled_from([1, 2]))
    mremap = call("mremap", place, length, length, st.sampled_from([1, 3]), place)
    brk = call("brk", st.integers(0, 12).map(lambda pages: HEAP + pages * PAGE))
    madvise = call("madvise", place, length, st.sampled_from([4, 4, 10, 11, 18]))
    life = st.sampled_from([(name,) for name in LIFE] + [("stack",)])
    one = st.one_of(
        *[mmap] * 5,
        *[munmap] * 3,
        *[mprotect] * 3,
        *[fault] * 5,
        *[call("find_vma", place)] * 4,
        mremap,
        brk,
        madvise,
        life,
    )

    def by(task: int, calls: tuple[Operation, ...]) -> tuple[Operation, ...]:
        return tuple((task, *c) if task else c for c in calls)

    def alone(task: int, made: Operation) -> tuple[Operation, ...]:
        return by(task, (made,))

    def through_life(task: int, event: str, at: int, again: bool) -> tuple[Operation, ...]:
        """A page is known to the task; its life goes on; the page is looked up, mapped anew or not."""
        mapped = ("mmap", at, 4 * PAGE, 3, 0x32)
        return by(
            task, (mapped, ("fault", at, 2), ("find_vma", at), (event,), *([mapped] if again else []), ("find_vma", at))
        )

    def seen_from_outside(task: int, other: int, at: int, write: bool, fork: bool) -> tuple[Operation, ...]:
        """One page, in the own address space, in another one (a child's, which has the same), and in the own again."""
        before: tuple[Operation, ...] = (("mmap", at, 4 * PAGE, 3, 0x32), ("fork",)) if fork else ()
        return by(task, (*before, ("find_vma", at), ("poke" if write else "peek", other, at), ("find_vma", at)))

    def stays(task: int, at: int, moved: int) -> tuple[Operation, ...]:
        """One page, before and after a call that moves bounds near by."""
        return by(task, (("find_vma", at), ("munmap", at + moved * PAGE, PAGE), ("find_vma", at)))

    return st.one_of(
        *[st.builds(alone, who, one)] * 8,
        st.builds(through_life, who, st.sampled_from(LIFE), inside, st.booleans()),
        st.builds(seen_from_outside, who, st.integers(0, 3), inside, st.booleans(), st.booleans()),
        st.builds(stays, who, inside, st.sampled_from([-1, 0, 1])),
    )


def churning(seed: int) -> list[Operation]:
    """A long program that fills a small range with many VMAs and empties it, again and again: an index grows and
    shrinks by some levels, which few calls do not bring about. Then it maps pages from below upwards, each with other
    rights than the one before: each adds one range to the last node, so every fill of it occurs."""
    draw = random.Random(seed)
    calls: list[Operation] = []
    for _ in range(CHURN):
        at = BASE + draw.randrange(96) * PAGE
        filling = len(calls) // (CHURN // 4) % 2 == 0
        if draw.random() < (0.85 if filling else 0.2):
            calls.append(("mmap", at, PAGE, draw.choice([1, 3, 5, 7]), 0x32))
        else:
            calls.append(("munmap", at, draw.choice([1, 1, 1, 2, 6]) * PAGE))
    calls.append(("munmap", BASE, (96 + CLIMB) * PAGE))
    return calls + [("mmap", BASE + number * PAGE, PAGE, 1 + 2 * (number % 2), 0x32) for number in range(CLIMB)]


def searching(seed: int, lives: int) -> list[Operation]:
    """An address space whose mappings search their holes below mmap_base, among stacks and holes that others left. It
    has a child, which ends, and ends by exec; the next one sees the same calls, ``lives`` times: then each needs as
    many records. The first mapping fills all addresses below mmap_base; for the last no hole is large enough."""
    draw = random.Random(seed)
    above = ("mmap", MMAP_BASE + 16 * PAGE, PAGE, 3, 0x32)  # as a program's stack
    low = PARAMETERS.mmap_min_addr
    calls: list[Operation] = [("mmap", 0, MMAP_BASE - low, 0, 0x22), ("munmap", low, MMAP_BASE - low)]
    calls += [("mmap", 0, 2 * PAGE, 3, 0x22), above]
    for _ in range(SEARCHES):
        if draw.random() < 0.7:
            flags = draw.choice([0x22, 0x22, 0x22, 0x122])
            calls.append(("mmap", 0, draw.choice([1, 1, 2, 3, 5]) * PAGE, draw.choice([1, 3, 5, 7]), flags))
        else:
            calls.append(("munmap", MMAP_BASE - draw.randrange(1, 96) * PAGE, draw.choice([1, 1, 2]) * PAGE))
    calls.append(("mmap", 0, MMAP_BASE - low - 4 * PAGE, 0, 0x22))
    return [*calls, ("fork",), (1, "exit"), ("exec",)] * lives


def _leaked(before: dict[str, int], after: dict[str, int]) -> str:
    """What was not given back, if an address space more leaves more records in use; empty if none does."""
    more = [f"{after[name] - before[name]} of {name}" for name in after if after[name] > before[name]]
    return f"after exec an address space that saw the same calls keeps {' and '.join(more)}: a leak" if more else ""


def shown(call: Operation) -> str:
    """A call as a line of text."""
    if isinstance(call[0], int):
        return f"task {call[0]}: {shown(call[1:])}"
    return f"{call[0]}({', '.join(map(_hex, call[1:]))})"


def _hex(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_hex, value))
    return hex(value) if isinstance(value, int) and value > 4095 else str(value)
