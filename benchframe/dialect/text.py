"""A hash of what a ``@native`` function does, equal under every Python: of its syntax tree, not of its bytecode.

Compiled code is stored under hashes of bytecode (:class:`~benchframe.dialect.functions.Identities`), which are cheap
but differ between versions of Python. What a *result* depends on must be comparable for years. Therefore this hash
ignores comments, docstrings, annotations, the place of a function, and the names of functions, local variables and
constants. It covers operations, the values of constants, field names, struct layouts and everything that is called.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from benchframe.dialect.functions import Identities, origin, where
from benchframe.dialect.records import DialectError, Slab

_SILENT = frozenset({"ctx", "kind", "annotation", "returns", "type_comment", "type_params", "decorator_list", "name"})
"""Fields of a syntax tree that decide nothing here, or that some versions of Python lack."""


class TextIdentities(Identities):
    """As :class:`Identities`, from the source text. O(size of the text), once; a few tens of milliseconds for the whole
    model.

    Raises DialectError where the source of a function is missing or no longer matches the function.
    """

    def _own(self, function: FunctionType, update: Callable[[bytes], object]) -> dict[str, Any]:
        text, names = _normal(function)
        update(text)
        return {name: function.__globals__[name] for name in names}

    def _describe(self, obj: Any, name: str, user: FunctionType) -> str:
        """For a slab, also which of its fields cost nothing."""
        text = super()._describe(obj, name, user)
        if isinstance(obj, Slab):
            text += f" model {[name for name, field in obj.struct.members.items() if field.model]}"
        return text

    def _label(self, name: str) -> str:
        """The order of first use identifies a global; its name does not count."""
        return "global"


@cache
def _normal(function: FunctionType) -> tuple[bytes, tuple[str, ...]]:
    """What the function itself does, and the globals that it names; the same under every binding."""
    text, words = function, dict[str, str]()
    while (made := origin(text)) is not None:
        text, inner = made
        words = {**{old: words.get(new, new) for old, new in inner.items()}, **words}
    normal = _Normal(function, words)
    normal.function(_tree(text))
    return "".join(normal.parts).encode(), tuple(normal.globals)


@cache
def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    return tuple(name for name in kind._fields if name not in _SILENT)


class _Normal:
    """Writes down a function's syntax tree, with locals by number and globals by the order of first use."""

    def __init__(self, function: FunctionType, words: dict[str, str]) -> None:
        self.parts: list[str] = []
        self.globals: dict[str, int] = {}
        self._scope = function.__globals__
        self._words = words
        code = function.__code__
        self._names = frozenset(code.co_varnames)
        self._locals = {name: number for number, name in enumerate(code.co_varnames[: code.co_argcount])}

    def function(self, node: ast.FunctionDef) -> None:
        body = node.body
        first = body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            body = body[1:]
        self.parts.append(f"{len(self._locals)} arguments ")
        self._list(body)

    def _list(self, nodes: list[Any]) -> None:
        self.parts.append("[")
        for node in nodes:
            self._node(node)
        self.parts.append("]")

    def _node(self, node: Any) -> None:
        if isinstance(node, ast.Name):
            self._name(node.id)
        elif isinstance(node, ast.Constant):
            value = node.value
            self.parts.append(repr(self._words.get(value, value) if isinstance(value, str) else value))
        elif isinstance(node, ast.AST):
            kind: Any = type(node)
            self.parts.append(f"({kind.__name__}")
            for name in _fields(kind):
                value = getattr(node, name, None)
                if value is not None and value != []:
                    self.parts.append(f" {name}=")
                    self._list(value) if isinstance(value, list) else self._node(value)
            self.parts.append(")")
        else:
            self.parts.append(repr(node))

    def _name(self, name: str) -> None:
        if name in self._names:
            self.parts.append(f"local {self._locals.setdefault(name, len(self._locals))}")
        elif name in self._scope:
            self.parts.append(f"global {self.globals.setdefault(name, len(self.globals))}")
        else:
            self.parts.append(f"builtin {name}")


_trees: dict[str, dict[tuple[str, int], ast.FunctionDef]] = {}
"""File to the functions in it, by name and first line (that of the first decorator)."""


def _tree(function: FunctionType) -> ast.FunctionDef:
    code = function.__code__
    if code.co_filename not in _trees:
        text = "".join(linecache.getlines(code.co_filename))
        _trees[code.co_filename] = {
            (node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)])): node
            for node in ast.parse(text).body  # the dialect has functions at module level only
            if isinstance(node, ast.FunctionDef)
        }
    found = _trees[code.co_filename].get((code.co_name, code.co_firstlineno))
    if found is None:
        raise DialectError(f"{where(function)}: its source is missing or was edited since it was loaded; start again")
    return found
