"""Expressions of a function that is rewritten for counting: loads, calls, hooks and primitives with their records."""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import FunctionType
from typing import TYPE_CHECKING, Any

from benchframe.dialect.function import BUILTINS, CCall, FarCall, Hook, is_native, resolve, where
from benchframe.dialect.instance import origin
from benchframe.dialect.primitives import Primitive
from benchframe.dialect.struct import DialectError, Slab
from benchframe.engine.cost.memory import ATOMIC, BARRIER, COUNTED, LOAD, OPERAND, SHIFT, STORE

if TYPE_CHECKING:
    from benchframe.engine.cost.translate import Translator

Kind = Slab | None
"""What a name holds: a reference into a slab (then its index), or an integer."""
ATOMICS = frozenset({"xchg", "cmpxchg", "fetch_add", "wait_then_add"})
"""Primitives that read, change and write in one step."""
OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.LShift: "<<", ast.RShift: ">>",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.Pow: "**", ast.And: "and", ast.Or: "or", ast.Not: "not ",
    ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


class Expressions:
    """One function, its arguments of known kinds: the text of its expressions."""

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
        """The error for a line."""
        return DialectError(
            f"{where(self.function)}, line {getattr(node, 'lineno', 0)} of it: {what}; the cost engine cannot count it"
        )

    def _infer(self) -> None:
        """Which local names hold references: assigned from a slab, or from a name that does."""
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

    # ---- expressions ------------------------------------------------------------------------------------------

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
        """The index if ``node`` is a reference."""
        return None if self.kind(node) is None else self.reference(node)[1]

    def reference(self, node: ast.expr) -> tuple[Slab, str]:
        """(slab, index) of a reference."""
        slab = self.kind(node)
        if slab is None:
            raise self.wrong(node, f"{ast.unparse(node)} is no reference that can be seen to be one")
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
        """An access, recorded if it costs anything."""
        if not self.owner.memory.counts(slab, field):
            return self.owner.plain(how, slab, field, index, operands)
        return self.owner.access(how, kind, slab, field, index, operands, self.temporary)

    # ---- calls ------------------------------------------------------------------------------------------------

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
            return self.plain(node, found.function, self.far)
        if isinstance(found, FarCall):
            return self.plain(node, found.function, True) if self.owner.goes_far else "0"
        if is_native(found):
            return self.plain(node, found, self.far)
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
        bound = resolve(hook, self.owner.binding)
        assert bound is not None
        kinds, texts = self.arguments(node)
        name = self.owner.name_of(bound, kinds, self.far)
        if self.far or not hook.lookup or _trivial(bound):
            return self.owner.called(name, texts)
        return self.owner.called(self.owner.marked(name, len(kinds)), texts)

    def primitive(self, node: ast.Call, name: str) -> str:
        if name == "smp_mb":
            return self.owner.after(str(BARRIER << SHIFT), "0")
        if name in ("cpu_relax", "cond_resched", "cycles", "smp_rmb", "smp_wmb"):  # barriers for the compiler on x86
            return "0"
        if name == "fls":
            return f"fls({self.value(node.args[0])})"
        slab, index = self.reference(node.args[0])
        word = node.args[1]
        field = word.value if isinstance(word, ast.Constant) else None
        made_from = origin(self.function)
        if made_from is not None:  # an instance of a text: its field names are exchanged
            field = made_from[1].get(str(field), field)
        if not isinstance(field, str) or field not in slab.struct.fields:
            raise self.wrong(node, f"{slab.struct.name} has no field {ast.unparse(word)}")
        rest = [self.value(a) for a in node.args[2:]]
        if name in ("READ_ONCE", "load_acquire"):
            return self.loaded(slab, field, index)
        if name in ("WRITE_ONCE", "store_release"):
            return self.accessed("store", STORE, slab, field, index, rest)
        if name in ("wait_until", "wait_interruptible", "wait_while", "wait_while_interruptible"):
            return f"({self.loaded(slab, field, index)} * 0)"
        if name not in ATOMICS:
            raise self.wrong(node, f"the primitive {name}")
        return self.accessed(name, ATOMIC, slab, field, index, rest)


def _definition(function: FunctionType) -> ast.FunctionDef:
    """The syntax tree of a function's text."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except OSError:
        text = ""
    tree = ast.parse(text)
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef) or tree.body[0].name != function.__name__:
        raise DialectError(f"{where(function)}: its text cannot be found; put it in a file, the cost engine reads it")
    return tree.body[0]


def _trivial(function: FunctionType) -> bool:
    """Whether a function only gives a constant: a hook that a strategy does not fill."""
    body = _definition(function).body
    rest = body[1:] if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else body
    return len(rest) == 1 and isinstance(rest[0], ast.Return) and isinstance(rest[0].value, (ast.Constant, ast.Name))
