"""The order that a memory model imposes, maintained while an execution graph grows event by event.

:class:`~benchframe.check.axioms.Relations` has the same axioms, evaluated over a whole graph; here each event only adds
what is new. Sets of events are integers: bit n represents the n-th event in the graph's order. An event comes last in
its task, so nothing is after it, unless it is a load of an overwritten store, or a store that others overwrote: only
these can close a cycle, and only they cost O(events). All else costs a few operations on rows.

For each event: the events before it in the order of time (``before``, closed), the stores and loads from which a chain
of cumulative fences leads to it (``cumul``, closed), and those from which a propagation does (``prop``): the same after
an overwrite by another task. For each task: the same for its next event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchframe.check.axioms import FLUSHES, LKMM, SC, TSO, WORDS, bits, is_node
from benchframe.check.graph import INIT, SHIFT, WAITS, Graph, Id, Label


class Front:
    """Events after which something is ordered: ``mask``, and the unions of their ``cumul`` and ``prop``."""

    __slots__ = ("cumul", "mask", "prop")

    def __init__(self, mask: int = 0, cumul: int = 0, prop: int = 0) -> None:
        self.mask, self.cumul, self.prop = mask, cumul, prop

    def copy(self) -> Front:
        """A copy with the same events."""
        return Front(self.mask, self.cumul, self.prop)

    def join(self, other: Front) -> None:
        """Add the events of ``other``."""
        self.mask |= other.mask
        self.cumul |= other.cumul
        self.prop |= other.prop


class Thread:
    """What precedes the next event of one task."""

    __slots__ = (
        "acquires", "alone", "atomic", "closed", "ctrl", "everything", "fence", "flushed", "last", "loads", "locked",
        "nodes", "past", "pending", "places", "rcu", "rmb", "stores", "strong", "unfenced", "unlocked", "unlocks",
        "unlocks_fully", "version", "wmb",
    )  # fmt: skip

    def __init__(self) -> None:
        self.everything = Front()
        """Its accesses so far, with the stores of other tasks from which they read (A-cumulativity)."""
        self.alone = Front()
        """The same without these stores."""
        self.strong = Front()
        """What a full barrier orders before it."""
        self.rcu = Front()
        """What a grace period orders before it, as a full barrier does, but without cumulativity."""
        self.stores, self.wmb = Front(), Front()
        self.unlocks, self.unlocked = Front(), Front()
        """Before its last spin_unlock; before an unlock that is followed by one of its locks."""
        self.unlocks_fully, self.fence = Front(), Front()
        """The same with A-cumulativity: for smp_mb__after_unlock_lock."""
        self.pending = Front()
        """Before smp_mb__before_atomic."""
        self.nodes = Front()
        """Its grace periods and the begins of its sections: no accesses, but others come before and after them."""
        self.atomic, self.locked = Front(), Front()
        """Up to the last read-modify-write, failed or not; up to the last lock."""
        self.acquires = self.loads = self.rmb = self.ctrl = self.unfenced = self.past = 0
        self.flushed = 0
        """sc and tso: its last full barrier and all before it; where it waits for readers, the grace period's begin."""
        self.places: dict[object, int] = {}
        """For each location, its own accesses."""
        self.last: dict[object, Id] = {}
        """For each location, its last access; also for the words of sections."""
        self.version, self.closed = -1, 0
        """All events before those of ``strong`` and ``rcu``, and the version for which this holds."""

    def copy(self) -> Thread:
        """A copy in the same state."""
        made = Thread.__new__(Thread)
        for name in FRONTS:
            setattr(made, name, getattr(self, name).copy())
        made.acquires, made.loads, made.rmb, made.ctrl = self.acquires, self.loads, self.rmb, self.ctrl
        made.unfenced, made.past, made.places = self.unfenced, self.past, self.places.copy()
        made.flushed = self.flushed
        made.last = self.last.copy()
        made.version, made.closed = self.version, self.closed
        return made


FRONTS = (
    "everything", "alone", "strong", "rcu", "stores", "wmb", "unlocks", "unlocked", "unlocks_fully", "fence", "nodes",
    "pending", "atomic", "locked",
)  # fmt: skip


@dataclass
class Plan:
    """A load or store that may be added: what will be before it, and before what it will be."""

    before: int
    cumul: int = 0
    prop: int = 0
    """Without its own part."""
    base: int = 0
    """Those that it overwrites, of other tasks."""
    source: int = INIT
    later: int = 0
    """Stores of its location that are after it, of other tasks."""
    after: int = 0
    """The events directly after it."""


class Order:
    """The order of one graph under one model. Events are numbered by their position in ``graph.order``."""

    __slots__ = (
        "before", "cumul", "direct", "direct_prop", "gps", "index", "labels", "lifts", "loads", "model", "own", "past",
        "places", "prop", "readers", "snaps", "sources", "strongly", "there", "threads", "version",
    )  # fmt: skip

    def __init__(self, tasks: int, model: str) -> None:
        self.model = model
        self.version = 0
        self.there = 0
        """Events that were added, without waiting loads."""
        self.threads = [Thread() for _ in range(tasks)]
        self.own = [0] * tasks
        """For each task: its accesses and full barriers."""
        self.past: list[int] = []
        """Events before by program order and reads-from, of all kinds."""
        self.before: list[int] = []
        self.cumul: list[int] = []
        self.prop: list[int] = []
        self.direct: list[int] = []
        self.direct_prop: list[int] = []
        """``cumul`` and ``prop`` without the event itself."""
        self.sources: list[int] = []
        """For a store: the loads from which its address and value come."""
        self.strongly: list[int] = []
        """What a full barrier or a grace period orders before it."""
        self.readers: list[int] = []
        self.labels: list[Label] = []
        self.index: dict[Id, int] = {}
        self.places: dict[object, int] = {}
        """For each location, all accesses."""
        self.loads: dict[object, int] = {}
        self.snaps: dict[Id, tuple[Front, Front]] = {}
        """What was before an rcu_read_unlock, a spin_unlock: with A-cumulativity, and alone."""
        self.gps: dict[object, list[Front]] = {}
        """Of each task's word of sections: what was before the grace periods that looked at it."""
        self.lifts: dict[int, tuple[int, Front]] = {}
        """Of a task: a load whose store may follow (a read-modify-write), and what was before it."""

    @classmethod
    def of(cls, graph: Graph, model: str) -> Order | None:
        """The order of a whole graph, which must be coherent; None if the model forbids it."""
        made = cls(len(graph.tasks), model)
        for event in graph.order:
            made.slot(event, graph.label(event))
        at = [0] * len(graph.tasks)
        moved = True
        while moved:
            moved = False
            for task, events in enumerate(graph.tasks):
                while at[task] < len(events):
                    event = task << SHIFT | at[task]
                    if not made._replay(graph, task, event, events[at[task]]):
                        if made.there >> made.index[event] & 1:
                            return None
                        break
                    at[task] += 1
                    moved = True
        return made

    def _replay(self, graph: Graph, task: int, event: Id, label: Label) -> bool:
        """Add an event of ``graph``. False: it cannot be added yet, or (then it is present) it is forbidden."""
        number = self.index[event]
        if label.kind == "R":
            source = graph.rf[event]
            self.begin(task, label)
            if source == WAITS or (source >= 0 and not self.there >> self.index[source] & 1):
                return False
            chain = graph.co.get(label.loc, ())
            later = chain[chain.index(source) + 1 :] if source >= 0 else chain
        elif label.kind == "W":
            source = INIT
            chain = graph.co[label.loc] if label.loc is not None else ()
            later = chain[chain.index(event) + 1 :] if chain else ()
        else:
            return self.add(graph, event, label, None)
        plan = None
        if not (label.kind == "W" and label.rmw) or self.lift(task):
            plan = self.plan(graph, event, label, number, source, later)
        if plan is None:
            self.there |= 1 << number
            return False
        return self.add(graph, event, label, plan)

    def copy(self) -> Order:
        """Another order with the same events."""
        made = Order.__new__(Order)
        made.model, made.version, made.there = self.model, self.version, self.there
        made.threads = [one.copy() for one in self.threads]
        made.own, made.past = self.own[:], self.past[:]
        made.before, made.cumul, made.prop = self.before[:], self.cumul[:], self.prop[:]
        made.direct, made.direct_prop = self.direct[:], self.direct_prop[:]
        made.sources, made.strongly, made.readers = self.sources[:], self.strongly[:], self.readers[:]
        made.index, made.labels = self.index.copy(), self.labels[:]
        made.places, made.loads = self.places.copy(), self.loads.copy()
        made.snaps = {event: (one.copy(), two.copy()) for event, (one, two) in self.snaps.items()}
        made.gps = {loc: [front.copy() for front in some] for loc, some in self.gps.items()}
        made.lifts = {task: (number, front.copy()) for task, (number, front) in self.lifts.items()}
        return made

    # ---- adding ------------------------------------------------------------------------------------------------------

    def slot(self, event: Id, label: Label) -> int:
        """A number for a new event. A waiting load has only that."""
        number = len(self.labels)
        self.index[event] = number
        self.labels.append(label)
        for rows in (self.past, self.before, self.cumul, self.prop, self.direct, self.direct_prop, self.sources,
                     self.strongly, self.readers):  # fmt: skip
            rows.append(0)
        return number

    def plan(self, graph: Graph, event: Id, label: Label, number: int, source: int, later: Sequence[Id]) -> Plan | None:
        """The consequences of a load that reads from ``source``, or of a store; ``later`` are the stores after it. None
        if that closes a cycle. Changes nothing. O(1) operations on rows, O(events) if there are later stores."""
        task = event >> SHIFT
        there, index = self.there, self.index
        overwriters = gone = 0
        for store in later:
            at = index[store]
            if there >> at & 1:
                overwriters |= 1 << at
                gone |= 1 << at | self.readers[at]
        if label.tag in WORDS:
            return Plan(0 if self.model == LKMM else self._simply(task, label, INIT, 0), source=source)
        overwritten = 0
        if label.kind == "W" and label.loc is not None:
            overwritten = self.places.get(label.loc, 0) & ~gone
        if self.model == LKMM:
            plan = self._lkmm(graph, event, label, number, source, overwritten)
        else:
            plan = Plan(self._simply(task, label, source, overwritten), source=source)
        overwriters &= ~self.own[task]
        if overwriters:
            plan.later = overwriters
            plan.after = self._after(task, number, overwriters)
            if plan.after & (plan.before | 1 << number):
                return None
        return plan

    def _lkmm(self, graph: Graph, event: Id, label: Label, number: int, source: int, overwritten: int) -> Plan:
        task = event >> SHIFT
        thread, own, index = self.threads[task], self.own[task], self.index
        strong, unlocked = thread.strong, thread.unlocked
        first = thread.acquires | unlocked.mask & own
        cumul, prop = strong.cumul | unlocked.cumul, strong.prop | unlocked.prop
        deps = label.addr
        if label.kind == "W":
            first |= thread.wmb.mask
            if label.loc is not None:
                first |= thread.places.get(label.loc, 0)
            cumul |= thread.wmb.cumul
            prop |= thread.wmb.prop
            deps |= label.data | label.ctrl | label.arm
            first |= thread.ctrl
            if label.order == "release":
                every = thread.everything
                first |= every.mask
                cumul |= every.cumul
                prop |= every.prop
            if label.rmw:
                before = graph.rf[event - 1]
                if before >= 0:
                    store = index[before]
                    cumul |= self.direct[store]
                    prop |= self.direct_prop[store]
        elif label.tag != "noreturn":
            first |= thread.rmb
        first |= self._loads(task, deps)
        overwritten &= ~own
        props = prop | overwritten
        if source >= 0:
            at = index[source]
            if source >> SHIFT != task:
                first |= 1 << at
                props |= self.prop[at]
            else:
                first |= self.sources[at]
        first |= props & own
        if thread.version != self.version:
            thread.closed = self._close(strong.prop | thread.rcu.prop, 0)
            thread.version = self.version
        return Plan(self._close(first, thread.closed), cumul, prop, overwritten, source)

    def _loads(self, task: int, deps: int) -> int:
        """The events of ``task`` in a mask of their indices."""
        found, base, index = 0, task << SHIFT, self.index
        while deps:
            low = deps & -deps
            found |= 1 << index[base | (low.bit_length() - 1)]
            deps ^= low
        return found

    def _simply(self, task: int, label: Label, source: int, overwritten: int) -> int:
        """sc and tso: program order, reads-from, and overwritten stores."""
        thread = self.threads[task]
        first = self.own[task] | overwritten
        if self.model == TSO and label.kind == "R" and not _flushes(label):
            first &= ~thread.unfenced
        if source >= 0 and (self.model == SC or source >> SHIFT != task):
            first |= 1 << self.index[source]
        return self._close(first | thread.rcu.mask, 0)

    def _close(self, first: int, got: int) -> int:
        """``first`` and all events before it, together with ``got``, which is closed."""
        before = self.before
        left = first & ~got
        while left:
            at = left.bit_length() - 1
            got |= before[at] | 1 << at
            left &= ~got
        return got

    def _after(self, task: int, number: int, later: int) -> int:
        """What an event comes before at once if ``later`` overwrites it: the ends of propagations in its own task, and
        what a full barrier puts after any end."""
        if self.model != LKMM:
            return later
        ends = 0
        for at, cumul in enumerate(self.cumul):
            if cumul & later:
                ends |= 1 << at
                if self.readers[at]:
                    ends |= self.readers[at] & ~self._own_of(at)
        found = ends & self.own[task]
        for at, strongly in enumerate(self.strongly):
            if strongly & ends:
                found |= 1 << at
        thread = self.threads[task]
        return found | 1 << number if (thread.strong.mask | thread.rcu.mask) & ends else found

    def _own_of(self, at: int) -> int:
        return next(own for own in self.own if own >> at & 1)

    def add(self, graph: Graph, event: Id, label: Label, plan: Plan | None) -> bool:
        """Add an event as planned (barriers and choices have no plan); False if a grace period closes a cycle."""
        task = event >> SHIFT
        number = self.index.get(event)
        if number is None:
            number = self.slot(event, label)
        bit = 1 << number
        thread = self.threads[task]
        if label.ctrl:
            thread.ctrl |= self._loads(task, label.ctrl)
        past = thread.past | bit
        if plan is not None and plan.source >= 0:
            at = self.index[plan.source]
            past |= self.past[at]
            self.readers[at] |= bit
        self.past[number] = thread.past = past
        self.there |= bit
        lkmm = self.model == LKMM
        if plan is None:
            if lkmm:
                self._barrier(thread, label)
                if is_node(label):
                    every = thread.everything
                    self.strongly[number] = every.mask | thread.rcu.mask
                    self._node(thread, number, every.prop | thread.strong.prop | thread.rcu.prop | thread.nodes.prop)
            elif _flushes(label):
                self.before[number] = self._close(self.own[task] | thread.rcu.mask, 0)
                thread.flushed = self.before[number] | bit
                self.own[task] |= bit
                thread.unfenced = 0
            return True
        self.before[number] = plan.before
        if label.loc is not None:
            thread.last[label.loc] = event
        if not lkmm:
            if _flushes(label):
                thread.unfenced = 0
            elif label.kind == "W":
                thread.unfenced |= bit
        if label.tag in WORDS:
            if not lkmm:
                self.own[task] |= bit
            return self._section(graph, event, number, label, plan.source)
        if lkmm:
            self.direct[number], self.direct_prop[number] = plan.cumul, plan.prop
            self.cumul[number] = plan.cumul | bit
            self.prop[number] = plan.prop | plan.base | bit
            self.strongly[number] = thread.strong.mask | thread.rcu.mask
            if label.kind == "W":
                self.sources[number] = self._loads(task, label.addr | label.data)
        if plan.later:
            self._grow(number, plan)
        self.own[task] |= bit
        if label.loc is not None:
            thread.places[label.loc] = thread.places.get(label.loc, 0) | bit
            self.places[label.loc] = self.places.get(label.loc, 0) | bit
            if label.kind == "R":
                self.loads[label.loc] = self.loads.get(label.loc, 0) | bit
        if lkmm:
            self._program(event, number, label, plan.source)
        return True

    def _node(self, thread: Thread, number: int, first: int) -> None:
        """A grace period, or the begin of a section, that comes after ``first``."""
        bit = 1 << number
        self.prop[number] = bit
        self.before[number] = self._close(first, 0)
        thread.nodes.join(Front(bit, 0, bit))

    def _fronts(self) -> list[Front]:
        found = [getattr(thread, name) for thread in self.threads for name in FRONTS]
        for pair in self.snaps.values():
            found += pair
        for some in self.gps.values():
            found += some
        found += [front for _, front in self.lifts.values()]
        return found

    def _grow(self, number: int, plan: Plan) -> None:
        """An event is overwritten: it propagates to everything that its overwriters reach."""
        bit, later = 1 << number, plan.later
        if self.model == LKMM:
            direct = self.direct
            for at, reached in enumerate(self.cumul):
                if reached & later:
                    self.prop[at] |= bit
                    if direct[at] & later:
                        self.direct_prop[at] |= bit
            for front in self._fronts():
                if front.cumul & later:
                    front.prop |= bit
        self._arrow(plan.before | bit, plan.after)

    def _arrow(self, first: int, after: int) -> None:
        """``first``, which is closed, comes before ``after`` and all after that."""
        self.version += 1
        for at, before in enumerate(self.before):
            if before & after or after >> at & 1:
                self.before[at] = before | first

    # ---- lkmm: what a task's own text orders -------------------------------------------------------------------------

    def _barrier(self, thread: Thread, label: Label) -> None:
        order = label.order
        if order in ("mb", "sync-rcu"):
            thread.strong.join(thread.everything)
        elif order == "wmb":
            thread.wmb = thread.stores.copy()
        elif order == "rmb":
            thread.rmb = thread.loads
        elif order == "before-atomic":
            thread.pending = thread.everything.copy()
        elif order == "after-atomic":
            thread.strong.join(thread.atomic)
        elif order == "after-spinlock":
            thread.strong.join(thread.locked)
        elif order == "after-unlock-lock":
            thread.strong.join(thread.fence)
        thread.version = -1

    def _program(self, event: Id, number: int, label: Label, source: int) -> None:
        task = event >> SHIFT
        thread, bit = self.threads[task], 1 << number
        mine = Front(bit, self.cumul[number], self.prop[number])
        if label.kind == "R":
            if label.rmw:
                self.lifts[task] = number, thread.everything.copy()
            elif label.order == "acquire":
                thread.acquires |= bit
            if label.tag != "noreturn":
                thread.loads |= bit
            if label.tag == "lock":
                thread.unlocked.join(thread.unlocks)
                thread.fence.join(thread.unlocks_fully)
                if source in self.snaps:
                    thread.fence.join(self.snaps[source][0])
                    thread.unlocked.join(self.snaps[source][1])
        else:
            self.lifts.pop(task, None)
            thread.stores.join(mine)
            if label.tag == "unlock":
                thread.unlocks_fully, thread.unlocks = thread.everything.copy(), thread.alone.copy()
                self.snaps[event] = thread.everything.copy(), thread.alone.copy()
        thread.alone.join(mine)
        if source >= 0 and source >> SHIFT != task:
            at = self.index[source]
            mine.cumul |= self.cumul[at]
            mine.prop |= self.prop[at]
        thread.everything.join(mine)
        if label.rmw:
            thread.atomic = thread.everything.copy()
        if label.kind == "W" and label.rmw:
            if label.tag == "lock":
                thread.locked = thread.everything.copy()
            if label.full:
                thread.strong.join(thread.everything)
                thread.version = -1

    def begin(self, task: int, label: Label) -> None:
        """A load is about to be planned: if it belongs to a read-modify-write, smp_mb__before_atomic applies to it."""
        thread = self.threads[task]
        if label.rmw and thread.pending.mask:
            thread.strong.join(thread.pending)
            thread.pending = Front()
            thread.version = -1

    def lift(self, task: int) -> bool:
        """A read-modify-write is about to store: its load gets the ordering that it would not have without the store.
        False if that closes a cycle. Must be called before the store is planned."""
        found = self.lifts.pop(task, None)
        if found is None or self.model != LKMM:
            return True
        number, front = found
        thread, bit, load = self.threads[task], 1 << number, self.labels[number]
        if load.order == "acquire":
            thread.acquires |= bit
        if not load.full or not front.mask:
            return True
        thread.strong.join(front)
        thread.version = -1
        self.strongly[number] |= front.mask
        self.direct[number] |= front.cumul
        self.cumul[number] |= front.cumul
        self.direct_prop[number] |= front.prop
        self.prop[number] |= front.prop
        first = self._close(front.prop, 0)
        if first & bit or any(self.before[at] & bit for at in bits(first & ~self.before[number])):
            return False
        self._arrow(first, bit)
        return True

    # ---- sections and grace periods ----------------------------------------------------------------------------------

    def _section(self, graph: Graph, event: Id, number: int, label: Label, source: int) -> bool:
        """Of a section and a grace period, everything before the end of the one that comes first is before everything
        after the begin of the other, as with a full barrier."""
        task, bit = event >> SHIFT, 1 << number
        thread = self.threads[task]
        lkmm = self.model == LKMM
        if label.kind == "W":
            self.places[label.loc] = self.places.get(label.loc, 0) | bit
            if label.tag == "rcu_read_unlock":
                ended = thread.everything.copy() if lkmm else Front(self.before[number] | bit)
                ended.join(thread.nodes)
                self.snaps[event] = ended, thread.alone.copy()
            else:
                for front in self.gps.get(label.loc, ()):
                    thread.rcu.join(front)
                    thread.version = -1
                if lkmm:
                    self.strongly[number] = thread.rcu.mask
                    self._node(thread, number, thread.rcu.prop)
                else:
                    self.before[number] = self._close(thread.rcu.mask, self.before[number])
            return True
        front = thread.everything.copy() if lkmm else Front(thread.flushed)
        front.join(thread.nodes)
        self.gps.setdefault(label.loc, []).append(front)
        chain = graph.co.get(label.loc, ())
        first = 0
        if source >= 0:
            first = chain.index(source) + 1
            thread.rcu.join(self.snaps[source][0])
            thread.version = -1
        if first >= len(chain) or not self.there >> self.index[chain[first]] & 1:
            return True
        lock = chain[first]
        other = lock >> SHIFT
        thread = self.threads[other]
        inside = (self.own[other] | thread.nodes.mask) & ~self.past[self.index[lock]]
        thread.rcu.join(front)
        thread.version = -1
        inside |= 1 << self.index[lock]
        if not lkmm:
            closed = front.mask
        else:
            closed = self._close(front.prop, 0)
            for at in bits(inside):
                self.strongly[at] |= front.mask
        if closed & inside or any(self.before[at] & inside for at in bits(closed)):
            return False
        self._arrow(closed, inside)
        return True


def _flushes(label: Label) -> bool:
    """Whether it waits for the store buffer, under tso."""
    return label.rmw or label.order in ("mb", "sync-rcu") or label.tag in FLUSHES


__all__ = ["Order", "Plan"]
