"""Cases of a check: a strategy and a scenario on a tiny address space, with what must hold after each execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import FunctionType
from typing import Any

from benchframe.check.execution import WRITES, Broken, Op
from benchframe.check.hardware import REPLACE, Hardware
from benchframe.check.memory import Memory, chain, one_step
from benchframe.dialect.functions import Native, is_native, referenced
from benchframe.dialect.functions import resolve as resolve_hook
from benchframe.dialect.interpreter import dejit
from benchframe.events import NIL, UNKNOWN, Kind
from benchframe.mm import flags
from benchframe.mm.fork import exit_mmap, mm_free
from benchframe.mm.hooks import cache_table_prepared, show_map
from benchframe.mm.layout import (
    ARENA_TABLE,
    ARENA_VMA,
    MM,
    arena_alloc,
    arena_free,
    free_typesafe_by_rcu,
    kfree_rcu,
    rcu_read_lock,
    rcu_read_unlock,
    synchronize_rcu,
)
from benchframe.mm.locks import STEPS
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.pagetable import table_alloc
from benchframe.mm.replay import locked_event, one_event
from benchframe.mm.validate import ValidationError
from benchframe.mm.vma import split_vma_unchecked, vma_set_flags
from benchframe.runner import InterpretedRunner
from benchframe.scenario import (
    BASE,
    Call,
    Scenario,
    Setup,
    by,
    elsewhere,
    execve,
    fault,
    fork,
    is_store,
    leave,
    lookup,
    mmap,
    mprotect,
    mremap,
    munmap,
    peek,
    poke,
    thread,
    walk,
)
from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# A scenario: a small address space, what each task calls, and what must hold at the end.
#
# The set-up runs once, by the interpreter without a scheduler; every execution starts from a copy of it. At the end
# the list, the index and the page tables must agree (validate_mm), and every answer must be one that the address space
# gave at some moment of the call: mapping calls take effect in the order of their write locks, somewhere inside them.
# When one has cut a VMA, or given it new flags, that is such a moment, too: munmap cuts before it removes, and a
# speculative fault may well be served by the part that was cut off and is still there.

_USES_RCU = frozenset({kfree_rcu, synchronize_rcu, free_typesafe_by_rcu})
"""What needs to know who is in a read-side section."""
SIZES = Sizes(mms=3, tasks=6, vmas=96, tables=64, pages=128, files=4, events=32)


@dataclass
class _Layout:
    """The VMAs (vma, start, end, flags) between two mapping calls, or where one has done a part of what it does: valid
    in steps since..until of the execution."""

    since: int
    rows: list[tuple[int, int, int, int]]
    until: int | None = None


@dataclass(frozen=True)
class Answer:
    """What one call answered, and the steps between which it ran; ``lines`` are the ranges that a walk showed."""

    task: int
    call: Call
    began: int
    ended: int
    result: int
    lines: tuple[tuple[int, int], ...] = ()


def plain_runner(strategy: Strategy) -> InterpretedRunner:
    """A runner for one task, without a scheduler: runs the set-up. It counts nothing, so nothing of that is seen."""
    return InterpretedRunner(strategy, counting=False)


class Case:
    """A scenario with a strategy in it, ready to run any number of times."""

    memory_model = "sc"
    loops_are_steps = True
    """Whether a loop around a compare-and-exchange runs as one step (:mod:`benchframe.check.memory`)."""

    def __init__(self, scenario: Scenario, strategy: Strategy) -> None:
        self.scenario, self.strategy = scenario, strategy
        self._runner = plain_runner(strategy)
        machine = Machine(self._runner, SIZES, scenario.parameters, strategy.slabs)
        first = Setup(machine)
        tasks = [first, *(first.thread() for _ in scenario.tasks[1:])]
        scenario.setup(first)
        for space in tasks:
            space.find_vma(BASE)  # under the lock: each task has seen the address space as it is now
        self._events: list[list[int]] = []
        self._write_events(machine)
        self.machine = machine
        self.memory = self.make_memory(machine)
        self._rows = [self._snapshot(number) for number in range(SIZES.mms)]
        self.uses_rcu = any(_USES_RCU & set(_native(f)) for f in strategy.functions())
        self.typesafe = any(free_typesafe_by_rcu in _native(f) for f in strategy.functions())
        """Are its VMAs in a cache that is type-safe by RCU?"""
        self._make_functions()

    def make_memory(self, machine: Machine) -> Memory:
        """What the executions share."""
        return Memory(machine)

    def _write_events(self, machine: Machine) -> None:
        events, at = machine.arrays["event_base"], 1
        for task, calls in enumerate(self.scenario.tasks):
            self._events.append(list(range(at, at + len(calls))))
            for call in calls:
                row = events[at]
                row["ret"], row["file"], row["task"] = UNKNOWN, NIL, task
                for name, value in call.columns.items():
                    row[name] = value
                at += 1

    def _make_functions(self) -> None:
        replace: dict[Any, Callable[..., Any]] = {
            arena_alloc: lambda mm, which: mm.world.alloc(which),
            arena_free: lambda mm, which, slot: mm.world.free(which, slot),
            kfree_rcu: lambda mm, which, slot: mm.world.defer(which, slot),
            rcu_read_lock: lambda mm, task: mm.world.rcu(1),
            rcu_read_unlock: lambda mm, task: mm.world.rcu(-1),
            synchronize_rcu: lambda mm, task: mm.world.synchronize(),
            free_typesafe_by_rcu: lambda mm, which, slot: mm.world.free_typesafe(which, slot),
            show_map.default: lambda mm, task, start, end: mm.world.show(start, end),
            mm_free: lambda mm: mm.world.end("mm_base", mm.index),
            **STEPS,
            **(one_step() if self.loops_are_steps else {}),
            **REPLACE,
        }
        prepared_hook = resolve_hook(cache_table_prepared, self.strategy.binding)
        assert isinstance(prepared_hook, FunctionType)
        prepared = self.interpreted(prepared_hook, dict(replace))

        def new_table(mm: Any) -> int:
            """table_alloc; the slots of a fresh table are zero already."""
            table: int = mm.world.alloc(ARENA_TABLE)
            mm.world.fill("page_base", table, mapping=flags.PAGE_TABLE, refcount=1)
            prepared(mm, table)
            mm.nr_ptes += 1
            return table

        replace[table_alloc] = new_table
        for part in (split_vma_unchecked, vma_set_flags):
            replace[part] = self._noting(part, dict(replace))
        events = self.machine.arrays["event_base"]
        locked = self.interpreted(locked_event, dict(replace))

        def noted(mm: Any, task: int, index: int) -> int:
            """locked_event, with the layout noted when it is done."""
            world: CaseWorld = mm.world
            since = world.steps
            result = int(locked(mm, task, index))
            world.mapped(int(mm.id) - 1, since)
            event = events[index]
            if event["kind"] == Kind.FORK and result >= 0:
                world.mapped(int(event["addr"]), since)
            return result

        replace[locked_event] = noted
        ended = self.interpreted(exit_mmap, dict(replace))

        def noted_end(mm: Any) -> int:
            """exit_mmap, likewise: in an exit, or in an exec."""
            world: CaseWorld = mm.world
            since = world.steps
            ended(mm)
            world.mapped(int(mm.id) - 1, since)
            return 0

        replace[exit_mmap] = noted_end
        self.run_event = self.interpreted(one_event, replace)

    def _noting(self, part: Native, replace: Mapping[Any, Callable[..., Any]]) -> Callable[..., Any]:
        """``part`` of a mapping call, with the layout noted when it is done."""
        assert isinstance(part, FunctionType)
        do = self.interpreted(part, replace)

        def noted(mm: Any, *rest: Any) -> int:
            world: CaseWorld = mm.world
            since = world.steps
            result = int(do(mm, *rest))
            world.changed(int(mm.id) - 1, since)
            return result

        return noted

    def interpreted(self, function: Native, replace: Mapping[Any, Callable[..., Any]]) -> Callable[..., Any]:
        """``function`` for the interpreter, with this strategy's hooks and ``replace``."""
        return dejit(function, self.strategy.binding, None, replace)

    def _snapshot(self, number: int) -> list[tuple[int, int, int, int]]:
        """The VMAs now, read from the arrays."""
        records = self.machine.arrays["vma_base"]
        rows: list[tuple[int, int, int, int]] = []
        vma = int(self.machine.mm(number)["mmap"])
        while vma and len(rows) < len(records):
            v = records[vma]
            rows.append((vma, int(v["vm_start"]), int(v["vm_end"]), int(v["vm_flags"])))
            vma = int(v["vm_next"])
        return rows

    def program(self) -> CaseWorld:
        """A fresh execution; what the explorer calls."""
        world = self.new_world()
        for task, calls in enumerate(self._events):
            world.spawn(f"T{task}", world.body(task, calls))
        world.add_daemons()
        return world

    def new_world(self) -> CaseWorld:
        """The world of one execution."""
        return CaseWorld(self)

    def validate(self) -> None:
        """Broken if an invariant does not hold now, with everybody at rest."""
        try:
            self._runner.validate(self.machine)
        except ValidationError as error:
            text = str(error).splitlines()[0]
            raise Broken("leak" if text.endswith("a leak") else "broken invariant", text) from None

    def snapshot(self, number: int) -> list[tuple[int, int, int, int]]:
        """The VMAs of trace mm ``number`` now."""
        return self._snapshot(number)

    @property
    def first_rows(self) -> list[list[tuple[int, int, int, int]]]:
        """The VMAs of each mm at the start."""
        return self._rows


class CaseWorld(Hardware):
    """One execution of a case."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.memory)
        self.case = case
        self.answers: list[Answer] = []
        self.layouts = [[_Layout(0, rows)] for rows in case.first_rows]
        """Of each mm: what it was, from the start to now."""
        self.lines: dict[int, list[tuple[int, int]]] = {}
        """Of each task: what its walk has shown so far."""
        if case.typesafe:
            self.limbo[ARENA_VMA] = []
        if case.scenario.hardware:
            self.init_hardware()

    # ---- tasks --------------------------------------------------------------------------------------------------

    def add_daemons(self) -> None:
        """Signals and RCU threads."""
        for task in self.case.scenario.signals:
            self.words["signal", task] = 0
            self.spawn(f"signal to T{task}", self.signal(task), daemon=True)
        if self.case.uses_rcu:
            for task in range(len(self.case.scenario.tasks)):
                self.words["rcu", task] = 0
                self.words["rcu queue", task] = ()
                self.spawn(f"RCU for T{task}", self.grace(task), daemon=True)

    def body(self, task: int, calls: Sequence[int]) -> Callable[[], Any]:
        """What task ``task`` does: its calls one after the other."""

        def run() -> list[int]:
            root = self.ref(MM, 1)
            results = []
            for call, event in zip(self.case.scenario.tasks[task], calls, strict=True):
                began = self.began[task] = self.steps
                self.lines[task] = []
                if is_store(call):
                    result = self.user_store(task, event, call.columns["addr"], self.case.run_event)
                else:
                    result = int(self.case.run_event(root, event))
                self.answers.append(Answer(task, call, began, self.steps, result, tuple(self.lines[task])))
                results.append(result)
            return results

        return run

    def signal(self, task: int) -> Callable[[], Any]:
        """A signal that arrives when the scheduler likes."""

        def run() -> None:
            op = Op("signal", (("signal", task), 0, WRITES))  # always a step: whoever waits looks at it unasked
            op.before, op.value, op.loose, op.point = 0, 1, True, True
            self.announce(op)
            self.words["signal", task] = 1

        return run

    def show(self, start: int, end: int) -> int:
        """A walk of the current task shows a VMA."""
        self.lines[self.current].append((start, end))
        return 0

    def rcu(self, change: int) -> int:
        """rcu_read_lock (1) and rcu_read_unlock (-1) of the current task: they nest, the outermost is seen."""
        depth = self.sections.get(self.current, 0) + change
        if depth < 0:
            raise Broken("unbalanced", f"{self.names[self.current]}: rcu_read_unlock outside a section")
        self.sections[self.current] = depth
        if ("rcu", self.current) in self.words and depth == (1 if change > 0 else 0):
            self.set_word("rcu_read_lock" if change > 0 else "rcu_read_unlock", ("rcu", self.current), depth)
        return 0

    def synchronize(self) -> int:
        """synchronize_rcu: every task is outside a section, one after the other."""
        if self.sections.get(self.current):
            raise Broken("deadlock", f"{self.names[self.current]}: synchronize_rcu inside a read-side section")
        for other in range(len(self.case.scenario.tasks)):
            if other != self.current:
                self.await_word("grace period", ("rcu", other), lambda depth: not depth)
        return 0

    def defer(self, which: int, slot: int) -> int:
        """kfree_rcu: the task's own RCU thread will free it."""
        if self.memory.record:
            self.freed_by[self.base(which), slot] = chain()
        queue = ("rcu queue", self.current)
        self.set_word("kfree_rcu", queue, (*self.words[queue], (which, slot)))
        return 0

    def grace(self, task: int) -> Callable[[], Any]:
        """Waits until every task has been outside a read-side section, then frees what ``task`` gave up."""
        others = range(len(self.case.scenario.tasks))

        def run() -> None:
            done = 0
            queue = ("rcu queue", task)
            while True:
                self.await_word("wait for kfree_rcu", queue, lambda word, done=done: len(word) > done)  # type: ignore[misc]
                batch = self.words[queue][done:]
                done += len(batch)
                for other in others:
                    self.await_word("grace period", ("rcu", other), lambda inside: not inside)
                for which, slot in batch:
                    self.free(which, slot)

        return run

    # ---- what is right -------------------------------------------------------------------------------------------

    def mapped(self, number: int, since: int) -> None:
        """A mapping call in trace mm ``number`` is about to drop the lock, or the mm is new or has ended: what it has
        from here on."""
        for layout in self.layouts[number]:
            if layout.until is None:
                layout.until = self.steps
        self._note(number, since)

    def changed(self, number: int, since: int) -> None:
        """A mapping call in trace mm ``number`` has done a part, which others may see until it is over."""
        self._note(number, since)

    def _note(self, number: int, since: int) -> None:
        self.layouts[number].append(_Layout(since, self.case.snapshot(number)))

    def finish(self) -> None:
        """Everything has come to rest: the answers, then the invariants."""
        for answer in self.answers:
            self._judge(answer)
        self.check_hardware()
        self.case.validate()

    def _judge(self, answer: Answer) -> None:
        if is_store(answer.call) and answer.result == 0:
            return  # a store that did not fault asked nobody
        kind = answer.call.columns["kind"]
        if wrong := answer.call.wrong(answer.result):
            raise Broken("wrong answer", f"T{answer.task}: {answer.call.label} {wrong}")
        if answer.call.answer is not None or kind not in (Kind.FAULT, Kind.LOOKUP, Kind.WALK):
            return
        met = [
            layout_.rows
            for layout_ in self.layouts[answer.call.columns.get("mm", 0)]
            if layout_.since <= answer.ended and (layout_.until is None or layout_.until >= answer.began)
        ]
        if kind == Kind.WALK:
            problem = wrong_lines(answer.lines, met)
            if problem:
                raise Broken("stale answer", f"T{answer.task}: {answer.call.label}: {problem}")
            return
        addr = answer.call.columns["addr"]
        if not any(is_right(rows, addr, answer) for rows in met):
            raise Broken(
                "stale answer",
                f"T{answer.task}: {answer.call.label} gave {in_words(answer.result)}, which is not right at any moment "
                "of the call",
                key=("vma_base", answer.result) if answer.result > 0 else None,
                at=(answer.task, answer.ended),
            )


def _native(function: FunctionType) -> list[FunctionType]:
    """The native functions that it names."""
    return [obj for obj in referenced(function).values() if is_native(obj)]


def in_words(result: int) -> str:
    """What a fault or lookup gave."""
    names = {-1: "no VMA", -2: "access refused", 0: "no VMA"}
    return names.get(result, f"VMA #{result}" if result > 0 else f"fault code {result}")


def is_right(rows: list[tuple[int, int, int, int]], addr: int, answer: Answer) -> bool:
    """Is this the answer of the address space ``rows``?"""
    found = next((row for row in rows if addr < row[2]), None)
    if answer.call.columns["kind"] == Kind.LOOKUP:
        return answer.result == (found[0] if found else 0)
    covers = found is not None and (found[1] <= addr or found[3] & flags.VM_GROWSDOWN)
    if not covers or found is None:
        return answer.result == flags.FAULT_MAPERR
    if answer.call.columns["prot"] & flags.ACCESS_WRITE and not found[3] & flags.VM_WRITE:
        return answer.result == flags.FAULT_ACCERR
    return answer.result == found[0]


def wrong_lines(lines: Sequence[tuple[int, int]], met: Sequence[Sequence[tuple[int, int, int, int]]]) -> str:
    """What is wrong with the ranges that a walk showed, if it has met these layouts; empty if nothing is.

    Each must be a VMA of one of them, and what all of them map must be in one (the kernel's promise for
    /proc/PID/maps, Documentation/filesystems/proc.rst)."""
    known = {row[1:3] for rows in met for row in rows}
    for start, end in lines:
        if (start, end) not in known:
            return f"{start:#x}-{end:#x} was shown, which was a VMA at no moment of the walk"
    bounds = sorted({bound for rows in met for row in rows for bound in row[1:3]})
    for start, end in pairwise(bounds):
        always = all(any(row[1] <= start and end <= row[2] for row in rows) for rows in met)
        if always and not any(low <= start and end <= high for low, high in lines):
            return f"{start:#x}-{end:#x} was not shown, which was mapped all the time"
    return ""


# ----------------------------------------------------------------------------------------------------------------------
# The scenarios that every strategy must survive.
#
# Pages count from the start of a 2 MiB region; the last page touched in a set-up is what a cache of the last fault
# holds for its region. B numbers are the historic races that a scenario was written for (docs/checking.md).

REGION = 512
"""Pages of one page-table page."""


def _two(space: Setup) -> None:
    """Two VMAs in one region; the lower one was used last."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(8, 0)


def _lone(space: Setup) -> None:
    """A VMA alone in its region, another far away."""
    space.map(0, 4)
    space.map(4 * REGION, 4)
    space.touch(4 * REGION, 0)


def _gap(space: Setup) -> None:
    """Two VMAs that will merge when the gap between them is filled; the upper one was used last."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(0, access=1)
    space.touch(8)


def _long_gap(space: Setup) -> None:
    """As _gap, but the upper VMA reaches into the next region, where it was used."""
    space.map(0, 4)
    space.map(8, REGION)
    space.touch(0, access=1)
    space.touch(REGION + 2)


def _unused_neighbour(space: Setup) -> None:
    """The lower VMA was only read: its first write needs an anon_vma and looks at its neighbour, which lies in another
    region, for one."""
    space.map(REGION - 4, 4)
    space.map(REGION, 4, prot=1)
    space.touch(REGION - 4, access=1)


def _stack(space: Setup) -> None:
    space.map(0, 4)
    space.stack(REGION - 8, 4)
    space.touch(REGION - 6)


def _stack_above_hole(space: Setup) -> None:
    """A VMA, a hole of four pages, a stack in use; no guard gap, so that it may fill the hole."""
    space.map(0, 4)
    space.stack(8, 4)
    space.touch(9, 0)


def _two_regions(space: Setup) -> None:
    """Two VMAs side by side in two regions, so that no table's lock keeps them apart; the lower one was written."""
    space.map(REGION - 2, 2)
    space.map(REGION, 2, prot=1)
    space.touch(REGION - 2)


def _fresh(space: Setup) -> None:
    """Nothing touched yet: the first faults make tables and the anon_vma."""
    space.map(0, 4)


OTHER, LATER = 1, 2
"""Trace mms of a second process, and of one that comes later."""
ENDED, CHILD = 4, 5
"""A task that ended, and the task of the second process."""


def _ended_task(space: Setup, number: int) -> None:
    """A task that looked up, and is no more: its record will be the next one's."""
    task = space.thread(number)
    task.find_vma(BASE)
    task.find_vma(BASE, user=True)
    task.exit(last=False)


def _before_fork(space: Setup) -> None:
    _two(space)
    _ended_task(space, CHILD)


def _two_processes(space: Setup) -> None:
    """A process and its child, which has the same addresses; each has looked up."""
    _two(space)
    child = space.fork(CHILD)
    for one in (space, child):
        one.fault(BASE, 2)
        one.find_vma(BASE)
        one.find_vma(BASE, user=True)
    _ended_task(space, ENDED)


COMMON = (
    Scenario("lookup-munmap", "a lookup while its VMA is unmapped (B1)", _two, ((lookup(1),), (munmap(0, 4),))),
    Scenario("lookup-merge", "a lookup while a merge removes its VMA (B1)", _gap, ((lookup(9),), (mmap(4, 4),))),
    Scenario(
        "merge-then-lookup",
        "a merge removes a VMA that is cached in another region, then it is looked up (B2)",
        _long_gap,
        ((lookup(2), lookup(REGION + 2)), (mmap(4, 4),)),
    ),
    Scenario("fault-merge", "a fault while a merge removes its VMA (B3)", _gap, ((fault(9),), (mmap(4, 4),))),
    Scenario(
        "fault-munmap-signal",
        "a fault while its VMA is unmapped; a signal may end the wait (B4)",
        _two,
        ((fault(1),), (munmap(0, 4),)),
        signals=(1,),
    ),
    Scenario(
        "lookup-munmap-table",
        "a lookup while the page-table page that it reads is freed (B5)",
        _lone,
        ((lookup(1),), (munmap(0, 4),)),
    ),
    Scenario(
        "fault-munmap",
        "a fault while its VMA is unmapped, then lookups of a neighbour and of the unmapped range (B6)",
        _two,
        ((fault(1), lookup(9), lookup(1)), (munmap(0, 4),)),
    ),
    Scenario(
        "fault-munmap-neighbour",
        "a first write fault while the VMA next to it is unmapped",
        _unused_neighbour,
        ((fault(REGION - 3),), (munmap(REGION, 4),)),
    ),
    Scenario(
        "fault-munmap-region",
        "a fault while another VMA of the same 2 MiB is unmapped",
        _two,
        ((fault(1),), (munmap(8, 4),)),
    ),
    Scenario(
        "two-lookups-munmap",
        "two lookups while their VMA is unmapped",
        _two,
        ((lookup(1),), (lookup(2),), (munmap(0, 4),)),
    ),
    Scenario(
        "fault-two-writers",
        "a fault between two mapping calls",
        _two,
        ((fault(1),), (munmap(0, 4),), (mprotect(8, 2, 1),)),
    ),
    Scenario(
        "fault-mprotect",
        "a write fault while mprotect removes write permission",
        _two,
        ((fault(1),), (mprotect(0, 2, 1),)),
    ),
    Scenario("fault-mremap", "a fault while its VMA moves", _two, ((fault(1),), (mremap(0, 4, 16),))),
    Scenario("fault-fork", "a write fault while fork copies the tables", _two, ((fault(0),), (fork(),))),
    Scenario(
        "faults-fork", "two write faults while fork copies the tables", _two, ((fault(0),), (fault(1),), (fork(),))
    ),
    Scenario("faults-first", "two first faults: tables, anon_vma", _fresh, ((fault(0),), (fault(1),))),
    Scenario(
        "fault-remap",
        "a fault while its VMA is unmapped and another mapped in its place",
        _two,
        ((fault(1),), (munmap(0, 4), mmap(0, 4, 1))),
    ),
    Scenario(
        "stack-lookup", "a stack grows while it is looked up", _stack, ((fault(REGION - 9),), (lookup(REGION - 7),))
    ),
    Scenario(
        "stack-fills-hole",
        "a stack grows over the whole hole below it during a walk of the index (B17, B18)",
        _stack_above_hole,
        ((fault(4),), (lookup(9),)),
        parameters=Parameters(stack_guard_gap=0),
    ),
    Scenario(
        "fault-mremap-neighbour",
        "a fault in a VMA whose anon_vma mremap moves away, while its neighbour is unmapped (B23)",
        _two_regions,
        ((fault(REGION - 1),), (mremap(REGION - 2, 2, 16, keep=True), munmap(REGION, 2))),
    ),
    Scenario("stack-stack", "two faults grow the same stack", _stack, ((fault(REGION - 9),), (fault(REGION - 10),))),
    Scenario(
        "exec-lookup",
        "an exec, then lookups where the old program had VMAs and the new one has others or none",
        _two_processes,
        ((lookup(0), execve(), lookup(0), mmap(0, 4, 1), lookup(0), lookup(9)),),
    ),
    Scenario(
        "fork-lookup",
        "a fork, then the child looks up while the parent unmaps",
        _before_fork,
        (
            (fork(OTHER, CHILD), elsewhere(lookup(1), OTHER, CHILD), elsewhere(fault(1), OTHER, CHILD)),
            (munmap(0, 4),),
        ),
    ),
    Scenario(
        "foreign-lookup",
        "lookups in the own mm and in another process's, as ptrace and /proc make them, while that one unmaps",
        _two_processes,
        (
            (lookup(1), peek(1, OTHER), lookup(1), poke(9, OTHER), lookup(9)),
            (elsewhere(munmap(0, 4), OTHER, CHILD),),
        ),
    ),
    Scenario(
        "walk-split",
        "/proc/PID/maps is read while mprotect cuts a VMA in two: neither part may be missing",
        _fresh,
        ((walk(),), (mprotect(2, 2, 1),)),
    ),
    Scenario(
        "exit-lookup",
        "a process ends, another begins with its task, a task ends and another begins; each looks up",
        _two_processes,
        (
            (
                elsewhere(lookup(0), OTHER, CHILD),
                elsewhere(leave(), OTHER, CHILD),
                elsewhere(execve(), LATER, CHILD),
                elsewhere(lookup(0), LATER, CHILD),
                elsewhere(mmap(0, 4, 1), LATER, CHILD),
                elsewhere(lookup(0), LATER, CHILD),
                munmap(0, 4),
                thread(ENDED),
                by(lookup(0), ENDED),
                by(lookup(9), ENDED),
            ),
        ),
    ),
)
