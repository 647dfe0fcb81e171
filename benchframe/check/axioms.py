"""Which execution graphs a memory model allows: the kernel's (lkmm), sequential consistency (sc), x86's (tso).

RC11's axioms stand in :mod:`benchframe.check.rc11`.

A relation is a list of integers: bit j of row i is set if event i is related to event j. Events are numbered in the
order in which the search added them. Initial stores have no number: nothing comes before them.

**lkmm** is tools/memory-model/linux-kernel.cat (6.12): coherence, atomicity, happens-before, propagation. Its RCU axiom
is checked in the form of the *fundamental law* (Alglave, Maranget, McKenney, Parri, Stern, "Frightening Small Children
and Disconcerting Grown-ups", ASPLOS 2018, theorem 1): for each grace period and each read-side section one comes first,
and then all before the one is before all after the other, as with a full barrier. Which comes first is part of the
graph: a grace period reads, for each other task, the rcu_read_unlock after which it came. Plain accesses count as
READ_ONCE and WRITE_ONCE; :func:`races` tells which of them nothing orders.

Of a graph that is allowed, :func:`check_uses`, :func:`data_races` and :func:`check_answers` say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchframe.check.cases import Answer, in_words, is_right, wrong_lines
from benchframe.check.execution import Broken
from benchframe.check.graph import INIT, SHIFT, WAITS, Graph, Id, Label
from benchframe.events import Kind
from benchframe.scenario import is_store

__all__ = [
    "NAMES", "Asked", "Label", "Place", "Race", "Relations", "Row", "Span", "acyclic", "all_before", "bits", "caused",
    "check_answers", "check_uses", "closure", "coherent", "consistent", "data_races", "in_time", "line_of",
]  # fmt: skip

Rows = list[int]
LKMM, RC11, SC, TSO = "lkmm", "rc11", "sc", "tso"
MODELS = (LKMM, RC11, SC, TSO)
"""Memory models whose executions can be searched as graphs."""
WEAK = (LKMM, RC11)
"""Those in which tasks need not agree on an order in time: no interleaving shows what they allow."""
NAMES = {
    LKMM: "the Linux kernel's memory model, without load buffering",
    RC11: "RC11, the repaired model of C11",
    SC: "sequential consistency",
    TSO: "total store order (x86)",
}


def coherent(graph: Graph) -> bool:
    """Do loads and stores of each location follow one order of its stores, as each task does them; and are
    read-modify-writes atomic? O(events)."""
    at: dict[Id, int] = {}
    for chain in graph.co.values():
        for number, store in enumerate(chain):
            at[store] = number + 1
    rf = graph.rf
    for number, task in enumerate(graph.tasks):
        last: dict[object, int] = {}
        base = number << SHIFT
        taken = -1
        for index, one in enumerate(task):
            loc, kind = one.loc, one.kind
            if loc is None:
                continue
            event = base | index
            if kind == "R":
                source = rf[event]
                if source == WAITS:
                    continue
                now = at[source] if source >= 0 else 0
                if now < last.get(loc, 0):
                    return False
                taken = now
            else:
                now = at[event]
                if now <= last.get(loc, 0) and last.get(loc, 0):
                    return False
                if one.rmw and now != taken + 1:
                    return False
            last[loc] = now
    return True


class Relations:
    """The relations of one graph under one model, as far as they were asked for."""

    def __init__(self, graph: Graph, model: str) -> None:
        self.graph, self.model = graph, model
        order = graph.order
        self.count = len(order)
        self.number = {event: number for number, event in enumerate(order)}
        self.labels = [graph.label(event) for event in order]
        self.threads = [0] * len(graph.tasks)
        """Of each task: its events."""
        for number, event in enumerate(order):
            self.threads[event >> SHIFT] |= 1 << number
        self.own = [self.threads[event >> SHIFT] for event in order]
        """Of each event: the events of its task."""
        n = self.count
        self.rf: Rows = [0] * n
        self.rfe: Rows = [0] * n
        self.co: Rows = [0] * n
        self.fr: Rows = [0] * n
        self._communicate()

    def _communicate(self) -> None:
        number, own = self.number, self.own
        after_all: dict[object, int] = {}
        for loc, chain in self.graph.co.items():
            later = 0
            for store in reversed(chain):
                at = number[store]
                self.co[at] = later
                later |= 1 << at
            after_all[loc] = later
        for event, source in self.graph.rf.items():
            label = self.labels[number[event]]
            if label.kind != "R" or source == WAITS:
                continue
            at = number[event]
            if source == INIT:
                self.fr[at] = after_all.get(label.loc, 0) & ~(1 << at)
            else:
                store = number[source]
                self.rf[store] |= 1 << at
                if not own[at] >> store & 1:
                    self.rfe[store] |= 1 << at
                self.fr[at] = self.co[store]

    def consistent(self) -> bool:
        """Is the graph allowed? It must be :func:`coherent`."""
        return acyclic(self.order())

    def order(self) -> Rows:
        """What the model puts in an order of time: acyclic if the graph is allowed. Not closed. Of rc11
        :mod:`benchframe.check.rc11` alone has the axioms."""
        assert self.model != RC11, "no single order decides rc11"
        if self.model == SC:
            rows = [
                own & ~((2 << at) - 1) | seen for at, (own, seen) in enumerate(zip(self.own, self._seen(), strict=True))
            ]
            self._rcu(rows)
            return rows
        return self._tso() if self.model == TSO else self._lkmm()

    def _seen(self) -> Rows:
        """What sc and tso order beside the text: who reads what, and who overwrites what. Not so the words of sections,
        which only say what :meth:`_rcu` orders."""
        return [
            0 if label.tag in WORDS else co | fr | (rf if self.model == SC else rfe)
            for label, rf, rfe, co, fr in zip(self.labels, self.rf, self.rfe, self.co, self.fr, strict=True)
        ]

    # ---- one task after another ----------------------------------------------------------------------------------

    def _tso(self) -> Rows:
        """Program order, but not from a store to a later load unless a locked instruction or smp_mb is between."""
        rows = self._seen()
        for task in range(len(self.threads)):
            later = loads = 0  # events after this one; loads that a store may be passed by
            for at in reversed(bits(self.threads[task])):
                one = self.labels[at]
                fence = one.rmw or one.order in ("mb", "sync-rcu") or one.tag in FLUSHES
                if one.kind not in "RW" and not fence:
                    continue  # what holds back the compiler only
                rows[at] |= later if one.kind != "W" or fence else later & ~loads
                if fence:
                    loads = 0
                elif one.kind == "R":
                    loads |= 1 << at
                later |= 1 << at
        self._rcu(rows)
        return rows

    def _lkmm(self) -> Rows:
        n, labels = self.count, self.labels
        ppo: Rows = [0] * n
        cumul: Rows = [0] * n
        strong: Rows = [0] * n
        releases: Rows = [0] * n
        for task in range(len(self.threads)):
            self._program(bits(self.threads[task]), ppo, cumul, strong, releases)
        self._unlock_lock(ppo, cumul, strong)
        memory = sum(1 << at for at in range(n) if labels[at].kind in "RW" and labels[at].tag not in WORDS)
        rmw = [0] * n  # from the store of a read-modify-write's source to its own store
        for task in self.threads:
            before = -1
            for at in bits(task):
                one = labels[at]
                if one.kind == "W" and one.rmw and before >= 0:
                    source = self.graph.rf[self.graph.order[before]]
                    if source >= 0:
                        rmw[self.number[source]] |= 1 << at
                before = at
        for at in range(n):
            more = strong[at] | releases[at]
            ppo[at] |= more
            cumul[at] |= more
        for at in range(n):  # A-cumulativity: what is read from another task is as good as done before
            for reader in bits(self.rfe[at]):
                cumul[at] |= strong[reader] | releases[reader]
        chained = _mask(rmw)
        for at in range(n):
            row = cumul[at] & memory
            cumul[at] = self._sequence(row, rmw, chained) if row & chained else row
        closed = _reach(cumul, self.rfe)
        if closed is None:
            return [1 << at for at in range(n)]  # a cycle of cumul-fence is one of happens-before
        reached, prop_of = closed
        rows: Rows = [0] * n
        self._rcu(strong)
        for at in range(n):
            if is_node(labels[at]):
                if labels[at].kind == "F":  # a grace period is after all that its task did before
                    for before in bits(self._before(at)):
                        strong[before] |= 1 << at
                memory |= 1 << at
        strongly = _mask(strong)
        for at in range(n):
            if not memory >> at & 1:
                continue
            own = self.own[at]
            overwrite = self.co[at] | self.fr[at]
            prop = reached[at] | prop_of[at]
            for first in bits(overwrite & ~own & memory):
                prop |= reached[first] | prop_of[first]
            row = ppo[at] | self.rfe[at] | (prop & own & ~(1 << at)) | (overwrite & own)
            ends = prop & strongly
            if ends:
                for thread in self.threads:  # the first event of a task has all that a later one is strongly before
                    end = ends & thread
                    if end:
                        row |= strong[(end & -end).bit_length() - 1]
            rows[at] = row & memory
        return rows

    def _sequence(self, stores: int, rmw: Rows, chained: int) -> int:
        """The stores, and those of read-modify-writes that read from them, and so on."""
        todo = stores & chained
        while todo:
            more = 0
            for at in bits(todo):
                more |= rmw[at]
            todo = more & ~stores & chained
            stores |= more
        return stores

    def _program(self, events: list[int], ppo: Rows, cumul: Rows, strong: Rows, releases: Rows) -> None:
        """What one task's own text orders: dependencies, acquire, release, barriers."""
        labels = self.labels
        later = stores = loads = 0
        strongly = wmb = rmb = 0  # events after the next barrier
        released = 0
        atomic = 0  # events from the next read-modify-write on
        before_atomic = after_atomic = 0
        waiting = after_spinlock = 0
        stored = False  # the event after this one is the store of a read-modify-write
        for at in reversed(events):
            one = labels[at]
            bit = 1 << at
            done, stored = stored, one.kind == "W" and one.rmw
            if one.kind == "F":
                name = one.order
                if name in ("mb", "sync-rcu"):
                    strongly = later
                elif name == "wmb":
                    wmb = stores
                elif name == "rmb":
                    rmb = loads
                elif name == "before-atomic":
                    before_atomic = atomic
                elif name == "after-atomic":
                    waiting = later
                elif name == "after-spinlock":
                    after_spinlock = later
                strong[at] = strongly
                continue
            if one.tag in WORDS:
                continue
            if one.rmw and waiting:
                after_atomic |= waiting
                waiting = 0
            if after_spinlock and one.tag == "lock" and one.kind == "W":
                strongly |= after_spinlock
                after_spinlock = 0
            if one.full and one.kind == "W":
                strongly |= later
            strong[at] = strongly | before_atomic | after_atomic
            releases[at] = released
            if one.kind == "W":
                cumul[at] |= wmb
                ppo[at] |= wmb
                stores |= bit
                if one.order == "release":
                    released |= bit
            else:
                if one.order == "acquire" and (done or not one.rmw):  # one that failed orders nothing
                    ppo[at] |= later
                if one.tag != "noreturn":
                    ppo[at] |= rmb
                    loads |= bit
            later |= bit
            if one.rmw:
                atomic = later
            if one.full and one.kind == "R" and done:
                strongly |= later
        self._dependencies(events, ppo)

    def _dependencies(self, events: list[int], ppo: Rows) -> None:
        labels = self.labels
        rfi = self.rf
        later_stores = 0
        for index in range(len(events) - 1, -1, -1):
            at = events[index]
            one = labels[at]
            if one.kind == "W" and one.tag not in WORDS:
                later_stores |= 1 << at
            for source in bits(one.ctrl):
                ppo[events[source]] |= later_stores
            if one.kind == "W":
                for source in bits(one.arm):
                    ppo[events[source]] |= 1 << at
            if one.kind == "F" or one.tag in WORDS:
                continue
            into = 1 << at
            if one.kind == "W":
                into |= rfi[at] & self.own[at]
            for source in bits(one.addr):
                ppo[events[source]] |= into
            if one.kind == "W":
                for source in bits(one.data):
                    ppo[events[source]] |= into

    def _unlock_lock(self, ppo: Rows, cumul: Rows, strong: Rows) -> None:
        """po-unlock-lock-po, and smp_mb__after_unlock_lock."""
        labels = self.labels
        unlocks = [at for at in range(self.count) if labels[at].tag == "unlock"]
        if not unlocks:
            return
        locks = [at for at in range(self.count) if labels[at].tag == "lock" and labels[at].kind == "R"]
        fences = [at for at in range(self.count) if labels[at].order == "after-unlock-lock"]
        for unlock in unlocks:
            before = self._before(unlock)
            for lock in locks:
                same = self.own[unlock] >> lock & 1
                if (same and lock > unlock) or self.rf[unlock] >> lock & 1:
                    later = self.own[lock] & ~((2 << lock) - 1)
                    for at in bits(before):
                        cumul[at] |= later
                        ppo[at] |= later & self.own[at]
                    for fence in fences:
                        if later >> fence & 1:
                            for at in bits(before):
                                strong[at] |= self.own[fence] & ~((2 << fence) - 1)

    def _before(self, at: int) -> int:
        """Events before ``at`` in its task."""
        return self.own[at] & ((1 << at) - 1)

    def _rcu(self, strong: Rows) -> None:
        """Sections and grace periods: all before what came first is before all after the other. The waits of a grace
        period, one for each task, are in no order."""
        waits = sum(1 << at for at, one in enumerate(self.labels) if one.tag == "gp" and one.kind == "R")
        for at in bits(waits):
            one = self.labels[at]
            source = self.graph.rf[self.graph.order[at]]
            if source == WAITS:
                continue
            own = self.own[at] & ~waits
            later, earlier = own & ~((2 << at) - 1), own & ((1 << at) - 1)
            chain = self.graph.co.get(one.loc, ())
            first = 0
            if source >= 0:
                first = chain.index(source) + 1
                for event in bits(self._before(self.number[source])):
                    strong[event] |= later
            if first < len(chain):
                lock = self.number[chain[first]]
                inside = self.own[lock] & ~((2 << lock) - 1)
                for event in bits(earlier):
                    strong[event] |= inside | 1 << lock


WORDS = frozenset({"gp", "rcu_read_lock", "rcu_read_unlock"})
"""Tags of events that are no memory accesses: they only say which section came before which grace period."""
FLUSHES = frozenset({"free", "rcu_read_unlock", "kfree_rcu", "gp"})
"""Tags of events that wait for the store buffer, under tso."""


def is_node(label: Label) -> bool:
    """A grace period or the begin of a section: no access, but what is in order with it is in order with others."""
    return label.order == "sync-rcu" or label.tag == "rcu_read_lock" or (label.tag == "gp" and label.kind == "F")


def bits(row: int) -> list[int]:
    """The numbers of the bits that are set, the lowest first."""
    found = []
    while row:
        low = row & -row
        found.append(low.bit_length() - 1)
        row ^= low
    return found


def _mask(rows: Rows) -> int:
    """The events that are related to any."""
    found = 0
    for at, row in enumerate(rows):
        if row:
            found |= 1 << at
    return found


def _reach(rows: Rows, more: Rows) -> tuple[Rows, Rows] | None:
    """The reflexive transitive closure of an acyclic relation, and that followed by ``more``; None if there is a cycle.
    Each event joins what its successors reach, and leaves out successors that another has reached: few joins."""
    order = _postorder(rows)
    if order is None:
        return None
    closed, after = [0] * len(rows), [0] * len(rows)
    for at in order:
        reached, beyond = 1 << at, more[at]
        left = rows[at]
        while left:
            low = left & -left
            other = low.bit_length() - 1
            reached |= closed[other]
            beyond |= after[other]
            left &= ~(reached | low)
        closed[at], after[at] = reached, beyond
    return closed, after


def _postorder(rows: Rows) -> list[int] | None:
    """The events, successors first; None if there is a cycle. O(events) operations on rows."""
    done = 0
    order: list[int] = []
    for start in range(len(rows)):
        if done >> start & 1:
            continue
        path, on_path = [start], 1 << start
        while path:
            at = path[-1]
            left = rows[at] & ~done
            if left & on_path:
                return None
            if left:
                low = left & -left
                path.append(low.bit_length() - 1)
                on_path |= low
            else:
                path.pop()
                bit = 1 << at
                done |= bit
                on_path &= ~bit
                order.append(at)
    return order


def acyclic(rows: Rows) -> bool:
    """Has a relation no cycle?"""
    return _postorder(rows) is not None


def all_before(rows: Rows) -> Rows:
    """The transitive closure of a relation to what comes before, which has mostly lower numbers."""
    order = _postorder(rows)
    if order is None:
        return closure(rows)
    closed = [0] * len(rows)
    for at in order:
        got, left = 0, rows[at]
        while left:
            other = left.bit_length() - 1
            got |= closed[other] | 1 << other
            left &= ~got
        closed[at] = got
    return closed


def caused(relations: Relations, before: Rows) -> Rows:
    """Of each event what comes before it by ``before`` (the model's order), program order and reads-from."""
    rows = [prior | own & ((1 << at) - 1) for at, (prior, own) in enumerate(zip(before, relations.own, strict=True))]
    for at, row in enumerate(relations.rf):
        for load in bits(row):
            rows[load] |= 1 << at
    return all_before(rows)


def closure(rows: Rows) -> Rows:
    """The transitive closure. O(events squared) operations on rows where there are cycles."""
    found = _reach(rows, [0] * len(rows))
    if found is not None:
        return [row & ~(1 << at) for at, row in enumerate(found[0])]
    closed = rows[:]
    for middle in range(len(rows)):
        bit, through = 1 << middle, closed[middle]
        if through:
            for at, other in enumerate(closed):
                if other & bit:
                    closed[at] = other | through
    return closed


def in_time(graph: Graph, used: tuple[Id, Id] | None = None) -> list[Id]:
    """The events in an order of time, as under sequential consistency, with few changes of task; none if they have no
    such order. ``used``: a free, and a use of the record that must come behind it. O(events squared)."""
    relations = Relations(graph, SC)
    rows, number = relations.order(), relations.number
    for at, label in enumerate(relations.labels):
        if label.rmw and label.kind == "W":  # what comes before the store comes before its load
            for other, row in enumerate(rows):
                if row >> at & 1 and graph.order[other] != graph.order[at] - 1:
                    rows[other] = row | 1 << number[graph.order[at] - 1]
    todo = [(1 << len(rows)) - 1]
    if used is not None:
        free, use = number[used[0]], number[used[1]]
        rows[free] |= 1 << use
    if not acyclic(rows):
        return []
    earlier = [0] * len(rows)
    for at, row in enumerate(rows):
        for later in bits(row):
            earlier[later] |= 1 << at
    earlier = all_before(earlier)
    if used is not None:  # the user comes first, up to its use
        todo = [earlier[use] & relations.own[use], earlier[free] | 1 << free, 1 << use, *todo]
    done, task, found = 0, -1, []
    for wanted in todo:
        left = wanted & ~done
        for event in bits(left):
            left |= earlier[event] & ~done
        while left:
            ready = [at for at in bits(left) if not earlier[at] & ~done]
            at = next((one for one in ready if graph.order[one] >> SHIFT == task), ready[0])
            task, done, left = graph.order[at] >> SHIFT, done | 1 << at, left & ~(1 << at)
            found.append(graph.order[at])
    return found


def consistent(graph: Graph, model: str) -> bool:
    """Does ``model`` allow the graph?"""
    return coherent(graph) and Relations(graph, model).consistent()


# ----------------------------------------------------------------------------------------------------------------------
# What is wrong with a whole graph: accesses in no order, and answers that no order explains.
#
# There is no time in a graph: *before* means the memory model's order. An access that the order does not put before the
# free of its record is a use after free, whatever an interleaving would make of it.
#
# The mapping calls, which a lock orders, make a row of layouts; a call may have met those from the last mapping that
# must be over when it begins to the last that must have begun when it ends. What a mapping call has done in between (a
# VMA cut, or given its flags) may be met, too, by whoever read of it.

Place = tuple[str, int, str]
"""Where in the text: file, line, function."""


@dataclass(frozen=True)
class Race:
    """Two accesses of one location, one of them plain and one a store, that nothing orders: as KCSAN reports them."""

    first: Place
    second: Place

    def __str__(self) -> str:
        return f"{line_of(self.first)} and {line_of(self.second)}"


def line_of(where: Place) -> str:
    """A place in words."""
    return f"{where[0].rpartition('/')[2]}:{where[1]} {where[2]}"


def check_uses(
    graph: Graph,
    relations: Relations,
    before: list[int],
    names: Sequence[str],
    began: Sequence[Id],
    called: Callable[[str], str],
) -> None:
    """Broken if a record is used and the order does not put that before its free. ``names``: of the tasks; ``began``:
    the first event of each call; ``called``: what a record of a slab is called."""
    labels, order = relations.labels, graph.order
    frees = [at for at, label in enumerate(labels) if label.tag == "free"]
    if not frees:
        return
    allocs = [at for at, label in enumerate(labels) if label.tag == "alloc"]
    po = [own & ~((2 << at) - 1) for at, own in enumerate(relations.own)]
    known = caused(relations, before) if allocs else po
    first = sorted(range(len(order)), key=order.__getitem__)  # of a task's uses the first one is told
    for free in frees:
        key, typesafe, _ = labels[free].value
        for at in first:
            label = labels[at]
            other = label.tag == "free" and label.value[0] == key and at != free
            if not other and (label.loc is None or label.loc[0] != key):  # type: ignore[index]
                continue
            if before[free] >> at & 1 or po[at] >> free & 1:
                continue
            if any(labels[new].value == key and known[new] >> free & 1 and known[at] >> new & 1 for new in allocs):
                continue
            if other:
                if before[at] >> free & 1 or po[free] >> at & 1:
                    continue
                raise Broken("double free", f"{names[order[at] >> SHIFT]} frees {called(key[0])} #{key[1]} again")
            if typesafe and label.info:
                continue
            raise _used(graph, relations, before, free, at, names, began, called)


def _used(
    graph: Graph,
    relations: Relations,
    before: list[int],
    free: int,
    at: int,
    names: Sequence[str],
    began: Sequence[Id],
    called: Callable[[str], str],
) -> Broken:
    label = relations.labels[at]
    key = relations.labels[free].value[0]
    task, freer = graph.order[at] >> SHIFT, graph.order[free] >> SHIFT
    mine = (one for one in began if one >> SHIFT == task and one <= graph.order[at])
    first = relations.number.get(max(mine, default=task << SHIFT))
    dangling = first is not None and bool(before[first] >> free & 1)
    file, line, function = label.place or ("?", 0, "?")
    kind = {"R": "load", "W": "store"}[label.kind] if not label.rmw else "add"
    return Broken(
        "use after free",
        f"{names[task]}: {kind} of {called(key[0])} #{key[1]}, which {names[freer]} freed"
        f"{' before this call began' if dangling else ''}, in {function}",
        (f"{file}:{line}", "dangling" if dangling else "racing"),
        key,
        function,
        label.chain or (function,),
        freed=relations.labels[free].value[2],
        events=(graph.order[free], graph.order[at]),
    )


def data_races(relations: Relations, before: list[int]) -> set[Race]:
    """Every pair of places that race in the graph. O(accesses squared of one location)."""
    found: set[Race] = set()
    labels = relations.labels
    by: dict[Hashable, list[int]] = {}
    for at, label in enumerate(labels):
        if label.loc is not None and label.kind in "RW" and label.place is not None:
            by.setdefault(label.loc, []).append(at)
    for ats in by.values():
        if not any(labels[at].plain for at in ats) or all(labels[at].kind == "R" for at in ats):
            continue
        for number, first in enumerate(ats):
            for second in ats[number + 1 :]:
                one, two = labels[first], labels[second]
                if (
                    (one.plain or two.plain)
                    and "W" in (one.kind, two.kind)
                    and not relations.own[first] >> second & 1
                    and not (before[second] >> first & 1 or before[first] >> second & 1)
                ):
                    places = sorted((one.place or ("", 0, ""), two.place or ("", 0, "")))
                    found.add(Race(places[0], places[1]))
    return found


Row = tuple[int, int, int, int]
"""VMA, start, end, flags."""
Asked = tuple[Any, "Span", int]
"""A call, its events and what it gave."""


@dataclass
class Span:
    """Events ``first`` up to ``end`` (not included) of a task: a call, or a mapping with the layout it made.

    ``turn``: which of the task's calls it is, or is part of; what no other task shares has no events. ``parts``: of a
    mapping the splits and changes of flags in it, each with the layout that it left. ``lines``: what a walk showed.
    """

    task: int
    first: int
    end: int
    turn: int
    rows: list[Row] = field(default_factory=list)
    parts: list[Span] = field(default_factory=list)
    lines: tuple[tuple[int, int], ...] = ()


def check_answers(
    calls: Sequence[Asked], mappings: Sequence[Span], first_rows: list[Row], relations: Relations, before: list[int]
) -> None:
    """Broken for an answer that is right in none of the layouts that the call may have met."""
    asked = [one for one in calls if _asks(one[0]) and one[0].answer is None]
    for call, span, result in calls:
        if wrong := call.wrong(result):
            raise Broken("wrong answer", f"T{span.task}: {call.label} {wrong}")
    whole = [first_rows, *(span.rows for span in mappings)]
    asked = [one for one in asked if any(_wrong(one, [layout]) for layout in whole)]
    if not asked:
        return
    po = [own & ~((2 << at) - 1) for at, own in enumerate(relations.own)]
    linked = [a | b | c | d for a, b, c, d in zip(po, relations.rf, relations.co, relations.fr, strict=True)]
    any_order = closure(linked)
    causal = caused(relations, before)
    number = relations.number
    ends = [number[s.task << SHIFT | (s.end - 1)] if s.end > s.first else -1 for s in mappings]
    ranked = sorted(
        range(len(ends)),
        key=lambda i: sum(bool(0 <= j != ends[i] >= 0 and any_order[j] >> ends[i] & 1) for j in ends),
    )
    spans = [mappings[i] for i in ranked]
    layouts = [first_rows, *(span.rows for span in spans)]
    for call, span, result in asked:
        for low in _lows(span, spans, number, any_order, causal):
            high = max([low, *_highs(span, spans, number, any_order)])
            parts = [part for one in spans[low:high] for part in one.parts]
            seen = _highs(span, parts, number, any_order)
            met = [*layouts[low : high + 1], *(parts[rank - 1].rows for rank in seen)]
            if problem := _wrong((call, span, result), met):
                raise Broken("stale answer", f"T{span.task}: {call.label}{problem}")


def _lows(span: Span, spans: list[Span], number: dict[Id, int], any_order: list[int], causal: list[int]) -> list[int]:
    """How many mapping calls may be over when the call begins."""
    first = number.get(span.task << SHIFT | span.first) if span.end > span.first else None
    least, possible = 0, [0]
    for rank, one in enumerate(spans, 1):
        if one.task == span.task:
            if one.turn < span.turn:
                least = rank
                possible.append(rank)
            else:
                break
        elif one.end > one.first and first is not None:
            last = number[one.task << SHIFT | (one.end - 1)]
            if causal[first] >> last & 1:
                least = rank
            if any_order[first] >> last & 1 and least < rank:
                break
            possible.append(rank)
        else:
            possible.append(rank)
    return [rank for rank in possible if rank >= least] or [least]


def _highs(span: Span, spans: list[Span], number: dict[Id, int], any_order: list[int]) -> list[int]:
    """Mapping calls, or parts of them, that must have begun before the call ends."""
    if span.end <= span.first:
        return []
    last = number[span.task << SHIFT | (span.end - 1)]
    found = []
    for rank, one in enumerate(spans, 1):
        begun = number.get(one.task << SHIFT | one.first) if one.end > one.first else None
        if begun is not None and any_order[begun] >> last & 1:
            found.append(rank)
    return found


def _wrong(asked: Asked, met: Sequence[list[Row]]) -> str:
    """What is wrong with the answer of a call that may have met these layouts; empty if nothing is. A lookup must be
    right in one of them, a walk as :func:`wrong_lines` says."""
    call, span, result = asked
    if call.columns.get("mm", 0) != 0:
        return ""
    if call.columns["kind"] == Kind.WALK:
        problem = wrong_lines(span.lines, met)
        return f": {problem}" if problem else ""
    answer = Answer(span.task, call, 0, 0, result)
    if any(is_right(layout, call.columns["addr"], answer) for layout in met):
        return ""
    return f" gave {in_words(result)}, right at no moment of the call"


def _asks(call: Any) -> bool:
    return call.columns["kind"] in (Kind.FAULT, Kind.LOOKUP, Kind.WALK) and not is_store(call)
