"""Integers that know from which loads they come: the interpreter uses them to track address, data and control
dependencies.

``Traced(7, 0b101)`` is 7 and depends on events 0 and 2 of the running task. Arithmetic and comparisons combine the
dependencies of their operands. When such an integer decides a branch, the running task is notified: a control
dependency.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_branch: list[Callable[[int], None]] = [lambda deps: None]


def on_branch(tell: Callable[[int], None]) -> None:
    """From now on call ``tell(deps)`` for each branch."""
    _branch[0] = tell


class Traced(int):
    """An integer with ``deps``, a mask of the loads from which it comes."""

    deps: int

    def __new__(cls, value: int, deps: int) -> Traced:
        made = int.__new__(cls, value)
        made.deps = deps
        return made

    def __bool__(self) -> bool:
        _branch[0](self.deps)
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
