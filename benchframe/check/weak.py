"""Cases whose executions are graphs: a load gets the value of the store that it reads from, not what memory holds.

The world behind strategy code announces each access to what tasks share as a :class:`~benchframe.check.graph.Label`;
:class:`~benchframe.check.trust.Trust` answers it. What one task alone touches stays in the arrays. When an execution is
whole, the last store of each location is written to memory and everything must agree, as in the other searches.

What differs from :class:`~benchframe.check.cases.CaseWorld`: there is no time, so *before* means the memory model's
order. What a whole graph must have is in :mod:`~benchframe.check.axioms`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import not_
from types import FrameType
from typing import Any

from benchframe.check.axioms import (
    Asked,
    Place,
    Race,
    Relations,
    Row,
    Span,
    check_answers,
    check_uses,
    data_races,
    line_of,
)
from benchframe.check.cases import Case, CaseWorld
from benchframe.check.execution import READS, WRITES, Broken
from benchframe.check.graph import SHIFT, Branches, Graph, Label, Traced, as_int, deps_of, on_branch, traced
from benchframe.check.memory import (
    STATISTICS,
    Key,
    Location,
    Memory,
    chain,
    column_of,
    describe,
    place,
    program_state,
    record_name,
)
from benchframe.check.paths import Paths, Walk
from benchframe.check.trust import Seen
from benchframe.check.tso import rebind
from benchframe.dialect import primitives
from benchframe.dialect.functions import Native
from benchframe.dialect.interpreter import unusual, wrapped
from benchframe.dialect.records import Slab
from benchframe.mm.layout import FILE, MM, PAGE, TASK, VMA
from benchframe.mm.machine import Machine
from benchframe.scenario import Scenario, is_store
from benchframe.strategy import Strategy

AGAIN = 3
"""How often a task may come to one place in one state before it waits for something to change."""
ALONE = "alone"
"""The tag of a barrier that is a read-modify-write of memory that no other task shares."""
CTRL_ACQUIRE = "acquire after a control dependency"
BARRIERS = {
    primitives.smp_mb: "mb",
    primitives.smp_rmb: "rmb",
    primitives.smp_wmb: "wmb",
    primitives.smp_mb__before_atomic: "before-atomic",
    primitives.smp_mb__after_atomic: "after-atomic",
    primitives.smp_acquire__after_ctrl_dep: CTRL_ACQUIRE,
}
Rule = Callable[[Label], Label | None]
"""Exchanges an access for another of a stronger or weaker ordering; None leaves a barrier out."""


class GraphMemory(Memory):
    """References know what their index depends on."""

    def prepare(self, slab: Slab) -> tuple[type[Any], tuple[Any, ...], int]:
        """Proxy class, columns and length of a slab."""
        kind, columns, count = super().prepare(slab)
        made = (type(kind.__name__, (kind,), {"__slots__": ("address",)}), columns, count)
        self.prepared[slab.base] = made
        return made

    def unseen(self, name: str, column: int) -> Callable[[Any, int], None]:
        """Counters are added to, since tasks share them; all else of these is stored."""
        if name in STATISTICS and name != "error":
            return lambda ref, value: ref.world.add(
                ref._columns[column], ref.index, value - ref._columns[column][ref.index]
            )
        return lambda ref, value: ref.world.put(ref._columns[column], ref.index, value)


@dataclass
class Known:
    """What executions of a case have shown, and its search relies on: plain data. ``shared``, ``touched`` and ``freed``
    as :meth:`Memory.seen` gives them, the rest as the fields of :class:`GraphCase`."""

    shared: set[Location]
    touched: dict[Location, int]
    freed: dict[Key, int]
    stores: dict[tuple[int, Hashable], int]
    relied: set[tuple[int, Hashable]]
    locks: set[Location]
    counts: set[Location]


class GraphCase(Case):
    """A scenario with a strategy in it, under a memory model of :mod:`benchframe.check.axioms`."""

    def __init__(self, scenario: Scenario, strategy: Strategy, model: str = "lkmm") -> None:
        self.memory_model = model
        self.rules: Mapping[tuple[Place, str], Rule] = {}
        """Orderings to be exchanged, by place and operation."""
        self.weaker: Mapping[tuple[str, str, str], Rule] = {}
        """The same by function, operation and field ("" for a barrier)."""
        self.races: set[Race] = set()
        self.stores: dict[tuple[int, Hashable], int] = {}
        """How often a task stored to a location, at most, in any execution."""
        self.relied: set[tuple[int, Hashable]] = set()
        """Those of which a search took it that there are no more."""
        self.learned = False
        """There were more, or more locks: what was searched with less must be looked at again."""
        self.paths = Paths()
        self.places: dict[Hashable, tuple[Any, int, int]] = {}
        """Of each location: where its value stands, and the initial one."""
        self.locks: set[Location] = set()
        """Words that a task took as a lock, in any execution."""
        self.counts: set[Location] = set()
        """Other words that were raised, as one that tries to take a lock would do it."""
        self._world: GraphWorld | None = None
        if scenario.hardware:
            raise Broken("set-up", "scenarios with TLBs are not checked under this memory model")
        super().__init__(scenario, strategy)
        self.live = memoryview(self.machine.arrays["slab_base"]["live"])  # type: ignore[arg-type]

    def make_memory(self, machine: Machine) -> Memory:
        """Memory whose references carry dependencies."""
        return GraphMemory(machine)

    def interpreted(self, function: Native, replace: Mapping[Any, Callable[..., Any]]) -> Callable[..., Any]:
        """As elsewhere, but barriers are events and ``int`` keeps dependencies."""
        made = super().interpreted(function, replace)
        rebind(made, {p: self._barrier(name) for p, name in BARRIERS.items()}, {"int": as_int})
        return made

    def _barrier(self, name: str) -> Callable[[], None]:
        def barrier() -> None:
            if self._world is not None:
                self._world.barrier(name)

        return barrier

    def new_world(self) -> GraphWorld:
        """One execution."""
        self._world = GraphWorld(self)
        return self._world

    def learn(self) -> bool:
        """Make what was discovered since the last call known; whether there was anything."""
        new, self.learned = self.learned, False
        if self.memory.learn() or new:
            self.paths.forget()
            return True
        return False

    def known(self) -> Known:
        """What was learned so far, for searches of the same case elsewhere."""
        return Known(*self.memory.seen(), self.stores, self.relied, self.locks, self.counts)

    def join(self, other: Known) -> bool:
        """Add what was learned elsewhere; whether what was searched with less must be looked at again."""
        new = self.memory.join(other.shared, other.touched, other.freed)
        self.relied |= other.relied
        self.counts |= other.counts
        for one, times in other.stores.items():
            if times > self.stores.get(one, 0):
                self.stores[one] = times
                new |= one in self.relied
        new |= bool((other.locks - self.locks) & self.counts)
        self.locks |= other.locks
        if new:
            self.paths.forget()
        return new

    def tasks(self) -> GraphWorld:
        """A fresh execution; what the search calls."""
        world = self.program()
        assert isinstance(world, GraphWorld)
        return world


class GraphWorld(Walk):
    """One execution: the tasks of :class:`benchframe.check.trust.Tasks`."""

    case: GraphCase

    def __init__(self, case: GraphCase) -> None:
        super().__init__(case, case.paths, case.places)
        self.count = 0
        self.locks = case.locks
        self.shadow: dict[tuple[int, Location], int] = {}
        """What values in places of one task alone depend on."""
        self.branches: dict[int, Branches] = {}
        """Of each task: what its next store depends on by branches."""
        self.stores_done: dict[tuple[int, Hashable], int] = {}
        """How often each task has stored to a location."""
        self.calls: list[Asked] = []
        self.mappings: list[Span] = []
        self.turn: dict[int, int] = {}
        """Of each task: which of its calls it is in."""
        self.parts: dict[int, list[Span]] = {}
        """Of each task: what its mapping call has done so far."""
        self.local_limbo: dict[int, list[int]] = {which: [] for which in self.limbo}
        self.seen: dict[int, dict[Any, int]] = {}
        on_branch(self._branched)

    # ---- what the search calls -------------------------------------------------------------------------------------

    def daemon(self, task: int) -> bool:
        """RCU threads."""
        return self.daemons[task]

    def may_store(self, task: int, loc: Any, done: int) -> bool:
        """Was the task ever seen to store there more often than ``done`` times?"""
        one = task, loc
        if self.case.stores.get(one, 0) > done:
            return True
        self.case.relied.add(one)
        return False

    def take_back(self, task: int) -> None:
        """A task begins again: its calls and mappings, too."""
        self.calls = [one for one in self.calls if one[1].task != task]
        self.mappings = [span for span in self.mappings if span.task != task]
        self.parts.pop(task, None)

    def close(self) -> None:
        """End what is still running."""
        for branches in self.branches.values():
            branches.clear()
        super().close()

    def add_daemons(self) -> None:
        """RCU threads. Signals are choices of who may be interrupted."""
        if self.case.uses_rcu:
            for task in range(len(self.case.scenario.tasks)):
                self.spawn(f"RCU for T{task}", self.grace(task), daemon=True)
        self.count = len(self.bodies)

    # ---- events ----------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """The number of the current task's next event: what "when" is to who notes it."""
        return self.index.get(self.current, 0)

    @steps.setter
    def steps(self, value: int) -> None:
        pass

    def _branched(self, deps: int, frame: FrameType) -> None:
        self.branches.setdefault(self.current, Branches()).add(deps, frame)

    def event(self, label: Label) -> Any:
        """Announce an event of the current task; its value."""
        task = self.current
        label.place, label.chain = label.place or place(), chain()
        rule = self._rule(label, label.place) if label.tag != ALONE else None
        if rule is not None:
            was = label.full, label.order
            changed = rule(label)
            if changed is None:
                return None
            label = changed
            label.weaker = was != (label.full, label.order) and (was[0] or label.order == "once")
        if label.kind == "W" and (branches := self.branches.get(task)):
            branches.look()
            label.ctrl, label.arm = branches.lasting(), branches.arms
        if label.info is None:
            label.info = bool(self.sections.get(task))
        if label.kind == "W":
            self.seen.pop(task, None)
            one = task, label.loc
            self.stores_done[one] = done = self.stores_done.get(one, 0) + 1
            if done > self.case.stores.get(one, 0):
                self.case.stores[one] = done
                self.case.learned |= one in self.case.relied
        return self.answer(label)

    def _rule(self, label: Label, where: Place) -> Rule | None:
        case, operation = self.case, label.operation
        if case.rules and (rule := case.rules.get((where, operation))):
            return rule
        if not case.weaker:
            return None
        return case.weaker.get((where[2], operation, _field(label, case.machine)))

    def barrier(self, name: str) -> None:
        """smp_mb and its kin."""
        if self.hub is None:
            return
        if name == CTRL_ACQUIRE:
            name = "rmb"
            if branches := self.branches.get(self.current):
                branches.acquire()
        self.event(Label("F", order=name))

    def _shared(self, key: Key, part: Hashable, how: int) -> bool:
        memory = self.memory
        if memory.all_visible or (key, part) in self.shared:
            return True
        memory.touch(key, part, how, self.current)
        return False

    def ref(self, slab: Slab, index: int) -> Any:
        """The proxy for a record; WildAccess outside the slab."""
        kind, columns, count = self.memory.prepared.get(slab.base) or self.memory.prepare(slab)
        plain = int(index)
        if not slab.first <= plain < count:
            return unusual(self, slab, plain, count)
        made = kind(self, slab, plain, columns)
        made.address = deps_of(index)
        return made

    def _where(self, ref: Any, column: int) -> tuple[Key, Hashable, Location]:
        key, part = self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column)
        loc = (key, part)
        if loc not in self.places:
            view = ref._columns[column]
            self.places[loc] = (view, ref.index, view[ref.index])
        return key, part, loc

    def read(self, ref: Any, column: int) -> int:
        """A plain load."""
        return self._load(ref, column, "once", True)

    def load(self, ref: Any, field: str, ordering: str) -> int:
        """An ordered load."""
        tag = ordering if ordering == "dereference" else ""
        return self._load(ref, column_of(ref, field), "once" if tag else ordering, False, tag)

    def _load(self, ref: Any, column: int, order: str, plain: bool, tag: str = "") -> int:
        key, part, loc = self._where(ref, column)
        if self.hub is None or not self._shared(key, part, READS):
            value = ref._columns[column][ref.index]
            deps = self.shadow.get((self.current, loc), 0)
            return traced(value, deps)  # type: ignore[no-any-return]
        at = self.index[self.current]
        label = Label("R", loc, order=order, plain=plain, addr=ref.address, tag=tag)
        value = self.event(label)
        self._spinning(label, loc, value)
        return Traced(value, 1 << at)

    def _spinning(self, label: Label, loc: Location, value: Any) -> None:
        """Where a task comes to the same load in the same state again and again, it waits for another value: what it
        could still do, it could have done the time before."""
        mine = self.seen.setdefault(self.current, {})
        rough = (label.place, loc, int(value))
        times = mine.get(rough, 0)
        if times < AGAIN:
            mine[rough] = times + 1
            return
        state = (rough, program_state())
        mine[state] = times = mine.get(state, 0) + 1
        if times >= AGAIN:
            old = int(value)
            self.event(Label("R", loc, plain=label.plain, wait=lambda now: now != old, excused=True, place=label.place))

    def store(self, ref: Any, field: str, value: int, ordering: str) -> None:
        """An ordered store."""
        self._put(ref, column_of(ref, field), value, "release" if ordering == "release" else "once", False)
        if ordering == "mb":
            self.barrier("mb")

    def write(self, ref: Any, column: int, value: int, kind: str = "store", how: int = WRITES) -> int:
        """A plain store."""
        self._put(ref, column, value, "once", True)
        return 0

    def _put(self, ref: Any, column: int, value: Any, order: str, plain: bool) -> None:
        key, part, loc = self._where(ref, column)
        number = int(value)
        if self.hub is None or not self._shared(key, part, WRITES):
            self.put(ref._columns[column], ref.index, number)
            deps = deps_of(value)
            if deps or self.shadow:
                self.shadow[self.current, loc] = deps
        else:
            self.event(Label("W", loc, number, order, plain=plain, addr=ref.address, data=deps_of(value)))
        if self.held:
            self.unlocked(key, part)

    def _update(
        self,
        ref: Any,
        column: int,
        change: Callable[[int], int | None],
        ordering: str,
        data: int = 0,
        wait: Callable[[Any], bool] | None = None,
        tag: str = "",
    ) -> int:
        """A read-modify-write: ``change`` gives the new value, None for none. The value before."""
        key, part, loc = self._where(ref, column)
        view, index = ref._columns[column], ref.index
        if self.hub is None or not self._shared(key, part, WRITES):
            before = view[index]
            if wait is None or wait(before):
                new = change(before)
                if new is not None:
                    self.put(view, index, new)
                    if ordering == "full":
                        self._barrier_alone(loc)
                return before  # type: ignore[no-any-return]
        at = self.index[self.current]
        full = ordering == "full"
        read = "acquire" if ordering in ("acquire", "acq_rel") else "once"
        label = Label("R", loc, order=read, rmw=True, full=full, wait=wait, addr=ref.address, tag=tag)
        before = self.event(label)
        new = change(before)
        if new is not None:
            kind = "release" if ordering in ("release", "acq_rel") else "once"
            self.event(
                Label("W", loc, new, kind, rmw=True, full=full, addr=ref.address, data=data, tag=tag, place=label.place)
            )
        elif wait is None:
            self._spinning(label, loc, before)
        return Traced(before, 1 << at)

    def _barrier_alone(self, loc: Location) -> None:
        """A full read-modify-write of memory that no other task shares is a barrier all the same; a weaker one, or one
        that is weakened, is nothing."""
        if self.hub is None:
            return
        where = place()
        label = Label("R", loc, rmw=True, full=True, place=where)
        rule = self._rule(label, where)
        if rule is not None:
            rule(label)
        if label.full:
            self.event(Label("F", order="mb", tag=ALONE, place=where))

    def rmw(self, ref: Any, field: str, operation: str, value: int, ordering: str = "full") -> int:
        """fetch_add or xchg."""
        column, number = column_of(ref, field), int(value)
        struct = ref.slab.struct

        def change(old: int) -> int:
            return wrapped(struct, field, old + number) if operation == "add" else number

        before = self._update(ref, column, change, ordering, deps_of(value))
        if self.held and number < 0:
            self.unlocked(self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column))
        return before

    def cmpxchg(self, ref: Any, field: str, old: int, new: int, ordering: str = "full") -> int:
        """Compare and exchange."""
        column, wanted, number = column_of(ref, field), int(old), int(new)
        before = self._update(
            ref, column, lambda seen: number if seen == wanted else None, ordering, deps_of(new) | deps_of(old)
        )
        if int(before) == wanted and number > wanted:
            self.locked(self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column))
        return before

    def update(self, ref: Any, field: str, how: int, change: Callable[[int], int], ordering: str) -> int:
        """One atomic step: ``change(value)`` is added, if it is not 0. Gives the value before."""
        column = column_of(ref, field)
        key, part = self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column)
        delta = 0

        def step(old: int) -> int | None:
            nonlocal delta
            return old + delta if (delta := int(change(old))) else None

        before = self._update(ref, column, step, ordering)
        if delta > 0:
            self.locked(key, part)
        elif delta < 0 and self.held:
            self.unlocked(key, part)
        return before

    def wait_then_add(self, ref: Any, field: str, mask: int, delta: int) -> int:
        """Take a lock."""
        column, mask, add = column_of(ref, field), int(mask), int(delta)
        key, part = self.memory.key_of(ref.slab.base, ref.index), self.memory.part_of(ref, column)
        if (key, part) not in self.locks:
            self.locks.add((key, part))
            self.case.learned |= (key, part) in self.case.counts
        if self.held:
            self._ordered(key, part)
        before = self._update(
            ref, column, lambda old: old + add, "acquire", wait=lambda seen: not seen & mask, tag="wait_then_add"
        )
        if add > 0:
            self.locked(key, part)
        return before

    def locked(self, key: Key, part: Hashable) -> None:
        """The current task has taken a lock, if the place is known as one."""
        if (key, part) not in self.locks:
            self.case.counts.add((key, part))
        super().locked(key, part)

    def nested(
        self,
        outer: tuple[Hashable, Hashable],
        inner: tuple[Hashable, Hashable],
        locks: tuple[Location, Location],
        places: tuple[Place, Place],
    ) -> None:
        """The current task is about to take a lock inside another."""
        self.note(lambda world: CaseWorld.nested(world, outer, inner, locks, places))

    def wait(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """wait_until and wait_interruptible."""
        return super().wait(ref, field, int(mask), int(value), interruptible)

    def wait_while(self, ref: Any, field: str, mask: int, value: int, interruptible: bool) -> int:
        """wait_while and wait_while_interruptible."""
        return super().wait_while(ref, field, int(mask), int(value), interruptible)

    def _await(self, ref: Any, field: str, over: Callable[[Any], bool], interruptible: bool) -> int:
        column = column_of(ref, field)
        key, part, loc = self._where(ref, column)
        signals = interruptible and self.current in self.case.scenario.signals
        if signals and self.event(Label("C", options=2)):
            return 1
        if self._shared(key, part, READS) or not over(ref._columns[column][ref.index]):
            self.event(Label("R", loc, order="acquire", wait=over, excused=signals, addr=ref.address))
        return 0

    # ---- lives, RCU ------------------------------------------------------------------------------------------------

    def takers(self) -> int:
        """As in an interleaving, where signals are tasks: so records have the same numbers."""
        return self.count + len(self.case.scenario.signals)

    def alloc(self, which: int) -> int:
        """A slot that nobody had in this execution, or the one freed last into a type-safe cache."""
        which = int(which)
        if which in self.limbo:
            slot = self._take(which)
            if slot:
                return slot
        limbo, self.limbo = self.limbo, {}
        try:
            return super().alloc(which)
        finally:
            self.limbo = limbo

    def _take(self, which: int) -> int:
        key = ("type-safe slab", which)
        if not self._shared(key, 0, WRITES):
            mine = self.local_limbo[which]
            slot = mine.pop() if mine else 0
        else:
            loc = (key, 0)
            kept = self.event(Label("R", loc, order="acquire", rmw=True, tag="slab"))
            slot = kept[-1] if kept else 0
            if slot:
                self.event(Label("W", loc, kept[:-1], "release", rmw=True, tag="slab"))
        if slot:
            self.event(Label("F", order="alloc", tag="alloc", value=(self.base(which), slot)))
            self.count_live(which, 1)
        return slot

    def count_live(self, which: int, change: int) -> None:
        """The records of an arena that are in use."""
        self.add(self.case.live, which, change)

    def fill(self, base: str, index: int, **values: int) -> None:
        """A record that nobody else knows yet begins with these."""
        for name, value in values.items():
            self.put(memoryview(self.case.machine.arrays[base][name]), index, value)  # type: ignore[arg-type]

    def free(self, which: int, slot: int, by: tuple[str, ...] = ()) -> None:
        """The record's life ends; ``by`` are the functions that gave it up before, if these free it later."""
        which, slot = int(which), int(slot)
        key = (self.base(which), slot)
        self._end(key, False, by)
        self._returned.setdefault((which, self.current), []).append(slot)
        self.count_live(which, -1)

    def _end(self, key: Key, typesafe: bool, by: tuple[str, ...] = ()) -> None:
        self.memory.touch_free(key, self.current)
        self.dead[key] = (self.current, 0)
        if self.memory.all_visible or (key, None) in self.shared:
            self.event(Label("W", None, (key, typesafe, chain() or by), tag="free"))

    def free_typesafe(self, which: int, slot: int) -> int:
        """Free into a cache that is type-safe by RCU."""
        which, slot = int(which), int(slot)
        self._end((self.base(which), slot), True)
        self.count_live(which, -1)
        key = ("type-safe slab", which)
        if not self._shared(key, 0, WRITES):
            self.local_limbo[which].append(slot)
        else:
            kept = self.event(Label("R", (key, 0), order="acquire", rmw=True, tag="slab"))
            self.event(Label("W", (key, 0), (*kept, slot), "release", rmw=True, tag="slab"))
        return 0

    def end(self, base: str, index: int) -> int:
        """The life of a record that no arena hands out ends."""
        self._end((base, int(index)), False)
        return 0

    def rcu(self, change: int) -> int:
        """rcu_read_lock and rcu_read_unlock."""
        task = self.current
        depth = self.sections.get(task, 0) + change
        if depth < 0:
            raise Broken("unbalanced", f"{self.names[task]}: rcu_read_unlock outside a section")
        if self.hub is not None and depth == (1 if change > 0 else 0) and self._shared(("rcu", task), 0, WRITES):
            tag = "rcu_read_lock" if change > 0 else "rcu_read_unlock"
            self.event(Label("W", (("rcu", task), 0), depth, tag=tag))
        self.sections[task] = depth
        return 0

    def synchronize(self) -> int:
        """synchronize_rcu."""
        if self.sections.get(self.current):
            raise Broken("deadlock", f"{self.names[self.current]}: synchronize_rcu inside a read-side section")
        self._grace_period([one for one in range(len(self.case.scenario.tasks)) if one != self.current])
        return 0

    def _grace_period(self, others: Sequence[int]) -> None:
        self.event(Label("F", order="mb", tag="gp"))
        for other in others:
            if self._shared(("rcu", other), 0, READS):
                self.event(Label("R", (("rcu", other), 0), wait=not_, tag="gp"))
        self.event(Label("F", order="mb", tag="gp"))

    def defer(self, which: int, slot: int) -> int:
        """kfree_rcu: the task's RCU thread will free it."""
        which, slot = int(which), int(slot)
        mine = self.words.get(("rcu queue", self.current), ())
        self.words["rcu queue", self.current] = queue = (*mine, (which, slot, chain()))
        self.event(Label("W", (("rcu queue", self.current), 0), queue, "release", tag="kfree_rcu"))
        return 0

    def grace(self, task: int) -> Callable[[], Any]:
        """Frees what ``task`` gave up, each after a grace period that began after it was."""
        others = range(len(self.case.scenario.tasks))

        def run() -> None:
            done = 0
            while True:
                done += 1
                number = done
                label = Label(
                    "R",
                    (("rcu queue", task), 0),
                    order="acquire",
                    wait=lambda queued, number=number: len(queued) == number,  # type: ignore[misc]
                    tag="queue",
                )
                queue = self.event(label)
                self._grace_period(others)
                self.free(*queue[-1])

        return run

    # ---- what is right -----------------------------------------------------------------------------------------------

    def body(self, task: int, calls: Sequence[int]) -> Callable[[], Any]:
        """What a task does."""

        def run() -> list[int]:
            root = self.ref(MM, 1)
            results = []
            for turn, (call, event) in enumerate(zip(self.case.scenario.tasks[task], calls, strict=True)):
                if is_store(call):
                    raise Broken("set-up", "a user's store needs TLBs")
                self.turn[task] = turn
                first, self.lines[task] = self.index[task], []
                result = int(self.case.run_event(root, event))
                span = Span(task, first, self.index[task], turn, lines=tuple(self.lines[task]))
                self._called((call, span, result))
                results.append(result)
            return results

        return run

    def show(self, start: int, end: int) -> int:
        """A walk of the current task shows a VMA."""
        return super().show(int(start), int(end))

    def _called(self, asked: Asked) -> None:
        self.note(lambda world: world.calls.append(asked))

    def mapped(self, number: int, since: int) -> None:
        """A mapping call is about to drop the lock: the layout as its task sees it."""
        if number == 0:
            task, end, turn = self.current, self.index[self.current], self.turn[self.current]

            def map_(world: GraphWorld) -> None:
                parts = world.parts.pop(task, [])
                world.mappings.append(Span(task, since, end, turn, world._layout(task, end), parts))

            self.note(map_)

    def changed(self, number: int, since: int) -> None:
        """The same of a part of one."""
        if number == 0:
            task, end, turn = self.current, self.index[self.current], self.turn[self.current]

            def change(world: GraphWorld) -> None:
                world.parts.setdefault(task, []).append(Span(task, since, end, turn, world._layout(task, end)))

            self.note(change)

    def _layout(self, task: int, at: int) -> list[Row]:
        """The VMAs of the first mm, as a task would read them after ``at`` events: of each place the last store that it
        may know of."""
        order = self.graph.rows
        known = order.past[order.index[task << SHIFT | (at - 1)]] if at else 0

        def value(slab: Slab, index: int, field: str) -> int:
            array = self.case.machine.arrays[slab.base]
            column = list(slab.struct.fields).index(field)
            loc = ((slab.base, index), column)
            if loc not in self.shared:  # another task's stores to it must be events, or they are not seen here
                self.memory.touch(*loc, READS, task)
            for store in reversed(self.graph.co.get(loc, ())):
                if known >> order.index[store] & 1:
                    return int(self.graph.label(store).value)
            return int(array[index][field])

        rows: list[Row] = []
        vma = value(MM, 1, "mmap")
        limit = len(self.case.machine.arrays["vma_base"])
        while vma and len(rows) < limit:
            rows.append((vma, value(VMA, vma, "vm_start"), value(VMA, vma, "vm_end"), value(VMA, vma, "vm_flags")))
            vma = value(VMA, vma, "vm_next")
        return rows

    def uses(self, graph: Graph) -> Relations:
        """The graph's relations. Raises Broken if a record is used after it was freed."""
        relations = Relations(graph, self.case.memory_model)
        began = [span.task << SHIFT | span.first for _, span, _ in self.calls]
        machine = self.case.machine
        check_uses(graph, relations, graph.rows.before, self.names, began, lambda base: record_name(base, machine))
        return relations

    def judge(self, seen: Seen) -> Broken | None:
        """What is wrong with a whole execution."""
        if seen.outcome == "broken":
            return self.failure
        before: list[int] = seen.graph.rows.before
        try:
            relations = self.uses(seen.graph)
            if seen.outcome == "deadlock":
                return self._deadlock(seen.graph)
            check_answers(self.calls, self.mappings, self.case.first_rows[0], relations, before)
            self._settle(seen.graph)
            self.case.validate()
        except Broken as broken:
            return broken
        self.case.races |= data_races(relations, before)
        return None

    def _deadlock(self, graph: Graph) -> Broken:
        waiting = []
        for ids in graph.waiting.values():
            for event in ids:
                if not self.daemons[event >> SHIFT]:
                    label = graph.label(event)
                    where = line_of(label.place) if label.place else ""
                    assert isinstance(label.loc, tuple)
                    what = describe(label.loc[0], label.loc[1], self.case.memory)
                    waiting.append(f"{self.names[event >> SHIFT]} waits for {what} in {where}")
        return Broken("deadlock", "; ".join(sorted(waiting)), tuple(sorted(waiting)))

    def _settle(self, graph: Graph) -> None:
        """Write the last store of each location to memory."""
        for loc, stores in graph.co.items():
            if stores and loc in self.places:
                view, index, _ = self.places[loc]
                view[index] = graph.label(stores[-1]).value


def _field(label: Label, machine: Machine) -> str:
    """The name of the field that an access is to, "" if it has none."""
    if not isinstance(label.loc, tuple):
        return ""
    (base, _), part = label.loc
    return _field_of(str(base), part, machine) if isinstance(part, int) else ""


@lru_cache(maxsize=256)
def _field_of(base: str, column: int, machine: Machine) -> str:
    slabs = {slab.base: slab for slab in (MM, VMA, PAGE, TASK, FILE, *machine.private)}
    return list(slabs[base].struct.fields)[column] if base in slabs else ""


__all__ = ["ALONE", "GraphCase", "GraphWorld", "Rule"]
