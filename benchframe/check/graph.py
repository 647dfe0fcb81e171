"""Execution graphs: what tasks did to shared memory, which store each load read, and what an integer depends on.

A graph has the events of each task in program order, for each load the store it reads from (*rf*), and for each
location its stores in the order in which they reach memory (*co*). There is no order in time: one graph represents
every interleaving in which the same loads read from the same stores. Labels never change and are shared by all graphs
that contain them, so a copy is cheap: O(events) references.

``Traced(7, 0b101)`` is 7 and depends on events 0 and 2 of the running task. Arithmetic and comparisons combine the
dependencies of their operands. When such an integer decides a branch, :func:`on_branch` is told of it, and
:class:`Branches` keeps which branches a store depends on.

Which stores these are, the kernel's tools/memory-model/Documentation says (6.12). control-dependencies.txt: "Control
dependencies apply only to the then-clause and else-clause of the if-statement containing the control dependency,
including any functions that these two clauses call"; code behind the statement is in no order, and loads never are.
explanation.txt: the load "affects whether the second event is executed at all". So what comes after a loop depends on
each branch that may leave the loop: no compiler moves a store ahead of a loop that may not end.
"""

from __future__ import annotations

import dis
import sys
from bisect import bisect_right
from collections.abc import Callable, Hashable
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

Id = int
"""An event: task << SHIFT | index in the task."""
SHIFT = 20
INIT = -1
"""The initial store of a location."""
WAITS = -2
"""A load without a store to read from yet: its task is blocked."""


class Label:
    """The operation of one event.

    ``kind``: R, W, F (a barrier), C (a choice of ``options``). ``order`` of a load: once, acquire; of a store: once,
    release; of a barrier: its name. ``rmw``: part of a read-modify-write; ``full``: of a fully ordered one. ``wait``:
    the values with which a blocking load continues; ``excused``: if it waits for ever, that is not a deadlock.
    ``addr``, ``data``: bit i is set if the address or the value depends on event i of the task; ``ctrl``: if event i
    decided a branch since the event before, which orders all later stores; ``arm``: if it decided on the branch in
    whose arm this event stands. ``plain``: no READ_ONCE. ``tag``: its role (lock, unlock, free, rcu_read_lock,
    rcu_read_unlock, gp). ``place`` is its place in the text, ``chain`` the functions that were running there, the
    innermost first. ``weaker``: its ordering is weaker than the text's.
    """

    __slots__ = (
        "addr", "arm", "chain", "ctrl", "data", "excused", "full", "info", "kind", "loc", "options", "order", "place",
        "plain", "rmw", "tag", "value", "wait", "weaker",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        loc: Hashable = None,
        value: Any = None,
        order: str = "once",
        *,
        rmw: bool = False,
        full: bool = False,
        wait: Callable[[Any], bool] | None = None,
        excused: bool = False,
        plain: bool = False,
        addr: int = 0,
        data: int = 0,
        ctrl: int = 0,
        tag: str = "",
        options: int = 0,
        info: Any = None,
        place: tuple[str, int, str] | None = None,
    ) -> None:
        self.kind, self.loc, self.value, self.order = kind, loc, value, order
        self.rmw, self.full, self.wait, self.excused, self.plain = rmw, full, wait, excused, plain
        self.addr, self.data, self.ctrl, self.tag = addr, data, ctrl, tag
        self.arm, self.weaker = 0, False
        self.chain: tuple[str, ...] = ()
        self.options, self.info, self.place = options, info, place

    def __repr__(self) -> str:
        return f"{self.kind}{'' if self.order == 'once' else '.' + self.order} {self.loc} {self.value!r}"

    @property
    def operation(self) -> str:
        """What it is to who exchanges orderings: load, store, rmw, or the barrier's name."""
        if self.kind == "F":
            return self.order
        if self.rmw:
            return "rmw"
        return "load" if self.kind == "R" else "store"

    def same(self, other: Label) -> bool:
        """Whether it is the same event. A replay must yield the same events as before."""
        return (
            self.kind == other.kind
            and self.loc == other.loc
            and self.order == other.order
            and self.rmw == other.rmw
            and self.tag == other.tag
            and (self.kind != "W" or self.value == other.value)
        )


class Graph:
    """One execution, or the beginning of one."""

    __slots__ = ("co", "first", "order", "rf", "rows", "tasks", "waiting")

    def __init__(self, tasks: int) -> None:
        self.tasks: list[list[Label]] = [[] for _ in range(tasks)]
        self.rf: dict[Id, int] = {}
        """For each load: the store's id, INIT or WAITS. For each choice: the option."""
        self.co: dict[Hashable, tuple[Id, ...]] = {}
        """For each location: its stores, without the initial one."""
        self.order: list[Id] = []
        """Every event in the order in which the search added it."""
        self.waiting: dict[Hashable, tuple[Id, ...]] = {}
        """For each location: blocked loads."""
        self.first = False
        """A task reads what another stored, by an access whose ordering was weakened: looked at before other graphs."""
        self.rows: Any = None
        """A :class:`benchframe.check.order.Order`: what the memory model orders, maintained while the search adds
        events."""

    def copy(self) -> Graph:
        """Another graph with the same events."""
        made = Graph.__new__(Graph)
        made.tasks = [task[:] for task in self.tasks]
        made.rf = self.rf.copy()
        made.co = self.co.copy()
        made.order = self.order[:]
        made.waiting = self.waiting.copy()
        made.first = self.first
        made.rows = self.rows.copy() if self.rows is not None else None
        return made

    def label(self, event: Id) -> Label:
        """The label of ``event``."""
        return self.tasks[event >> SHIFT][event & ((1 << SHIFT) - 1)]

    def add(self, task: int, label: Label) -> Id:
        """Append an event to a task."""
        event = task << SHIFT | len(self.tasks[task])
        self.tasks[task].append(label)
        self.order.append(event)
        return event

    def read(self, event: Id, store: int) -> None:
        """Let load ``event`` read from ``store``, or wait (WAITS)."""
        loc = self.label(event).loc
        if self.rf.get(event) == WAITS:
            left = tuple(one for one in self.waiting.pop(loc) if one != event)
            if left:
                self.waiting[loc] = left
        self.rf[event] = store
        if store == WAITS:
            self.waiting[loc] = (*self.waiting.get(loc, ()), event)
        elif not self.first:
            self.first = self._weaker(event, store)

    def _weaker(self, event: Id, store: int) -> bool:
        label = self.label(event)
        across = label.kind == "R" and store >= 0 and store >> SHIFT != event >> SHIFT
        return across and (label.weaker or self.label(store).weaker)

    def place(self, event: Id, at: int) -> None:
        """Put store ``event`` at position ``at`` of its location's order."""
        loc = self.label(event).loc
        chain = self.co.get(loc, ())
        self.co[loc] = (*chain[:at], event, *chain[at:])

    def prefix(self, event: Id) -> set[Id]:
        """The event and all events before it by program order and reads-from."""
        seen: set[Id] = set()
        todo = [event]
        rf, last = self.rf, (1 << SHIFT) - 1
        while todo:
            at = todo.pop()
            while at not in seen:
                seen.add(at)
                source = rf.get(at, INIT)
                if source >= 0 and self.label(at).kind == "R":
                    todo.append(source)
                if not at & last:
                    break
                at -= 1
        return seen

    def without(self, gone: set[Id]) -> Graph:
        """A copy without the events ``gone``, which are the last ones of their tasks."""
        made = Graph.__new__(Graph)
        made.tasks = []
        for number, task in enumerate(self.tasks):
            base, keep = number << SHIFT, len(task)
            while keep and base | (keep - 1) in gone:
                keep -= 1
            made.tasks.append(task[:keep])
        made.rf = {event: source for event, source in self.rf.items() if event not in gone}
        made.co = {loc: tuple(e for e in chain if e not in gone) for loc, chain in self.co.items()}
        made.order = [event for event in self.order if event not in gone]
        made.waiting = {
            loc: left for loc, ids in self.waiting.items() if (left := tuple(e for e in ids if e not in gone))
        }
        made.rows = None
        made.first = self.first and any(
            made._weaker(event, store) for event, store in made.rf.items() if store not in gone
        )
        return made

    def key(self) -> tuple[Any, ...]:
        """The identity of a graph: events, rf and co."""
        return (
            tuple(tuple((one.kind, one.loc, one.order, repr(one.value)) for one in task) for task in self.tasks),
            tuple(sorted(self.rf.items())),
            tuple(sorted(((repr(loc), tuple(chain)) for loc, chain in self.co.items() if chain), key=str)),
        )


_branch: list[Callable[[int, FrameType], None]] = [lambda deps, frame: None]


def on_branch(tell: Callable[[int, FrameType], None]) -> None:
    """From now on call ``tell(deps, frame)`` for each branch that a traced integer decides; ``frame`` is where."""
    _branch[0] = tell


class Traced(int):
    """An integer with ``deps``, a mask of the loads from which it comes."""

    deps: int

    def __new__(cls, value: int, deps: int) -> Traced:
        made = int.__new__(cls, value)
        made.deps = deps
        return made

    def __bool__(self) -> bool:
        _branch[0](self.deps, sys._getframe(1))
        return int.__bool__(self)

    __hash__ = int.__hash__

    def __neg__(self) -> Any:
        return Traced(int.__neg__(self), self.deps)

    def __invert__(self) -> Any:
        return Traced(int.__invert__(self), self.deps)


def deps_of(value: Any) -> int:
    """The dependencies of a value; 0 for a plain integer."""
    return value.deps if type(value) is Traced else 0


def traced(value: Any, deps: int) -> Any:
    """``value`` with dependencies, if there are any."""
    return Traced(value, deps) if deps else value


def as_int(value: Any) -> Any:
    """``int()`` for strategy code: keeps the value's dependencies."""
    return value if type(value) is Traced else int(value)


def _binary(name: str) -> Callable[[Any, Any], Any]:
    plain = getattr(int, name)

    def operate(self: Any, other: Any) -> Any:
        result = plain(self, other)
        if result is NotImplemented:
            return result
        return Traced(result, self.deps | other.deps if type(other) is Traced else self.deps)

    operate.__name__ = name
    return operate


for _name in ("add", "sub", "mul", "floordiv", "mod", "lshift", "rshift", "and", "or", "xor"):
    setattr(Traced, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(Traced, f"__r{_name}__", _binary(f"__r{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Traced, f"__{_name}__", _binary(f"__{_name}__"))


# ---- branches --------------------------------------------------------------------------------------------------------


class Flow:
    """The control flow of one function: blocks of its bytecode, and which block may follow which.

    A block is the number of its first instruction in ``starts``, the offsets at which blocks begin.
    """

    def __init__(self, code: CodeType) -> None:
        self.code = code
        found = list(dis.get_instructions(code))
        self._offsets = [one.offset for one in found]
        self._names = [one.opname for one in found]
        jumps = {one.offset: one.argval for one in found if one.opcode in _JUMPS}
        after = [two.offset for one, two in pairwise(found) if one.opcode in _JUMPS | _ENDS]
        self.starts = sorted({0, *jumps.values(), *after})
        self.next: list[tuple[int, ...]] = [()] * len(self.starts)
        self._line = [0] * len(self.starts)
        """Of each block: the line of its last instruction."""
        lines = {at: line for start, end, line in code.co_lines() if line for at in range(start, end, 2)}
        for one, following in zip(found, [*found[1:], None], strict=True):
            block = bisect_right(self.starts, one.offset) - 1
            self._line[block] = lines.get(one.offset, self._line[block])
            if following is not None and following.offset not in self.starts:
                continue
            targets = [jumps[one.offset]] if one.offset in jumps else []
            if following is not None and one.opcode not in _ENDS and one.opname not in _ALWAYS:
                targets.append(following.offset)
            self.next[block] = tuple(bisect_right(self.starts, target) - 1 for target in targets)
        self._blocks: dict[int, int] = {}
        self._decides: dict[int, bool] = {}
        self._arms: dict[int, tuple[frozenset[int], bool]] = {}

    def block(self, offset: int) -> int:
        """The block in which an instruction stands."""
        found = self._blocks.get(offset)
        if found is None:
            found = self._blocks[offset] = bisect_right(self.starts, offset) - 1
        return found

    def decides(self, offset: int) -> bool:
        """Does the instruction that asks an integer for its truth decide a jump? Not so a ``not x`` that is a value, or
        ``min(x, y)``."""
        found = self._decides.get(offset)
        if found is None:
            at = bisect_right(self._offsets, offset) - 1
            name, following = self._names[at : at + 2]
            found = "JUMP" in name or (name in ("TO_BOOL", "COMPARE_OP") and "JUMP" in following)
            self._decides[offset] = found
        return found

    def branch(self, block: int) -> tuple[frozenset[int], bool]:
        """What :meth:`arms` and :meth:`loops` say of a branch."""
        found = self._arms.get(block)
        if found is None:
            found = self._arms[block] = self.arms(block), self.loops(block)
        return found

    def reach(self, start: int, without: int = -1) -> set[int]:
        """The blocks that may run after ``start`` without passing the block ``without``."""
        seen: set[int] = set()
        todo = [one for one in self.next[start] if one != without]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += [one for one in self.next[at] if one != without]
        return seen

    def arms(self, branch: int) -> frozenset[int]:
        """The blocks between a branch and where its arms meet again, which every way to the function's end passes."""
        after = self.reach(branch)
        ends = {at for at in after if not self.next[at]}
        between = after
        for join in after if ends else ():
            before = self.reach(branch, join)
            if not ends & before and len(before) < len(between):
                between = before
        return frozenset(between)

    def loops(self, branch: int) -> bool:
        """Does the branch decide whether a loop goes on? The test of a ``while`` stands twice, before the loop and at
        its end: both do."""
        same = [at for at, line in enumerate(self._line) if line == self._line[branch] and len(self.next[at]) > 1]
        return any(
            at in self.reach(at) and any(at != one and at not in self.reach(one) for one in self.next[at])
            for at in {branch, *same}
        )


_JUMPS = frozenset({*dis.hasjrel, *dis.hasjabs})
_ENDS = frozenset(dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE")
                  if name in dis.opmap)  # fmt: skip
_ALWAYS = ("JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")


_flows: dict[int, Flow] = {}


def _flow(code: CodeType) -> Flow:
    """The flow of a function, made once: by its identity, since a code object is slow to hash."""
    found = _flows.get(id(code))
    if found is None:
        found = _flows[id(code)] = Flow(code)
    return found


class _Open:
    """A running function and its branches in whose arms the task is."""

    __slots__ = ("at", "branches", "deps", "flow", "frame")

    def __init__(self, frame: FrameType) -> None:
        self.frame, self.flow, self.at = frame, _flow(frame.f_code), -1
        self.branches: dict[int, int] = {}
        """Of each branch's block: the loads on which it depended."""
        self.deps = 0
        """All of them."""

    def left(self) -> int:
        """Drop the branches whose arms the function has left; the loads of those that may leave a loop."""
        self.at = self.frame.f_lasti
        here, lasting = self.flow.block(self.at), 0
        for block, deps in list(self.branches.items()):
            arms, loops = self.flow.branch(block)
            if here not in arms:
                del self.branches[block]
                lasting |= deps if loops else 0
        self.deps = 0
        for deps in self.branches.values():
            self.deps |= deps
        return lasting

    def ending(self) -> int:
        """The loads of the branches that left a loop, when the function has returned."""
        lasting = 0
        for block, deps in self.branches.items():
            lasting |= deps if self.flow.branch(block)[1] else 0
        return lasting

    def ended(self) -> bool:
        """Has the function returned?"""
        try:
            self.frame.clear()
        except RuntimeError:  # it runs
            return False
        return True


class Branches:
    """The branches of one task on which its next store depends.

    They are looked at where the task branches or stores. A branch counts until its function is at neither of its arms,
    nor in a call from there. One that may leave a loop counts from then on.
    """

    def __init__(self) -> None:
        self._open: list[_Open] = []
        """The outermost function first."""
        self._new = 0
        self.arms = 0
        """The loads that decided on the arms in which the task is, as a mask of its events."""

    def add(self, deps: int, frame: FrameType) -> None:
        """A branch was decided in ``frame`` by a value that depends on ``deps``."""
        flow = _flow(frame.f_code)
        if not flow.decides(frame.f_lasti):
            return
        running = self._open
        while running and running[-1].frame is not frame and running[-1].ended():
            self._new |= running.pop().ending()
        if running and running[-1].frame is frame:
            mine = running[-1]
            self._new |= mine.left()
        else:
            mine = _Open(frame)
            running.append(mine)
        block = flow.block(frame.f_lasti)
        mine.branches[block] = mine.branches.get(block, 0) | deps
        mine.at = -1

    def look(self) -> None:
        """Drop the branches whose arms the task has left."""
        running = self._open
        while running and running[-1].ended():
            self._new |= running.pop().ending()
        self.arms = 0
        for one in running:
            if one.at != one.frame.f_lasti:
                self._new |= one.left()
            self.arms |= one.deps

    def acquire(self) -> None:
        """smp_acquire__after_ctrl_dep in an arm: whatever comes later depends on the branch, behind the arms too. No
        compiler moves a store ahead of it."""
        self.look()
        self._new |= self.arms

    def lasting(self) -> int:
        """The loads, new since this was asked last, on which all later stores depend."""
        new, self._new = self._new, 0
        return new

    def clear(self) -> None:
        """Forget the running functions."""
        self._open = []


__all__ = ["Branches", "Flow", "Traced", "as_int", "deps_of", "on_branch", "traced"]
