"""Rewrite strategy text so that it records each access: as Python, and compiled."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.functions import (
    BUILTINS,
    Binding,
    CCall,
    FarCall,
    Hook,
    Identities,
    is_native,
    native,
    origin,
    where,
)
from benchframe.dialect.primitives import Primitive, cmpxchg, fetch_add, fls, hash_64, wait_then_add, xchg
from benchframe.dialect.records import DialectError, Field, Slab, Struct
from benchframe.engine.cost.records import (
    ATOMIC,
    BARRIER,
    BRANCH,
    COUNTED,
    ENTER,
    FORMS,
    LEAVE,
    LOAD,
    OPERAND,
    RECORD,
    SHIFT,
    STORE,
    STRUCTURES,
    CCalls,
    Memory,
    rmw_add,
    rmw_cmpxchg,
    rmw_xchg,
    store,
    wait_add,
)
from benchframe.engine.cost.records import EVENT as BEGINS
from benchframe.errors import EngineError
from benchframe.mm import kmem
from benchframe.mm.layout import EVENT, MM, PRIVATE_BASES, mm_struct
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, FAULT, LOOKUP, one_event
from benchframe.units import Units, UnitSpec

if TYPE_CHECKING:
    from benchframe.dialect.store import Unit
    from benchframe.strategy import Strategy


# ----------------------------------------------------------------------------------------------------------------------
# Rewritten expressions: loads, calls, hooks and primitives with their records.

Kind = Slab | None
"""What a name holds: a reference into a slab (then its index), or an integer."""
ATOMICS = {"wait_then_add": "wait_then_add"} | {
    name + ordering: name
    for name in ("xchg", "cmpxchg", "fetch_add")
    for ordering in ("", "_relaxed", "_acquire", "_release")
}
"""Primitives that read, change and write in one step, and their operation: on x86 the ordering makes no difference."""
FREE = frozenset({"cpu_relax", "cond_resched", "cycles", "smp_rmb", "smp_wmb", "smp_mb__before_atomic",
                  "smp_mb__after_atomic", "smp_acquire__after_ctrl_dep", "trace"})  # fmt: skip
"""Primitives without an instruction that counts: barriers for the compiler, on x86."""
OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.LShift: "<<", ast.RShift: ">>",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.Pow: "**", ast.And: "and", ast.Or: "or", ast.Not: "not ",
    ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


class Expressions:
    """One function whose arguments have known kinds: the text of its expressions."""

    def __init__(self, owner: Translator, function: FunctionType, kinds: tuple[Kind, ...], far: bool) -> None:
        self.owner, self.function, self.far = owner, function, far
        self.temporaries = 0
        self.definition = _definition(function)
        names = [argument.arg for argument in self.definition.args.args]
        if len(names) != len(kinds):
            raise self.wrong(self.definition, f"is called with {len(kinds)} arguments")
        self.kinds: dict[str, Kind] = dict(zip(names, kinds, strict=True))
        self._infer()

    def wrong(self, node: ast.AST, what: str) -> DialectError:
        """The error for a node of the syntax tree."""
        return DialectError(
            f"{where(self.function)}, line {getattr(node, 'lineno', 0)} of it: {what}; the cost engine cannot count it"
        )

    def _infer(self) -> None:
        """The local names that hold references: assigned from a slab, or from a name that holds one."""
        assigned = [
            (target.id, node.value)
            for node in ast.walk(self.definition)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        changed = True
        while changed:
            changed = False
            for name, value in assigned:
                kind = self.kind(value)
                if kind is not None and self.kinds.get(name) is not kind:
                    if self.kinds.get(name) is not None:
                        raise self.wrong(value, f"{name} refers to two slabs")
                    self.kinds[name] = kind
                    changed = True

    def kind(self, node: ast.AST) -> Kind:
        """The slab that ``node`` refers into, None for an integer."""
        if isinstance(node, ast.Name):
            return self.kinds.get(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = self.function.__globals__.get(node.func.id)
            return found if isinstance(found, Slab) else None
        return None

    def temporary(self) -> str:
        self.temporaries += 1
        return f"_t{self.temporaries}"

    # ---- expressions -------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> str:
        """An integer expression."""
        if isinstance(node, ast.Constant):
            if not isinstance(node.value, int):
                raise self.wrong(node, f"the constant {node.value!r}")
            return repr(node.value)
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Attribute):
            slab, index = self.reference(node.value)
            return self.loaded(slab, self.field(slab, node), index)
        if isinstance(node, ast.BinOp):
            return f"({self.value(node.left)} {self.operator(node.op)} {self.value(node.right)})"
        if isinstance(node, ast.UnaryOp):
            return f"({self.operator(node.op)}{self.value(node.operand)})"
        if isinstance(node, ast.Compare):
            parts = [self.value(node.left)]
            for operator, right in zip(node.ops, node.comparators, strict=True):
                parts += [self.operator(operator), self.value(right)]
            return f"({' '.join(parts)})"
        if isinstance(node, ast.BoolOp):
            first, *rest = node.values
            operands = [self.value(first), *(self.owner.after(str(OPERAND << SHIFT), self.value(v)) for v in rest)]
            return f"({f' {self.operator(node.op)} '.join(operands)})"
        if isinstance(node, ast.IfExp):
            test, site = self.value(node.test), self.owner.site()
            yes = self.owner.after(str(site), self.value(node.body))
            no = self.owner.after(str(site + 1), self.value(node.orelse))
            return f"({yes} if {test} else {no})"
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.wrong(node, f"a {type(node).__name__}")

    def operator(self, node: ast.AST) -> str:
        if type(node) not in OPERATORS:
            raise self.wrong(node, f"the operator {type(node).__name__}")
        return OPERATORS[type(node)]

    def name(self, node: ast.Name) -> str:
        if node.id in self.kinds or node.id not in self.function.__globals__ or node.id in self._locals():
            return node.id
        found = self.function.__globals__[node.id]
        if isinstance(found, int):
            return f"({int(found)})" if found < 0 else str(int(found))
        raise self.wrong(node, f"{node.id} is used as a value")

    def _locals(self) -> frozenset[str]:
        return frozenset(self.function.__code__.co_varnames)

    def field(self, slab: Slab, node: ast.Attribute) -> str:
        if node.attr not in slab.struct.fields:
            raise self.wrong(node, f"{slab.struct.name} has no field {node.attr}")
        return node.attr

    def referring(self, node: ast.expr) -> str | None:
        """The index, if ``node`` is a reference."""
        return None if self.kind(node) is None else self.reference(node)[1]

    def reference(self, node: ast.expr) -> tuple[Slab, str]:
        """(slab, index) of a reference."""
        slab = self.kind(node)
        if slab is None:
            raise self.wrong(node, f"{ast.unparse(node)} cannot be recognised as a reference")
        if isinstance(node, ast.Name):
            return slab, node.id
        assert isinstance(node, ast.Call)
        if len(node.args) != 2:
            raise self.wrong(node, f"{slab.name} takes (mm, index)")
        return slab, self.value(node.args[1])

    def loaded(self, slab: Slab, field: str, index: str) -> str:
        """A load of a field."""
        return self.accessed("load", LOAD, slab, field, index, [])

    def accessed(self, how: str, kind: int, slab: Slab, field: str, index: str, operands: list[str]) -> str:
        """An access, with a record if it has a cost."""
        if not self.owner.memory.counts(slab, field):
            return self.owner.plain(how, slab, field, index, operands)
        return self.owner.access(how, kind, slab, field, index, operands, self.temporary)

    # ---- calls -------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> str:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise self.wrong(node, f"the call {ast.unparse(node)}")
        name = node.func.id
        found = self.function.__globals__.get(name)
        if isinstance(found, Primitive):
            return self.primitive(node, found.name)
        if isinstance(found, Hook):
            return self.hook(node, found)
        if isinstance(found, CCall):
            if not found.twin:
                return self.owner.c_called(found, self.arguments(node)[1])
            return self.plain(node, found.function, self.far)
        if isinstance(found, FarCall):
            return self.plain(node, found.function, True) if self.owner.goes_far else "0"
        if is_native(found):
            return self.plain(node, self.owner.identities.callee(found, self.function), self.far)
        if found is None and name in BUILTINS:
            return f"{name}({', '.join(self.value(a) for a in node.args)})"
        raise self.wrong(node, f"a call of {name}")

    def arguments(self, node: ast.Call) -> tuple[tuple[Kind, ...], list[str]]:
        kinds = tuple(self.kind(a) for a in node.args)
        texts = [self.value(a) if k is None else self.reference(a)[1] for a, k in zip(node.args, kinds, strict=True)]
        return kinds, texts

    def plain(self, node: ast.Call, function: Any, far: bool) -> str:
        kinds, texts = self.arguments(node)
        return self.owner.called(self.owner.name_of(function, kinds, far), texts)

    def hook(self, node: ast.Call, hook: Hook) -> str:
        if hook.name == "count":
            what = node.args[2]
            return "0" if self.far else self.owner.after(f"{COUNTED << SHIFT} + {self.value(what)}", "0")
        bound = self.owner.identities.callee(hook, self.function)
        assert bound is not None
        kinds, texts = self.arguments(node)
        name = self.owner.name_of(bound, kinds, self.far)
        if self.far or not hook.lookup or _trivial(bound):
            return self.owner.called(name, texts)
        return self.owner.called(self.owner.marked(name, len(kinds)), texts)

    def primitive(self, node: ast.Call, name: str) -> str:
        if name == "smp_mb":
            return self.owner.after(str(BARRIER << SHIFT), "0")
        if name in FREE:
            return "0"
        if name == "fls":
            return f"fls({self.value(node.args[0])})"
        if name == "hash_64":
            return f"hash_64({self.value(node.args[0])}, {self.value(node.args[1])})"
        slab, index = self.reference(node.args[0])
        word = node.args[1]
        field = word.value if isinstance(word, ast.Constant) else None
        made_from = origin(self.function)
        if made_from is not None:  # an instance of a text, with other field names
            field = made_from[1].get(str(field), field)
        if not isinstance(field, str) or field not in slab.struct.fields:
            raise self.wrong(node, f"{slab.struct.name} has no field {ast.unparse(word)}")
        rest = [self.value(a) for a in node.args[2:]]
        if name in ("READ_ONCE", "load_acquire", "rcu_dereference"):
            return self.loaded(slab, field, index)
        if name in ("WRITE_ONCE", "store_release", "rcu_assign_pointer"):
            return self.accessed("store", STORE, slab, field, index, rest)
        if name in ("wait_until", "wait_interruptible", "wait_while", "wait_while_interruptible"):
            return f"({self.loaded(slab, field, index)} * 0)"
        if name == "smp_store_mb":
            return f"({self.accessed('xchg', ATOMIC, slab, field, index, rest)} * 0)"
        if name not in ATOMICS:
            raise self.wrong(node, f"the primitive {name}")
        return self.accessed(ATOMICS[name], ATOMIC, slab, field, index, rest)


def _definition(function: FunctionType) -> ast.FunctionDef:
    """The syntax tree of a function's text."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except OSError:
        text = ""
    tree = ast.parse(text)
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef) or tree.body[0].name != function.__name__:
        raise DialectError(
            f"{where(function)}: its source cannot be found; put it in a file, because the cost engine reads it"
        )
    return tree.body[0]


def _trivial(function: FunctionType) -> bool:
    """Whether a function only returns a constant: a hook that a strategy does not fill."""
    body = _definition(function).body
    rest = body[1:] if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else body
    return len(rest) == 1 and isinstance(rest[0], ast.Return) and isinstance(rest[0].value, (ast.Constant, ast.Name))


# ----------------------------------------------------------------------------------------------------------------------
# Rewritten statements: branches, stores, and the whole new text.


class Writer(Expressions):
    """Rewrites one function."""

    def text(self, name: str) -> str:
        """The whole new function."""
        arguments = self.owner.parameters([argument.arg for argument in self.definition.args.args])
        body = self.block(self.definition.body, 1)
        return "\n".join([f"def {name}({arguments}):", *body, ""])

    # ---- statements --------------------------------------------------------------------------------------------------

    def block(self, nodes: list[ast.stmt], depth: int) -> list[str]:
        lines = [line for node in nodes for line in self.statement(node, depth)]
        return lines or [" " * depth + "pass"]

    def statement(self, node: ast.stmt, depth: int) -> list[str]:
        pad = " " * depth
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant):
                return []
            return [pad + self.value(node.value)]
        if isinstance(node, ast.Return):
            return [pad + f"return {self.value(node.value) if node.value else 0}"]
        if isinstance(node, ast.Assign):
            return [pad + line for line in self.assign(node)]
        if isinstance(node, ast.AugAssign):
            return [pad + line for line in self.augment(node)]
        if isinstance(node, (ast.If, ast.While, ast.For)):
            return self.branch(node, depth)
        if isinstance(node, (ast.Pass, ast.Break, ast.Continue)):
            return [pad + ast.unparse(node)]
        raise self.wrong(node, f"a {type(node).__name__} statement is not part of the dialect")

    def branch(self, node: ast.If | ast.While | ast.For, depth: int) -> list[str]:
        pad = " " * depth
        if isinstance(node, ast.For):
            if not isinstance(node.target, ast.Name):
                raise self.wrong(node, "a loop over more than one name")
            head = f"for {node.target.id} in {self.iterated(node.iter)}:"
        else:
            word = "if" if isinstance(node, ast.If) else "while"
            head = f"{word} {self.value(node.test)}:"
            if isinstance(node.test, ast.Constant):  # `while True`: no decision
                return [pad + head, *self.block(node.body, depth + 1)]
        site = self.owner.site()
        taken = [pad + head, f"{pad} {self.owner.note(str(site))}", *self.block(node.body, depth + 1)]
        other = [f"{pad} {self.owner.note(str(site + 1))}", *self.block(node.orelse, depth + 1)]
        return [*taken, pad + "else:", *other]

    def iterated(self, node: ast.expr) -> str:
        """What a ``for`` loops over: range(...), or a tuple of integers."""
        if isinstance(node, ast.Tuple):
            return "(" + "".join(f"{self.value(item)}, " for item in node.elts) + ")"
        return self.value(node)

    def assign(self, node: ast.Assign) -> list[str]:
        if len(node.targets) > 1:  # a = b = value: the value once, then the targets from left to right
            if any(isinstance(target, ast.Tuple) for target in node.targets):
                raise self.wrong(node, "a chain of assignments with a tuple")
            kept = self.temporary()
            lines = [f"{kept} = {self.value(node.value)}"]
            for target in node.targets:
                lines += self.put(target, kept, None)
            return lines
        target = node.targets[0]
        if not isinstance(target, ast.Tuple):
            return self.put(target, self.referring(node.value) if isinstance(target, ast.Name) else None, node.value)
        if not isinstance(node.value, ast.Tuple) or len(target.elts) != len(node.value.elts):
            raise self.wrong(node, "unpacking of something that is not a tuple")
        names = [self.temporary() for _ in target.elts]
        lines = [f"{name} = {self.value(value)}" for name, value in zip(names, node.value.elts, strict=True)]
        for one, name in zip(target.elts, names, strict=True):
            lines += self.put(one, name, None)
        return lines

    def put(self, target: ast.expr, text: str | None, value: ast.expr | None) -> list[str]:
        """Store ``text``, or the value of ``value``, in a name or field."""
        if text is None:
            assert value is not None
            text = self.value(value)
        if isinstance(target, ast.Name):
            return [f"{target.id} = {text}"]
        if not isinstance(target, ast.Attribute):
            raise self.wrong(target, "an assignment to this")
        slab, index = self.reference(target.value)
        lines = []
        if not index.isidentifier():
            name, kept = self.temporary(), self.temporary()
            lines, text, index = [f"{kept} = {text}", f"{name} = {index}"], kept, name
        field = self.field(slab, target)
        lines.append(f"{self.owner.element(slab, field, index)} = {text}")
        return lines + self.mark(slab, field, STORE, index)

    def augment(self, node: ast.AugAssign) -> list[str]:
        operator = OPERATORS[type(node.op)]
        value = self.value(node.value)
        if isinstance(node.target, ast.Name):
            return [f"{node.target.id} {operator}= {value}"]
        if not isinstance(node.target, ast.Attribute):
            raise self.wrong(node, "an assignment to this")
        slab, index = self.reference(node.target.value)
        lines = []
        if not index.isidentifier():
            name = self.temporary()
            lines, index = [f"{name} = {index}"], name
        element = self.owner.element(slab, self.field(slab, node.target), index)
        lines += self.mark(slab, node.target.attr, LOAD, index)
        lines.append(f"{element} {operator}= {value}")
        return lines + self.mark(slab, node.target.attr, STORE, index)

    def mark(self, slab: Slab, field: str, kind: int, index: str) -> list[str]:
        """The statement that records an access; none if it has no cost."""
        if not self.owner.memory.counts(slab, field):
            return []
        return [self.owner.note(self.owner.place(slab, field, kind, index))]


# ----------------------------------------------------------------------------------------------------------------------
# Strategy code rewritten for counting: each access, branch and counted hook leaves a record.
#
# The dialect is small enough to be written anew: references become plain indices, ``v.vm_end`` becomes
# ``(_A(place + v * 192) or vm_end[v])``, where ``_A`` appends one integer to the record and gives None. A function is
# rewritten once for each combination of argument kinds (integer, or reference into a slab), as a compiler would.
# That is several times faster than proxies that see each access, and sees branches too.
#
# What counts as a branch: each decision of an ``if``, ``while``, ``for`` or conditional expression, and each operand of
# ``and`` and ``or`` after the first that is evaluated. The compiler may make a conditional move of one, or unroll.


class Translator:
    """Rewrites functions over one :class:`Memory`; ``append`` takes the records.

    ``binding`` fills the hooks of code that is bound to the strategy. Code behind a FarCall (mapping operations) does
    not record ``count`` and has no lookup marks, as in native code. The methods from :meth:`note` on define the forms
    of the new text; :class:`~benchframe.engine.cost.rewrite.CompiledTranslator` has others for the same records.
    """

    goes_far = True
    """Whether the code behind a FarCall is rewritten too."""
    writer: type[Writer] = Writer

    def __init__(self, memory: Memory, binding: Binding, append: Callable[[int], None]) -> None:
        self.memory = memory
        self.c_calls = CCalls(memory, append)
        self.identities = Identities(binding, kmem.one_thread(getattr(memory.machine.runner, "allocator", {})))
        self.scope: dict[str, Any] = {
            "_A": append, "rmw_add": rmw_add, "rmw_xchg": rmw_xchg, "rmw_cmpxchg": rmw_cmpxchg, "wait_add": wait_add,
            "store": store, "fls": fls, "hash_64": hash_64,
        }  # fmt: skip
        self.sites = 0
        """How many branches were numbered so far."""
        self._names: dict[tuple[FunctionType, tuple[Kind, ...], bool], str] = {}
        self._used: set[str] = set()

    def function(self, function: Any, kinds: tuple[Kind, ...], far: bool = False) -> Callable[..., int]:
        """``function`` rewritten for arguments of these kinds. Raises DialectError for code outside the dialect."""
        found: Callable[..., int] = self.scope[self.name_of(function, kinds, far)]
        return found

    def name_of(self, function: FunctionType, kinds: tuple[Kind, ...], far: bool) -> str:
        """The global name of a rewritten function, which is created if necessary."""
        key = (function, kinds, far)
        if key not in self._names:
            name = self.unique(function.__name__)
            self._names[key] = name
            self.define(name, self.writer(self, function, kinds, far).text(name), where(function))
        return self._names[key]

    def unique(self, name: str) -> str:
        """An unused global name."""
        number = 0
        while (made := f"_f_{name}_{number}" if number else f"_f_{name}") in self._used:
            number += 1
        self._used.add(made)
        return made

    def site(self) -> int:
        """A new branch: the record of its first outcome; that of the second is one more."""
        self.sites += 1
        return (BRANCH << SHIFT) + 2 * (self.sites - 1)

    def marked(self, name: str, arity: int) -> str:
        """The global name of ``name`` with marks at the beginning and end of the lookup."""
        made = f"{name}_marked"
        if made not in self.scope:
            names = [f"a{number}" for number in range(arity)]
            text = (
                f"def {made}({self.parameters(names)}):\n {self.note(str(ENTER << SHIFT))}\n"
                f" r = {self.called(name, names)}\n {self.note(str(LEAVE << SHIFT))}\n return r\n"
            )
            self.define(made, text, made)
        return made

    # ---- forms -------------------------------------------------------------------------------------------------------

    def define(self, name: str, text: str, origin: str) -> None:
        """Define the function ``name`` in ``scope``."""
        exec(compile(text, f"<counted {origin}>", "exec"), self.scope)

    def parameters(self, names: Sequence[str]) -> str:
        """The parameters of a rewritten function."""
        return ", ".join(names)

    def called(self, name: str, arguments: Sequence[str]) -> str:
        """A call of a rewritten function."""
        return f"{name}({', '.join(arguments)})"

    def c_called(self, call: CCall, arguments: Sequence[str]) -> str:
        """A call of a C function that has no twin in the dialect."""
        return self.called(self.constant(self.c_calls.function(call)), arguments)

    def note(self, record: str) -> str:
        """A statement that appends a record."""
        return f"_A({record})"

    def after(self, record: str, value: str) -> str:
        """``value``, evaluated after appending a record."""
        return f"(_A({record}) or {value})"

    def place(self, slab: Slab, field: str, kind: int, index: str) -> str:
        """The record of an access."""
        code, size = self.memory.code(slab, field, kind)
        return f"{code} + {index} * {size}"

    def element(self, slab: Slab, field: str, index: str) -> str:
        """A field, for reading or assigning."""
        return f"{self.column(slab, field)}[{index}]"

    def plain(self, how: str, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        """An access without a cost: ``how`` is load, store, xchg, cmpxchg, fetch_add or wait_then_add."""
        if how == "load":
            return self.element(slab, field, index)
        if how == "fetch_add":
            operands = [*operands, self.constant(slab), repr(field)]
        return f"{FORMS[how]}({', '.join([self.column(slab, field), index, *operands])})"

    def access(
        self, how: str, kind: int, slab: Slab, field: str, index: str, operands: Sequence[str], new: Callable[[], str]
    ) -> str:
        """The same, after appending its record; ``new`` returns an unused name."""
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


# ----------------------------------------------------------------------------------------------------------------------
# Compiled code that counts faults and lookups: the rewritten text again, in the dialect instead of Python.
#
# The interpreted form of a rewritten function appends to a list, some 100 ns a record. The forms here write to a buffer
# and are compiled as any strategy code is, some 3 ns. The records are the same ones in the same order, so which form
# counted shows in nothing but the time. Mapping operations stay interpreted: their code is ten times as large to
# compile, and a stream has few of them.

Array = npt.NDArray[Any]
CAPACITY = 1 << 22
"""Records of the buffer; the part not reached takes no memory. One event may leave all but a batch of them."""
_ROOM = f"one event leaves more than some {CAPACITY // 1_000_000} million records: it cannot be counted"
_BASES = (*(name for name in mm_struct.fields if name.endswith("_base") and name != "mmap_base"), *kmem.NAMES)
_PLACES = tuple(
    base.removesuffix("_base") + "_place" for base in [*(s.base for _, s in STRUCTURES), *PRIVATE_BASES, *kmem.NAMES]
)
counting = Struct(
    "counting",
    [
        Field("record_base", "i8", "slab RECORD: the buffer", lock="constant"),
        ("cursor", "i8", "records so far, those without room included"),
        Field("full", "i8", "no event begins from here on", lock="constant"),
        ("nothing", "i8", "0: a sum with it is no literal, for which the compiler would compile the callee again"),
        Field("limit", "i8", "records that the buffer holds", lock="constant"),
        *((name, "i8", "as in mm_struct and kmem_cache [constant]") for name in _BASES),
        *((name, "i8", "byte address of record 0, as counted [constant]") for name in _PLACES),
    ],
)
_ENTRY = f"""
def _entry(_h, first, last):
    index = first
    while index < last and _h.cursor < _h.full:
        kind = _s_event_base(_h, index).kind
        if kind == {FAULT}:
            _note(_h, _h.nothing + {(BEGINS << SHIFT) + CLASS_FAULT})
        elif kind == {LOOKUP}:
            _note(_h, _h.nothing + {(BEGINS << SHIFT) + CLASS_LOOKUP})
        else:
            return index
        {{event}}(_h, 1, index)
        index += 1
    return index
"""


@native
def leave_record(h, record):  # type: ignore[no-untyped-def]
    """Append to the buffer; returns 0."""
    if h.cursor < h.limit:
        RECORD(h, h.cursor).value = record
    h.cursor += 1
    return 0


class CompiledTranslator(Translator):
    """Rewrites functions to be compiled: ``_h`` is the :data:`counting` record, references are indices."""

    goes_far = False

    def __init__(self, memory: Memory, strategy: Strategy) -> None:
        super().__init__(memory, strategy.binding, list[int]().append)
        self.scope = {
            "_note": leave_record, "_s_event_base": EVENT,
            "_xchg": xchg, "_cmpxchg": cmpxchg, "_fetch_add": fetch_add, "_wait_then_add": wait_then_add,
            "fls": fls, "hash_64": hash_64,
        }  # fmt: skip

    def entry(self) -> Callable[..., int]:
        """Replays events [first, last) until a mapping operation or the end of the buffer; returns where it stopped."""
        replay: Any = one_event
        event = self.name_of(replay, (MM, None), False)
        self.define("_entry", _ENTRY.format(event=event), "entry")
        found: Callable[..., int] = self.scope["_entry"]
        return found

    def define(self, name: str, text: str, origin: str) -> None:
        exec(compile(text, "<string>", "exec"), self.scope)
        native(self.scope[name])

    def parameters(self, names: Sequence[str]) -> str:
        return ", ".join(["_h", *names])

    def called(self, name: str, arguments: Sequence[str]) -> str:
        return f"{name}({', '.join(['_h', *arguments])})"

    def c_called(self, call: CCall, arguments: Sequence[str]) -> str:
        raise DialectError(f"{call.name}() is C without a twin: it is counted where it is interpreted")

    def note(self, record: str) -> str:
        return f"_note(_h, _h.nothing + {record})"

    def after(self, record: str, value: str) -> str:
        return f"({self.note(record)} + {value})"

    def place(self, slab: Slab, field: str, kind: int, index: str) -> str:
        first = slab.base.removesuffix("_base")
        return f"{(kind << SHIFT) + slab.struct.offset(field)} + _h.{first}_place + {index} * {slab.struct.size}"

    def element(self, slab: Slab, field: str, index: str) -> str:
        return f"{self.slab(slab)}(_h, {index}).{field}"

    def plain(self, how: str, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        return (
            self.element(slab, field, index) if how == "load" else self._helper(how, None, slab, field, index, operands)
        )

    def access(
        self, how: str, kind: int, slab: Slab, field: str, index: str, operands: Sequence[str], new: Callable[[], str]
    ) -> str:
        return self._helper(how, kind, slab, field, index, operands)

    def _helper(self, how: str, kind: int | None, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        """A call of a function that makes the access: the compiler types a call faster than the text."""
        name = f"_{how}_{slab.base}_{field}" + ("_free" if kind is None else "")
        if name not in self.scope:
            names = ["i", *(f"a{number}" for number in range(len(operands)))]
            record = "" if kind is None else f" {self.note(self.place(slab, field, kind, 'i'))}\n"
            element = self.element(slab, field, "i")
            if how == "load":
                does = f" return {element}\n"
            elif how == "store":
                does = f" {element} = a0\n return 0\n"
            else:
                rest = ", ".join([f"{self.slab(slab)}(_h, i)", repr(field), *names[1:]])
                does = f" return _{how}({rest})\n"
            self.define(name, f"def {name}({self.parameters(names)}):\n{record}{does}", name)
        return self.called(name, [index, *operands])

    def slab(self, slab: Slab) -> str:
        """The global name of a slab."""
        self.scope[f"_s_{slab.base}"] = slab
        return f"_s_{slab.base}"


class Recorder:
    """The compiled form of one strategy's faults and lookups, on one machine's memory."""

    def __init__(self, memory: Memory, unit: Unit, batch: int) -> None:
        self._unit = unit
        self._buffer = np.empty(CAPACITY, np.int64)
        self._header = np.zeros(1, counting.dtype)
        header, root = self._header[0], memory.machine.mm(0)
        for base in _BASES:
            if base not in kmem.NAMES:
                header[base] = root[base]
            elif memory.machine.caches:
                header[base] = memory.machine.arrays[base].ctypes.data
        for base, address in memory.places():
            header[base.removesuffix("_base") + "_place"] = address
        header["record_base"] = self._buffer.ctypes.data
        header["limit"], header["full"] = CAPACITY, batch

    def run(self, first: int, last: int) -> int:
        """Count events [first, last) until a mapping operation, or ``batch`` records; returns where it stopped. Raises
        EngineError if one event leaves more records than the buffer holds."""
        stopped = self._unit(self._header.ctypes.data, first, last)
        if self.pending > CAPACITY:
            raise EngineError(_ROOM)
        return stopped

    def push(self, records: Sequence[int]) -> None:
        """Append records from interpreted code."""
        at = self.pending
        if at + len(records) > CAPACITY:
            raise EngineError(_ROOM)
        self._buffer[at : at + len(records)] = records
        self._header["cursor"] = at + len(records)

    @property
    def pending(self) -> int:
        """The number of records in the buffer."""
        return int(self._header["cursor"][0])

    @property
    def full(self) -> bool:
        """Whether no further event can begin before :meth:`take`."""
        return self.pending >= int(self._header["full"][0])

    def take(self) -> Array:
        """The records, valid until the next one is left."""
        found = self._buffer[: self.pending]
        self._header["cursor"] = 0
        return found


def unit_of(memory: Memory, strategy: Strategy) -> UnitSpec:
    """The unit to compile. Raises DialectError for code that cannot be counted. Takes some 50 ms, since it reads source
    texts."""
    return UnitSpec(f"counted-{strategy.name}", CompiledTranslator(memory, strategy).entry(), {})


def units() -> Units:
    """The loader of units."""
    return Units(counting, ())
