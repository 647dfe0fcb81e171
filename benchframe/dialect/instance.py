"""One text for many words: a function written over field names, made again for others.

A lock is the same algorithm whichever record holds its word. Field names are literals in strategy code, so the text is
written once, over names of its own, and :func:`instance` gives the same code with those names exchanged::

    @native
    def spin_lock(lock):
        wait_then_add(lock, "locked", -1, 1)
        return 0

    ptl_lock = instance(spin_lock, {"locked": "ptl"})

An instance keeps name, file and lines of its text: stories, lint and docs lead there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

from benchframe.dialect.function import Native, is_native, native, referenced
from benchframe.dialect.struct import DialectError

_ORIGIN = "__benchframe_origin__"
_made: dict[tuple[FunctionType, tuple[tuple[str, str], ...]], FunctionType] = {}


def instance(function: Native, words: Mapping[str, str]) -> Native:
    """``function`` and what it calls with the field names of ``words`` exchanged; the same object for the same names.

    Raises DialectError for what is not ``@native``, and for a name that occurs nowhere in the text (a misspelling).
    O(size of the call graph), once.
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
        raise DialectError(f"{names}: no word {wrong} in the text; it has {', '.join(sorted(known)) or 'none'}")
    changed = {old: new for old, new in words.items() if old != new}
    return tuple(_instance(function, changed)[0] for function in functions)


def origin(function: FunctionType) -> tuple[FunctionType, dict[str, str]] | None:
    """(text, words) that ``function`` was made from; None if it is no instance."""
    made: tuple[FunctionType, dict[str, str]] | None = getattr(function, _ORIGIN, None)
    return made


def made_from(function: Native) -> list[tuple[Native, dict[str, str]]]:
    """Every instance of ``function`` that was made so far, with its words."""
    return [(made, dict(words)) for (text, words), made in _made.items() if text is function]


def strings(function: FunctionType) -> set[str]:
    """The literal strings of a function's code and of what it calls: field names."""
    found = _own(function)
    for obj in referenced(function).values():
        if is_native(obj):
            found |= strings(obj)
    return found


def _own(function: FunctionType) -> set[str]:
    code = function.__code__
    return {c for at, c in enumerate(code.co_consts) if isinstance(c, str) and not (at == 0 and c == function.__doc__)}


def _instance(function: FunctionType, words: dict[str, str]) -> tuple[FunctionType, set[str]]:
    """The instance and which of the words occurred. A function without any stays itself."""
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
