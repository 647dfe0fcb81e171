"""Units: the functions that are called from Python or through an address, each compiled together with all it calls.

A unit is loaded from the store if its content key is there (a few ms, without numba), else compiled and stored.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchframe.dialect.functions import Binding, Hook, Identities, Native, Replacements
from benchframe.dialect.records import Struct
from benchframe.dialect.store import Store, Unit, toolchain_key


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
