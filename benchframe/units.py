"""Units: the functions that are called from Python or through an address, each compiled together with all it calls;
and the identity of what a result depends on.

A unit is loaded from the store if its content key is there (a few ms, without numba), else compiled and stored.

A result depends on the strategy and everything it calls, on the model and on the engine; each has a hash.
Two runs can be compared if they were made with the same model. The model is what the compiled units do
(:func:`model_digest`): a comment, a docstring, a moved file or a renamed function does not change it; a changed
operation, constant or struct layout does. What is not in any unit has a version number, :data:`ENGINE`.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchframe.dialect.functions import Binding, Hook, Identities, Native, Replacements, TextIdentities
from benchframe.dialect.records import Struct
from benchframe.dialect.store import Store, Unit, toolchain_key
from benchframe.mm.defaults import DEFAULTS, count_event
from benchframe.mm.hooks import ALL, hook_entry
from benchframe.mm.layout import mm_struct
from benchframe.mm.replay import KNOWN, mapping_event, nothing_done, nothing_found, replay_entry, replay_timed
from benchframe.mm.smp import REPLACE
from benchframe.mm.smp_replay import thread_entry

if TYPE_CHECKING:
    from benchframe.strategy import Strategy


@dataclass(frozen=True)
class UnitSpec:
    """What to compile: ``entry`` takes an ``mm_struct`` reference and ``arity - 1`` integers.

    ``binding`` fills the hooks; None leaves them as indirect calls through ``mm.hook_entry``. ``name`` is for display
    and for the store's file names. ``replace`` substitutes functions (as in a build for threads).
    """

    name: str
    entry: Native
    binding: Binding | None
    replace: Replacements | None = None

    @property
    def arity(self) -> int:
        """The number of arguments of the entry, including the mm."""
        return int(self.entry.__code__.co_argcount)

    def key(self, mm: Struct, hooks: Sequence[Hook]) -> str:
        """The content key: it changes with everything that could change the machine code."""
        digest = hashlib.sha256()
        order = "" if self.binding is not None else ",".join(h.name for h in hooks)
        parts = (Identities(self.binding, self.replace).of(self.entry), mm.layout, order, toolchain_key())
        digest.update(repr(parts).encode())
        return digest.hexdigest()


COLLECT_AFTER = 14_000
"""New objects before a collection: twenty times Python's own number."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Collect garbage less often, where many objects are made that stay: a compilation's or an execution graph's.

    Python's collector visits all of them again and again (a sixth of the time of a compilation). It runs twenty times
    less often here, and leaves out what was there before.
    """
    thresholds = gc.get_threshold()
    if thresholds[0] >= COLLECT_AFTER:  # someone outside has done so
        yield
        return
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


_loaded: dict[str, Unit] = {}
"""The units loaded in this process, by content key."""


class Units:
    """Loads or compiles units. ``compiled`` lists what had to be compiled here: (name, seconds)."""

    def __init__(self, mm: Struct, hooks: Sequence[Hook], store: Store | None = None) -> None:
        self.mm = mm
        self.hooks = tuple(hooks)
        self.store = store or Store()
        self.compiled: list[tuple[str, float]] = []

    def missing(self, specs: Sequence[UnitSpec]) -> list[UnitSpec]:
        """Those of ``specs`` that are neither in this process nor in the store."""
        return [s for s in specs if self._find(s) is None]

    def key(self, spec: UnitSpec) -> str:
        """The content key of ``spec`` in this build."""
        return spec.key(self.mm, self.hooks)

    def compile(self, spec: UnitSpec) -> bytes:
        """Make the object file. Raises DialectError."""
        from benchframe.dialect.llvm import compile_unit

        index = {h.name: i for i, h in enumerate(self.hooks)}
        with few_collections():
            return compile_unit(spec.entry, spec.arity, self.mm, spec.binding, index, spec.replace)

    def _find(self, spec: UnitSpec) -> Unit | None:
        key = self.key(spec)
        if key not in _loaded:
            obj = self.store.load(spec.name, key)
            if obj is None:
                return None
            _loaded[key] = Unit(spec.name, obj, spec.arity)
        return _loaded[key]

    def get(self, spec: UnitSpec, note: Callable[[str], None] | None = None) -> Unit:
        """The unit, compiled if necessary (``note`` is first called with its name). Raises DialectError."""
        unit = self._find(spec)
        if unit is not None:
            return unit
        if note is not None:
            note(spec.name)
        began = time.perf_counter()
        obj = self.compile(spec)
        key = self.key(spec)
        self.store.save(spec.name, key, obj)
        self.compiled.append((spec.name, time.perf_counter() - began))
        _loaded[key] = Unit(spec.name, obj, spec.arity)
        return _loaded[key]


# ----------------------------------------------------------------------------------------------------------------------
# The identity of what a result depends on.

ENGINE = 1
"""The engine's version: raise it when a figure may change although no function of the model has changed.

Such changes are: how a session sizes and places memory, replays, subtracts the known answers, reads the clock or
counts; how the dialect lowers a primitive; the code generator's options; what the cost engine counts and for how much;
what a struct's memory costs. A change of the model's own functions needs nothing: their identities are in
:func:`model_digest`.
"""

SAME_MODEL: Mapping[str, int] = MappingProxyType(
    {
        "5a3f76bc36916430": 1,  # the source of commit ec3d420, when the digest was one of bytes and paths
        "286cd4fffa3b97a5": 1,
        "74a677dffbf70cb2": 1,  # padding fields became align, two hand-written searches for the highest bit became fls
        "3ef2a3d5f46e2b2f": 1,  # refused calls as recorded, RLIMIT, ATTR: 1.4 of 540 branches of a mapping call more
        "35e22d9ec06c37ed": 1,  # the hooks index_init, index_gap_above went: nothing filled them
        "c916f6b6c8e7f411": 1,  # the two before, merged
        "839429828be6c54c": 1,  # record 0 of MM has a slab of its own: the machine code is the same
        "9e4a17da9bece49e": 1,  # a refused fault asks vma_valid: one of 67 branches of a fault that is served less
        "bf32c0db859dd797": 1,  # events WALK: one comparison more before madvise and what comes after it
        "6050dd5940601c70": 1,  # munmap calls index_erase_range, which costs nothing where no strategy fills it
        "38ca8027ac472608": 1,  # fork calls index_dup: likewise
        "1feb205c4e8d2f6c": 1,  # madvise of pages is a hook: the same counts, branches in another order
        "afe34efbb5a5ce5f": 1,  # hooks of an allocator, which the bare model does not call
        "b33b7f9754832743": 1,  # index_prepare is asked in a branch that there was
        "b20cf49a31d3a04a": 1,  # the two before, merged
        "15379c4a1c99b423": 1,  # fork asks whether the index is filled at its end: one branch of some 80 per VMA
        "7d0375922ace4147": 1,  # calls for records of anon_vmas, which are empty where there is no allocator
        "5552b331658d7627": 1,  # merges and munmap ask index_prepare, has_close: 540.00 branches, 540.02 before
    }
)
"""From digests (their first 16 digits, as in a manifest) of models whose figures are the same, or differ by less than
any comparison of times can detect, to the version that represents them all.

Add the new digest here when a function was rewritten but its times and counts are unchanged (the golden costs and the
machine code show it); existing results then stay comparable.
"""

_BARE = {**DEFAULTS, "index_find": nothing_found, "index_insert": nothing_done, "index_erase": nothing_done}
"""No strategy: the defaults around an index that does nothing."""
MODEL_UNITS = (
    UnitSpec("mapping", mapping_event, None),
    UnitSpec("known", replay_timed, {**DEFAULTS, **KNOWN}),
    UnitSpec("hooks", hook_entry, _BARE),
    UnitSpec("replay", replay_timed, _BARE),
    UnitSpec("checked", replay_entry, {**_BARE, "count": count_event}),
    UnitSpec("mapping-threads", mapping_event, None, REPLACE),
    UnitSpec("hooks-threads", hook_entry, {**_BARE, "count": count_event}, REPLACE),
    UnitSpec("threads", thread_entry, {**_BARE, "count": count_event}, REPLACE),
)
"""Every unit of a build that does not contain a strategy."""


def strategy_digest(strategy: Strategy) -> str:
    """sha256 (hex) over the identities of all functions that fill a hook in ``strategy``, and its own memory.

    An identity covers what the function calls, transitively; comments and docstrings do not count. O(size of the
    strategy's call graph), a few ms.
    """
    identities = Identities(strategy.binding)
    digest = hashlib.sha256(b"benchframe strategy 1\n")
    for name in sorted(strategy.binding):
        digest.update(f"{name}={identities.of(strategy.binding[name])}\n".encode())
    for slab in strategy.slabs:
        by_task = (
            f" {slab.per_task}" if slab.per_task else ""
        )  # left out, digests from before there was such a thing stay
        digest.update(f"{slab.name} {slab.number} {slab.per_vma} {slab.fixed}{by_task} {slab.layout}\n".encode())
        if strategy.allocator is not None:
            digest.update(f"{slab.kmem_cache} {slab.on_stack}\n".encode())
    return digest.hexdigest()


@cache
def model_digest() -> str:
    """sha256 (hex) over what the model's units do and :data:`ENGINE`; every Python gives the same.

    The oracle is left out: it decides whether a cell is timed, not its time. Reads the model's source: some 100 ms,
    once in a process.
    """
    return _digest(TextIdentities)


@cache
def code_digest() -> str:
    """As :func:`model_digest`, but over bytecode: a tenth of the time, for processes of one Python version only."""
    return _digest(Identities)


def _digest(kind: type[Identities]) -> str:
    digest = hashlib.sha256(f"benchframe model, engine {ENGINE}\n".encode())
    digest.update(f"{mm_struct.layout}\n{','.join(hook.name for hook in ALL)}\n".encode())
    for unit in MODEL_UNITS:
        digest.update(f"{unit.name}={kind(unit.binding, unit.replace).of(unit.entry)}\n".encode())
    return digest.hexdigest()


def model_name(digest: str) -> str:
    """The name by which models are compared: the first 16 digits of ``digest``, or the common name of equivalent
    models.

    >>> model_name("0123456789abcdef" + 48 * "0")
    '0123456789abcdef'
    """
    short = digest[:16]
    return f"engine {SAME_MODEL[short]}" if short in SAME_MODEL else short
