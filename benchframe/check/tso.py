"""Store buffers: the same search under x86-TSO, with a task per buffer that flushes it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from benchframe.check.cases import Case, CaseWorld
from benchframe.check.execution import READS, WRITES, Link, Op, World
from benchframe.check.memory import Key, Location, chain, place
from benchframe.dialect.functions import Native, is_native
from benchframe.dialect.primitives import Primitive, smp_mb

# ----------------------------------------------------------------------------------------------------------------------
# Store buffers: total store order, as x86 has it (Sewell and others, "x86-TSO", CACM 2010).
#
# A store goes to the end of its task's buffer; a *flusher* beside each task makes the oldest one visible when the
# scheduler likes. The task's own loads see the buffer first, and a fence waits until it is empty.
#
# For the search a flush is the write. Putting a store into the buffer concerns nobody else, so it is no step of its
# own: it belongs to the step of the task before it, and a :class:`Link` puts the flush after that step and a fence
# after the last flush. A task's load and its own flush of that place commute: the load gives the same value before
# and after. Others' flushes of the place conflict with the load even where the buffer answered: after the own flush
# it would not.


@dataclass
class Store:
    """A store on its way: what it writes to, where (``memory[index]``), and the line that did it."""

    key: Hashable
    part: Hashable
    memory: Any
    index: Any
    value: Any
    place: tuple[str, int, str] | None = None
    point: bool = True
    chain: tuple[str, ...] = ()
    """The functions that ran, if places are recorded."""


class _Buffer:
    """One task's: the stores under way, how many there ever were, and how many of them became visible."""

    __slots__ = ("fenced", "flushed", "last", "link", "next", "pointed", "put", "queue", "when")

    def __init__(self, task: int) -> None:
        self.link = Link(("buffer", task))
        self.queue: deque[Store] = deque()
        self.put = self.flushed = self.fenced = 0
        self.pointed = False
        self.last: Op | None = None
        self.next: Op | None = None
        self.when: list[tuple[int, Callable[[], None]]] = []


class Buffers:
    """The buffers of ``world``'s first ``tasks`` tasks. ``reached`` is called with each store as it becomes visible and
    may raise Broken. The world calls :meth:`announced` after each announcement."""

    def __init__(self, world: World, tasks: int, reached: Callable[[Store], None] = lambda store: None) -> None:
        self._world = world
        self._reached = reached
        self._of = [_Buffer(task) for task in range(tasks)]

    def add_flushers(self) -> None:
        """Spawn a flusher for each task; the tasks must be there already."""
        for task in range(len(self._of)):
            flusher = self._world.spawn(f"buffer of {self._world.names[task]}", self._flusher(task), daemon=True)
            self._world.flushers[flusher] = task

    def has(self, task: int) -> bool:
        """Whether ``task`` has a buffer (daemons have none)."""
        return task < len(self._of)

    def announced(self, task: int, op: Op) -> None:
        """``op`` of ``task`` is happening: what the task stores until its next one belongs to it."""
        if task < len(self._of):
            self._of[task].last = op

    def put(self, task: int, store: Store) -> None:
        """A store of ``task``."""
        buffer = self._of[task]
        if buffer.last is not None:
            buffer.last.accesses.append((buffer.link, buffer.put, WRITES))
        buffer.put += 1
        buffer.pointed |= store.point
        buffer.queue.append(store)
        if len(buffer.queue) == 1 and buffer.next is not None:
            _aim(buffer.next, store)

    def own(self, task: int, key: Hashable, part: Hashable) -> Store | None:
        """The newest store of ``task`` to that place that is not visible yet."""
        if task < len(self._of):
            for store in reversed(self._of[task].queue):
                if store.key == key and store.part == part:
                    return store
        return None

    def fence(self, task: int, place: tuple[str, int, str] | None = None) -> None:
        """Go on when all that ``task`` stored is visible; a step only if it has stored since its last fence."""
        if task >= len(self._of):
            return
        buffer = self._of[task]
        if buffer.put == buffer.fenced:
            return
        wanted = buffer.fenced = buffer.put
        op = Op("fence", (buffer.link, wanted - 1, READS), lambda done: done >= wanted, lambda: buffer.flushed)
        op.linked, op.point, op.place = True, buffer.pointed, place
        buffer.pointed = False
        self._world.announce(op)

    def when_visible(self, task: int, then: Callable[[], None]) -> None:
        """Call ``then`` when all that ``task`` has stored so far is visible; at once if it is."""
        buffer = self._of[task]
        if buffer.flushed == buffer.put:
            then()
        else:
            buffer.when.append((buffer.put, then))

    @contextmanager
    def applied(self, task: int) -> Iterator[None]:
        """Within, memory is as ``task`` sees it."""
        before: list[tuple[Store, Any]] = []
        for store in self._of[task].queue:
            before.append((store, store.memory[store.index]))
            store.memory[store.index] = store.value
        try:
            yield
        finally:
            for store, value in reversed(before):
                store.memory[store.index] = value

    def _flusher(self, task: int) -> Callable[[], Any]:
        buffer = self._of[task]

        def run() -> None:
            while True:
                number = buffer.flushed
                op = Op(
                    "flush",
                    (buffer.link, number, WRITES),
                    lambda put, number=number: put > number,  # type: ignore[misc]
                    lambda: buffer.put,
                )
                op.linked, op.point, buffer.next = True, True, op
                if buffer.queue:
                    _aim(op, buffer.queue[0])
                self._world.announce(op)
                buffer.next = None
                store = buffer.queue.popleft()
                self._reached(store)
                op.before, op.value = store.memory[store.index], store.value
                store.memory[store.index] = store.value
                buffer.flushed += 1
                while buffer.when and buffer.when[0][0] <= buffer.flushed:
                    buffer.when.pop(0)[1]()

        return run


def _aim(op: Op, store: Store) -> None:
    """The flush ``op`` will write ``store``."""
    op.accesses.insert(0, (store.key, store.part, WRITES))
    op.place, op.point = store.place, store.point


# ----------------------------------------------------------------------------------------------------------------------
# Cases whose tasks have store buffers (total store order, x86).
#
# Plain stores, WRITE_ONCE and store_release are buffered. Atomic operations, taking a lock, smp_mb and giving a record
# back wait until the buffer is empty. So do rcu_read_unlock and kfree_rcu, which is more than x86 does there: a grace
# period empties every buffer. Stores to memory that nobody else uses go straight to it, since nobody could tell; so an
# execution that finds out that somebody else does use such a place proves nothing, and its failure is not believed.
#
# A store that becomes visible after its record was freed is a use after free: its memory may be another's by then.


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
        before = [layout for layout in self.layouts[number] if layout.until is None]
        with self.buffers.applied(self.current):
            super().mapped(number, since)
        for layout in before:
            layout.until = None

        def gone() -> None:
            for layout in before:
                if layout.until is None:
                    layout.until = self.steps

        self.buffers.when_visible(self.current, gone)

    def changed(self, number: int, since: int) -> None:
        """The same of a part of a call."""
        with self.buffers.applied(self.current):
            super().changed(number, since)


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
