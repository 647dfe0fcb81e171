"""RC11, the repaired memory model of C11, maintained while an execution graph grows event by event.

Lahav, Vafeiadis, Kang, Hur, Dreyer, "Repairing Sequential Consistency in C/C++11", PLDI 2017. A graph is allowed if

    hb ; eco?                               has no loop             coherence (hb = (sb | sw)+, eco = (rf | mo | rb)+)
    rmw & (rb ; mo)                         is empty                atomicity: the search makes no other graphs
    psc                                     has no cycle            SC, of fences here
    sb | rf                                 has no cycle            no thin air: the search makes no other graphs

The dialect has no seq_cst access, only fences, so psc is [F]; (hb | hb;eco;hb); [F]: psc_base is part of it.

=========================================  ============================================================================
the kernel's                               C11's
=========================================  ============================================================================
READ_ONCE, WRITE_ONCE, plain               relaxed
smp_load_acquire, rcu_dereference          acquire (C11's consume is acquire in all compilers)
smp_store_release, rcu_assign_pointer      release
_relaxed, _acquire, _release               the same
a full read-modify-write                   a seq_cst fence, acq_rel, a seq_cst fence; relaxed if it stores nothing
smp_rmb, smp_wmb                           an acquire fence, a release fence: there is nothing weaker
smp_mb and its kin                         a seq_cst fence
spin_lock, spin_unlock                     acquire, release
a section and a grace period               what came first happens before the other; a grace period is a seq_cst fence
=========================================  ============================================================================

C11 knows no address, data or control dependencies. So code that walks lists by plain loads under RCU is wrong here.

Sets of events are integers, as in :mod:`benchframe.check.order`; bit n + FENCE is the fence at event n, which is not
in order with others as the event is: a full read-modify-write has one before its load and one behind its store. A new
event has nothing after it in hb, so a load of an
overwritten store, or a store that is not the last, can only break coherence with what is before it, and close a cycle
of psc with fences behind those that overwrite it. All costs O(events) operations on rows at most. Only a grace period
that comes before a section that is there already changes hb elsewhere: then everything is built anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.check.axioms import MODELS, RC11, WORDS, bits
from benchframe.check.graph import SHIFT, WAITS, Graph, Id, Label
from benchframe.check.order import Order, Plan
from benchframe.errors import UsageError

FENCES = frozenset(
    {"mb", "sync-rcu", "before-atomic", "after-atomic", "after-spinlock", "after-unlock-lock"}
)  # fmt: skip
"""Barriers that are seq_cst fences."""
FENCE = 1 << 11
"""A graph has fewer events."""
EVENTS = (1 << FENCE) - 1
"""Of a set: the events without the fences."""


class C11Thread:
    """What precedes the next event of one task."""

    __slots__ = ("acquired", "entry", "front", "grace", "last", "past", "released", "sequence")

    def __init__(self) -> None:
        self.past = 0
        """By program order and reads-from."""
        self.front = 0
        """By hb: closed."""
        self.acquired = 0
        """What its loads so far would synchronize with, if an acquire fence came."""
        self.released = 0
        """What its last release fence has before it, and the fence; 0: there was none."""
        self.entry = 0
        """What comes before the fence in front of its full read-modify-write, while that is at its load."""
        self.grace = 0
        """What came before its grace period began."""
        self.sequence: dict[object, int] = {}
        """Of each location: what its last release store there published, which later stores of the task do, too."""
        self.last: dict[object, Id] = {}
        """For each location, its last access; also for the words of sections."""

    def copy(self) -> C11Thread:
        """A copy in the same state."""
        made = C11Thread.__new__(C11Thread)
        made.past, made.front, made.acquired = self.past, self.front, self.acquired
        made.released, made.entry, made.grace = self.released, self.entry, self.grace
        made.sequence, made.last = self.sequence.copy(), self.last.copy()
        return made


class Rc11(Order):
    """The order of one graph under RC11; ``before`` is hb."""

    __slots__ = ("early", "fenced", "leads", "messages", "psc", "words")

    def __init__(self, tasks: int, model: str = RC11) -> None:
        self.model = model
        self.there = 0
        self.threads = [C11Thread() for _ in range(tasks)]  # type: ignore[misc]
        self.past, self.before, self.readers, self.labels = [], [], [], []
        self.messages: list[int] = []
        """Of a store: what an acquire load that reads from it synchronizes with, as a closed set of hb. Of the end of
        a section: the same for a grace period."""
        self.leads: list[int] = []
        """Of an access: the fences before it, or before what eco puts before it, and all before these in psc."""
        self.fenced: dict[int, int] = {}
        """Of each fence: what is before it by hb."""
        self.psc: dict[int, int] = {}
        """Of each fence: itself and the fences before it, closed."""
        self.index, self.places, self.loads = {}, {}, {}
        self.words: dict[object, int] = {}
        """Of each task's word of sections: what comes before the grace periods that have looked at it."""
        self.early: frozenset[Id] = frozenset()
        """Waits of grace periods that are added after a section which knows already that it comes later."""

    def copy(self) -> Rc11:
        """Another order with the same events."""
        made = Rc11.__new__(Rc11)
        made._take(self)
        made.threads = [one.copy() for one in self.threads]
        made.past, made.before, made.readers, made.labels = (
            self.past[:], self.before[:], self.readers[:], self.labels[:]
        )  # fmt: skip
        made.messages, made.leads = self.messages[:], self.leads[:]
        made.fenced, made.psc = self.fenced.copy(), self.psc.copy()
        made.index, made.places, made.loads = self.index.copy(), self.places.copy(), self.loads.copy()
        made.words = self.words.copy()
        return made

    def _take(self, other: Rc11) -> None:
        """Be what ``other`` is."""
        for name in (
            "model", "there", "threads", "past", "before", "readers", "labels", "messages", "leads", "fenced", "psc",
            "index", "places", "loads", "words", "early",
        ):  # fmt: skip
            setattr(self, name, getattr(other, name))

    @classmethod
    def of(cls, graph: Graph, model: str) -> Rc11 | None:
        """The order of a whole graph, which must be coherent; None if the model forbids it."""
        made = super().of(graph, model)
        assert made is None or isinstance(made, Rc11)
        if made is None or any(
            not made.there >> number & 1 and graph.rf.get(event) != WAITS for event, number in made.index.items()
        ):
            return None  # what is left waits for each other: a grace period inside a section that it must outlive
        return made

    def _replay(self, graph: Graph, task: int, event: Id, label: Label) -> bool:
        if label.tag == "rcu_read_lock":
            rank = graph.co[label.loc].index(event)
            for one, source in graph.rf.items():
                other = graph.label(one)
                if other.tag == "gp" and other.loc == label.loc and source != WAITS and not self._there(one):
                    ended = graph.co[label.loc].index(source) if source >= 0 else -1
                    if ended < rank:
                        begin = one
                        while graph.label(begin).kind == "R":  # its waits stand behind its begin
                            begin -= 1
                        if not self._there(begin):
                            return False
                        waits: C11Thread = self.threads[one >> SHIFT]  # type: ignore[assignment]
                        self.words[label.loc] = self.words.get(label.loc, 0) | waits.grace
                        self.early |= {one}
        return super()._replay(graph, task, event, label)

    def _there(self, event: Id) -> bool:
        return bool(self.there >> self.index[event] & 1)

    def slot(self, event: Id, label: Label) -> int:
        """A number for a new event. A waiting load has only that."""
        number = len(self.labels)
        self.index[event] = number
        self.labels.append(label)
        for rows in (self.past, self.before, self.readers, self.messages, self.leads):
            rows.append(0)
        return number

    def begin(self, task: int, label: Label) -> None:
        """Nothing: a fence before a read-modify-write is one by itself."""

    def lift(self, task: int) -> bool:
        """Nothing: what a read-modify-write orders is added with its store."""
        return True

    # ---- adding ------------------------------------------------------------------------------------------------------

    def plan(self, graph: Graph, event: Id, label: Label, number: int, source: int, later: Sequence[Id]) -> Plan | None:
        """As in :class:`Order`: ``before`` is hb, ``cumul`` the fences that lead to it, ``prop`` those of them that
        lead to the load of its read-modify-write, ``later`` what is after it in eco."""
        thread: C11Thread = self.threads[event >> SHIFT]  # type: ignore[assignment]
        if label.tag in WORDS:
            return self._word(thread, label, source)
        gone = 0
        for store in later:
            at = self.index[store]
            if self.there >> at & 1:
                gone |= 1 << at | self.readers[at]
        before, into, bracket = thread.front, 0, 0
        if label.kind == "R":
            if not label.rmw and source >= 0 and (label.order == "acquire" or label.tag == "dereference"):
                before |= self.messages[self.index[source]]
        elif label.rmw:
            load = self.index[event - 1]
            read = graph.rf[event - 1]
            if label.full:
                before |= thread.acquired
                before |= 1 << (load + FENCE)
                bracket = into = self._psc(thread.entry) | 1 << load
            elif read >= 0 and self.labels[load].order == "acquire":
                before |= self.messages[self.index[read]]
        if before & gone:
            return None
        into |= self._through(before)
        if into & self._behind(gone):
            return None
        return Plan(before, into, bracket, 0, source, gone)

    def _word(self, thread: C11Thread, label: Label, source: int) -> Plan:
        before = thread.front
        if label.kind == "W":
            if label.tag == "rcu_read_lock":
                before |= self.words.get(label.loc, 0)
        elif source >= 0:
            before |= self.messages[self.index[source]]
        return Plan(before, source=source)

    def _through(self, before: int) -> int:
        """The fences in a set, and those before them in psc."""
        found, left = 0, before >> FENCE
        while left:
            at = left.bit_length() - 1
            found |= self.psc.get(at, 0) | 1 << at
            left &= ~found
        return found

    def _psc(self, before: int) -> int:
        """The fences that are before a fence with ``before`` before it."""
        found = self._through(before)
        if self.psc:
            for at in bits(before & EVENTS):
                found |= self.leads[at]
        return found

    def _behind(self, events: int) -> int:
        """The fences that have one of these before them."""
        return sum(1 << at for at, before in self.fenced.items() if before & events) if events else 0

    def add(self, graph: Graph, event: Id, label: Label, plan: Plan | None) -> bool:
        """Add an event as planned (barriers and choices have no plan); False if a grace period closes a cycle."""
        task = event >> SHIFT
        number = self.index.get(event)
        if number is None:
            number = self.slot(event, label)
        bit = 1 << number
        thread: C11Thread = self.threads[task]  # type: ignore[assignment]
        past = thread.past | bit
        if plan is not None and plan.source >= 0:
            at = self.index[plan.source]
            past |= self.past[at]
            self.readers[at] |= bit
        self.past[number] = thread.past = past
        self.there |= bit
        if plan is None:
            self._no_access(thread, number, label)
            return True
        self.before[number] = plan.before & EVENTS
        if label.loc is not None:
            thread.last[label.loc] = event
        if label.tag in WORDS:
            thread.front = self.messages[number] = plan.before | bit
            return label.kind == "W" or event in self.early or self._grace_period(graph, thread, label, plan)
        if label.loc is None:
            thread.front = plan.before | bit
            return True
        if label.kind == "R":
            self._load(thread, number, label, plan)
        else:
            self._store(thread, graph, event, label, plan)
        self.places[label.loc] = self.places.get(label.loc, 0) | bit
        thread.front = plan.before | bit
        if label.kind == "W" and label.full:
            self._fence(thread, number, thread.front)
        return True

    def _load(self, thread: C11Thread, number: int, label: Label, plan: Plan) -> None:
        self.loads[label.loc] = self.loads.get(label.loc, 0) | 1 << number
        if label.full:
            thread.entry = thread.front | thread.acquired
        leads = plan.cumul
        if plan.source >= 0:
            at = self.index[plan.source]
            thread.acquired |= self.messages[at]
            leads |= self.leads[at]
        self.leads[number] = leads
        self._lead(plan)

    def _store(self, thread: C11Thread, graph: Graph, event: Id, label: Label, plan: Plan) -> None:
        number = self.index[event]
        message = thread.released | thread.sequence.get(label.loc, 0)
        if label.order == "release" or label.full:
            message = thread.sequence[label.loc] = plan.before | 1 << number
        if label.rmw:
            load, read = self.index[event - 1], graph.rf[event - 1]
            if read >= 0:
                message |= self.messages[self.index[read]]
            self.before[load] |= plan.before & EVENTS & ~(1 << load)
            if label.full:
                self.fenced[load] = thread.entry
                self.psc[load] = plan.prop
                self.leads[load] |= plan.prop
        self.messages[number] = message
        leads = plan.cumul
        if self.psc:
            for at in bits(self.places.get(label.loc, 0) & ~plan.later):
                leads |= self.leads[at]
        self.leads[number] = leads
        self._lead(plan)

    def _lead(self, plan: Plan) -> None:
        """The fences before a new access come before all fences behind what is after it in eco."""
        if not (plan.later and plan.cumul):
            return
        behind = self._behind(plan.later)
        for at in bits(plan.later):
            self.leads[at] |= plan.cumul
        if behind:
            for at, before in self.psc.items():
                if before & behind:
                    self.psc[at] = before | plan.cumul
            for at, leads in enumerate(self.leads):
                if leads & behind:
                    self.leads[at] = leads | plan.cumul

    def _no_access(self, thread: C11Thread, number: int, label: Label) -> None:
        """A fence, a choice, or what orders nothing."""
        if label.kind == "F":
            if label.order in FENCES or label.order == "rmb":
                thread.front |= thread.acquired
            if label.order in FENCES:
                self._fence(thread, number, thread.front)
                if label.tag == "gp" or label.order == "sync-rcu":
                    thread.grace = thread.front
            elif label.order == "wmb":
                thread.released = thread.front | 1 << number
        self.before[number] = thread.front & EVENTS
        thread.front |= 1 << number

    def _fence(self, thread: C11Thread, number: int, before: int) -> None:
        """A seq_cst fence with ``before`` before it."""
        self.psc[number] = self._psc(before) | 1 << number
        self.fenced[number] = before
        thread.front = thread.released = before | 1 << (number + FENCE)

    def _grace_period(self, graph: Graph, thread: C11Thread, label: Label, plan: Plan) -> bool:
        """What came before a grace period happens before the sections that do not end before it does."""
        self.words[label.loc] = self.words.get(label.loc, 0) | thread.grace
        chain = graph.co.get(label.loc, ())
        first = chain.index(plan.source) + 1 if plan.source >= 0 else 0
        if first >= len(chain) or not self._there(chain[first]):
            return True
        made = Rc11.of(graph, self.model)
        if made is not None:
            self._take(made)
        return made is not None


def order_type(model: str) -> type[Order]:
    """What keeps up the order of ``model``. Raises UsageError for an unknown one."""
    if model not in MODELS:
        raise UsageError(f"no memory model {model!r}; known: {', '.join(MODELS)}")
    return Rc11 if model == RC11 else Order


__all__ = ["Rc11", "order_type"]
