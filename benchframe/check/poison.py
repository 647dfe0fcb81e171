"""Poison freed records in a run of one task after the other: report every use of a freed record, as KASAN does in a
kernel.

Records are reused as in native runs, last freed first, so both errors of a stale reference show: it points to a freed
record, or to one that now belongs to something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchframe.check.memory import KEY_OF
from benchframe.dialect.interpreter import NullRef, PlainWorld
from benchframe.dialect.records import Slab, WildAccess
from benchframe.interpreted import InterpretedRunner
from benchframe.mm import layout
from benchframe.mm.machine import Machine
from benchframe.mm.slab import arena_alloc, arena_free, free_typesafe_by_rcu, kfree_rcu
from benchframe.strategy import Strategy


class UseAfterFree(WildAccess):
    """Strategy code reads or writes a freed record."""

    kind = "use after free"


class DoubleFree(WildAccess):
    """Strategy code frees a record a second time."""

    kind = "double free"


class FreedRef(NullRef):
    """A reference to a freed record: reading or writing through it raises."""

    def __repr__(self) -> str:
        return f"<{self.slab.name} {self.index}, freed>"

    def dereference(self, field: str) -> WildAccess:
        """The error for an access to ``field``."""
        return UseAfterFree(f"{self.slab.name}(mm, {self.index}).{field}")


class PoisonedWorld(PlainWorld):
    """Plain memory that knows which records are free."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.arrays)
        self.freed: dict[str, set[int]] = {}
        self._shifts = {"pte_base": ("page_base", 9)}
        for slab in machine.private:
            part_of = getattr(slab, "part_of", None)
            if part_of is not None:
                self._shifts[slab.base] = (layout.PRIVATE_BASES[part_of[0]], part_of[1])

    def ref(self, slab: Slab, index: int) -> Any:
        """The proxy, or a :class:`FreedRef`."""
        base, shift = self._shifts.get(slab.base, (slab.base, 0))
        freed = self.freed.get(base)
        if freed and index >> shift in freed:
            return FreedRef(self, slab, index)
        return super().ref(slab, index)


def _base(which: int) -> str:
    return KEY_OF.get(which) or layout.PRIVATE_BASES[which - layout.ARENA_PRIVATE0]


class PoisoningRunner(InterpretedRunner):
    """Runs ``strategy`` in the interpreter, one task after the other. It counts nothing."""

    world: PoisonedWorld | None

    def __init__(self, strategy: Strategy) -> None:
        alloc: Callable[..., int] = arena_alloc
        free: Callable[..., int] = arena_free

        def allocated(mm: Any, which: int) -> int:
            slot: int = alloc(mm, which)
            mm.world.freed.get(_base(which), set()).discard(slot)
            return slot

        def freed(mm: Any, which: int, slot: int) -> int:
            if which == layout.ARENA_FILE:
                return free(mm, which, slot)
            gone = mm.world.freed.setdefault(_base(which), set())
            if slot in gone:
                raise DoubleFree(f"{_base(which)[:-5]} #{slot}")
            gone.add(slot)
            return free(mm, which, slot)

        replace: dict[Any, Callable[..., Any]] = {
            arena_alloc: allocated,
            arena_free: freed,
            kfree_rcu: freed,
            free_typesafe_by_rcu: lambda mm, which, slot: free(mm, which, slot),
        }
        super().__init__(strategy, counting=False, replace=replace)

    def attach(self, machine: Machine) -> None:
        """Create the world over the machine's arrays; nothing is free yet."""
        self.world = PoisonedWorld(machine)

    def forget(self) -> None:
        """Start over with a new machine: nothing was freed."""
        if self.world is not None:
            self.world.freed.clear()
