"""The paths that a task may take: what it does next, by the values that it has read so far.

What a task does depends on its text and on the values of its events, and on nothing else. So each path is run by the
interpreter once; in later executions the task *walks* it: its events are known, and what it did to memory of its own is
done again from a list. A task is interpreted from its start where its path is new, and then to the execution's end. A
search has far fewer paths than graphs: a graph is a combination of paths, of reads-from, and of orders of stores.

Paths are learned for one set of shared memory. When that grows (:meth:`~benchframe.check.memory.Memory.learn`) they are
dropped, since what was not an event is one then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import greenlet

from benchframe.check.cases import Case, CaseWorld
from benchframe.check.execution import Broken
from benchframe.check.graph import SHIFT, WAITS, Graph, Label
from benchframe.check.trust import Nondeterminism, value_of

Put = tuple[Any, int, int, bool]
"""A store to a place that is no event: where it stands, its index, the value, and whether it is added to what is there
(as to a counter that tasks share and nobody looks at)."""
MOST = 200_000
"""Steps that are remembered, some 100 MB; then all are dropped, and learned again."""


class Step:
    """A place on a path: the event that comes next (``label``; None at the end of the task), what is done before it,
    and the step after it for each value that the event may have. Not ``known``: the interpreter has not been here."""

    __slots__ = ("after", "effects", "known", "label")

    def __init__(self) -> None:
        self.known = False
        self.label: Label | None = None
        self.effects: tuple[Put | Callable[[Any], None], ...] = ()
        self.after: dict[Any, Step] = {}


class Paths:
    """What is known of each task of a case."""

    def __init__(self) -> None:
        self.roots: dict[int, Step] = {}
        self.count = 0

    def forget(self) -> None:
        """Drop everything."""
        self.roots, self.count = {}, 0

    def root(self, task: int) -> Step:
        """Where a task begins."""
        found = self.roots.get(task)
        return found if found is not None else self.roots.setdefault(task, self.made())

    def made(self) -> Step:
        """A new step, of which nothing is known."""
        self.count += 1
        return Step()

    def next(self, step: Step, value: Any) -> Step:
        """The step after ``step`` if its event has ``value``."""
        found = step.after.get(value)
        if found is None:
            found = step.after[value] = self.made()
        return found


class Walk(CaseWorld):
    """The tasks of one execution, for :class:`~benchframe.check.trust.Trust`: they walk where they can.

    Each gives its events to :meth:`answer`, and does to memory what is no event by :meth:`put`, :meth:`add` and
    :meth:`note`.
    """

    def __init__(self, case: Case, paths: Paths, places: dict[Hashable, tuple[Any, int, int]]) -> None:
        """All tasks at their beginning; ``places``: where the value of a location stands, and the initial one."""
        self.index: dict[int, int] = {}
        """Of each task: the number of its next event."""
        super().__init__(case)
        self.paths, self.places = paths, places
        if paths.count > MOST:
            paths.forget()
        self.graph = Graph(0)
        self.step: dict[int, Step] = {}
        self.greenlets: dict[int, Any] = {}
        """Of each task that is interpreted."""
        self.answered: dict[int, Label | None] = {}
        self.effects: dict[int, list[Put | Callable[[Any], None]]] = {}
        """Of each task that is interpreted: what it did since its last event."""
        self.undo: dict[int, list[Put]] = {}
        """Of each task that walks: what would take its stores back."""
        self.odd = ""
        """What was not as the graph has it: the task depends on more than what it reads."""

    # ---- what the search calls ---------------------------------------------------------------------------------------

    def look(self, graph: Graph) -> None:
        """The graph as it is now."""
        self.graph = graph

    def resume(self, task: int) -> Label | None:
        """Bring a task through its events of the graph: its next operation, or what it waits for. O(its events)."""
        step = self.paths.root(task)
        self.index[task] = 0
        for at, label in enumerate(self.graph.tasks[task]):
            if not self._pass(task, step):
                return self._interpret(task)
            if self.failure is not None:
                return step.label
            self.index[task] = at + 1
            event = task << SHIFT | at
            if self.graph.rf.get(event) == WAITS:
                self.step[task] = step
                return label
            found = step.after.get(value_of(self.graph, self, event))
            if found is None:
                return self._interpret(task)
            step = found
        return self._come(task, step)

    def go_on(self, task: int, value: Any) -> Label | None:
        """Give the task the value of its last event: its next operation."""
        if task in self.greenlets:
            self.current = task
            self.answered[task] = None
            self.greenlets[task].switch(value)
            return self.answered[task]
        found = self.step[task].after.get(value)
        return self._interpret(task) if found is None else self._come(task, found)

    def initial(self, loc: Any) -> Any:
        """What stands in the arrays, or no section, nothing queued, nothing freed."""
        if loc in self.places:
            return self.places[loc][2]
        key = loc[0]
        return () if key[0] in ("rcu queue", "type-safe slab") else 0

    def broken(self) -> bool:
        """Has a task failed?"""
        return self.failure is not None

    def close(self) -> None:
        """End what is still running."""
        self.hub = None
        for one in self.greenlets.values():
            if one and not one.dead:
                one.throw()

    # ---- walking -----------------------------------------------------------------------------------------------------

    def _come(self, task: int, step: Step) -> Label | None:
        """The task comes to a step: its next operation."""
        if not self._pass(task, step):
            return self._interpret(task)
        self.step[task] = step
        return step.label

    def _pass(self, task: int, step: Step) -> bool:
        """Do what is done before a step's event; False if that is not known."""
        if not step.known:
            return False
        if step.effects:
            self.current = task
            undo = self.undo.setdefault(task, [])
            try:
                for one in step.effects:
                    if type(one) is tuple:
                        view, index, value, added = one
                        old = view[index]
                        undo.append((view, index, -value if added else old, added))
                        view[index] = old + value if added else value
                    else:
                        one(self)  # type: ignore[operator]
            except Broken as broken:
                self.failure, self.failed_task = broken, task
        return True

    def _interpret(self, task: int) -> Label | None:
        """Run the task from its start by the interpreter, through its events of the graph."""
        for view, index, value, added in reversed(self.undo.pop(task, ())):
            view[index] = view[index] + value if added else value
        self.take_back(task)
        self.hub = greenlet.getcurrent()
        self.current = task
        self.index[task] = 0
        self.effects[task] = []
        self.step[task] = self.paths.root(task)
        self.answered[task] = None
        self.greenlets[task] = greenlet.greenlet(self._body)
        self.greenlets[task].switch(task)
        if self.odd:
            raise Nondeterminism(self.odd)
        return self.answered[task]

    def take_back(self, task: int) -> None:
        """The task begins again: forget what it noted."""

    # ---- what a task that is interpreted does ------------------------------------------------------------------------

    def _body(self, task: int) -> None:
        super()._body(task)
        if self.failed_task != task:
            self._known(task, None)

    def _known(self, task: int, label: Label | None) -> Label | None:
        """The task comes to its next event; that of the path, if the path is known."""
        step = self.step[task]
        if not step.known:
            step.known, step.label, step.effects = True, label, tuple(self.effects[task])
        elif label is not None and (step.label is None or not label.same(step.label)):
            self.odd = f"event {self.index[task]} of task {task} was {step.label}, and is {label}"
        self.effects[task] = []
        return step.label

    def answer(self, label: Label) -> Any:
        """The value of an event of the current task: at once, if the graph has it."""
        task = self.current
        known = self._known(task, label) or label
        at = self.index[task]
        self.index[task] = at + 1
        events = self.graph.tasks[task]
        value: Any = None
        waits = True
        if at < len(events):
            old = events[at]
            if not known.same(old):
                self.odd = f"event {at} of task {task} was {old}, and is {known}"
            elif self.graph.rf.get(task << SHIFT | at) == WAITS:
                known = old
            else:
                value, waits = value_of(self.graph, self, task << SHIFT | at), False
        if waits:
            self.answered[task] = known
            value = self.hub.switch()
        self.step[task] = self.paths.next(self.step[task], value)
        return value

    def put(self, view: Any, index: int, value: int) -> None:
        """Store to memory that no other task uses, or that nobody looks at."""
        view[index] = value
        self.effects[self.current].append((view, index, value, False))

    def add(self, view: Any, index: int, change: int) -> None:
        """Add to a counter that tasks share and nobody looks at."""
        view[index] += change
        self.effects[self.current].append((view, index, change, True))

    def note(self, what: Callable[[Any], None]) -> None:
        """Do ``what`` now, and in every execution in which the task comes here."""
        self.effects[self.current].append(what)
        what(self)


__all__ = ["Paths", "Step", "Walk"]
