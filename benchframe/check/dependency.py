"""Integers that know from which loads they come: the interpreter uses them to track address, data and control
dependencies.

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
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

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
        found = list(dis.get_instructions(code))
        self._at = [one.offset for one in found]
        jumps = {one.offset: one.argval for one in found if one.opcode in _JUMPS}
        after = [two.offset for one, two in zip(found, found[1:], strict=False) if one.opcode in _JUMPS | _ENDS]
        self.starts = sorted({0, *jumps.values(), *after})
        self.next: list[tuple[int, ...]] = [()] * len(self.starts)
        self._line = [0] * len(self.starts)
        lines = dict(_lines(code))
        for one, following in zip(found, [*found[1:], None], strict=True):
            block = self.block(one.offset)
            if one.offset in lines:
                self._line[block] = lines[one.offset]
            if following is not None and self.block(following.offset) == block:
                continue
            targets = [jumps[one.offset]] if one.offset in jumps else []
            if following is not None and one.opcode not in _ENDS and one.opname not in _ALWAYS:
                targets.append(following.offset)
            self.next[block] = tuple(self.block(target) for target in targets)
        self._names = [one.opname for one in found]

    def block(self, offset: int) -> int:
        """The block in which an instruction stands."""
        return bisect_right(self.starts, offset) - 1

    def decides(self, offset: int) -> bool:
        """Does the instruction that asks an integer for its truth decide a jump? Not so a ``not x`` that is a value, or
        ``min(x, y)``."""
        at = bisect_right(self._at, offset) - 1
        name, following = self._names[at : at + 2]
        return "JUMP" in name or (name in ("TO_BOOL", "COMPARE_OP") and "JUMP" in following)

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
        joins = [at for at in after if not ends & self.reach(branch, at) - {at}] if ends else []
        between = [self.reach(branch, at) for at in joins]
        return frozenset(min(between, key=len, default=after))

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


def _lines(code: CodeType) -> list[tuple[int, int]]:
    """For each instruction: its offset and line."""
    return [(at, line) for start, end, line in code.co_lines() if line is not None for at in range(start, end, 2)]


@lru_cache(maxsize=1024)
def _flow(code: CodeType) -> Flow:
    return Flow(code)


@lru_cache(maxsize=8192)
def _arms(code: CodeType, block: int) -> tuple[frozenset[int], bool]:
    flow = _flow(code)
    return flow.arms(block), flow.loops(block)


class Branches:
    """The branches of one task on which its next store depends.

    They are looked at where the task branches or does an event. A branch counts until its function is at neither of
    its arms, nor in a call from there. One that may leave a loop counts from then on.
    """

    def __init__(self) -> None:
        self._open: list[tuple[FrameType, int, int]] = []
        """Branches in whose arms the task is: the running function, the block, the dependencies."""
        self._new = 0
        self.arms = 0
        """The loads that decided on the arms in which the task is, as a mask of its events."""

    def add(self, deps: int, frame: FrameType) -> None:
        """A branch was decided in ``frame`` by a value that depends on ``deps``."""
        flow = _flow(frame.f_code)
        if flow.decides(frame.f_lasti):
            self.look()
            block = flow.block(frame.f_lasti)
            if (frame, block, deps) not in self._open:
                self._open.append((frame, block, deps))

    def look(self) -> None:
        """Drop the branches whose arms the task has left."""
        if not self._open:
            self.arms = 0
            return
        here: dict[FrameType, int] = {}
        frame: FrameType | None = sys._getframe(1)
        wanted = {one[0] for one in self._open}
        while frame is not None and len(here) < len(wanted):
            if frame in wanted:
                here[frame] = _flow(frame.f_code).block(frame.f_lasti)
            frame = frame.f_back
        left = []
        self.arms = 0
        for one in self._open:
            arms, loops = _arms(one[0].f_code, one[1])
            if one[0] in here and here[one[0]] in arms:
                left.append(one)
                self.arms |= one[2]
            elif loops:
                self._new |= one[2]
        self._open = left

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
