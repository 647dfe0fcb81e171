"""Replay a whole trace with one task, to find the known bug that made a strategy's answer wrong.

Some races need no second task. A recorded program that unmaps, merges and faults in the right order leads a strategy to
a record that it freed long ago. So the trace runs again in the interpreter, on memory in which no record is reused: the
first access to a freed record shows where it was accessed, and who freed it. If the strategy's author knows the bug, it
has a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchframe.check.execution import MISTAKES, Broken, Endless, patience
from benchframe.check.memory import KEY_OF, OutOfRecords, chain, place
from benchframe.dialect.interpreter import PlainWorld, dejit, proxy_class
from benchframe.dialect.records import DialectError, Slab
from benchframe.engine.session import prepare
from benchframe.mm import layout
from benchframe.mm.defaults import count_event
from benchframe.mm.layout import MM
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.replay import one_event
from benchframe.mm.slab import arena_alloc, arena_free, free_typesafe_by_rcu, kfree_rcu
from benchframe.races import KnownBug, Sites
from benchframe.strategy import Strategy
from benchframe.trace.trace import Trace

MOST = 200_000
"""The most events to run: it runs some thousand per second."""
SECONDS = 30.0
"""CPU time that the search may take."""


@dataclass(frozen=True)
class Reached:
    """A record was used after it was freed, at ``event``; ``bug`` is the matching known bug of the strategy."""

    event: int
    text: str
    sites: Sites
    bug: KnownBug | None


class _Lives(PlainWorld):
    """Memory in which a freed record is never reused."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__(arrays)
        self.event = 0
        self.dead: dict[tuple[str, int], tuple[int, tuple[str, ...]]] = {}

    def _prepare(self, slab: Slab) -> tuple[type[Any], tuple[Any, ...], int]:
        plain = super()._prepare(slab)
        if slab.base not in ("vma_base", "page_base", *layout.PRIVATE_BASES):
            return plain
        dead, base = self.dead, slab.base

        def get(column: int) -> Callable[[Any], int]:
            def look(ref: Any) -> int:
                if dead and (base, ref.index) in dead:
                    self.stale(base, ref.index)
                return ref._columns[column][ref.index]  # type: ignore[no-any-return]

            return look

        def put(column: int) -> Callable[[Any, int], None]:
            def store(ref: Any, value: int) -> None:
                if dead and (base, ref.index) in dead:
                    self.stale(base, ref.index)
                ref._columns[column][ref.index] = value

            return store

        self._slabs[base] = (proxy_class(slab.struct, get, put), *plain[1:])
        return self._slabs[base]

    def stale(self, base: str, index: int) -> None:
        """Raise Broken: a freed record is accessed."""
        when, by = self.dead[base, index]
        before = " before this call began" if when < self.event else ""
        what = {"vma_base": "VMA", "page_base": "page"}.get(base, f"{base[:-5]} record")
        text = f"{what} #{index}, freed{before}, is used in {place((__file__,))[2]}"
        raise Broken("use after free", text, by, (base, index), place((__file__,))[2], chain(outside=(__file__,)))

    def alloc(self, which: int) -> int:
        """A slot that was never used before."""
        arena = self._arrays["slab_base"][which]
        slot = int(arena["top"])
        if slot >= int(arena["capacity"]):
            raise OutOfRecords("no record is left that was never used")
        arena["top"] = slot + 1
        arena["live"] += 1
        return slot

    def free(self, which: int, slot: int) -> int:
        """Free the record."""
        base = KEY_OF.get(which) or layout.PRIVATE_BASES[which - layout.ARENA_PRIVATE0]
        self.dead[base, slot] = (self.event, chain(outside=(__file__,)))
        self._arrays["slab_base"][which]["live"] -= 1
        return 0


class _Runner:
    """Runs events one by one; a :class:`~benchframe.mm.machine.Runner`."""

    def __init__(self, strategy: Strategy) -> None:
        free: Callable[..., Any] = lambda mm, which, slot: mm.world.free(which, slot)  # noqa: E731
        swap: dict[Any, Callable[..., Any]] = {
            arena_alloc: lambda mm, which: mm.world.alloc(which),
            arena_free: free,
            kfree_rcu: free,  # no other task is inside a read-side section
            free_typesafe_by_rcu: lambda mm, which, slot: 0,  # may be looked at: it keeps its kind
        }
        self.run = dejit(one_event, {**strategy.binding, "count": count_event}, strategy.binding, swap)
        self.world: _Lives | None = None

    def attach(self, machine: Machine) -> None:
        """Create the world."""
        self.world = _Lives(machine.arrays)

    def replay(self, first: int, last: int) -> None:
        """Run events [first, last)."""
        assert self.world is not None
        root = self.world.ref(MM, 1)
        for event in range(first, last):
            self.world.event = event
            self.run(root, event)


def first_use_after_free(strategy: Strategy, trace: Trace, last: int, seconds: float = SECONDS) -> Reached | None:
    """Run events [0, last] of ``trace``; returns the first use of a freed record, or None. Also None if the trace is
    too long for the interpreter. O(events), some thousand per second."""
    if not 0 <= last < min(len(trace), MOST):
        return None
    events = trace.events[: last + 1]
    runner = _Runner(strategy)
    stream = prepare(events)
    machine = Machine(runner, Sizes.of(events), Parameters.of(trace.meta.limits), strategy.slabs)
    assert runner.world is not None
    try:
        with patience(seconds):
            for number in stream.boots:
                machine.boot(number)
            machine.arrays["event_base"][:] = stream.records
            runner.replay(0, last + 1)
    except Broken as broken:
        sites = Sites(broken.chain, broken.places)
        return Reached(runner.world.event, broken.text, sites, _named(strategy, broken, sites))
    except (Endless, OutOfRecords, DialectError, *MISTAKES):
        return None
    return None


def _named(strategy: Strategy, broken: Broken, sites: Sites) -> KnownBug | None:
    """The known bug that matches everything that one task shows: kind, functions, who freed the record, and when."""
    for bug in strategy.known_bugs:
        if replace(bug, scenarios=(), source=()).shows(broken.kind, broken.text, "", sites):
            return bug
    return None
