"""Strategy code rewritten for counting: a function whose accesses, branches and counted hooks leave records.

The dialect is small enough to be written anew: references become plain indices, ``v.vm_end`` becomes
``(_A(place + v * 192) or vm_end[v])``, where ``_A`` appends one integer to the record and gives None. A function is
rewritten once for each combination of argument kinds (integer, or reference into a slab), as a compiler would.
That is several times faster than proxies that see each access, and sees branches too.

What counts as a branch: each decision of an ``if``, ``while``, ``for`` or conditional expression, and each operand of
``and`` and ``or`` after the first that is evaluated. The compiler may make a conditional move of one, or unroll.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from benchframe.dialect.function import Binding, where
from benchframe.dialect.interp import wrapped
from benchframe.dialect.struct import DialectError, Slab
from benchframe.engine.cost.expressions import Kind
from benchframe.engine.cost.memory import BRANCH, SHIFT, Memory
from benchframe.engine.cost.writer import Writer


def rmw_add(column: Any, index: int, delta: int, slab: Slab, field: str) -> int:
    """fetch_add on a column; wraps as the hardware does."""
    old: int = column[index]
    column[index] = wrapped(slab.struct, field, old + delta)
    return old


def rmw_xchg(column: Any, index: int, value: int) -> int:
    """xchg on a column."""
    old: int = column[index]
    column[index] = value
    return old


def rmw_cmpxchg(column: Any, index: int, old: int, new: int) -> int:
    """cmpxchg on a column."""
    seen: int = column[index]
    if seen == old:
        column[index] = new
    return seen


def wait_add(column: Any, index: int, mask: int, delta: int) -> int:
    """wait_then_add with one task: DialectError if the lock is not free."""
    old: int = column[index]
    if old & mask:
        raise DialectError(f"deadlock: waits for a lock that is {old} (mask {mask})")
    column[index] = old + delta
    return old


class Translator:
    """Rewrites functions over one :class:`Memory`; ``append`` takes the records.

    ``binding`` fills the hooks of code that is bound to the strategy. Code behind a FarCall (mapping operations)
    counts no ``count`` and has no lookup marks, as natively.
    """

    def __init__(self, memory: Memory, binding: Binding, append: Callable[[int], None]) -> None:
        self.memory = memory
        self.binding = binding
        self.scope: dict[str, Any] = {
            "_A": append, "rmw_add": rmw_add, "rmw_xchg": rmw_xchg, "rmw_cmpxchg": rmw_cmpxchg, "wait_add": wait_add,
        }  # fmt: skip
        self.sites = 0
        """How many branches were numbered so far."""
        self._names: dict[tuple[FunctionType, tuple[Kind, ...], bool], str] = {}
        self._used: set[str] = set()

    def function(self, function: Any, kinds: tuple[Kind, ...], far: bool = False) -> Callable[..., int]:
        """``function`` rewritten for arguments of these kinds. Raises DialectError for what is not of the dialect."""
        found: Callable[..., int] = self.scope[self.name_of(function, kinds, far)]
        return found

    def name_of(self, function: FunctionType, kinds: tuple[Kind, ...], far: bool) -> str:
        """The global name of a rewritten function, made if need be."""
        key = (function, kinds, far)
        if key not in self._names:
            name = self.unique(function.__name__)
            self._names[key] = name
            text = Writer(self, function, kinds, far).text(name)
            exec(compile(text, f"<counted {where(function)}>", "exec"), self.scope)
        return self._names[key]

    def unique(self, name: str) -> str:
        """A global name that is not taken."""
        number = 0
        while (made := f"_f_{name}_{number}" if number else f"_f_{name}") in self._used:
            number += 1
        self._used.add(made)
        return made

    def column(self, slab: Slab, field: str) -> str:
        """The global name of a column."""
        name = f"_c_{slab.base}_{field}"
        if name not in self.scope:
            self.scope[name] = self.memory.column(slab, field)
        return name

    def constant(self, value: Any) -> str:
        """The global name of any object."""
        name = f"_k_{id(value)}"
        self.scope[name] = value
        return name

    def site(self) -> int:
        """A new branch: the record of its first outcome; the second is one more."""
        self.sites += 1
        return (BRANCH << SHIFT) + 2 * (self.sites - 1)
