"""`@native` functions and hooks, the derivation of their identity, and instances of one text for several fields.

There is also a hash that is equal under every Python: of the syntax tree, not of bytecode. Compiled
code is stored under hashes of bytecode (:class:`~benchframe.dialect.functions.Identities`), which are cheap but differ
between versions of Python. What a *result* depends on must be comparable for years. Therefore this hash ignores
comments, docstrings, annotations, the place of a function, and the names of functions, local variables and constants.
It covers operations, the values of constants, field names, struct layouts and everything that is called.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import linecache
import threading
from collections.abc import Callable, Mapping
from functools import cache
from types import CodeType, FunctionType
from typing import Any, TypeVar

from benchframe.dialect.primitives import Primitive
from benchframe.dialect.records import DialectError, Slab

# ----------------------------------------------------------------------------------------------------------------------
# ``@native`` functions and hooks: strategy code consists of them. How their identity is derived.
#
# A ``@native`` function is an ordinary module-level Python function, and stays callable as one (interpreted).
# Its *identity* is a hash over its bytecode and, through the global names it uses, over everything it calls:
# other native functions, hook bindings, struct layouts, constants. Compiled code is stored under that identity
# (:mod:`benchframe.dialect.store`), so an edited function, or an edited callee, is never served stale.
#
# A :class:`Hook` is a named place in the model that a strategy fills. Code calls it like a function; the
# :class:`Binding` given at link time decides what runs.

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__benchframe_native__"
BUILTINS = frozenset({"range", "min", "max", "abs", "int", "bool", "len"})
"""Builtins that strategy code may call."""


def native(function: F) -> F:
    """Mark a module-level function as strategy code: one text to compile, count and check.

    Nothing is compiled or checked here: importing a plugin costs nothing. The rules of the dialect are checked (with
    file, line and hint) before a function is first compiled, and by ``benchframe check``.

    >>> @native
    ... def twice(x):
    ...     return x + x
    >>> twice(21)
    42
    """
    setattr(function, _MARK, True)
    return function


def is_native(obj: object) -> bool:
    """Whether ``obj`` was marked with :func:`native`."""
    return isinstance(obj, FunctionType) and getattr(obj, _MARK, False) is True


class Hook:
    """A function of the model that a strategy may supply.

    ``default`` (a native function) runs where the strategy supplies none; ``None`` makes the hook mandatory. ``hot``:
    the replay itself calls it, so it is bound there directly and inlined. ``called``: code that is compiled once for
    all strategies calls it, through the mm's hook entry. ``lookup``: its cost counts for the lookup, not for the rest
    of the fault. ``holds`` names the locks that the caller holds.
    """

    def __init__(
        self,
        name: str,
        part: str,
        default: FunctionType | None,
        signature: FunctionType,
        *,
        hot: bool = False,
        called: bool = True,
        lookup: bool = False,
        holds: str = "",
    ) -> None:
        self.name = name
        self.part = part
        self.default = default
        self.hot, self.called, self.lookup, self.holds = hot, called, lookup, holds
        self.arity = signature.__code__.co_argcount
        self.parameters = signature.__code__.co_varnames[: self.arity]
        self.__name__ = name
        self.__doc__ = signature.__doc__

    def __call__(self, *args: Any) -> Any:
        raise DialectError(f"hook {self.name} was called without a strategy; link() or dejit() the caller first")

    def __repr__(self) -> str:
        return f"<hook {self.part}.{self.name}>"


def hook(
    part: str,
    *,
    mandatory: bool = False,
    hot: bool = False,
    called: bool | None = None,
    lookup: bool = False,
    holds: str = "",
) -> Callable[[Callable[..., Any]], Hook]:
    """Declare a hook of strategy part ``part``; the decorated body is its default unless ``mandatory``.

    By default a hook is ``called`` if it is not ``hot``. See :class:`Hook`.
    """

    def declare(function: Callable[..., Any]) -> Hook:
        assert isinstance(function, FunctionType)
        default = None if mandatory else native(function)
        through = not hot if called is None else called
        return Hook(function.__name__, part, default, function, hot=hot, called=through, lookup=lookup, holds=holds)

    return declare


class FarCall:
    """A call of a native function through the address in an mm field: the function is compiled once, in another unit.

    ``FarCall("mapping_entry", f)(mm, i)`` costs some 2 ns more than ``f(mm, i)`` and keeps ``f`` out of the caller's
    compilation. Interpreted it is ``f`` itself.
    """

    def __init__(self, field: str, function: Callable[..., Any]) -> None:
        assert isinstance(function, FunctionType)
        self.field = field
        self.function = function
        self.arity = function.__code__.co_argcount
        self.__name__ = function.__name__

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def identity(self) -> str:
        """What compiled code depends on: the field and the number of arguments."""
        return f"far call {self.field}/{self.arity}"

    def __repr__(self) -> str:
        return f"<far call of {self.__name__}>"


class CCall(FarCall):
    """A call of a C function that is linked into the unit: ``name`` of ``source`` (:mod:`benchframe.cstrategy`).

    ``source`` has ``symbol(name)``, the name in the object file, ``content()``, a hash of all that decides its code,
    and ``build()``, the object file. Interpreted, ``function`` runs: a ``twin`` in the dialect, or else a bridge to the
    same C.
    """

    def __init__(self, name: str, source: Any, function: Callable[..., Any], twin: bool = True) -> None:
        super().__init__("", function)
        self.name, self.source, self.twin = name, source, twin

    def identity(self) -> str:
        """The C text and its compiler, not the twin's text; read anew each time, so an edit counts."""
        return f"c call {self.name}/{self.arity} of {self.source.content()}"

    def __repr__(self) -> str:
        return f"<C call of {self.name}>"


Native = Any
"""The type of a native function for type checkers: callable, and a function where Python needs one."""
Binding = Mapping[str, Native]
"""Hook name to the native function that fills it."""
Replacements = Mapping[Any, Native]
"""Maps a native function to the one, with the same arguments, that a build substitutes for it: see
:class:`Identities`."""


def resolve(hook_: Hook, binding: Binding | None) -> Native | None:
    """The function that ``hook_`` runs under ``binding``; None if unbound (an indirect call through the ops table)."""
    if binding is None:
        return None
    function = binding.get(hook_.name, hook_.default)
    if function is None:
        raise DialectError(
            f"the strategy does not implement the mandatory hook {hook_.name}({', '.join(hook_.parameters)})"
        )
    return function


def referenced(function: FunctionType) -> dict[str, Any]:
    """The global objects that ``function``'s code names, in the order of its name table.

    The table also holds attribute names; one that happens to be a global too is kept only if the code really
    loads the global (looked up in the bytecode only in that rare case: this runs at every start).
    """
    found = {}
    scope = function.__globals__
    for name in function.__code__.co_names:
        if name in scope and (_usable(scope[name]) or name in _loaded_globals(function.__code__)):
            found[name] = scope[name]
    return found


def _usable(obj: object) -> bool:
    return isinstance(obj, (int, Slab, Primitive, Hook, FarCall)) or is_native(obj)


def _loaded_globals(code: CodeType) -> set[str]:
    import dis

    return {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def where(function: Callable[..., Any]) -> str:
    """``file:line (name)`` of a function, for messages."""
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno} ({getattr(function, '__name__', '?')})"


class Identities:
    """Content hashes of native functions under one binding; memoised, O(size of the call graph) once.

    ``replace`` makes another build of the same text: wherever a function names one of its keys, the value is called. A
    replacement itself may call the function it replaces; a function that replaces itself may call any.
    """

    def __init__(self, binding: Binding | None, replace: Replacements | None = None) -> None:
        self.binding = binding
        self._replace = dict(replace or {})
        self._known: dict[FunctionType, str] = {}
        self._open: list[FunctionType] = []

    def callee(self, obj: Any, user: FunctionType) -> Any:
        """The native function that runs where ``user`` names ``obj``, a native function or a hook; None if unbound."""
        function = resolve(obj, self.binding) if isinstance(obj, Hook) else obj
        other = self._replace.get(function, function)
        return function if other is user or self._replace.get(user) is user else other

    def of(self, function: FunctionType) -> str:
        """Hex SHA-256 of the bytecode, the constants and, transitively, everything that ``function`` refers to.

        Raises DialectError on recursion, which the dialect forbids, and on undefined names.
        """
        known = self._known.get(function)
        if known is not None:
            return known
        if function in self._open:
            chain = " -> ".join(f.__name__ for f in [*self._open, function])
            raise DialectError(f"{where(function)}: recursion ({chain}); write it as a loop")
        self._open.append(function)
        digest = hashlib.sha256()
        for name, obj in self._own(function, digest.update).items():
            digest.update(f"\n{self._label(name)}=".encode())
            digest.update(self._describe(obj, name, function).encode())
        self._open.pop()
        self._known[function] = digest.hexdigest()
        return self._known[function]

    def _own(self, function: FunctionType, update: Callable[[bytes], object]) -> dict[str, Any]:
        """Feed what the function itself does, and give the global objects that it names."""
        _hash_code(function.__code__, function.__doc__, update)
        return referenced(function)

    def _label(self, name: str) -> str:
        """The text that represents the name of a global in the hash."""
        return name

    def _describe(self, obj: Any, name: str, user: FunctionType) -> str:
        if isinstance(obj, Hook):
            bound = self.callee(obj, user)
            return f"hook {obj.name}" if bound is None else self.of(bound)
        if is_native(obj):
            return self.of(self.callee(obj, user))
        if isinstance(obj, Slab):
            return obj.layout
        if isinstance(obj, FarCall):
            return obj.identity()
        if isinstance(obj, Primitive):
            return f"primitive {obj.name}"
        if isinstance(obj, (bool, int)):
            return repr(int(obj))
        if getattr(builtins, name, _NONE) is obj:
            return f"builtin {name}"
        raise DialectError(
            f"{where(user)}: {name!r} is a {type(obj).__name__}; strategy code may use integers, slabs, primitives, "
            "hooks and @native functions only (mark the function with @native, or make the value an int)"
        )


_NONE = object()
"""Not a builtin: a global that is None must not be mistaken for one."""


def _hash_code(code: CodeType, doc: str | None, update: Callable[[bytes], object]) -> None:
    """Hash everything that decides the function's behaviour; its docstring and comments do not count."""
    update(code.co_code)
    update(repr((code.co_names, code.co_varnames, code.co_argcount)).encode())
    for index, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            _hash_code(constant, None, update)
        elif not (index == 0 and doc is not None and constant == doc):
            update(repr(constant).encode())


# ----------------------------------------------------------------------------------------------------------------------
# One text for many fields: a function written for some field names, instantiated for others.
#
# A lock is the same algorithm whichever record holds it. Field names are literals in strategy code, so the text is
# written once, with field names of its own, and :func:`instance` makes the same code with other names::
#
#     @native
#     def spin_lock(lock):
#         wait_then_add(lock, "locked", -1, 1)
#         return 0
#
#     ptl_lock = instance(spin_lock, {"locked": "ptl"})
#
# An instance keeps name, file and lines of its text: counterexamples, lint and docs refer to them.

_ORIGIN = "__benchframe_origin__"
_made: dict[tuple[FunctionType, tuple[tuple[str, str], ...]], FunctionType] = {}


def instance(function: Native, words: Mapping[str, str]) -> Native:
    """``function`` and the functions it calls, with the field names in ``words`` replaced; the same object for the same
    names.

    Raises DialectError for a function that is not ``@native``, and for a name that does not occur in the text (a
    misspelling). O(size of the call graph), once.
    """
    return instances(words, function)[0]


def instances(words: Mapping[str, str], *functions: Native) -> tuple[Native, ...]:
    """:func:`instance` of several functions; each name must occur in one of them."""
    for function in functions:
        if not is_native(function):
            raise DialectError(f"instance needs a @native function, not {function!r}")
    known = set().union(*map(strings, functions))
    if set(words) - known:
        wrong = ", ".join(sorted(set(words) - known))
        names = ", ".join(f.__name__ for f in functions)
        raise DialectError(f"{names}: no field name {wrong} in the text; it has {', '.join(sorted(known)) or 'none'}")
    changed = {old: new for old, new in words.items() if old != new}
    return tuple(_instance(function, changed)[0] for function in functions)


def origin(function: FunctionType) -> tuple[FunctionType, dict[str, str]] | None:
    """(text, words) from which ``function`` was made; None if it is not an instance."""
    made: tuple[FunctionType, dict[str, str]] | None = getattr(function, _ORIGIN, None)
    return made


def made_from(function: Native) -> list[tuple[Native, dict[str, str]]]:
    """Every instance of ``function`` made so far, with its words."""
    return [(made, dict(words)) for (text, words), made in _made.items() if text is function]


def strings(function: FunctionType) -> set[str]:
    """The literal strings (field names) in a function's code and in the code it calls."""
    found = _own(function)
    for obj in referenced(function).values():
        if is_native(obj):
            found |= strings(obj)
    return found


def _own(function: FunctionType) -> set[str]:
    code = function.__code__
    return {c for at, c in enumerate(code.co_consts) if isinstance(c, str) and not (at == 0 and c == function.__doc__)}


def _instance(function: FunctionType, words: dict[str, str]) -> tuple[FunctionType, set[str]]:
    """The instance, and which of the words occur. A function in which none occurs is returned itself."""
    used = set(words) & strings(function)
    if not used:
        return function, used
    mine = {old: words[old] for old in sorted(used)}
    key = (function, tuple(mine.items()))
    if key not in _made:
        _made[key] = _make(function, mine)
    return _made[key], used


def _make(function: FunctionType, words: dict[str, str]) -> FunctionType:
    code = function.__code__
    own = _own(function)
    constants = tuple(words.get(c, c) if isinstance(c, str) and c in own else c for c in code.co_consts)
    scope: dict[str, Any] = dict(function.__globals__)
    for name, obj in referenced(function).items():
        if is_native(obj):
            scope[name] = _instance(obj, words)[0]
    made = FunctionType(code.replace(co_consts=constants), scope, function.__name__, function.__defaults__)
    made.__doc__, made.__module__, made.__qualname__ = function.__doc__, function.__module__, function.__qualname__
    setattr(made, _ORIGIN, (function, words))
    return native(made)


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


_parsing = threading.Lock()
"""Two threads (of a worker on a cluster) must not parse at once: CPython 3.11 then fails with a SystemError."""


def _tree(function: FunctionType) -> ast.FunctionDef:
    code = function.__code__
    with _parsing:
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
