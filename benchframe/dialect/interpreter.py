"""Run strategy code in the interpreter: ``dejit`` binds its hooks, proxies stand for references.

A proxy reads and writes the same NumPy memory as compiled code, so the two can take turns on one address space. The
*world* behind the proxies decides what an access does: :class:`PlainWorld` simply does it; a counting or scheduling
world also sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy.typing as npt

from benchframe.dialect.functions import (
    Binding,
    FarCall,
    Hook,
    instances,
    is_native,
    origin,
    referenced,
    resolve,
    strings,
)
from benchframe.dialect.records import DialectError, NullDereference, Slab, Struct, WildAccess

Array = npt.NDArray[Any]


def dejit(
    function: Callable[..., Any],
    binding: Binding | None = None,
    far: Binding | None = None,
    replace: Mapping[Any, Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """A clone of ``function`` for the interpreter, in which ``binding`` binds every hook that it (transitively) calls.

    ``far`` binds the code behind each :class:`FarCall`, which is compiled separately in native runs, if it is given.
    Pass references of a world as ``mm``. Clones are memoised per call of ``dejit``; the originals are not changed.
    ``replace`` substitutes other functions for native ones: plain Python is used as it is, native text is cloned too.
    For an :func:`~benchframe.dialect.functions.instance` the replacement of its text applies. What a native replacement
    may call is as in :class:`~benchframe.dialect.functions.Identities`.
    """
    replacing = dict(replace or {})
    clones: dict[tuple[FunctionType, bool], Callable[..., Any]] = {}

    def clone(original: FunctionType, user: FunctionType | None = None) -> Callable[..., Any]:
        """The clone that ``user`` calls."""
        text, words = origin(original) or (original, {})
        other: Any = replacing.get(original, replacing.get(text, original))
        replaced = other is not original and other is not user and (user is None or replacing.get(user) is not user)
        if (original, replaced) in clones:
            return clones[original, replaced]
        if replaced:
            if is_native(other):
                own = {word: field for word, field in words.items() if word in strings(other)}
                other = clone(instances(own, other)[0])
            clones[original, True] = other
            return clones[original, True]
        scope = dict(original.__globals__)
        twin = FunctionType(original.__code__, scope, original.__name__, original.__defaults__)
        twin.__qualname__ = original.__qualname__
        clones[original, False] = twin
        for name, obj in referenced(original).items():
            if isinstance(obj, Hook):
                bound = resolve(obj, binding if binding is not None else {})
                assert bound is not None
                scope[name] = clone(bound, original)
            elif isinstance(obj, FarCall):
                scope[name] = clone(obj.function, original) if far is None else dejit(obj.function, far, None, replace)
            elif is_native(obj):
                scope[name] = clone(obj, original)
        return twin

    if not isinstance(function, FunctionType):
        raise DialectError(f"dejit needs a @native function, not {function!r}")
    return clone(function)


def _getter(column: int) -> Callable[[Any], int]:
    def get(self: Any) -> int:
        return self._columns[column][self.index]  # type: ignore[no-any-return]

    return get


def _setter(column: int) -> Callable[[Any, int], None]:
    def put(self: Any, value: int) -> None:
        self._columns[column][self.index] = value

    return put


def proxy_class(struct: Struct, get: Callable[[int], Any] = _getter, put: Callable[[int], Any] = _setter) -> type[Any]:
    """A class with one property per field of ``struct``; instances hold (world, slab, index, columns)."""

    def init(self: Any, world: Any, slab: Slab, index: int, columns: tuple[Any, ...]) -> None:
        self.world, self.slab, self.index, self._columns = world, slab, index, columns

    body: dict[str, Any] = {
        "__slots__": ("_columns", "index", "slab", "world"),
        "__init__": init,
        "__repr__": lambda self: f"<{self.slab.name} {self.index}>",
    }
    for column, field in enumerate(struct.fields):
        body[field] = property(get(column), put(column), doc=struct.members[field].comment)
    return type(struct.name, (), body)


class _NullColumns:
    """The columns of NULL: taking one means reading or writing through NULL."""

    __slots__ = ("ref",)

    def __init__(self, ref: NullRef) -> None:
        self.ref = ref

    def __getitem__(self, column: int) -> Any:
        raise self.ref.dereference(list(self.ref.slab.struct.fields)[column])


class NullRef:
    """A reference to NULL's record. As in C it may be made and passed on; reading or writing through it raises
    NullDereference."""

    def __init__(self, world: Any, slab: Slab, index: int) -> None:
        self.world, self.slab, self.index = world, slab, index
        self._columns = _NullColumns(self)

    def __repr__(self) -> str:
        return f"<{self.slab.name} NULL>"

    def dereference(self, field: str) -> WildAccess:
        """The error for an access to ``field``."""
        which = "NULL" if self.index == 0 else f"{self.index} (record NULL of the whole)"
        return NullDereference(f"{self.slab.name}(mm, {which}).{field}")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.slab.struct.fields:
            raise self.dereference(name)
        raise AttributeError(f"{self.slab.struct.name} has no field {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _NULL_OWN:
            object.__setattr__(self, name, value)
        elif name in self.slab.struct.fields:
            raise self.dereference(name)
        else:
            raise AttributeError(f"{self.slab.struct.name} has no field {name!r}")


_NULL_OWN = frozenset({"world", "slab", "index", "_columns", "address"})


def unusual(world: Any, slab: Slab, index: int, count: int) -> Any:
    """The result of ``slab(mm, index)`` for an index without a record: a :class:`NullRef` below ``slab.first``. Raises
    WildAccess outside the slab's ``count`` records."""
    if 0 <= index < min(slab.first, count):
        return NullRef(world, slab, index)
    raise WildAccess(f"{slab.name}(mm, {index}): the slab has {count} records")


def wrapped(struct: Struct, field: str, value: int) -> int:
    """``value`` as a field of this width holds it: two's complement, wrapping as the hardware does."""
    half = 1 << (31 if struct.fields[field][1] == "i4" else 63)
    return (value + half) % (2 * half) - half


def named(ref: Any) -> str:
    """A record as stories name it: ``mm #1``."""
    return f"{ref.slab.name.lower()} #{ref.index}"


class PlainWorld:
    """Plain memory: ``ref(slab, i)`` gives a proxy, accesses go straight to the arrays.

    ``arrays`` maps a slab's base field to its NumPy record array. Sequentially consistent, one task. An index outside
    the array and an access through NULL are errors here (natively they would corrupt memory).
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        self._slabs: dict[str, tuple[type[Any], tuple[Any, ...], int]] = {}

    def _prepare(self, slab: Slab) -> tuple[type[Any], tuple[Any, ...], int]:
        array = self._arrays[slab.base]
        if array.dtype != slab.struct.dtype:
            raise DialectError(f"{slab.name}: the world's array at {slab.base} is of another struct")
        columns = tuple(memoryview(array[field]) for field in slab.struct.fields)  # type: ignore[arg-type]
        prepared = (proxy_class(slab.struct), columns, len(array))
        self._slabs[slab.base] = prepared
        return prepared

    def ref(self, slab: Slab, index: int) -> Any:
        """The proxy for ``slab``'s record ``index``. Raises WildAccess outside the slab."""
        kind, columns, count = self._slabs.get(slab.base) or self._prepare(slab)
        if not slab.first <= index < count:
            return unusual(self, slab, index, count)
        return kind(self, slab, index, columns)

    def load(self, ref: Any, field: str, ordering: str) -> int:
        """An ordered load."""
        return getattr(ref, field)  # type: ignore[no-any-return]

    def store(self, ref: Any, field: str, value: int, ordering: str) -> None:
        """An ordered store."""
        setattr(ref, field, value)

    def rmw(self, ref: Any, field: str, operation: str, value: int, ordering: str = "full") -> int:
        """An atomic read-modify-write; ``operation`` is ``add`` or ``xchg``."""
        old: int = getattr(ref, field)
        setattr(ref, field, wrapped(ref.slab.struct, field, old + value) if operation == "add" else value)
        return old

    def cmpxchg(self, ref: Any, field: str, old: int, new: int, ordering: str = "full") -> int:
        """An atomic compare-and-exchange; returns the value before."""
        seen: int = getattr(ref, field)
        if seen == old:
            setattr(ref, field, new)
        return seen

    def wait(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """No other task runs here: the condition holds already, or it never will."""
        seen: int = getattr(ref, field)
        if seen & mask != value:
            raise DialectError(f"deadlock: waits until {field} of {named(ref)} is {value} (mask {mask}); it is {seen}")
        return 0

    def wait_while(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """No other task runs here: the value differs already, or it never will."""
        seen: int = getattr(ref, field)
        if seen & mask == value:
            raise DialectError(
                f"deadlock: waits while {field} of {named(ref)} is {value} (mask {mask}); no task can change it"
            )
        return 0

    def wait_then_add(self, ref: Any, field: str, mask: int, delta: int) -> int:
        """Take a lock that must be free, since no other task runs here."""
        seen: int = getattr(ref, field)
        if seen & mask:
            raise DialectError(f"deadlock: waits for {field} of {named(ref)}, which nobody gives back")
        return self.rmw(ref, field, "add", delta)
