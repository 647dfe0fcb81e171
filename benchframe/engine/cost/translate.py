"""Strategy code rewritten for counting: a function whose accesses, branches and counted hooks leave records.

The dialect is small enough to be written anew: references become plain indices, ``v.vm_end`` becomes
``(_A(place + v * 192) or vm_end[v])``, where ``_A`` appends one integer to the record and gives None. A function is
rewritten once for each combination of argument kinds (integer, or reference into a slab), as a compiler would.
That is several times faster than proxies that see each access, and sees branches too.

What counts as a branch: each decision of an ``if``, ``while``, ``for`` or conditional expression, and each operand of
``and`` and ``or`` after the first that is evaluated. The compiler may make a conditional move of one, or unroll.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from benchframe.dialect.function import Binding, where
from benchframe.dialect.interp import wrapped
from benchframe.dialect.primitives import fls
from benchframe.dialect.struct import DialectError, Slab
from benchframe.engine.cost.expressions import Kind
from benchframe.engine.cost.memory import BRANCH, ENTER, LEAVE, SHIFT, Memory
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


def store(column: Any, index: int, value: int) -> int:
    """A store as an expression."""
    column[index] = value
    return 0


FORMS = {"store": "store", "xchg": "rmw_xchg", "cmpxchg": "rmw_cmpxchg", "fetch_add": "rmw_add",
         "wait_then_add": "wait_add"}  # fmt: skip
"""Primitives that write, and the function of this module that does it."""


class Translator:
    """Rewrites functions over one :class:`Memory`; ``append`` takes the records.

    ``binding`` fills the hooks of code that is bound to the strategy. Code behind a FarCall (mapping operations)
    counts no ``count`` and has no lookup marks, as natively. The methods from :meth:`note` on are the forms of the
    new text; :class:`~benchframe.engine.cost.recorder.CompiledTranslator` has others for the same records.
    """

    goes_far = True
    """Whether what stands behind a FarCall is rewritten too."""

    def __init__(self, memory: Memory, binding: Binding, append: Callable[[int], None]) -> None:
        self.memory = memory
        self.binding = binding
        self.scope: dict[str, Any] = {
            "_A": append, "rmw_add": rmw_add, "rmw_xchg": rmw_xchg, "rmw_cmpxchg": rmw_cmpxchg, "wait_add": wait_add,
            "store": store, "fls": fls,
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
            self.define(name, Writer(self, function, kinds, far).text(name), where(function))
        return self._names[key]

    def unique(self, name: str) -> str:
        """A global name that is not taken."""
        number = 0
        while (made := f"_f_{name}_{number}" if number else f"_f_{name}") in self._used:
            number += 1
        self._used.add(made)
        return made

    def site(self) -> int:
        """A new branch: the record of its first outcome; the second is one more."""
        self.sites += 1
        return (BRANCH << SHIFT) + 2 * (self.sites - 1)

    def marked(self, name: str, arity: int) -> str:
        """The global name of ``name`` with marks where the lookup begins and ends."""
        made = f"{name}_marked"
        if made not in self.scope:
            names = [f"a{number}" for number in range(arity)]
            text = (
                f"def {made}({self.parameters(names)}):\n {self.note(str(ENTER << SHIFT))}\n"
                f" r = {self.called(name, names)}\n {self.note(str(LEAVE << SHIFT))}\n return r\n"
            )
            self.define(made, text, made)
        return made

    # ---- forms ------------------------------------------------------------------------------------------------

    def define(self, name: str, text: str, origin: str) -> None:
        """Define the function ``name`` in ``scope``."""
        exec(compile(text, f"<counted {origin}>", "exec"), self.scope)

    def parameters(self, names: Sequence[str]) -> str:
        """The parameters of a rewritten function."""
        return ", ".join(names)

    def called(self, name: str, arguments: Sequence[str]) -> str:
        """A call of a rewritten function."""
        return f"{name}({', '.join(arguments)})"

    def note(self, record: str) -> str:
        """A statement that leaves a record."""
        return f"_A({record})"

    def after(self, record: str, value: str) -> str:
        """``value``, a record being left before."""
        return f"(_A({record}) or {value})"

    def place(self, slab: Slab, field: str, kind: int, index: str) -> str:
        """The record of an access."""
        code, size = self.memory.code(slab, field, kind)
        return f"{code} + {index} * {size}"

    def element(self, slab: Slab, field: str, index: str) -> str:
        """A field, to be read or assigned."""
        return f"{self.column(slab, field)}[{index}]"

    def plain(self, how: str, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        """An access that costs nothing: ``how`` is load, store, xchg, cmpxchg, fetch_add or wait_then_add."""
        if how == "load":
            return self.element(slab, field, index)
        if how == "fetch_add":
            operands = [*operands, self.constant(slab), repr(field)]
        return f"{FORMS[how]}({', '.join([self.column(slab, field), index, *operands])})"

    def access(
        self, how: str, kind: int, slab: Slab, field: str, index: str, operands: Sequence[str], new: Callable[[], str]
    ) -> str:
        """The same with its record before it; ``new`` gives an unused name."""
        first, name = index, index
        if not index.isidentifier():
            name = new()
            first = f"({name} := {index})"
        return self.after(self.place(slab, field, kind, first), self.plain(how, slab, field, name, operands))

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
