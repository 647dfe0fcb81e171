"""Explore every execution graph that a memory model allows, each once: TruSt.

Kokologiannakis, Marmanis, Vafeiadis, "Truly Stateless, Optimal Dynamic Partial Order Reduction", POPL 2022. The search
adds one event after another, always of the lowest task that can go on. A load tries each store that it may read from, a
store each place in its location's order. An earlier load may also read a new store (a *backward revisit*): then the
events added after that load that do not lead to the store are removed, provided that they are *maximal*, that is, each
of their loads reads the last store and each of their stores is the last. So each graph is reached from exactly one
other graph, and none is visited twice; no table of visited graphs is needed, and branches share nothing.

Blocking operations (locks, waits, grace periods) are loads that must read a suitable value. Each such load may *wait*:
its task stops, and any later store with a suitable value may let it continue, in place. If a backward revisit removes
it, waiting is its maximal form. A graph in which some task waits although the last store would let it continue is the
shadow of another graph and is dropped; if no task could continue it is a deadlock.

Executions in which a load reads from a store that comes after it in program order and reads-from (load buffering) are
not found: graphs here have no cycle of the two.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchframe.check.axioms import coherent
from benchframe.check.graph import INIT, SHIFT, WAITS, Graph, Id, Label
from benchframe.check.order import Order, Plan
from benchframe.check.rc11 import order_type
from benchframe.units import few_collections

BRANCHES = 4
"""Graphs to begin with that each part of a divided search gets."""
STAY = 0.95
"""How likely a task goes on, where an execution is drawn, before one of all is chosen."""


class Initial(Protocol):
    """What knows memory as it is at the beginning."""

    def initial(self, loc: Any) -> Any:
        """The initial value of a location."""


class Tasks(Initial, Protocol):
    """The tasks of one execution, from their beginning."""

    count: int

    def resume(self, task: int) -> Label | None:
        """Run ``task`` from its start through its events of the graph; returns its next operation, or what it waits
        for. Subclasses may use :func:`replay`. Raises Nondeterminism if it does something else."""

    def go_on(self, task: int, value: Any) -> Label | None:
        """Give ``task`` the value of its event and run it up to the next one; None if it is done."""

    def daemon(self, task: int) -> bool:
        """Whether it may still wait at the end."""

    def may_store(self, task: int, loc: Any, done: int) -> bool:
        """Whether ``task`` may store to a location after ``done`` stores to it. If not, no task waits for it to do
        so."""

    def broken(self) -> bool:
        """Whether a task has reached a state that must not happen. Then no further events are added."""

    def look(self, graph: Graph) -> None:
        """The graph so far; called before a task goes on."""

    def close(self) -> None:
        """The execution has ended."""


class Startable(Tasks, Protocol):
    """Tasks that :func:`replay` brings through a graph."""

    def start(self, task: int) -> Label | None:
        """Run ``task`` up to its first event; None if it has none."""


@dataclass
class Counts:
    """How far a search went."""

    executions: int = 0
    """Complete graphs, including those that failed."""
    shadows: int = 0
    """Graphs that waited although they could have continued: they are not executions."""
    checks: int = 0
    """How often the axioms were evaluated."""
    truncated: int = 0
    """Graphs abandoned because they were too long."""
    events: int = 0
    longest: int = 0
    seconds: float = 0.0
    complete: bool = False


class Nondeterminism(Exception):
    """The same reads led to another execution: the program depends on more than what it reads. A bug of the program."""


@dataclass
class Seen:
    """One complete graph. ``outcome``: done, deadlock or broken."""

    outcome: str
    graph: Graph
    tasks: Tasks


class Trust:
    """The search over the executions of ``program`` under ``model``. Memory O(depth x events), time O(graphs x
    events^2)."""

    def __init__(
        self,
        program: Callable[[], Tasks],
        model: str,
        limit: int = 400,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """``limit`` is the maximum number of events in a graph. ``stop`` is called after each graph, complete or
        not."""
        self.program, self.model, self.limit, self._stop = program, model, limit, stop
        self._order = order_type(model)
        self.counts = Counts()
        self._todo: list[Graph] = []
        self._first: list[Graph] = []
        """Of the graphs that are left to do, those that come first."""
        self._begun = False
        self._oldest, self._went_on = False, True
        self._draw: random.Random | None = None
        """Chooses, where an execution is drawn."""

    def explore(
        self, on_graph: Callable[[Seen], bool], deadline: float | None = None, most: int | None = None
    ) -> Counts:
        """Continue until ``on_graph`` returns False, ``deadline`` (time.monotonic) passes, ``most`` graphs were run, or
        all have been seen."""
        with few_collections():
            return self._explore(on_graph, deadline, most)

    def _explore(self, on_graph: Callable[[Seen], bool], deadline: float | None, most: int | None) -> Counts:
        began = time.monotonic()
        counts = self.counts
        if not self._begun:
            self._begun = True
            first = self.program()
            graph = Graph(first.count)
            graph.rows = self._order(first.count, self.model)
            self._todo = [graph]
            first.close()
        counts.complete = False
        runs = 0
        while self._first or self._todo:
            tasks = self.program()
            try:
                seen = self._run((self._first or self._todo).pop(0 if self._oldest else -1), tasks)
                runs += 1
                go_on = True
                if seen is not None:
                    counts.executions += 1
                    counts.events += len(seen.graph.order)
                    counts.longest = max(counts.longest, len(seen.graph.order))
                    go_on = on_graph(seen)
            finally:
                tasks.close()
            self._went_on = go_on
            late = deadline is not None and time.monotonic() >= deadline
            if not go_on or self._stop() or late or (most is not None and runs >= most):
                break
        counts.complete = not (self._first or self._todo) and counts.truncated == 0 and not self._stop()
        counts.seconds += time.monotonic() - began
        return counts

    def sample(
        self,
        on_graph: Callable[[Seen], bool],
        draw: random.Random,
        deadline: float,
        most: int | None = None,
        runs: int = -1,
    ) -> int:
        """Draw ``most`` executions, until ``on_graph`` gives False, ``deadline`` passes or ``runs`` were run; how many
        came to an end. A task goes on, or (once in twenty events) one of all does that ``draw`` chooses; each load
        takes one of the stores that it may read from, each store a place. Not uniform over graphs, and one may come
        again; what the search has left to do stays."""
        drawn, left = 0, runs
        self._draw = draw
        try:
            while time.monotonic() < deadline and drawn != most and left:
                left -= 1
                tasks = self.program()
                try:
                    graph = Graph(tasks.count)
                    graph.rows = self._order(tasks.count, self.model)
                    seen = self._run(graph, tasks)
                    drawn += seen is not None
                    if (seen is not None and not on_graph(seen)) or self._stop():
                        break
                finally:
                    tasks.close()
        finally:
            self._draw = None
        return drawn

    def split(self, share: int, shares: int, on_graph: Callable[[Seen], bool], deadline: float | None = None) -> bool:
        """Keep one of ``shares`` parts of what is to do: graphs are done, the oldest first, until there are
        :data:`BRANCHES` for each part, and every ``shares``-th is kept. Parts need nothing of each other, and together
        they are the whole search; the graphs up to there are counted by each. False if ``on_graph`` gave that, or it
        was too late."""
        self._oldest = True
        try:
            while not self._begun or 0 < len(self._todo) + len(self._first) < BRANCHES * shares:
                before = self.counts.executions
                counts = self.explore(on_graph, deadline, most=1)
                late = deadline is not None and time.monotonic() >= deadline
                if late or self._stop() or (counts.executions > before and not self._went_on):
                    return False
        finally:
            self._oldest = False
        every = [*self._first, *self._todo]
        self._first, self._todo = [], every[share::shares]
        return True

    def restart(self) -> None:
        """Drop all remaining work; keep the counts."""
        self._begun, self._todo, self._first = False, [], []
        self.counts.truncated = 0

    # ---- one execution -----------------------------------------------------------------------------------------------

    def _run(self, graph: Graph, tasks: Tasks) -> Seen | None:
        """Replay ``graph``, then add events until none can be added; alternatives go to the work list."""
        tasks.look(graph)
        pending: list[Label | None] = []
        for task in range(tasks.count):
            pending.append(tasks.resume(task))
            if tasks.broken():
                return Seen("broken", graph, tasks)
        while True:
            task = self._next(graph, pending)
            if task < 0:
                break
            label = pending[task]
            assert label is not None
            if len(graph.order) >= self.limit:
                self.counts.truncated += 1
                return None
            rest = self._add(graph, tasks, task, label, pending)
            if rest is None:
                return None
            graph = rest
            tasks.look(graph)
            for one in range(tasks.count) if label.kind == "W" else (task,):
                pending[one] = self._catch_up(graph, tasks, one, pending[one])
                if tasks.broken():
                    return Seen("broken", graph, tasks)
        if not graph.rf or all(source != WAITS for source in graph.rf.values()):
            return Seen("done", graph, tasks)
        return self._stuck(graph, tasks)

    def _catch_up(self, graph: Graph, tasks: Tasks, task: int, label: Label | None) -> Label | None:
        """Let ``task`` continue if its current event has a value now; returns its next operation."""
        if label is None or label is not _last(graph, task):
            return label
        event = _last_id(graph, task)
        if graph.rf.get(event) == WAITS:
            return label
        return tasks.go_on(task, value_of(graph, tasks, event))

    def _next(self, graph: Graph, pending: list[Label | None]) -> int:
        """Whose event is next: the store of a read-modify-write at once, then the lowest task that does not wait; in
        an execution that is drawn any."""
        chosen, ready = -1, []
        for task, label in enumerate(pending):
            if label is None or label is _last(graph, task):
                continue
            if label.rmw and label.kind == "W":
                return task
            ready.append(task)
            if chosen < 0:
                chosen = task
        if self._draw is None or not ready:
            return chosen
        last = graph.order[-1] >> SHIFT if graph.order else -1
        return last if last in ready and self._draw.random() < STAY else self._draw.choice(ready)

    def _stuck(self, graph: Graph, tasks: Tasks) -> Seen | None:
        """No task can continue and some wait: a deadlock, the end (only daemons wait), or a shadow."""
        deadlock = False
        for ids in graph.waiting.values():
            for event in ids:
                label = graph.label(event)
                chain = graph.co.get(label.loc)
                value = graph.label(chain[-1]).value if chain else tasks.initial(label.loc)
                assert label.wait is not None
                later = label.tag == "queue" and any(label.wait(graph.label(one).value) for one in chain or ())
                if label.wait(value) or label.excused or later:
                    self.counts.shadows += 1
                    return None
                deadlock |= not tasks.daemon(event >> 20)
        return Seen("deadlock" if deadlock else "done", graph, tasks)

    # ---- adding an event ---------------------------------------------------------------------------------------------

    def _add(self, graph: Graph, tasks: Tasks, task: int, label: Label, pending: list[Label | None]) -> Graph | None:
        """Add ``label``; returns the graph to continue with, and keeps the others for later."""
        if label.kind == "R":
            made = self._reads(graph, tasks, task, label, pending)
        elif label.kind == "W" and label.loc is not None:
            made = self._stores(graph, tasks, task, label)
        elif label.kind == "C":
            made = []
            for option in range(label.options):
                other = graph.copy()
                event = other.add(task, label)
                other.rf[event] = option
                other.rows.add(other, event, label, None)
                made.append(other)
        else:
            rows: Order = graph.rows
            event, number = task << SHIFT | len(graph.tasks[task]), len(rows.labels)
            plan = rows.plan(graph, event, label, number, INIT, ()) if label.kind == "W" else None
            graph.add(task, label)
            rows.add(graph, event, label, plan)
            made = [graph]
        if not made:
            return None
        if self._draw is not None:
            goes_on = [one for one in made if one.rf.get(_last_id(one, task)) != WAITS]
            return self._draw.choice(goes_on or made)
        self._later(reversed(made[1:]))
        return made[0]

    def _later(self, graphs: Iterable[Graph]) -> None:
        for graph in graphs:
            (self._first if graph.first else self._todo).append(graph)

    def _reads(self, graph: Graph, tasks: Tasks, task: int, label: Label, pending: list[Label | None]) -> list[Graph]:
        chain = graph.co.get(label.loc, ())
        rows: Order = graph.rows
        event, number = task << SHIFT | len(graph.tasks[task]), len(rows.labels)
        wait = label.wait
        rows.begin(task, label)
        found: list[tuple[Id, Plan]] = []
        for rank in range(len(chain), _least(graph, rows, task, label.loc, chain) - 1, -1):
            source = chain[rank - 1] if rank else INIT
            if wait is not None:
                value = graph.label(source).value if rank else tasks.initial(label.loc)
                if not wait(value) or (label.rmw and _taken(graph, label.loc, source)):
                    continue
            self.counts.checks += 1
            plan = rows.plan(graph, event, label, number, source, chain[rank:])
            if plan is not None:
                found.append((source, plan))
        waits = wait is not None and (
            not found
            or any(
                one is not None and other != task and _may_store(graph, tasks, other, label.loc)
                for other, one in enumerate(pending)
            )
        )
        made: list[Graph] = []
        for at, (source, plan) in enumerate(found):
            other = graph if at == len(found) - 1 and not waits else graph.copy()
            other.read(other.add(task, label), source)
            if other.rows.add(other, event, label, plan):
                made.append(other)
        if waits:
            other = graph
            other.read(other.add(task, label), WAITS)
            rows.slot(event, label)
            made.append(other)
        return made

    def _stores(self, graph: Graph, tasks: Tasks, task: int, label: Label) -> list[Graph]:
        rows: Order = graph.rows
        loads = rows.loads.get(label.loc, 0) & ~rows.threads[task].past if self._draw is None else 0
        rests = self._revisits(graph, rows, task, label, loads) if loads else []
        made = self._places(graph, tasks, task, label, None)
        for load, rest in rests:
            self._later(self._places(rest, tasks, task, label, load))  # another past: must be run from the start
        return made

    def _revisits(self, graph: Graph, rows: Order, task: int, label: Label, loads: int) -> list[tuple[Id, Graph]]:
        """Loads of the location that might read the new store instead, each with what remains of the graph then.
        Blocking loads continue in place."""
        prefix = rows.threads[task].past
        found = []
        every = (1 << len(graph.order)) - 1
        while loads:
            at = (loads & -loads).bit_length() - 1
            loads &= loads - 1
            if rows.labels[at].wait is not None:
                continue
            gone = every & ~((2 << at) - 1) & ~prefix
            left, maximal = gone, self._maximal(graph, rows, at, prefix)
            while left and maximal:
                one = left & -left
                left ^= one
                maximal = self._maximal(graph, rows, one.bit_length() - 1, prefix)
            if maximal:
                events = {event for number, event in enumerate(graph.order) if gone >> number & 1}
                found.append((graph.order[at], graph.without(events)))
        return found

    def _maximal(self, graph: Graph, rows: Order, number: int, prefix: int) -> bool:
        """Whether the event, if added after ``prefix``, would be the same: it reads the last store, or is the last."""
        event, label = graph.order[number], rows.labels[number]
        if label.kind == "F" or (label.kind == "W" and label.loc is None):
            return True
        if label.kind == "C":
            return graph.rf[event] == 0
        if label.wait is not None:
            return graph.rf[event] == WAITS
        before = prefix | ((2 << number) - 1)
        if label.kind == "W":
            if rows.readers[number] & before:
                return False
            store = event
        else:
            store = graph.rf[event]
            if store >= 0 and not before >> rows.index[store] & 1:
                return False
        chain = graph.co.get(label.loc, ())
        first = chain.index(store) + 1 if store >= 0 else 0
        return not any(before >> rows.index[other] & 1 for other in chain[first:])

    def _places(self, graph: Graph, tasks: Tasks, task: int, label: Label, load: Id | None) -> list[Graph]:
        """The graphs with the new store at each position of its location's order, with ``load`` reading from it if
        given; and for each of them those in which the tasks that wait for it continue."""
        chain = graph.co.get(label.loc, ())
        rows: Order | None = graph.rows
        event = task << SHIFT | len(graph.tasks[task])
        places: list[int]
        if label.rmw:
            source = graph.rf[_last_id(graph, task)]
            places = [chain.index(source) + 1 if source >= 0 else 0]
            if load is None and rows is not None and not rows.lift(task):
                return []
        else:
            least = (
                _least(graph, rows, task, label.loc, chain) if rows is not None
                else _seen_by(graph, task, len(graph.tasks[task]), label.loc, chain)
            )  # fmt: skip
            places = list(range(len(chain), least - 1, -1))
        places = [at for at in places if at == len(chain) or not _splits(graph, chain, at)]
        made: list[Graph] = []
        if load is None:
            assert rows is not None
            self.counts.checks += len(places)
            number = len(rows.labels)
            planned = [(at, rows.plan(graph, event, label, number, INIT, chain[at:])) for at in places]
            allowed = [(at, plan) for at, plan in planned if plan is not None]
            for number, (at, plan) in enumerate(allowed):
                other = graph if number == len(allowed) - 1 else graph.copy()
                other.place(other.add(task, label), at)
                other.rows.add(other, event, label, plan)
                made += self._woken(other, tasks, label, event)
            return made
        for at in places:
            other = graph.copy()
            other.place(other.add(task, label), at)
            other.read(load, event)
            if not coherent(other):
                continue
            self.counts.checks += 1
            other.rows = self._order.of(other, self.model)
            if other.rows is not None:
                made += self._woken(other, tasks, label, event)
        return made

    def _woken(self, graph: Graph, tasks: Tasks, label: Label, event: Id) -> list[Graph]:
        """The graph with its new store, in which tasks wait on, unless that is a shadow; and those in which some of
        them continue."""
        made = [graph]
        for load in graph.waiting.get(label.loc, ()):
            one = graph.label(load)
            if one.wait is not None and one.wait(label.value):
                more = []
                for before in made:
                    if one.rmw and _taken(before, label.loc, event):
                        continue
                    chain = before.co[label.loc]
                    rank = chain.index(event) + 1
                    task = load >> SHIFT
                    if rank < _least(before, before.rows, task, label.loc, chain):
                        continue
                    self.counts.checks += 1
                    plan = before.rows.plan(before, load, one, before.rows.index[load], event, chain[rank:])
                    if plan is None:
                        continue
                    other = before.copy()
                    other.read(load, event)
                    if other.rows.add(other, load, one, plan):
                        more.append(other)
                made = [*more, *made]
        if len(made) > 1 and _is_shadow(graph, tasks, label.loc):
            self.counts.shadows += 1
            made.pop()
        return made


def _seen_by(graph: Graph, task: int, end: int, loc: Any, chain: Sequence[Id]) -> int:
    """How many stores of a location are not after what ``task`` last stored there or read, before its event ``end``."""
    events = graph.tasks[task]
    for index in range(end - 1, -1, -1):
        if events[index].loc == loc and events[index].kind in "RW":
            event = task << 20 | index
            store = event if events[index].kind == "W" else graph.rf[event]
            return chain.index(store) + 1 if store >= 0 else 0
    return 0


def _least(graph: Graph, rows: Order, task: int, loc: Any, chain: Sequence[Id]) -> int:
    """The same for the task's next event."""
    event = rows.threads[task].last.get(loc)
    if event is None:
        return 0
    store = event if graph.label(event).kind == "W" else graph.rf[event]
    return chain.index(store) + 1 if store >= 0 else 0


def _splits(graph: Graph, chain: Sequence[Id], at: int) -> bool:
    """Whether a store at this position would come between the load and the store of a read-modify-write."""
    after = chain[at]
    return graph.label(after).rmw and graph.rf[after - 1] == (chain[at - 1] if at else INIT)


def _may_store(graph: Graph, tasks: Tasks, task: int, loc: Any) -> bool:
    """Whether ``task`` may store to a location after what it stored in the graph."""
    return tasks.may_store(task, loc, sum(store >> SHIFT == task for store in graph.co.get(loc, ())))


def _is_shadow(graph: Graph, tasks: Tasks, loc: Any) -> bool:
    """Does a task wait for a location in vain from now on, although its last store would let it continue?

    So it is if no other task stores there any more, nor where a task has loaded: a load that got a new store instead (a
    backward revisit) would remove the wait, or what it waits for. The waiting task itself stores nothing meanwhile.
    """
    last = graph.label(graph.co[loc][-1]).value
    loads: dict[Any, set[int]] = {}
    for one in graph.waiting.get(loc, ()):
        label = graph.label(one)
        if label.wait is None or label.tag == "queue" or not label.wait(last):
            continue
        others = [task for task in range(tasks.count) if task != one >> SHIFT]
        if any(_may_store(graph, tasks, task, loc) for task in others):
            continue
        loads = loads or _loads(graph)
        if not any(
            readers - {task} and _may_store(graph, tasks, task, where)
            for where, readers in loads.items()
            for task in others
        ):
            return True
    return False


def _loads(graph: Graph) -> dict[Any, set[int]]:
    """Of each location: the tasks that have loaded it, and may get another store instead."""
    found: dict[Any, set[int]] = {}
    for event in graph.rf:
        label = graph.label(event)
        if label.kind == "R" and label.wait is None:
            found.setdefault(label.loc, set()).add(event >> SHIFT)
    return found


def _taken(graph: Graph, loc: Any, store: Id) -> bool:
    """Whether a blocking read-modify-write already reads from this store."""
    for event, source in graph.rf.items():
        if source == store:
            one = graph.label(event)
            if one.rmw and one.wait is not None and one.loc == loc:
                return True
    return False


def _last(graph: Graph, task: int) -> Label | None:
    """The last event of a task."""
    events = graph.tasks[task]
    return events[-1] if events else None


def _last_id(graph: Graph, task: int) -> Id:
    return task << 20 | (len(graph.tasks[task]) - 1)


def value_of(graph: Graph, tasks: Initial, event: Id) -> Any:
    """The value that the program gets for an event: for a load the value of its store, for a choice the option."""
    label = graph.label(event)
    if label.kind == "C":
        return graph.rf[event]
    if label.kind != "R":
        return None
    source = graph.rf[event]
    return graph.label(source).value if source >= 0 else tasks.initial(label.loc)


def replay(tasks: Startable, graph: Graph, task: int) -> Label | None:
    """Run ``task`` through its events of ``graph``; returns its next operation, or its last event if that waits."""
    label = tasks.start(task)
    events = graph.tasks[task]
    for index, known in enumerate(events):
        if label is None or not label.same(known):
            raise Nondeterminism(f"event {index} of task {task} was {known}, and is {label}")
        events[index] = label
        event = task << 20 | index
        if graph.rf.get(event) == WAITS:
            return label
        label = tasks.go_on(task, value_of(graph, tasks, event))
        if tasks.broken():
            return label
    return label


__all__ = ["Counts", "Nondeterminism", "Seen", "Tasks", "Trust", "replay", "value_of"]
