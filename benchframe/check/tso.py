"""Cases whose tasks have store buffers (total store order, x86).

Plain stores, WRITE_ONCE and store_release are buffered. Atomic operations, taking a lock, smp_mb and giving a record
back wait until the buffer is empty. So do rcu_read_unlock and kfree_rcu, which is more than x86 does there: a grace
period empties every buffer. Stores to memory that nobody else uses go straight to it, since nobody could tell; so an
execution that finds out that somebody else does use such a place proves nothing, and its failure is not believed.

A store that becomes visible after its record was freed is a use after free: its memory may be another's by then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from benchframe.check.buffers import Buffers, Store
from benchframe.check.memory import Key, Location
from benchframe.check.places import chain, place
from benchframe.check.run import READS, WRITES, Op
from benchframe.check.scenario import Case, CaseWorld
from benchframe.dialect.function import Native, is_native
from benchframe.dialect.primitives import Primitive, smp_mb


class TsoCase(Case):
    """A scenario with a strategy in it, on a machine with store buffers."""

    memory_model = "tso"
    loops_are_steps = False

    def interpreted(self, function: Native, replace: Mapping[Any, Callable[..., Any]]) -> Callable[..., Any]:
        """As without buffers, but smp_mb means something."""
        made = super().interpreted(function, replace)
        rebind(made, {smp_mb: self._barrier})
        return made

    def _barrier(self) -> None:
        if self._world is not None:
            self._world.fence()

    _world: TsoWorld | None = None

    def new_world(self) -> CaseWorld:
        """A world with buffers."""
        self._world = TsoWorld(self)
        return self._world


class TsoWorld(CaseWorld):
    """One execution with store buffers."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.buffers = Buffers(self, len(case.scenario.tasks), self._reached)

    def add_daemons(self) -> None:
        """Signals, RCU threads, flushers."""
        super().add_daemons()
        self.buffers.add_flushers()

    def announce(self, op: Op) -> None:
        """A step; what is stored after it belongs to it."""
        super().announce(op)
        self.buffers.announced(self.current, op)

    def fence(self) -> None:
        """Go on when the current task's buffer is empty."""
        if self.hub is not None:
            self.buffers.fence(self.current, place() if self.memory.record else None)

    def _reached(self, store: Store) -> None:
        assert isinstance(store.key, tuple)
        if store.key in self.dead:
            self.stale(store.key, "store", store.place, store.chain)

    def _location(self, ref: Any, column: int) -> Location:
        return self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column)

    # ---- accesses -----------------------------------------------------------------------------------------------

    def read(self, ref: Any, column: int) -> int:
        """A load; the newest own store to the place counts."""
        value = super().read(ref, column)
        store = self.buffers.own(
            self.current, self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column)
        )
        return value if store is None else int(store.value)

    def loader(self, ref: Any, column: int) -> tuple[Callable[[], int], bool]:
        """A wait sees the task's own stores, too."""
        load, _ = super().loader(ref, column)
        task, (key, part) = self.current, self._location(ref, column)
        if self.buffers.own(task, key, part) is None:
            return load, False

        def see() -> int:
            store = self.buffers.own(task, key, part)
            return load() if store is None else int(store.value)

        return see, True

    def write(self, ref: Any, column: int, value: int, kind: str = "store", how: int = WRITES) -> int:
        """A store goes to the buffer, an atomic operation waits for it to be empty."""
        if kind != "store":
            self.fence()
            return super().write(ref, column, value, kind, how)
        key, part = self._location(ref, column)
        memory, shared = self.memory, (key, part) in self.shared
        if self.hub is None or not self.buffers.has(self.current) or not (memory.all_visible or shared):
            return super().write(ref, column, value, kind, how)
        where = place()
        if memory.all_visible:
            op = Op("buffer", (key, part, READS))
            op.point, op.value, op.place = False, value, where
            self.announce(op)
        if key in self.dead:
            self.stale(key, kind)
        if self.held:
            self.unlocked(key, part)
        by = chain() if memory.record else ()
        self.buffers.put(self.current, Store(key, part, ref._columns[column], ref.index, value, where, shared, by))
        return 0

    def store(self, ref: Any, field: str, value: int, ordering: str) -> None:
        """An ordered store; smp_store_mb waits until it is seen."""
        super().store(ref, field, value, ordering)
        if ordering == "mb":
            self.fence()

    def cmpxchg(self, ref: Any, field: str, old: int, new: int, ordering: str = "full") -> int:
        """Compare and exchange."""
        self.fence()
        return super().cmpxchg(ref, field, old, new, ordering)

    def wait_then_add(self, ref: Any, field: str, mask: int, delta: int) -> int:
        """Take a lock."""
        self.fence()
        return super().wait_then_add(ref, field, mask, delta)

    def free(self, which: int, slot: int) -> None:
        """What the task stored in the record is there before the record goes."""
        self.fence()
        super().free(which, slot)

    def set_word(self, kind: str, key: Key, value: Any) -> None:
        """RCU calls."""
        if kind != "rcu_read_lock":
            self.fence()
        super().set_word(kind, key, value)

    def mapped(self, number: int, since: int) -> None:
        """The layout as the task sees it; others may see the one before until the stores have reached memory."""
        with self.buffers.applied(self.current):
            super().mapped(number, since)
        if number == 0:
            before = self.layouts[-2]
            before.until = None

            def gone() -> None:
                before.until = self.steps

            self.buffers.when_visible(self.current, gone)


def rebind(
    function: Callable[..., Any],
    replace: Mapping[Primitive, Callable[..., Any]],
    names: Mapping[str, Any] | None = None,
) -> None:
    """Put plain Python in the place of primitives, in a clone made by ``dejit`` and all clones that it calls; and give
    them ``names`` that they would otherwise have from Python."""
    seen: set[FunctionType] = set()
    todo = [function]
    while todo:
        clone = todo.pop()
        if not isinstance(clone, FunctionType) or clone in seen or is_native(clone):
            continue
        seen.add(clone)
        scope = clone.__globals__
        if scope is getattr(sys.modules.get(clone.__module__ or ""), "__dict__", None):
            continue  # plain Python that stands for something: not a clone, its names are its module's
        scope.update(names or {})
        for name in clone.__code__.co_names:
            thing = scope.get(name)
            if isinstance(thing, Primitive) and thing in replace:
                scope[name] = replace[thing]
            elif isinstance(thing, FunctionType):
                todo.append(thing)


__all__ = ["TsoCase", "TsoWorld", "rebind"]
