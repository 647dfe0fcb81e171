"""Execution graphs: what tasks did to shared memory, and which store each load read from.

A graph has the events of each task in program order, for each load the store it reads from (*rf*), and for each
location its stores in the order in which they reach memory (*co*). There is no order in time: one graph represents
every interleaving in which the same loads read from the same stores. Labels never change and are shared by all graphs
that contain them, so a copy is cheap: O(events) references.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

Id = int
"""An event: task << SHIFT | index in the task."""
SHIFT = 20
INIT = -1
"""The initial store of a location."""
WAITS = -2
"""A load without a store to read from yet: its task is blocked."""


class Label:
    """The operation of one event.

    ``kind``: R, W, F (a barrier), C (a choice of ``options``). ``order`` of a load: once, acquire; of a store: once,
    release; of a barrier: its name. ``rmw``: part of a read-modify-write; ``full``: of a fully ordered one. ``wait``:
    the values with which a blocking load continues; ``excused``: if it waits for ever, that is not a deadlock.
    ``addr``, ``data``: bit i is set if the address or the value depends on event i of the task; ``ctrl``: if event i
    decided a branch since the event before, which orders all later stores; ``arm``: if it decided on the branch in
    whose arm this event stands. ``plain``: no READ_ONCE. ``tag``: its role (lock, unlock, free, rcu_read_lock,
    rcu_read_unlock, gp). ``place`` is its place in the text.
    """

    __slots__ = (
        "addr", "arm", "ctrl", "data", "excused", "full", "info", "kind", "loc", "options", "order", "place", "plain",
        "rmw", "tag", "value", "wait",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        loc: Hashable = None,
        value: Any = None,
        order: str = "once",
        *,
        rmw: bool = False,
        full: bool = False,
        wait: Callable[[Any], bool] | None = None,
        excused: bool = False,
        plain: bool = False,
        addr: int = 0,
        data: int = 0,
        ctrl: int = 0,
        tag: str = "",
        options: int = 0,
        info: Any = None,
        place: tuple[str, int, str] | None = None,
    ) -> None:
        self.kind, self.loc, self.value, self.order = kind, loc, value, order
        self.rmw, self.full, self.wait, self.excused, self.plain = rmw, full, wait, excused, plain
        self.addr, self.data, self.ctrl, self.tag = addr, data, ctrl, tag
        self.arm = 0
        self.options, self.info, self.place = options, info, place

    def __repr__(self) -> str:
        return f"{self.kind}{'' if self.order == 'once' else '.' + self.order} {self.loc} {self.value!r}"

    def same(self, other: Label) -> bool:
        """Whether it is the same event. A replay must yield the same events as before."""
        return (
            self.kind == other.kind
            and self.loc == other.loc
            and self.order == other.order
            and self.rmw == other.rmw
            and self.tag == other.tag
            and (self.kind != "W" or self.value == other.value)
        )


class Graph:
    """One execution, or the beginning of one."""

    __slots__ = ("co", "order", "rf", "rows", "tasks", "waiting")

    def __init__(self, tasks: int) -> None:
        self.tasks: list[list[Label]] = [[] for _ in range(tasks)]
        self.rf: dict[Id, int] = {}
        """For each load: the store's id, INIT or WAITS. For each choice: the option."""
        self.co: dict[Hashable, tuple[Id, ...]] = {}
        """For each location: its stores, without the initial one."""
        self.order: list[Id] = []
        """Every event in the order in which the search added it."""
        self.waiting: dict[Hashable, tuple[Id, ...]] = {}
        """For each location: blocked loads."""
        self.rows: Any = None
        """A :class:`benchframe.check.order.Order`: what the memory model orders, maintained while the search adds
        events."""

    def copy(self) -> Graph:
        """Another graph with the same events."""
        made = Graph.__new__(Graph)
        made.tasks = [task[:] for task in self.tasks]
        made.rf = self.rf.copy()
        made.co = self.co.copy()
        made.order = self.order[:]
        made.waiting = self.waiting.copy()
        made.rows = self.rows.copy() if self.rows is not None else None
        return made

    def label(self, event: Id) -> Label:
        """The label of ``event``."""
        return self.tasks[event >> SHIFT][event & ((1 << SHIFT) - 1)]

    def add(self, task: int, label: Label) -> Id:
        """Append an event to a task."""
        event = task << SHIFT | len(self.tasks[task])
        self.tasks[task].append(label)
        self.order.append(event)
        return event

    def read(self, event: Id, store: int) -> None:
        """Let load ``event`` read from ``store``, or wait (WAITS)."""
        loc = self.label(event).loc
        if self.rf.get(event) == WAITS:
            left = tuple(one for one in self.waiting.pop(loc) if one != event)
            if left:
                self.waiting[loc] = left
        self.rf[event] = store
        if store == WAITS:
            self.waiting[loc] = (*self.waiting.get(loc, ()), event)

    def place(self, event: Id, at: int) -> None:
        """Put store ``event`` at position ``at`` of its location's order."""
        loc = self.label(event).loc
        chain = self.co.get(loc, ())
        self.co[loc] = (*chain[:at], event, *chain[at:])

    def prefix(self, event: Id) -> set[Id]:
        """The event and all events before it by program order and reads-from."""
        seen: set[Id] = set()
        todo = [event]
        rf, last = self.rf, (1 << SHIFT) - 1
        while todo:
            at = todo.pop()
            while at not in seen:
                seen.add(at)
                source = rf.get(at, INIT)
                if source >= 0 and self.label(at).kind == "R":
                    todo.append(source)
                if not at & last:
                    break
                at -= 1
        return seen

    def without(self, gone: set[Id]) -> Graph:
        """A copy without the events ``gone``, which are the last ones of their tasks."""
        made = Graph.__new__(Graph)
        made.tasks = []
        for number, task in enumerate(self.tasks):
            base, keep = number << SHIFT, len(task)
            while keep and base | (keep - 1) in gone:
                keep -= 1
            made.tasks.append(task[:keep])
        made.rf = {event: source for event, source in self.rf.items() if event not in gone}
        made.co = {loc: tuple(e for e in chain if e not in gone) for loc, chain in self.co.items()}
        made.order = [event for event in self.order if event not in gone]
        made.waiting = {
            loc: left for loc, ids in self.waiting.items() if (left := tuple(e for e in ids if e not in gone))
        }
        made.rows = None
        return made

    def key(self) -> tuple[Any, ...]:
        """The identity of a graph: events, rf and co."""
        return (
            tuple(tuple((one.kind, one.loc, one.order, repr(one.value)) for one in task) for task in self.tasks),
            tuple(sorted(self.rf.items())),
            tuple(sorted(((repr(loc), tuple(chain)) for loc, chain in self.co.items() if chain), key=str)),
        )
