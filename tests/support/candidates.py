"""The independent judge of the search: every candidate execution of a small litmus test, by guessing what loads read.

Relations are sets of pairs and the axioms are those of linux-kernel.cat (6.12) as they stand there, the RCU axiom with
its recursion too; for rc11 those of figure 3 of Lahav and others (PLDI 2017), psc_base too; for sc and tso one order in
time. Nothing is shared with the
search but the reading of tests into tasks.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchframe.check.graph import Label
from benchframe.check.litmus import Tasks, Test, Unsupported

Pairs = frozenset[tuple[int, int]]
QUIET = ("rcu_read_lock", "rcu_read_unlock", "gp")


class Event:
    """One event of a candidate: ``task``, ``index``, its label, and for a load the value that was guessed."""

    def __init__(self, task: int, index: int, label: Label, value: Any) -> None:
        self.task, self.index, self.label, self.value = task, index, label, value


def traces(test: Test, task: int, domain: tuple[Any, ...]) -> Iterator[tuple[list[Event], dict[str, Any]]]:
    """Every way in which one task can run if its loads give any value of ``domain``; its registers at the end."""
    todo: list[list[Any]] = [[]]
    while todo:
        guesses = todo.pop()
        tasks = Tasks(test)
        events: list[Event] = []
        left = list(guesses)
        label = tasks.start(task)
        while label is not None:
            value: Any = None
            if label.tag == "gp":
                value = 0
            elif label.kind == "R":
                allowed = [v for v in domain if label.wait is None or label.wait(v)]
                if not left:
                    todo += [[*guesses, v] for v in allowed]
                    break
                value = left.pop(0)
            events.append(Event(task, len(events), label, label.value if label.kind == "W" else value))
            try:
                label = tasks.go_on(task, value)
            except Unsupported:  # a number was guessed where an address must be
                break
        else:
            yield events, {f"{task}:{name}": value for name, (value, _) in tasks.threads[task].registers.items()}


def numbers(test: Test) -> tuple[int, ...]:
    """What a load of :func:`program` may give: 0 to 2, more in a ring, and as much more as there are additions."""
    return tuple(range(3 + 2 * (test.name == "cycle") + repr(test.tasks).count("atomic_fetch_add")))


def outcomes(test: Test, domain: tuple[Any, ...], model: str = "lkmm") -> set[Any]:
    """Final states that the axioms allow, of executions whose program order and reads-from have no cycle."""
    allowed = {"lkmm": _allowed, "rc11": _allowed_c11, "sc": _allowed_in_time, "tso": _allowed_by_x86}[model]
    found: set[Any] = set()
    for parts in itertools.product(*_possible(test, [list(traces(test, n, domain)) for n in range(len(test.tasks))])):
        for final in reached(test, parts, lambda values: _state(values) not in found, allowed=allowed):
            found.add(_state(final))
    return found


Trace = tuple[list[Event], dict[str, Any]]


def _possible(test: Test, tasks: list[list[Trace]]) -> list[list[Trace]]:
    """Without the traces in which a load gives what nobody ever stores there."""
    while True:
        stored = {(e.label.loc, e.value) for traces in tasks for part, _ in traces for e in part if e.label.kind == "W"}
        left = [
            [trace for trace in traces if all(_stored(test, event, stored) for event in trace[0])] for traces in tasks
        ]
        if list(map(len, left)) == list(map(len, tasks)):
            return left
        tasks = left


def _stored(test: Test, event: Event, stored: set[Any]) -> bool:
    label = event.label
    if label.kind != "R" or label.tag in QUIET:
        return True
    return (label.loc, event.value) in stored or test.init.get(label.loc, 0) == event.value  # type: ignore[call-overload,no-any-return]


def _state(values: dict[str, Any]) -> Any:
    return tuple(sorted(values.items(), key=str))


def reached(
    test: Test,
    parts: tuple[Trace, ...],
    wanted: Callable[[dict[str, Any]], bool],
    allowed: Callable[..., bool] | None = None,
) -> Iterator[dict[str, Any]]:
    """Final values, if ``wanted``, of the allowed executions in which the tasks run as ``parts`` say; of those whose
    program order and reads-from have no cycle."""
    events = [event for part, _ in parts for event in part]
    registers = {name: value for _, regs in parts for name, value in regs.items()}
    po: list[tuple[int, int]] = []
    for rf, co in _communications(test, events):
        final = dict(registers)
        final.update({loc: events[chain[-1]].value for loc, chain in co.items() if chain})
        if not wanted(final) or not _coherent(events, rf, co):
            continue
        po = po or [(a, b) for a, x in enumerate(events) for b, y in enumerate(events) if _before(x, y)]
        acyclic = _acyclic(frozenset([*po, *((w, r) for r, w in rf.items() if w >= 0)]))
        if acyclic and (allowed or _allowed)(events, rf, co):
            yield final


def _coherent(events: list[Event], reads: dict[int, int], orders: dict[Any, list[int]]) -> bool:
    """A first look, which saves time: does no task see a location go back?"""
    rank = {store: at + 1 for chain in orders.values() for at, store in enumerate(chain)}
    rank.update({load: rank.get(source, 0) for load, source in reads.items()})
    last: dict[Any, int] = {}
    for at, event in enumerate(events):
        if at in rank:
            place = (event.task, event.label.loc)
            if rank[at] < last.get(place, 0):
                return False
            last[place] = rank[at]
    return True


def _communications(test: Test, events: list[Event]) -> Iterator[tuple[dict[int, int], dict[Any, list[int]]]]:
    stores: dict[Any, list[int]] = {}
    for at, event in enumerate(events):
        if event.label.kind == "W" and event.label.tag not in QUIET:
            stores.setdefault(event.label.loc, []).append(at)
    loads = [at for at, e in enumerate(events) if e.label.kind == "R" and e.label.tag not in QUIET]
    choices = []
    for load in loads:
        loc = events[load].label.loc
        fit = [store for store in stores.get(loc, []) if events[store].value == events[load].value]
        fit += [-1] if test.init.get(loc, 0) == events[load].value else []
        mine = [store for store in stores.get(loc, []) if _before(events[store], events[load])]
        choices.append([store for store in fit if _readable(events, store, load, mine)])
    if all(choices):
        locs = list(stores)
        for chains in itertools.product(*(_orders(events, stores[loc]) for loc in locs)):
            co = {loc: list(chain) for loc, chain in zip(locs, chains, strict=True)}
            fit = [
                [s for s in some if s == _predecessor(events, load, co)] if _updates(events, load) else some
                for load, some in zip(loads, choices, strict=True)
            ]
            for sources in itertools.product(*fit):
                yield dict(zip(loads, sources, strict=True)), co


def _updates(events: list[Event], load: int) -> bool:
    """Is the event after ``load`` the store of its read-modify-write?"""
    after = events[load + 1] if load + 1 < len(events) else events[load]
    return events[load].label.rmw and after.label.rmw and after.label.kind == "W" and _before(events[load], after)


def _predecessor(events: list[Event], load: int, co: dict[Any, list[int]]) -> int:
    """What such a load must read, or the read-modify-write is not atomic."""
    chain = co[events[load].label.loc]
    at = chain.index(load + 1)
    return chain[at - 1] if at else -1


def _readable(events: list[Event], store: int, load: int, mine: list[int]) -> bool:
    """May ``load`` read from ``store`` after its own task's stores ``mine``? What may not is not coherent."""
    if store < 0 or events[store].task == events[load].task:
        return store == (mine[-1] if mine else -1)
    return True


def _orders(events: list[Event], stores: list[int]) -> list[tuple[int, ...]]:
    """The orders of one location's stores in which those of each task are as in its text."""
    return [
        order for order in itertools.permutations(stores)
        if all(not _before(events[b], events[a]) for a, b in itertools.combinations(order, 2))
    ]  # fmt: skip


def _before(a: Event, b: Event) -> bool:
    return a.task == b.task and a.index < b.index


def _then(*relations: Pairs) -> Pairs:
    result = relations[0]
    for other in relations[1:]:
        by: dict[int, set[int]] = {}
        for a, b in other:
            by.setdefault(a, set()).add(b)
        result = frozenset((a, c) for a, b in result for c in by.get(b, ()))
    return result


def _closed(relation: Pairs) -> Pairs:
    while True:
        more = relation | _then(relation, relation)
        if more == relation:
            return relation
        relation = more


def _acyclic(relation: Pairs) -> bool:
    return all(a != b for a, b in _closed(relation))


def _allowed(events: list[Event], reads: dict[int, int], orders: dict[Any, list[int]]) -> bool:
    n = range(len(events))
    same = frozenset((a, a) for a in n)
    label = [event.label for event in events]
    quiet = {a for a in n if label[a].tag in QUIET}
    po = frozenset((a, b) for a in n for b in n if _before(events[a], events[b]))
    rf = frozenset((w, r) for r, w in reads.items() if w >= 0)
    co = frozenset((a, b) for chain in orders.values() for i, a in enumerate(chain) for b in chain[i + 1 :])
    fr = frozenset(
        (r, b) for r, w in reads.items() for b in orders.get(label[r].loc, ()) if w < 0 or (w, b) in co if b != r
    )
    internal = frozenset((a, b) for a in n for b in n if events[a].task == events[b].task)
    memory = {a for a in n if label[a].kind in "RW" and a not in quiet}
    load, store = {a for a in memory if label[a].kind == "R"}, {a for a in memory if label[a].kind == "W"}
    poloc = frozenset((a, b) for a, b in po if a in memory and b in memory and label[a].loc == label[b].loc)
    if not _acyclic(poloc | rf | co | fr):
        return False
    rmw = frozenset(
        (a, b) for a, b in poloc
        if label[a].rmw and label[b].rmw and a in load and b in store and events[b].index == events[a].index + 1
    )  # fmt: skip
    if rmw & _then(fr - internal, co - internal):
        return False
    done = {a for pair in rmw for a in pair}

    def fenced(name: str, before: set[int], after: set[int]) -> Pairs:
        fences = [a for a in n if label[a].kind == "F" and label[a].order == name]
        return frozenset((a, b) for f in fences for a in before for b in after if (a, f) in po and (f, b) in po)

    full_loads = {a for a in done if label[a].full and a in load}
    full_stores = {a for a in done if label[a].full and a in store}
    maybe = po | same
    mb = (
        fenced("mb", memory, memory)
        | fenced("sync-rcu", memory, memory)
        | frozenset((a, b) for f in full_loads for a in memory for b in memory if (a, f) in po and (f, b) in maybe)
        | frozenset((a, b) for f in full_stores for a in memory for b in memory if (a, f) in maybe and (f, b) in po)
        | _then(fenced("before-atomic", memory, done), frozenset(p for p in maybe if p[1] in memory))
        | _then(frozenset(p for p in maybe if p[0] in memory), fenced("after-atomic", done, memory))
    )
    locked = {a for a in store if label[a].tag == "lock"}
    mb |= _then(frozenset(p for p in maybe if p[0] in memory), fenced("after-spinlock", locked, memory))
    unlocks, lock_loads = {a for a in store if label[a].tag == "unlock"}, {a for a in load if label[a].tag == "lock"}
    unlock_lock = _then(
        frozenset(p for p in po if p[1] in unlocks),
        frozenset(p for p in po | rf if p[0] in unlocks and p[1] in lock_loads),
        frozenset(p for p in po if p[0] in lock_loads),
    )
    fences = {a for a in n if label[a].order == "after-unlock-lock"}
    mb |= frozenset(
        p for p in _then(frozenset(q for q in unlock_lock if q[1] in fences), po) if p[0] in memory and p[1] in memory
    )
    unlock_lock = frozenset(p for p in unlock_lock if p[0] in memory and p[1] in memory)
    acquire = {a for a in load if label[a].order == "acquire" and (not label[a].rmw or a in done)}
    release = {a for a in store if label[a].order == "release"}
    acq_po = frozenset(p for p in po if p[0] in acquire and p[1] in memory)
    po_rel = frozenset(p for p in po if p[1] in release and p[0] in memory)
    returning = {a for a in load if label[a].tag != "noreturn"}
    rmb, wmb = fenced("rmb", returning, returning), fenced("wmb", store, store)
    sync = {a for a in n if label[a].order == "sync-rcu"}
    gp = frozenset((a, b) for s in sync for a in memory for b in memory if (a, s) in po and (s, b) in po)
    strong = mb | gp
    starts = {(event.task, event.index): a for a, event in enumerate(events)}

    def depends(which: str) -> Pairs:
        return frozenset(
            (starts[event.task, bit], a)
            for a, event in enumerate(events)
            for bit in range(event.index)
            if getattr(event.label, which) >> bit & 1
        )

    addr, data = depends("addr"), frozenset(p for p in depends("data") if p[1] in store)
    ctrl = frozenset(p for p in depends("arm") if p[1] in store)
    dep = frozenset(p for p in addr | data if p[1] in memory)
    overwrite = co | fr
    to_w = frozenset(p for p in dep | ctrl if p[1] in store) | (overwrite & internal)
    to_r = frozenset(p for p in addr if p[1] in load) | _then(dep, rf & internal)
    ppo = to_r | to_w | strong | po_rel | acq_po | wmb | rmb | (unlock_lock & internal)
    rfe = rf - internal
    cumulative = strong | po_rel
    sequence = _closed(_then(rf, rmw)) | same
    cumul = _then(cumulative | _then(rfe, cumulative) | wmb | unlock_lock, sequence)
    prop = _then((overwrite - internal) | same, _closed(cumul) | same, rfe | same)
    marked = memory | {a for a in n if label[a].kind == "F" or label[a].tag in ("rcu_read_lock", "rcu_read_unlock")}
    prop = frozenset(p for p in prop if p[0] in marked and p[1] in marked)
    hb = ppo | rfe | ((prop - same) & internal)
    if not _acyclic(hb):
        return False
    hbs = _closed(hb) | same
    pb = _then(prop, strong, hbs)
    if not _acyclic(pb):
        return False
    if not sync:
        return True
    pbs = _closed(pb) | same
    link = _then(maybe, hbs, pbs, prop, po)
    sections = _sections(events)
    grace = frozenset((s, s) for s in sync)
    back = frozenset((b, a) for a, b in sections)
    order = grace | _then(grace, link, back) | _then(back, link, grace)
    while True:
        more = (
            order
            | _then(grace, link, order, link, back)
            | _then(back, link, order, link, grace)
            | _then(order, link, order)
        )
        if more == order:
            break
        order = more
    fence = _then(po, order, maybe)
    rb = _then(prop, fence, hbs, pbs)
    return all(a != b or a not in memory for a, b in rb)


def _allowed_in_time(
    events: list[Event], reads: dict[int, int], orders: dict[Any, list[int]], buffers: bool = False
) -> bool:
    """Is there one order in time of all events? Of each section and grace period one comes first: what is before the
    section's end is before what is behind the grace period, or what is before that is before all of the section. With
    ``buffers`` a task's store may be passed by its later loads, up to a full barrier, and is read from there: x86."""
    n = range(len(events))
    label = [event.label for event in events]
    waits = {a for a in n if label[a].tag == "gp"}
    po = frozenset((a, b) for a in n for b in n if _before(events[a], events[b]) and not {a, b} & waits)
    rf = frozenset((w, r) for r, w in reads.items() if w >= 0)
    co = frozenset((a, b) for chain in orders.values() for i, a in enumerate(chain) for b in chain[i + 1 :])
    fr = frozenset((r, b) for r, w in reads.items() for b in orders.get(label[r].loc, ()) if w < 0 or (w, b) in co)
    first = po
    if buffers:
        same = frozenset((a, b) for a, b in po if label[a].loc is not None and label[a].loc == label[b].loc)
        if not _acyclic(same | rf | co | fr):
            return False
        full = {
            a for a in n
            if label[a].rmw or label[a].order in ("mb", "sync-rcu") or label[a].tag == "rcu_read_unlock"
        }  # fmt: skip
        stores = {a for a in n if label[a].kind == "W" and a not in full}
        loads = {a for a in n if label[a].kind == "R" and a not in full}
        passing = {
            (a, b) for a, b in po
            if a in stores and b in loads and not any((a, f) in po and (f, b) in po for f in full)
        }  # fmt: skip
        first, rf = po - passing, frozenset((w, r) for w, r in rf if events[w].task != events[r].task)
    pairs = [(s, section) for s in n if label[s].order == "sync-rcu" for section in _sections(events)]
    ways = [
        (
            frozenset((a, b) for a in n if (a, end) in po for b in n if (s, b) in po),
            frozenset((a, b) for a in n if (a, s) in po for b in (begin, *(c for c in n if (begin, c) in po))),
        )
        for s, (begin, end) in pairs
    ]
    known = first | rf | co | fr
    return any(_acyclic(known.union(*chosen)) for chosen in itertools.product(*ways))


def _allowed_by_x86(events: list[Event], reads: dict[int, int], orders: dict[Any, list[int]]) -> bool:
    return _allowed_in_time(events, reads, orders, buffers=True)


FULL_FENCES = ("mb", "before-atomic", "after-atomic", "after-spinlock", "after-unlock-lock")


def _c11(events: list[Event]) -> tuple[list[tuple[str, Any, frozenset[str]]], Pairs, list[int]]:
    """A candidate as C11 has it: (kind, location, orders) of each of its events, program order, and where each event
    of the candidate is among them. A full read-modify-write that stores has a fence before and one behind."""
    found: list[tuple[str, Any, frozenset[str]]] = []
    tasks: list[int] = []
    where: list[int] = []
    everything = frozenset({"acquire", "release", "sc"})
    for at, event in enumerate(events):
        label = event.label
        full = label.full and (label.kind == "W" or _updates(events, at))
        if full and label.kind == "R":
            found.append(("F", None, everything))
            tasks.append(event.task)
        where.append(len(found))
        orders: set[str] = set()
        if label.kind == "F":
            orders = {"rmb": {"acquire"}, "wmb": {"release"}}.get(label.order, set())
            orders = set(everything) if label.order in FULL_FENCES else orders
        elif full:
            orders = {"acquire" if label.kind == "R" else "release"}
        elif label.kind == "R" and label.order == "acquire" and (not label.rmw or _updates(events, at)):
            orders = {"acquire"}
        elif label.kind == "W" and label.order == "release":
            orders = {"release"}
        found.append((label.kind, label.loc, frozenset(orders)))
        tasks.append(event.task)
        if full and label.kind == "W":
            found.append(("F", None, everything))
            tasks.append(event.task)
    n = range(len(found))
    return found, frozenset((a, b) for a in n for b in n if a < b and tasks[a] == tasks[b]), where


def _allowed_c11(candidate: list[Event], reads: dict[int, int], orders: dict[Any, list[int]]) -> bool:
    events, sb, where = _c11(candidate)
    n = range(len(events))
    same = frozenset((a, a) for a in n)

    def of(kind: str, order: str = "") -> Pairs:
        return frozenset((a, a) for a in n if events[a][0] in kind and (not order or order in events[a][2]))

    def same_place(relation: Pairs, yes: bool) -> Pairs:
        return frozenset(
            (a, b) for a, b in relation if (events[a][1] is not None and events[a][1] == events[b][1]) == yes
        )

    rf = frozenset((where[w], where[r]) for r, w in reads.items() if w >= 0)
    mo = frozenset(
        (where[a], where[b]) for chain in orders.values() for i, a in enumerate(chain) for b in chain[i + 1 :]
    )
    rb = frozenset(
        (where[r], where[b])
        for r, w in reads.items()
        for b in orders.get(candidate[r].label.loc, ())
        if w < 0 or (where[w], where[b]) in mo
    )
    rmw = frozenset(
        (where[at], where[at + 1]) for at, e in enumerate(candidate) if e.label.kind == "R" and _updates(candidate, at)
    )
    writes, fences = of("W"), of("F")
    sequence = _then(writes, same_place(sb, True) | same, writes, _closed(_then(rf, rmw)) | same)
    sw = _then(
        of("WF", "release"),
        _then(fences, sb) | same,
        sequence,
        rf,
        of("R"),
        _then(sb, fences) | same,
        of("RF", "acquire"),
    )
    hb = _closed(sb | sw)
    eco = _closed(rf | mo | rb)
    if any(a == b for a, b in _then(hb, eco | same)) or rmw & _then(rb, mo):
        return False
    other = same_place(sb, False)
    scb = sb | _then(other, hb, other) | same_place(hb, True) | mo | rb
    strong, strong_fences = of("RWF", "sc"), of("F", "sc")
    base = _then(strong | _then(strong_fences, hb | same), scb, strong | _then(hb | same, strong_fences))
    return _acyclic(base | _then(strong_fences, hb | _then(hb, eco, hb), strong_fences))


def _sections(events: list[Event]) -> set[tuple[int, int]]:
    found, opened = set(), -1
    for at, event in enumerate(events):
        if event.label.tag == "rcu_read_lock":
            opened = at
        elif event.label.tag == "rcu_read_unlock" and opened >= 0:
            found.add((opened, at))
            opened = -1
    return found


# ---- small programs --------------------------------------------------------------------------------------------------


def program(seed: int, model: str = "lkmm") -> Test:
    """A litmus test of two or three tasks, one to four operations each, at most four loads; no quantifier. For rc11
    none has RCU, which C11 has not, and every other one is a cycle: most programs drawn freely need no fence."""
    rng = random.Random(seed)
    if model == "rc11" and seed & 1:
        return cycle(rng)
    budget = [rng.choice([2, 3, 3, 4])]
    kind = rng.choice(["plain", "plain", "rmw", "lock", "rcu"])
    if kind == "rcu" and model == "rc11":
        kind = "rmw"
    tasks = []
    for task in range(rng.choice([2, 2, 3])):
        names = iter(f"r{i}" for i in range(9))
        body: list[Any] = []
        known: list[str] = []
        for _ in range(rng.choice([1, 2, 3] if task < 2 else [1, 2])):
            body += _operation(rng, kind, names, known, budget)
        if kind == "lock" and rng.random() < 0.7:
            lock = [("do", ("call", "spin_lock", [("name", "s")]))]
            after = [("do", ("call", "smp_mb__after_spinlock", []))] if rng.random() < 0.3 else []
            body = [*lock, *after, *body, ("do", ("call", "spin_unlock", [("name", "s")]))]
        elif kind == "rcu" and rng.random() < 0.6 and body:
            call = [("do", ("call", name, [])) for name in ("rcu_read_lock", "rcu_read_unlock")]
            body = [call[0], *body, call[1]]
        elif kind == "rcu" and body:
            where = rng.randrange(len(body) + 1)
            body[where:where] = [("do", ("call", "synchronize_rcu", []))] * rng.choice([1, 1, 2])
        tasks.append((["x", "y", "s"], body))
    return Test(f"seed {seed}", {"x": 0, "y": 0, "s": 0}, tasks, "exists", ("true",))


ORDERS = ("", "_relaxed", "_acquire", "_release")


def cycle(rng: random.Random) -> Test:
    """Two to four tasks in a ring (SB, MP, LB, R, S, 2+2W, WRC, IRIW and so on): each has an access of one location
    and one of the next, or only the first, of random orderings, with fences between."""
    while True:
        long = [rng.random() < 0.75 for _ in range(rng.choice([2, 2, 3, 3, 4]))]
        if sum(long) >= 2:
            break
    at, stored, loads, tasks = 0, dict.fromkeys("xyzw", 0), 0, []
    for both in long:
        body: list[Any] = []
        for place in "xyzw"[at % sum(long)] + ("xyzw"[(at + 1) % sum(long)] if both else ""):
            if body and rng.random() < 0.7:
                fence = rng.choice(["smp_mb", "smp_mb", "smp_wmb", "smp_rmb"])
                body.append(("do", ("call", fence, [])))
            name, target = f"r{len(body)}", ("name", place)
            value = ("num", stored[place] + 1)
            pick = rng.random() if loads < 4 else 0.9
            loads += pick < 0.6
            stored[place] += pick >= 0.45
            if pick < 0.45:
                call, pointer = rng.choice([("READ_ONCE", ("deref", target)), ("smp_load_acquire", target)])
                body.append(("set", ("name", name), ("call", call, [pointer])))
            elif pick < 0.6:
                body.append(("set", ("name", name), ("call", f"xchg{rng.choice(ORDERS)}", [target, value])))
            else:
                call, pointer = rng.choice([("WRITE_ONCE", ("deref", target)), ("smp_store_release", target)])
                body.append(("do", ("call", call, [pointer, value])))
        at += both
        tasks.append((["x", "y", "z", "w"], body))
    return Test("cycle", dict.fromkeys("xyzw", 0), tasks, "exists", ("true",))


def _operation(rng: random.Random, kind: str, names: Iterator[str], known: list[str], budget: list[int]) -> list[Any]:
    place = ("name", rng.choice("xy"))
    value: Any = ("num", rng.choice([1, 2]))
    if known and rng.random() < 0.4:  # a data dependency
        value = ("+", ("&", ("name", rng.choice(known)), ("num", 0)), value)
    pick = rng.random()
    if pick < 0.4 and budget[0]:
        budget[0] -= 1
        name = next(names)
        call = rng.choice(["READ_ONCE", "READ_ONCE", "smp_load_acquire"])
        read = ("set", ("name", name), ("call", call, [("deref", place) if call == "READ_ONCE" else place]))
        known.append(name)
        if rng.random() < 0.3:
            inner = _operation(rng, "plain", names, [], budget)
            return [read, ("if", ("name", name), inner, [])]
        return [read]
    if pick < 0.6 and kind == "rmw" and budget[0]:
        budget[0] -= 1
        name, suffix = next(names), rng.choice(["", "_relaxed", "_acquire", "_release"])
        what = rng.choice(["xchg", "cmpxchg", "atomic_fetch_add"])
        known.append(name)
        if what == "atomic_fetch_add":
            return [("set", ("name", name), ("call", what + suffix, [("num", 1), place]))]
        args = [place, ("num", 0), value] if what == "cmpxchg" else [place, value]
        return [("set", ("name", name), ("call", what + suffix, args))]
    if pick < 0.82:
        call = rng.choice(["WRITE_ONCE", "WRITE_ONCE", "smp_store_release"])
        return [("do", ("call", call, [("deref", place) if call == "WRITE_ONCE" else place, value]))]
    barriers = ["smp_mb", "smp_wmb", "smp_rmb"]
    barriers += ["smp_mb__before_atomic", "smp_mb__after_atomic"] if kind == "rmw" else []
    return [("do", ("call", rng.choice(barriers), []))]


def main(first: int, last: int, model: str = "lkmm") -> int:
    """Compare the search with the enumeration on programs ``first`` up to ``last``; the exit code."""
    from benchframe.check.litmus import finals
    from benchframe.check.trust import Seen, Trust

    wrong = graphs = 0
    for seed in range(first, last):
        test = program(seed, model)
        states: set[Any] = set()
        keys: list[Any] = []

        def see(seen: Seen, states: set[Any] = states, keys: list[Any] = keys, test: Test = test) -> bool:
            if seen.outcome == "done":
                assert isinstance(seen.tasks, Tasks)
                values = finals(test, seen.graph, seen.tasks)
                kept = {name: value for name, value in values.items() if ":" in name or seen.graph.co.get(name)}
                states.add(tuple(sorted(kept.items(), key=str)))
                keys.append(seen.graph.key())
            return True

        Trust(lambda test=test: Tasks(test), model).explore(see)  # type: ignore[misc]
        graphs += len(keys)
        if states != outcomes(test, numbers(test), model) or len(set(keys)) != len(keys):
            wrong += 1
            print(f"seed {seed}: the search and the enumeration differ")
    print(f"{last - first} programs, {graphs} graphs, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
