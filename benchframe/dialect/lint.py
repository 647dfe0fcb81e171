"""The rules of the dialect, checked on the syntax tree before a function is first compiled.

Numba would refuse most of these too, later and in its own words; some (a spin that starves a scheduler, a
closure that makes identity depend on values) it would accept and the engines would then disagree.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from benchframe.dialect.function import BUILTINS, FarCall, Hook, is_native
from benchframe.dialect.names import (
    endless_loops,
    missing_return,
    returned_records,
    unknown_fields,
    unknown_names,
    wrong_arguments,
)
from benchframe.dialect.primitives import Primitive
from benchframe.dialect.struct import DialectError, Slab

_FORBIDDEN: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda", "write a module-level @native function"),
    ast.ClassDef: ("a class", "keep state in a struct"),
    ast.Try: ("try/except", "return an error code"),
    ast.Raise: ("raise", "return an error code"),
    ast.With: ("with", "call lock and unlock"),
    ast.Yield: ("yield", "write a loop"),
    ast.YieldFrom: ("yield from", "write a loop"),
    ast.Await: ("await", "write a loop"),
    ast.ListComp: ("a list", "use a slab"),
    ast.SetComp: ("a set", "use a slab"),
    ast.DictComp: ("a dict", "use a slab"),
    ast.GeneratorExp: ("a generator", "write a loop"),
    ast.List: ("a list", "use a slab"),
    ast.Set: ("a set", "use a slab"),
    ast.Dict: ("a dict", "use a slab"),
    ast.JoinedStr: ("an f-string", "strategy code has integers only"),
    ast.Global: ("global", "keep state in a struct"),
    ast.Nonlocal: ("nonlocal", "keep state in a struct"),
    ast.Import: ("an import", "import at module level"),
    ast.ImportFrom: ("an import", "import at module level"),
    ast.Assert: ("assert", "put invariants in the strategy's check hook"),
    ast.Starred: ("* unpacking", "name each argument"),
    ast.Delete: ("del", "store NULL"),
    ast.Subscript: ("indexing", "call the slab: SLAB(mm, i)"),
    ast.NamedExpr: ("an assignment inside an expression (:=)", "write it as a statement of its own"),
}
_LOADS = frozenset({"READ_ONCE", "load_acquire", "rcu_dereference"}) | {
    name + ordering
    for name in ("cmpxchg", "xchg", "fetch_add")
    for ordering in ("", "_relaxed", "_acquire", "_release")
}
_WAITS = frozenset({"cpu_relax", "wait_until", "wait_interruptible", "wait_while", "wait_while_interruptible"})


@dataclass(frozen=True)
class Finding:
    """One broken rule: where, what, and the mend."""

    file: str
    line: int
    function: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.function}): {self.what}; {self.mend}"


def lint(function: Callable[..., Any]) -> list[Finding]:
    """All findings in one function's own text, in order of line. Empty if its source is not available."""
    assert isinstance(function, FunctionType)
    if function.__code__.co_filename == "<string>":  # made by exec: 3.13 would give the text of `python -c` for it
        return []
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError:
        return []
    tree = ast.parse(textwrap.dedent("".join(lines)))
    definition = tree.body[0]
    file = inspect.getsourcefile(function) or "?"
    if not isinstance(definition, ast.FunctionDef) or definition.name != function.__name__:
        what = "the file was edited after it was loaded" if file != "?" else "its source cannot be found"
        return [Finding(file, first, function.__name__, what, "start again")]
    found = [
        Finding(file, first + line - 1, function.__name__, what, mend)
        for line, what, mend in _walk(definition, function)
    ]
    return sorted(found, key=lambda f: f.line)


def check_function(function: FunctionType) -> None:
    """Raise DialectError with every finding, a line each."""
    findings = lint(function)
    if findings:
        raise DialectError("\n".join(map(str, findings)))


def _walk(definition: ast.FunctionDef, function: FunctionType) -> Iterator[tuple[int, str, str]]:
    if function.__closure__:
        yield 1, f"uses the enclosing function's {', '.join(function.__code__.co_freevars)}", "pass it as an argument"
    arguments = definition.args
    if arguments.defaults or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        yield definition.lineno, "default, keyword or star arguments", "take plain positional arguments"
    yield from unknown_names(definition, function)
    yield from unknown_fields(definition, function)
    yield from returned_records(definition, function)
    yield from missing_return(definition)
    yield from endless_loops(definition)
    docstring = ast.get_docstring(definition, clean=False) is not None
    texts = _literals(definition, function)
    for statement in definition.body[docstring:]:
        for node in ast.walk(statement):
            line = getattr(node, "lineno", definition.lineno)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield line, "a function inside a function", "move it to module level and mark it @native"
            elif type(node) in _FORBIDDEN:
                what, mend = _FORBIDDEN[type(node)]
                yield line, what, mend
            elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
                yield line, "true division", "use // (integers only)"
            elif isinstance(node, ast.Constant) and isinstance(node.value, float):
                yield line, f"the float {node.value}", "use integers"
            elif isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and node not in texts:
                yield line, "a text", "strategy code has integers only; give the cases numbers"
            elif isinstance(node, ast.Constant) and node.value is None and node not in texts:
                yield line, "None", "use NULL"
            elif isinstance(node, ast.Call):
                yield from _call(node, function)
            elif isinstance(node, ast.While):
                yield from _spin(node)


def _call(node: ast.Call, function: FunctionType) -> Iterator[tuple[int, str, str]]:
    if isinstance(node.func, ast.Attribute):
        yield node.lineno, f"a method call .{node.func.attr}()", "call a @native function"
        return
    name = node.func.id if isinstance(node.func, ast.Name) else "?"
    if name in function.__globals__:
        obj = function.__globals__[name]
        if not (is_native(obj) or isinstance(obj, (Slab, Primitive, Hook, FarCall))):
            yield node.lineno, f"calls {name}, which is not strategy code", f"mark {name} with @native"
        yield from wrong_arguments(node, name, obj)
    elif name not in BUILTINS and hasattr(builtins, name):
        yield node.lineno, f"calls {name}", f"define it with @native (builtins: {', '.join(sorted(BUILTINS))})"
    if node.keywords:
        yield node.lineno, f"keyword arguments in the call of {name}", "pass by position"


def _literals(definition: ast.FunctionDef, function: FunctionType) -> set[ast.AST]:
    """Constants that may stand, or are told of elsewhere: field names in calls of primitives, a returned None."""
    returned: set[ast.AST] = {
        node.value
        for node in ast.walk(definition)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value is None
    }
    return returned | {
        argument
        for node in ast.walk(definition)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and isinstance(function.__globals__.get(node.func.id), Primitive)
        for argument in node.args
    }


def _spin(loop: ast.While) -> Iterator[tuple[int, str, str]]:
    """A loop whose condition waits for another task must say so, or a scheduler cannot get past it."""

    def calls(nodes: list[ast.AST]) -> set[str]:
        return {
            n.func.id
            for top in nodes
            for n in ast.walk(top)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }

    if calls([loop.test]) & _LOADS and not calls([*loop.body]) & _WAITS:
        yield loop.lineno, "spins on shared memory", "call cpu_relax() in the loop, or use wait_until"
