"""What a function's own text says of its names, calls, fields and returns: mistakes that typing would report late."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from benchframe.dialect.function import BUILTINS, FarCall, Hook, is_native
from benchframe.dialect.primitives import Primitive
from benchframe.dialect.struct import Slab
from benchframe.errors import near as nearest

Told = tuple[int, str, str]
"""Line within the function, what, mend."""
RecordOf = Callable[["ast.AST | None"], "Slab | None"]


def near(name: str, known: Iterable[str]) -> str:
    """``did you mean x?`` with a space before it, or nothing."""
    found = nearest(name, known)
    return f" (did you mean {found}?)" if found else ""


def unknown_names(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """Names that are neither the function's own, nor the module's, nor Python's."""
    own = {*function.__code__.co_varnames, *function.__code__.co_cellvars, *function.__code__.co_freevars}
    for node in ast.walk(definition):  # of lambdas and comprehensions, which are refused as such
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
    scope = function.__globals__
    for node in ast.walk(definition):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            name = node.id
            if name in own or name in scope or hasattr(builtins, name):
                continue
            hint = near(name, [*own, *(n for n in scope if not n.startswith("__")), *BUILTINS])
            yield node.lineno, f"{name} is not defined{hint}", "define it in this file or import it"


def arguments_of(obj: Any) -> tuple[str, ...] | None:
    """The parameters of what strategy code may call; None if that is not known."""
    if isinstance(obj, Slab):
        return ("mm", "i")
    if isinstance(obj, Hook):
        return tuple(obj.parameters)
    code = None
    if isinstance(obj, Primitive):
        code = obj.run.__code__
    elif isinstance(obj, FarCall):
        code = obj.function.__code__
    elif is_native(obj):
        code = obj.__code__
    return None if code is None else tuple(code.co_varnames[: code.co_argcount])


def wrong_arguments(node: ast.Call, name: str, obj: Any) -> Iterator[Told]:
    """A call with too many or too few arguments."""
    wanted = arguments_of(obj)
    if wanted is not None and not node.keywords and len(node.args) != len(wanted):
        what = f"{name} takes {len(wanted)} arguments, ({', '.join(wanted)}), and is given {len(node.args)}"
        yield node.lineno, what, f"write {name}({', '.join(wanted)})"


def _record_names(definition: ast.FunctionDef, function: FunctionType) -> RecordOf:
    """Which slab's record an expression is, as far as the text says: a call ``VMA(mm, i)``, or a name that stands for
    one such record and nothing else. Otherwise None."""
    slabs = {
        name: obj for name in function.__code__.co_names if isinstance(obj := function.__globals__.get(name), Slab)
    }

    def made(value: ast.AST | None) -> Slab | None:
        named = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
        return slabs.get(value.func.id) if named else None  # type: ignore[union-attr]

    locals_: dict[str, Slab | None] = dict.fromkeys(function.__code__.co_varnames[: function.__code__.co_argcount])
    for node in ast.walk(definition):
        targets: list[tuple[ast.AST, ast.AST | None]] = []
        if isinstance(node, ast.Assign):
            targets = [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.AugAssign, ast.For)):
            targets = [(node.target, None)]
        for target, value in targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    slab = made(value) if name is target else None
                    known = locals_.setdefault(name.id, slab)
                    if known is not slab:
                        locals_[name.id] = None
    return lambda value: locals_.get(value.id) if isinstance(value, ast.Name) else made(value)


def unknown_fields(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """Fields that a record does not have, where the text says which record it is: ``VMA(mm, i).x``, or ``v.x`` after
    ``v = VMA(mm, i)`` and nothing else."""
    record = _record_names(definition, function)
    for node in ast.walk(definition):
        if not isinstance(node, ast.Attribute):
            continue
        slab = record(node.value)
        if slab is not None and node.attr not in slab.struct.fields:
            what = f"{slab.struct.name} has no field {node.attr}{near(node.attr, slab.struct.fields)}"
            yield node.lineno, what, "docs/dialect.md says which fields there are"


def returned_records(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """A record where its index must be given back."""
    record = _record_names(definition, function)
    for node in ast.walk(definition):
        if isinstance(node, ast.Return) and (slab := record(node.value)) is not None:
            yield node.lineno, f"returns a {slab.struct.name} record", "return its index"


def endless_loops(definition: ast.FunctionDef) -> Iterator[Told]:
    """``while True`` that neither leaves the loop nor the function."""
    for node in ast.walk(definition):
        leaves = any(isinstance(inner, (ast.Break, ast.Return)) for inner in ast.walk(node))
        if isinstance(node, ast.While) and _always(node.test) and not leaves:
            yield node.lineno, "a loop that never ends", "give it a condition, a break or a return"


def _always(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and bool(test.value)


def missing_return(definition: ast.FunctionDef) -> Iterator[Told]:
    """A path that gives nothing back, in a function that gives something back elsewhere; or a function without any."""
    returns = [node for node in ast.walk(definition) if isinstance(node, ast.Return)]
    for node in returns:
        if node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node.lineno, "returns nothing", "return an integer: 0, or NULL"
        elif isinstance(node.value, ast.Tuple):
            yield node.lineno, "returns two values", "return one integer; keep the other in a record"
    if not _always_returns(definition.body):
        last = definition.body[-1]
        yield (
            last.end_lineno or last.lineno,
            "ends without a return on some path",
            "return an integer at its end: 0, or NULL",
        )


def _always_returns(body: list[ast.stmt]) -> bool:
    last = body[-1] if body else None
    if isinstance(last, ast.If):
        return _always_returns(last.body) and _always_returns(last.orelse)
    if isinstance(last, ast.While):
        return _always(last.test) and not any(isinstance(node, ast.Break) for node in ast.walk(last))
    return isinstance(last, ast.Return)
