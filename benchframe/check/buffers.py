"""Store buffers: total store order, as x86 has it (Sewell and others, "x86-TSO", CACM 2010).

A store goes to the end of its task's buffer; a *flusher* beside each task makes the oldest one visible when the
scheduler likes. The task's own loads see the buffer first, and a fence waits until it is empty.

For the search a flush is the write. Putting a store into the buffer concerns nobody else, so it is no step of its own:
it belongs to the step of the task before it, and a :class:`Link` puts the flush after that step and a fence after the
last flush. A task's load and its own flush of that place commute: the load gives the same value before and after.
Others' flushes of the place conflict with the load even where the buffer answered: after the own flush it would not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchframe.check.run import READS, WRITES, Link, Op, World


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
