"""A strategy: index + cache + protocol + allocator, each a set of hooks with defaults.

``Strategy("mine", "what is new", index="rbtree", cache=Cache(find=..., store=...))`` is a complete plugin: it uses the
index of another strategy, by name, and the defaults of :mod:`benchframe.mm.defaults` for everything not given.
:mod:`benchframe.mm.hooks` says when each hook is called, and under which lock. At the end are the hooks of a *plugin*,
through which it hands over its strategies and workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType, NoneType
from typing import TYPE_CHECKING, Any, ClassVar

import pluggy

from benchframe.dialect import Slab, Struct, is_native
from benchframe.dialect.functions import Binding, Native, referenced, where
from benchframe.dialect.records import FieldLike
from benchframe.errors import BenchframeError, did_you_mean
from benchframe.mm import kmem
from benchframe.mm.defaults import DEFAULTS
from benchframe.mm.hooks import ALL, BY_NAME
from benchframe.mm.layout import MODEL_SLABS, PRIVATE_BASES

if TYPE_CHECKING:
    from benchframe.scenario import Historic, KnownBug, Scenario
    from benchframe.workload import Workload


class StrategyError(BenchframeError):
    """A strategy that cannot be used: one line that names the part, what is wrong, and what to do."""


class PrivateSlab(Slab):
    """Memory of a strategy's own: ``fixed + per_vma * VMAs + per_task * tasks`` records of ``fields``.

    ``number``, 0 to 5, tells a strategy's slabs apart. ``per_vma`` is 1, or 0 if ``per_task`` is given. With
    ``per_vma=1`` alone record ``i`` may simply belong to VMA ``i``, with ``per_task=1`` to task ``i``. Otherwise take
    and give back records with ``arena_alloc(mm, ARENA_PRIVATE0 + number)`` and ``arena_free``. They start zeroed.

    ``part_of`` is (number, shift), for an array inside a larger record: record ``i`` is part of record ``i >> shift``
    of that slab, and lives as long as that record. The checker uses it. ``first`` is the first record that a reference
    may point to; it is needed where the larger record's size is not a power of two. ``at_rest`` names fields, such as
    the count of a lock, that are zero in every VMA's record while no call runs; validate_mm checks them.
    ``kmem_cache`` is for records that a kernel takes from a slab cache: the bytes of such an object there. They come
    from the strategy's :class:`Allocator`, if it has one. ``on_stack`` is for records that a kernel has on the stack:
    how many a CPU has; then taking one costs nothing.

    ``says`` names what record ``i`` is, for an array of words with places of their own: ``says(arrays, i)`` gives
    ``"node #2.slot[3]"``, where ``arrays`` has the machine's records by base. Stories and findings of ``check`` show
    it. Where it gives "", a word reads as ``name #i.field``.
    """

    def __init__(
        self,
        name: str,
        fields: Sequence[FieldLike],
        number: int = 0,
        per_vma: int | None = None,
        fixed: int = 0,
        part_of: tuple[int, int] | None = None,
        at_rest: Sequence[str] = (),
        first: int | None = None,
        per_task: int = 0,
        kmem_cache: int = 0,
        on_stack: int = 0,
        says: Callable[[Mapping[str, Any], int], str] | None = None,
    ) -> None:
        if per_vma is None:
            per_vma = 0 if per_task else 1
        if not 0 <= number < len(PRIVATE_BASES):
            raise StrategyError(f"private slab {name}: number {number} is not in 0..{len(PRIVATE_BASES) - 1}")
        if first is None:
            first = 1 << part_of[1] if part_of is not None else 1
        super().__init__(name, Struct(name, fields), PRIVATE_BASES[number], first)
        self.number, self.per_vma, self.fixed, self.part_of = number, per_vma, fixed, part_of
        self.per_task, self.at_rest = per_task, tuple(at_rest)
        self.kmem_cache, self.on_stack, self.says = kmem_cache, on_stack, says
        if unknown := [field for field in self.at_rest if field not in self.struct.fields]:
            raise StrategyError(f"private slab {name}: at_rest names {unknown[0]}, which is not one of its fields")

    def records(self, vmas: int, tasks: int) -> int:
        """How many there are beside record 0, for so many VMAs and tasks."""
        return self.fixed + self.per_vma * vmas + self.per_task * tasks


class Part:
    """Some hooks of one kind, by their short names; ``slabs`` is the part's own memory, ``bind`` fills hooks that
    another plugin declared. Raises StrategyError for a name that is not a hook, a function that is not ``@native``, or
    a function with the wrong number of arguments."""

    kind: ClassVar[str] = ""
    prefix: ClassVar[str] = ""

    def __init__(
        self,
        slabs: Sequence[PrivateSlab] = (),
        bind: Binding | None = None,
        **functions: Any,
    ) -> None:
        self.slabs = tuple(slabs)
        self.binding: dict[str, Native] = dict(bind or {})
        known = {h.name.removeprefix(self.prefix): h for h in ALL if h.part == self.kind}
        for short, function in functions.items():
            if short not in known:
                hint = _GONE.get(self.prefix + short) or did_you_mean(short, known, "it has {}")
                raise StrategyError(f"{type(self).__name__}: no hook {short!r}; {hint}")
            hook = known[short]
            if not is_native(function):
                raise StrategyError(f"{type(self).__name__}.{short}: {function!r} is not marked @native")
            if function.__code__.co_argcount != hook.arity:
                raise StrategyError(
                    f"{where(function)}: hook {short} takes ({', '.join(hook.parameters)}), "
                    f"this function takes {function.__code__.co_argcount} arguments"
                )
            self.binding[hook.name] = function

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.binding)})"


_GONE = {
    "index_init": "0.1 had it; a new mm has mm_rb == NULL, so remove it",
    "index_gap_above": "0.1 had it; the model walks its list for the few calls that search upwards, so remove it",
}
"""Hooks of 0.1 that no known strategy filled, and why they are not needed."""


class Index(Part):
    """How a VMA is found among all: ``find``, ``insert``, ``erase`` are mandatory; ``resize``, ``gap_below``, ``exit``,
    ``check`` have defaults."""

    kind, prefix = "index", "index_"


class Cache(Part):
    """The cache in front of the index: ``find``, ``store``, ``fault`` and the points of invalidation."""

    kind, prefix = "cache", "cache_"


class Protocol(Part):
    """What a lookup holds and what a writer does: ``mmap_read_lock`` ... ``vma_get``, ``vma_put``, ``vma_valid`` ..."""

    kind = "protocol"


class Allocator(Part):
    """Where VMAs and nodes come from: ``kmem_cache_alloc`` and ``kmem_cache_free`` are mandatory; ``kfree_rcu`` and the
    pair ``kmem_cache_prefill``, ``kmem_cache_return`` have defaults. Its memory is :mod:`benchframe.mm.kmem`'s, so it
    has no ``slabs``. A strategy without one takes a slab's slots from a stack: the allocator ``free``."""

    kind = "allocator"


@dataclass(frozen=True)
class Strategy:
    """One way to find a VMA. ``name`` is its name on the command line; ``summary`` is one line.

    ``index`` may name another strategy, whose index is then used. ``doc``, ``module`` and ``file`` default to those of
    the plugin; the registry sets them. ``scenarios`` are checked in addition to the common ones; ``known_bugs`` names
    what the checker finds in the strategy. :func:`resolve` fills ``binding``.
    """

    name: str
    summary: str
    index: Index | str
    cache: Cache | None = None
    protocol: Protocol | None = None
    allocator: Allocator | None = None
    doc: str = ""
    module: str = ""
    file: str = ""
    check_messages: Mapping[int, str] = field(default_factory=dict)
    scenarios: Sequence[Scenario] = ()
    known_bugs: Sequence[KnownBug] = ()
    binding: Binding = field(default_factory=dict, compare=False, repr=False)

    @property
    def slabs(self) -> tuple[PrivateSlab, ...]:
        """Every private slab of its parts; those of an index given by name only after :func:`resolve`."""
        parts = (self.index, self.cache, self.protocol)
        return tuple(slab for part in parts if isinstance(part, Part) for slab in part.slabs)

    def functions(self) -> list[FunctionType]:
        """Its native functions and the functions they call within its own modules, in file order. Its own modules are
        those that define its hooks; of a package, all modules."""
        own: dict[FunctionType, None] = {}
        parts = [p for p in (self.index, self.cache, self.protocol, self.allocator) if isinstance(p, Part)]
        homes = {function.__module__ for part in parts for function in part.binding.values()}

        def visit(function: FunctionType) -> None:
            names = function.__module__.split(".")
            if function in own or homes.isdisjoint(".".join(names[:n]) for n in range(len(names), 0, -1)):
                return
            own[function] = None
            for obj in referenced(function).values():
                if is_native(obj):
                    visit(obj)

        for part in parts:
            for function in part.binding.values():
                visit(function)
        return sorted(own, key=lambda f: (f.__code__.co_filename, f.__code__.co_firstlineno))


def _check_types(strategy: Strategy) -> None:
    """Raise StrategyError for a member of the wrong type: the author of a plugin need not run a type checker."""
    wanted: tuple[tuple[str, tuple[type, ...], str], ...] = (
        ("summary", (str,), "a line of text"),
        ("index", (Index, str), "an Index(...) or the name of a strategy"),
        ("cache", (Cache, NoneType), "a Cache(...)"),
        ("protocol", (Protocol, NoneType), "a Protocol(...)"),
        ("allocator", (Allocator, NoneType), "an Allocator(...)"),
        ("check_messages", (Mapping,), "a dict of numbers and texts"),
        ("scenarios", (list, tuple), "a list of Scenario"),
        ("known_bugs", (list, tuple), "a list of KnownBug"),
    )
    for member, types, words in wanted:
        value = getattr(strategy, member)
        if not isinstance(value, types):
            raise StrategyError(
                f"strategy {strategy.name}: its {member} is of type {type(value).__name__}, not {words}"
            )


def _check_slabs(name: str, parts: Sequence[Part]) -> None:
    """Raise StrategyError if a function uses memory that none of the parts has."""
    listed = {slab for part in parts for slab in part.slabs}
    for part in parts:
        for slab, (called, user) in _slabs_of(part).items():
            if slab in listed or (isinstance(part, Allocator) and slab in kmem.SLABS):
                continue
            what = f"{where(user)} uses the slab {called}, which no slabs= names"
            mend = f"write {type(part).__name__}(..., slabs=[{called}])"
            if not isinstance(slab, PrivateSlab):
                mend = f"make it a PrivateSlab, and {mend}"
            raise StrategyError(f"strategy {name}: {what}; {mend}")


def _slabs_of(part: Part) -> dict[Slab, tuple[str, FunctionType]]:
    """The slabs besides the model's that a part's functions, and those they call, name: how, and who does."""
    found: dict[Slab, tuple[str, FunctionType]] = {}
    seen: set[FunctionType] = set()
    waiting = list(part.binding.values())
    while waiting:
        function = waiting.pop()
        if function in seen or function.__module__.startswith("benchframe.mm."):
            continue
        seen.add(function)
        for name, obj in referenced(function).items():
            if isinstance(obj, Slab) and obj.base not in MODEL_SLABS:
                found.setdefault(obj, (name, function))
            elif is_native(obj):
                waiting.append(obj)
    return found


def _check_allocator(name: str, allocator: Allocator) -> None:
    """Raise StrategyError for an allocator that lacks a hook, or has memory of its own."""
    given = allocator.binding
    for needed, because in (
        ("kmem_cache_alloc", True),
        ("kmem_cache_free", True),
        ("kmem_cache_return", "kmem_cache_prefill" in given),
        ("kmem_cache_prefill", "kmem_cache_return" in given),
    ):
        if because and needed not in given:
            hook = f"{needed}({', '.join(BY_NAME[needed].parameters)})"
            raise StrategyError(f"strategy {name}: its allocator lacks the hook {hook}")
    if allocator.slabs:
        raise StrategyError(f"strategy {name}: an Allocator has no slabs of its own; use those of benchframe.kernel")


def resolve(strategy: Strategy, by_name: Mapping[str, Strategy]) -> Strategy:
    """``strategy`` with a named index replaced by that strategy's index, and ``binding`` complete.

    Raises StrategyError: a member of another type, the named strategy does not exist or has no index of its own, two
    parts claim one private slab, a function uses a private slab that no part lists, or a mandatory hook is missing.
    """
    index = strategy.index
    _check_types(strategy)
    if isinstance(index, str):
        if index not in by_name:
            hint = did_you_mean(index, sorted(by_name), "known: {}" if by_name else "known: none")
            raise StrategyError(f"strategy {strategy.name}: its index {index!r} is not a strategy; {hint}")
        other = by_name[index].index
        if isinstance(other, str):
            raise StrategyError(
                f"strategy {strategy.name}: {index} has no index of its own (it uses {other}'s); name {other} instead"
            )
        index = other
    parts = [p for p in (index, strategy.cache, strategy.protocol, strategy.allocator) if p is not None]
    numbers = [slab.number for part in parts for slab in part.slabs]
    if len(set(numbers)) < len(numbers):
        raise StrategyError(f"strategy {strategy.name}: two private slabs have the same number; renumber one")
    binding: dict[str, Native] = dict(DEFAULTS)
    for part in parts:
        binding.update(part.binding)
    named = [one.name for one in strategy.scenarios]
    if len(set(named)) < len(named):
        raise StrategyError(f"strategy {strategy.name}: two of its scenarios have the same name; rename one")
    _check_slabs(strategy.name, parts)
    if strategy.allocator is not None:
        _check_allocator(strategy.name, strategy.allocator)
    missing = [h.name for h in ALL if h.default is None and h.name not in binding]
    if missing:
        hooks = ", ".join(f"{n.removeprefix('index_')}({', '.join(BY_NAME[n].parameters)})" for n in missing)
        raise StrategyError(f"strategy {strategy.name}: lacks the hook {hooks}")
    return replace(strategy, index=index, binding=binding)


# ----------------------------------------------------------------------------------------------------------------------
# The hooks that a plugin may implement: four plain functions, each returning what the plugin provides.
#
# A plugin is a module. It marks its hook functions with :data:`hookimpl` (``from benchframe.api import hookimpl``).
# benchframe finds it through an entry point of the group ``benchframe``, or because the user names it with ``--plugin
# FILE``. docs/plugins.md explains plugins; :mod:`benchframe.registry` loads them.

PROJECT = "benchframe"
"""The name of the plugin system and of the entry point group."""


class Moved(DeprecationWarning):
    """A plugin imports a name from the place where an earlier version had it. The registry collects these:
    ``Registry.notes``."""


hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def benchframe_strategies() -> list[Strategy]:  # type: ignore[empty-body]  # a specification has no body
    """The lookup strategies of this plugin. Called once, right after loading; must not compile anything."""


@hookspec
def benchframe_workloads() -> list[Workload]:  # type: ignore[empty-body]
    """The workloads of this plugin. Called once, right after loading; must not make any stream yet."""


@hookspec
def benchframe_metadata() -> dict[str, str]:  # type: ignore[empty-body]
    """Keys and texts to store with every result, such as a firmware version. Called once per run."""


@hookspec
def benchframe_historic() -> list[Historic]:  # type: ignore[empty-body]
    """Historic races, reintroduced: `benchframe check --historic` shows them. Called when they are needed."""


HOOKS = ("benchframe_strategies", "benchframe_workloads", "benchframe_metadata", "benchframe_historic")
"""The names of all hooks; each begins with the project's name."""
