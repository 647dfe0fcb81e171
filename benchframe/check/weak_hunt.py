"""Looking for failures in execution graphs: the search, the story of a failure, and orderings that are not needed.

A replay string is ``v1-lkmm:N`` (``v1-rc11:N``, ``v1-sc-graphs:N``, ``v1-tso-graphs:N``): the search is deterministic,
and this is the graph that it came to as its N-th. ``v1-lkmm:NwD``: there was time for D draws only ahead of it, which
decide what it begins with.

Each ordering of the strategy's own text is weakened by itself, one step, and every scenario that runs it is searched
again. "Needed" names the failure that the weaker one has. "Not needed" is said of scenarios that were searched whole,
and these are finite and small: it is a question to the author, not a proof. "Open": the time was up before that.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import benchframe.mm
from benchframe.check.axioms import NAMES, SC, WEAK, Place, in_time
from benchframe.check.cases import COMMON
from benchframe.check.checker import Finding, Verdict, finding_of, make_case, signature_of, signature_text, visible
from benchframe.check.execution import PATIENCE, Broken, Endless, Op, ReplayError, Step, execute, patience, told
from benchframe.check.graph import INIT, SHIFT, WAITS, Graph, Id, Label
from benchframe.check.memory import OutOfRecords, describe
from benchframe.check.rc11 import order_type
from benchframe.check.search import Coverage
from benchframe.check.trust import Nondeterminism, Seen, Tasks, Trust, value_of
from benchframe.check.weak import ALONE, GraphCase, GraphWorld, Known, Rule
from benchframe.errors import UsageError, did_you_mean
from benchframe.scenario import Scenario, Sites
from benchframe.strategy import Strategy

SAMPLED = 0.2
"""The share of the time in which executions are drawn, where a search does not come to its end."""
IDLE = 30
"""Executions drawn in a row from which nothing is learned, before the search begins."""
LIMIT = 1500
"""Events of a graph before it is called cut."""
SLOW = 200
"""Code that takes PATIENCE for so many events is slow to search, as one that tries again and again is. With fewer it
does not end."""
MOST_EVENTS, END_EVENTS = 60, 12
"""Events of a task that a story shows all of; and how many of its first and last ones, of more."""
REPLAY = re.compile(r"v1-(lkmm|rc11|(?:sc|tso)-graphs):(\d{1,9})(?:w(\d{1,6}))?")


class _Search(Trust):
    """Strategy code that does not end, or depends on more than what it reads, is a failure of the strategy."""

    def _run(self, graph: Graph, tasks: Tasks) -> Seen | None:
        assert isinstance(tasks, GraphWorld)
        begun = len(graph.order)
        try:
            with patience(PATIENCE):
                return super()._run(graph, tasks)
        except Endless as error:
            if len(tasks.graph.order) - begun > SLOW:  # events are added: LIMIT would end it
                self.counts.truncated += 1
                return None
            tasks.failure = Broken("livelock", told(error))
        except Nondeterminism as error:
            if self._stop():
                return None  # memory that is shared and not known to be: the search starts over
            tasks.failure = Broken("nondeterminism", str(error))
        return Seen("broken", graph, tasks)


@dataclass(frozen=True)
class Failure:
    """A failed execution and the number of its graph. ``order``: its events in an order of time, if it has one."""

    broken: Broken
    seen: Seen
    number: int
    order: Sequence[Id] = ()


def failed(broken: Broken, seen: Seen, number: int) -> Failure:
    return Failure(broken, seen, number, in_time(seen.graph, broken.events))


# ---- the same failure as an interleaving -----------------------------------------------------------------------------
#
# A graph whose events have an order of time is an interleaving, too: the other search's own rules say then which known
# bug it is. No stronger ordering mends it, since all of them allow every interleaving.


class _InTime:
    """A scheduler that lets tasks do their accesses to shared memory in the order of a graph's events."""

    def __init__(self, failure: Failure, names: Sequence[str]) -> None:
        graph, world = failure.seen.graph, failure.seen.tasks
        assert isinstance(world, GraphWorld)
        number = {name: task for task, name in enumerate(names)}
        self._then = world.failed_task
        self._steps: list[tuple[int, Any]] = []
        for event in failure.order:
            task, label = event >> SHIFT, graph.label(event)
            if label.kind == "C" and graph.rf[event]:
                self._steps.append((number[f"signal to T{task}"], (("signal", task), 0)))
            second = (label.rmw and label.kind == "W") or label.tag == "slab"
            if label.kind in "RW" and graph.rf.get(event) != WAITS and not second and not label.excused:
                loc = label.loc if label.tag != "free" else (label.value[0], None)
                self._steps.append((number[world.names[task]], loc))
        self._steps.reverse()
        self._shared = world.shared | {loc for _, loc in self._steps}

    def __call__(
        self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]
    ) -> int | None:
        for task in enabled:  # what no other task sees is done at once
            op = pending[task]
            if op is not None and op.point is None and len(op.accesses) == 1 and op.accesses[0][:2] not in self._shared:
                return task
        while self._steps:
            task, loc = self._steps[-1]
            op = pending[task]
            if op is not None and task not in enabled:
                return None
            if op is None or op.accesses[0][:2] == loc:
                self._steps.pop()
            if op is not None:
                return task
        return self._then if self._then in enabled else enabled[0]


def interleaved(case: GraphCase, failure: Failure) -> Finding | None:
    """The failure as the search over interleavings would report it; None if it has no order of time, or fails
    otherwise in it."""
    if not failure.order or case.scenario.hardware:
        return None
    other = make_case(case.scenario, case.strategy)
    with visible(other):
        run = execute(other.program, _InTime(failure, other.program().names))
    if run.failure is None or not _same(run.failure, failure.broken):
        return None
    return finding_of(other, signature_of(run), run)


def _same(one: Broken, other: Broken) -> bool:
    same = one.function == other.function and one.places[:1] == other.places[:1]
    return one.kind == other.kind and (same or one.kind == "deadlock")  # who waits for what is told in other words


class GraphHunt:
    """One case under search; ``tick`` and ``found`` as for :class:`benchframe.check.checker.Hunt`."""

    def __init__(
        self,
        case: GraphCase,
        most: int = 6,
        tick: Callable[[int], None] = lambda executions: None,
        found: Callable[[Broken, str], None] = lambda failure, replay: None,
    ) -> None:
        self.case, self.most = case, most
        self._tick, self._found = tick, found
        self.search = _Search(case.tasks, case.memory_model, LIMIT, self._learning)
        self.failures: dict[tuple[str, ...], Failure] = {}
        self.verdict = Verdict(case.scenario, Coverage())
        self.graphs: int | None = None
        """How many graphs are looked at, at most; None: all."""
        self.part: tuple[int, int] | None = None
        """Of a search in several processes: which part this is, of how many. What it learns ends it: all begin anew."""
        self.warm = False
        """Is it known what tasks share? If not, executions are drawn to learn that."""
        self._drawn: int | None = None
        """How many were drawn, if the time cut that short."""

    def _learning(self) -> bool:
        case = self.case
        return case.learned or bool(case.memory.discovered - case.memory.shared)

    def _learn(self) -> bool:
        return self.case.learn()

    def run(self, deadline: float) -> Verdict:
        """Search until all graphs are seen, ``most`` failures are known or ``deadline`` (time.monotonic) is near."""
        now = time.monotonic()
        self._explore(lambda seen: self._see(seen), now + (deadline - now) * (1 - SAMPLED))
        anew = self.part is not None and self.verdict.learned
        if not self.search.counts.complete and not self.failures and self.graphs is None and not anew:
            self.verdict.sampled = self.sample(deadline)
        for signature, failure in self.failures.items():
            broken = failure.broken
            sites = Sites(broken.chain or ((broken.function,) if broken.function else ()), broken.freed)
            name, text = self.case.scenario.name, self.replay_string(failure.number)
            self.verdict.findings.append(
                Finding(name, broken.kind, broken.text, text, signature, function=broken.function, sites=sites)
            )
        counts, coverage = self.search.counts, self.verdict.coverage
        coverage.executions, coverage.blocked = counts.executions, counts.shadows
        coverage.truncated, coverage.complete = counts.truncated, counts.complete
        coverage.longest, coverage.seconds = counts.longest, counts.seconds
        return self.verdict

    def sample(self, deadline: float) -> int:
        """Draw executions until one fails; how many were drawn. One that fails has no replay string."""

        def see(seen: Seen) -> bool:
            assert isinstance(seen.tasks, GraphWorld)
            broken = None if self._learning() else seen.tasks.judge(seen)
            if broken is not None and not self._learning():
                self.failures[signature_text(broken)] = failed(broken, seen, 0)
                self._found(broken, "drawn, without a replay string")
            return not self.failures and not self._learning()

        drawn, draw = 0, random.Random(1 + (self.part[0] if self.part is not None else 0))
        while time.monotonic() < deadline and not self.failures:
            drawn += self.search.sample(see, draw, deadline)
            if self._learn():
                self.search.restart()  # what is shared has grown: graphs that are left to do are others now
        return drawn

    def replay_string(self, number: int) -> str:
        """How the graph is found again; "" for one that was drawn."""
        if not number:
            return ""
        model = self.case.memory_model
        drawn = "" if self._drawn is None else f"w{self._drawn}"
        return f"v1-{model}{'' if model in WEAK else '-graphs'}:{number}{drawn}"

    def _see(self, seen: Seen) -> bool:
        if self._learning():
            return False
        assert isinstance(seen.tasks, GraphWorld)
        broken = seen.tasks.judge(seen)
        if self._learning():
            return False
        self._tick(self.search.counts.executions)
        if broken is not None:
            signature, number = signature_text(broken), self.search.counts.executions
            if signature not in self.failures:
                self.failures[signature] = failed(broken, seen, number)
                self._found(broken, self.replay_string(number))
            elif not self.failures[signature].order and (again := failed(broken, seen, number)).order:
                self.failures[signature] = again  # the simpler one to tell, and to know
        enough = self.graphs is not None and self.search.counts.executions >= self.graphs
        return len(self.failures) < self.most and not enough

    def warm_up(self, deadline: float, most: int | None = None) -> None:
        """Draw some executions, ``most`` if given, to learn what tasks share: a search that meets that later has to
        begin again."""
        if self.warm:
            return
        self.warm, draw, idle, drawn = True, random.Random(0), 0, 0
        while idle < IDLE:
            if drawn == most or time.monotonic() >= deadline:
                self._drawn = drawn
                return
            self.search.sample(lambda seen: False, draw, math.inf, runs=1)
            drawn, idle = drawn + 1, 0 if self._learn() else idle + 1

    def _explore(self, see: Callable[[Seen], bool], deadline: float) -> None:
        if self.part is not None:
            self._explore_part(*self.part, see, deadline)
            return
        self.warm_up(deadline)
        while True:
            counts = self.search.explore(see, deadline)
            late = time.monotonic() >= deadline or len(self.failures) >= self.most
            if self._learn():
                counts.complete = False
                if not late:
                    self.search.restart()
                    self.verdict.learned += 1
                    continue
            return

    def _explore_part(self, part: int, parts: int, see: Callable[[Seen], bool], deadline: float) -> None:
        counts = self.search.counts
        if self.search.split(part, parts, see, deadline):
            if part:
                counts.executions = counts.shadows = counts.events = 0  # the first part counts those before the split
            self.search.explore(see, deadline)
        if self._learn():
            counts.complete = False
            self.verdict.learned += 1

    def again(self, text: str) -> Failure | None:
        """The execution of a replay string; None if it is right. No clock decides. Raises ReplayError if none fits."""
        found = REPLAY.fullmatch(text)
        if found is None:
            raise ReplayError(f"{text[:60]!r} is no replay string of an execution graph; it looks like v1-lkmm:12")
        number = int(found[2])
        last: list[Failure | None] = []

        def see(seen: Seen) -> bool:
            if self._learning():
                return False
            assert isinstance(seen.tasks, GraphWorld)
            broken = seen.tasks.judge(seen)
            if not self._learning() and self.search.counts.executions == number:
                last.append(failed(broken, seen, number) if broken is not None else None)
            return not last and not self._learning()

        self.warm_up(math.inf, int(found[3]) if found[3] else None)
        while True:
            counts = self.search.explore(see)
            if last:
                return last[0]
            if not self._learn() or counts.executions >= number:
                raise ReplayError(f"{text}: the search did not come to that graph; was the strategy changed?")
            self.search.restart()


# ---- the story -------------------------------------------------------------------------------------------------------


def model_of_graphs(text: str) -> str | None:
    """The memory model of a replay string of a graph; None if it is another."""
    found = REPLAY.fullmatch(text)
    return found[1].removesuffix("-graphs") if found else None


def graph_number(text: str) -> int:
    """The number of the graph in such a string."""
    found = REPLAY.fullmatch(text)
    return int(found[2]) if found is not None else 0


def tell_graph(case: GraphCase, failure: Failure, command: str, mends: Sequence[str] = ()) -> str:
    """What broke, what each task did, which loads missed which stores, what would mend it, how to see it again."""
    graph, broken = failure.seen.graph, failure.broken
    world = failure.seen.tasks
    assert isinstance(world, GraphWorld)
    scenario = case.scenario
    lines = [f"{broken.kind}: {broken.text}", f"  scenario {scenario.name}: {scenario.summary}"]
    lines += [f"  memory model: {NAMES[case.memory_model]}"]
    for number, calls in enumerate(scenario.tasks):
        lines.append(f"  T{number}: {', then '.join(call.label for call in calls)}")
    lines += ["", *_events(world, graph), ""]
    missed = list(_missed(world, graph)) if case.memory_model != SC else []
    if missed:
        lines.append("  loads that missed a store, since nothing orders the two:")
        lines += [f"    {text}" for text in missed[:8]]
    lines += [f"  {mend}" for mend in mends]
    lines.append(f"  again: {command}")
    return "\n".join(lines)


def _events(world: GraphWorld, graph: Graph) -> list[str]:
    """Each task's events on memory that others use; of many those at both ends, and what others read or missed."""
    pairs = (pair for pair in (*graph.rf.items(), *missed_stores(graph)) if pair[0] >> SHIFT != pair[1] >> SHIFT)
    lines, met = [], {event for pair in pairs if pair[1] >= 0 for event in pair}
    for task, events in enumerate(graph.tasks):
        rows = []
        for index, label in enumerate(events):
            text = _event(world, graph, task << SHIFT | index, label)
            if text:
                rows.append((index, text, _at(label.place) if label.chain else ""))
        end, last = len(rows) if len(rows) <= MOST_EVENTS else END_EVENTS, 0
        shown = [n for n, row in enumerate(rows) if min(n, len(rows) - 1 - n) < end or task << SHIFT | row[0] in met]
        lines += [f"  {world.names[task]}"] if shown else []
        width = max((len(rows[number][1]) for number in shown), default=0)
        for number in shown:
            index, text, where = rows[number]
            lines += [f"    ... {number - last} more ..."] if number > last else []
            lines.append(f"    {index:>4}  {text:{width}}  {where}".rstrip())
            last = number + 1
    return lines


def _event(world: GraphWorld, graph: Graph, event: Id, label: Label) -> str:
    if label.tag in ("gp", "slab", "alloc") or label.kind == "C":
        return "grace period" if label.tag == "gp" and label.kind == "R" else ""
    if label.tag == "free":
        return f"free {describe(label.value[0], None, world.case.memory)}"
    if label.tag in ("kfree_rcu", "queue"):
        source = graph.rf.get(event, INIT)
        if source == WAITS:
            return ""
        which, slot, _ = label.value[-1] if label.tag == "kfree_rcu" else graph.label(source).value[-1]
        record = describe((world.base(which), slot), None, world.case.memory)
        return (
            f"kfree_rcu of {record}" if label.tag == "kfree_rcu" else f"takes {record}{_whence(world, event, source)}"
        )
    if label.tag in ("rcu_read_lock", "rcu_read_unlock"):
        return label.tag
    if label.kind == "F":
        return f"smp_{label.order.replace('-', '_')}" if label.order in ("mb", "rmb", "wmb") else label.order
    assert isinstance(label.loc, tuple)
    name = describe(label.loc[0], label.loc[1], world.case.memory)
    how = "" if label.order == "once" else f", {label.order}"
    if label.kind == "W":
        return f"{name} = {_number(label.value)}{how}"
    source = graph.rf.get(event, INIT)
    if source == WAITS:
        return f"waits for {name}"
    value = graph.label(source).value if source >= 0 else world.initial(label.loc)
    return f"{name} is {_number(value)}{how}{_whence(world, event, source)}"


def _whence(world: GraphWorld, event: Id, source: int) -> str:
    if source < 0 or source >> SHIFT == event >> SHIFT:
        return ""
    return f" from {world.names[source >> SHIFT]}:{source & ((1 << SHIFT) - 1)}"


def _number(value: Any) -> str:
    return hex(value) if isinstance(value, int) and value > 4096 else str(value)


def _at(where: Place | None) -> str:
    return f"{Path(where[0]).name}:{where[1]} {where[2]}" if where is not None else ""


def _missed(world: GraphWorld, graph: Graph) -> Iterator[str]:
    """Loads that read an older store than another task has made, of another value."""
    for event, store in missed_stores(graph):
        load, other = graph.label(event), graph.label(store)
        assert isinstance(load.loc, tuple)
        if other.value == value_of(graph, world, event):
            continue
        what = describe(load.loc[0], load.loc[1], world.case.memory)
        yield (
            f"{world.names[event >> SHIFT]}:{event & ((1 << SHIFT) - 1)} loads {what} and misses "
            f"{world.names[store >> SHIFT]}:{store & ((1 << SHIFT) - 1)}, which stores {_number(other.value)} "
            f"({_at(load.place)}; {_at(other.place)})"
        )


def missed_stores(graph: Graph) -> Iterator[tuple[Id, Id]]:
    """Each load of the tasks' memory and the next store, of another task, that it did not see."""
    for event, source in graph.rf.items():
        label = graph.label(event)
        if label.kind != "R" or source == WAITS or label.tag in ("gp", "slab", "wait_then_add", "queue") or label.rmw:
            continue
        chain = graph.co.get(label.loc, ())
        later = chain[chain.index(source) + 1 :] if source >= 0 else chain
        if later and later[0] >> SHIFT != event >> SHIFT:
            yield event, later[0]


# ---- orderings -------------------------------------------------------------------------------------------------------


OPERATIONS = {"load": "the load", "store": "the store", "rmw": "the read-modify-write"}
"""Accesses in words; all else is a barrier."""
MET = 60
"""Executions of a scenario that are looked at for the orderings that it runs."""
QUICK = ((70, 0.6), (300, 0.75))
"""Graphs of a scenario that are searched with a weaker ordering before any is searched whole, and up to which share of
the time."""


@dataclass(frozen=True)
class Change:
    """One access or barrier with another ordering."""

    place: Place
    operation: str
    was: str
    now: str

    def __str__(self) -> str:
        what = OPERATIONS.get(self.operation)
        if what is None:
            return f"the smp_{self.operation.replace('-', '_')} at {_at(self.place)}: left out"
        return f"{what} at {_at(self.place)}: {self.was} -> {self.now}"

    @property
    def key(self) -> str:
        """The key of the author's judgement: as :meth:`__str__`, without line numbers."""
        return f"{self.place[2]}: {self.what}"

    @property
    def what(self) -> str:
        """The change without its place."""
        if self.operation in OPERATIONS:
            return f"{OPERATIONS[self.operation]}, {self.was} -> {self.now}"
        return f"the smp_{self.operation.replace('-', '_')} left out"

    @property
    def rule(self) -> tuple[tuple[Place, str], Rule]:
        """For :attr:`GraphCase.rules`."""
        return (self.place, self.operation), rule_for(self.now)


def rule_for(now: str) -> Rule:
    """Gives an access the ordering ``now`` (once, relaxed, acquire, release, full), or leaves a barrier out (none)."""

    def change(label: Label) -> Label | None:
        if now == "none":
            return None
        if label.kind == "R":
            label.order = "acquire" if now in ("acquire", "full") else "once"
        elif label.kind == "W":
            label.order = "release" if now in ("release", "full") else "once"
        label.full = now == "full" and label.rmw
        label.plain = False
        return label

    return change


def order_of(label: Label, other: Label | None = None) -> str:
    """relaxed, acquire, release or full; ``other`` is the store of a read-modify-write whose load is ``label``."""
    if label.full:
        return "full"
    if label.order in ("acquire", "release"):
        return label.order
    return "release" if other is not None and other.order == "release" else "relaxed"


def stronger(graph: Graph) -> list[Change]:
    """Changes that might mend a failure: of loads that missed a store, of those that read another task's, of those
    stores, and of read-modify-writes of what is used so."""
    wanted: set[Id] = set()
    for event, store in missed_stores(graph):
        wanted |= {event, store}
    for event, source in graph.rf.items():
        if source >= 0 and source >> SHIFT != event >> SHIFT and graph.label(event).tag not in ("gp", "slab"):
            wanted |= {event, source}
    found: dict[Change, None] = {}
    for event in sorted(wanted, key=lambda one: (_likely(graph, one), graph.label(one).plain, one)):
        label = graph.label(event)
        if label.kind not in "RW" or label.place is None or label.tag in ("free", "kfree_rcu", "wait_then_add"):
            continue
        operation = label.operation
        if operation == "rmw":
            next_one = graph.tasks[event >> SHIFT][(event & ((1 << SHIFT) - 1)) + 1 :][:1]
            was = order_of(label, next_one[0] if label.kind == "R" and next_one else None)
            if label.order == "once" and not label.full:
                for now in ("acquire", "release", "full"):
                    found.setdefault(Change(label.place, operation, was, now))
        elif label.order == "once":
            now = "acquire" if label.kind == "R" else "release"
            found.setdefault(Change(label.place, operation, "plain" if label.plain else "once", now))
    return list(found)


def _likely(graph: Graph, event: Id) -> int:
    """Where a missing order is looked for first: a read-modify-write that read another task's store, another load that
    did, a store that was read so; then what only missed one. (Of each, accesses that are marked come before plain
    ones.)"""
    source = graph.rf.get(event, INIT)
    if source >= 0 and source >> SHIFT != event >> SHIFT:
        return 0 if graph.label(event).rmw else 1
    return 2 if graph.label(event).kind == "W" else 3


def mend(
    scenario: Scenario,
    strategy: Strategy,
    failure: Failure,
    deadline: float,
    model: str = "lkmm",
    weaker: Mapping[tuple[str, str, str], Rule] | None = None,
) -> list[str]:
    """The smallest set of stronger orderings, of one or two accesses, under which nothing is found; lines to be told.
    A change that leaves the failed execution as it is (:func:`stays`) is no mend. Each other one is tried by a search
    of its own, of as many graphs as it took to find the failure and ten more, or of all; what could not be tried before
    ``deadline`` is said."""
    most = failure.number + 10
    changes = stronger(failure.seen.graph)
    assert isinstance(failure.seen.tasks, GraphWorld)
    known = failure.seen.tasks.case.known()
    passed = searches = 0
    for size in (1, 2):
        for some in combinations(changes, size):
            if size == 2 and (some[0].place, some[0].operation) == (some[1].place, some[1].operation):
                continue
            now = time.monotonic()
            if now >= deadline:
                told = f"{passed} changes leave the failure as it is, {searches} were searched with"
                return [f"no mend found among {len(changes)} accesses: {told}; there was no time for more"]
            if stays(failure, some, model):
                passed += 1
                continue
            searches += 1
            hunt = searched(scenario, strategy, dict(one.rule for one in some), deadline, model, weaker, most, known)
            coverage = hunt.verdict.coverage
            if not hunt.verdict.findings and (coverage.complete or coverage.executions >= most):
                whole = "" if coverage.complete else f", in the {coverage.executions} graphs that were searched"
                lines = [f"weakest mend found: {some[0]}{whole}"]
                return [*lines, *(f"               and: {one}" for one in some[1:])]
    return [f"no stronger ordering of one or two of {len(changes)} accesses mends it: it is more than a missing order"]


def stays(failure: Failure, changes: Sequence[Change], model: str) -> bool:
    """Does the failed execution remain allowed, and fail, with these orderings? Then a search would find it again. Only
    a use after free can be right in the same graph, if its access comes before the free now. O(events squared)."""
    rules = dict(one.rule for one in changes)
    graph, world = failure.seen.graph.copy(), failure.seen.tasks
    assert isinstance(world, GraphWorld)
    for task in graph.tasks:
        for at, label in enumerate(task):
            rule = rules.get((label.place, label.operation)) if label.place is not None else None
            if rule is not None and (stronger_one := rule(copy(label))) is not None:
                task[at] = stronger_one
    graph.rows = order_type(model).of(graph, model)
    if graph.rows is None:
        return False
    if failure.broken.kind not in ("use after free", "double free"):
        return True
    try:
        world.uses(graph)
    except Broken:
        return True
    return False


def searched(
    scenario: Scenario,
    strategy: Strategy,
    rules: Mapping[tuple[Place, str], Rule],
    deadline: float,
    model: str = "lkmm",
    weaker: Mapping[tuple[str, str, str], Rule] | None = None,
    graphs: int | None = None,
    known: Known | None = None,
) -> GraphHunt:
    """A search with some orderings exchanged, up to the first failure, or of ``graphs`` graphs. ``known``: what another
    search of the same case has learned."""
    case = GraphCase(scenario, strategy, model)
    case.rules, case.weaker = rules, weaker or {}
    hunt = GraphHunt(case, 1)
    hunt.graphs = graphs
    if known is not None:
        case.join(known)
        hunt.warm = True
    hunt.run(deadline)
    return hunt


WEAKER = {
    ("load", "acquire"): ("once",),
    ("store", "release"): ("once",),
    ("rmw", "acquire"): ("relaxed",),
    ("rmw", "release"): ("relaxed",),
    ("rmw", "full"): ("acquire", "release"),
}
"""Of an operation and its ordering, those one step weaker."""
MODEL = Path(benchframe.mm.__file__).parent
"""The folder of the model, with the locks that strategies share: its orderings are the kernel's, and not the strategy's
to choose."""
CHOSEN = ("seqcount", "refcount_set_release")
"""In names of functions there that are weakened all the same: a sequence count is nothing but its barriers, and the
second is refcount_set but for its ordering."""


@dataclass(frozen=True)
class Met:
    """A scenario, as a search of it as it is left it: what was learned, and the events of its longest execution."""

    scenario: Scenario
    known: Known
    longest: int


@dataclass
class Weakened:
    """What came of one change: the failure (scenario, text), else how much was searched. ``why``: the author's reason
    why it is not needed."""

    change: Change
    scenarios: list[Met]
    """Those that run it."""
    why: str = ""
    failure: str = ""
    scenario: str = ""
    graphs: int = 0
    left: list[Met] = field(default_factory=list)
    """Scenarios that were not searched whole."""

    @property
    def state(self) -> str:
        """needed, not needed, or open."""
        return "needed" if self.failure else "open" if self.left and not self.why else "not needed"

    def __str__(self) -> str:
        if self.failure:
            return f"  needed      {self.change}\n              {self.scenario}: {self.failure}"
        whole = len(self.scenarios) - len(self.left)
        lines = [f"  {self.state:10}  {self.change}"]
        lines += [f"              why: {self.why}"] if self.why else []
        searched = f"{whole} of {len(self.scenarios)}" if self.left else f"all {whole}"
        return "\n".join(
            [*lines, f"              no failure in {self.graphs} graphs, {searched} scenarios searched whole"]
        )


def weaker(graph: Graph) -> set[Change]:
    """The changes that weaken one ordering of what ran in ``graph``."""
    found: set[Change] = set()
    for events in graph.tasks:
        for index, label in enumerate(events):
            if label.place is None or label.tag in ("gp", "slab", "free", "kfree_rcu", "queue", "wait_then_add", ALONE):
                continue
            if Path(label.place[0]).parent == MODEL and not any(name in label.place[2] for name in CHOSEN):
                continue
            if label.kind == "F":
                if label.order in ("mb", "rmb", "wmb"):
                    found.add(Change(label.place, label.order, label.order, "none"))
                continue
            operation = label.operation
            if operation == "rmw" and label.kind == "W":
                continue
            after = events[index + 1] if operation == "rmw" and index + 1 < len(events) else None
            order = order_of(label, after)
            for now in WEAKER.get((operation, order), ()):
                found.add(Change(label.place, operation, order, now))
    return found


def met(
    strategy: Strategy, scenarios: Sequence[Scenario], deadline: float, say: Callable[[str], None]
) -> dict[Change, list[Met]]:
    """Every ordering that some scenario runs, and which do. :data:`MET` executions of each are looked at as they are; a
    scenario that fails is left out, and said."""
    found: dict[Change, list[Met]] = {}
    for number, one in enumerate(scenarios):
        now = time.monotonic()
        share = now + max(deadline - now, 0.5) / (len(scenarios) - number)
        try:
            case = GraphCase(one, strategy)
            hunt = GraphHunt(case, 1)
            hunt.graphs = MET
            changes: set[Change] = set()

            def see(seen: Seen, hunt: GraphHunt = hunt, changes: set[Change] = changes) -> bool:
                changes |= weaker(seen.graph)
                return hunt._see(seen)

            hunt._explore(see, share)
        except (Broken, OutOfRecords) as error:
            say(f"{one.name}: left out: {error}")
            continue
        if hunt.failures:
            say(f"{one.name}: left out, it fails as it is: {next(iter(hunt.failures.values())).broken}")
            continue
        for change in changes:
            found.setdefault(change, []).append(Met(one, case.known(), hunt.search.counts.longest))
    return found


def weaken(strategy: Strategy, result: Weakened, deadline: float, graphs: int | None = None) -> None:
    """Search each scenario that is left with the change until one fails: all of it, or ``graphs`` graphs at most."""
    todo, result.left = result.left, []
    for number, one in enumerate(todo):
        now = time.monotonic()
        until = deadline if graphs is not None else now + max(deadline - now, 0.2) / (len(todo) - number)
        rules = dict([result.change.rule])
        hunt = searched(one.scenario, strategy, rules, until, graphs=graphs, known=one.known)
        result.graphs += hunt.verdict.coverage.executions
        if hunt.verdict.findings:
            finding = hunt.verdict.findings[0]
            result.failure, result.scenario = f"{finding.kind}: {finding.text}", one.scenario.name
            result.left += todo[number + 1 :]
            return
        if not hunt.verdict.coverage.complete:
            result.left.append(one)


def run_orderings(
    strategy: Strategy,
    names: Sequence[str],
    budget: float,
    say: Callable[[str], None] = print,
    reasons: Mapping[str, str] | None = None,
    more: Sequence[Scenario] = (),
) -> list[Weakened]:
    """Weaken each ordering of ``strategy`` in ``budget`` seconds, in the common scenarios, its own and ``more``; tells
    some lines for each. First some graphs of each scenario (:data:`QUICK`), which find most; then, in the time that is
    left, all graphs of those that may still be needed. ``reasons``: why some are not needed, by :attr:`Change.key`, or
    that behind the strategy's name; a failure that is found counts more. Raises UsageError for a scenario that is none
    of these."""
    every = {one.name: one for one in (*more, *strategy.scenarios, *COMMON)}
    if unknown := [name for name in names if name not in every]:
        raise UsageError(f"no scenario {unknown[0]!r}", hint=did_you_mean(unknown[0], every, "known: {}"))
    bugs = {name: bug.name for bug in strategy.known_bugs for name in bug.scenarios}
    scenarios = [one for one in every.values() if not one.hardware and (not names or one.name in names)]
    for known_bad in (one for one in scenarios if one.name in bugs):
        say(f"{known_bad.name}: left out, it has a known bug ({bugs[known_bad.name]})")
    scenarios = [one for one in scenarios if one.name not in bugs]
    began = time.monotonic()
    changes = met(strategy, scenarios, began + budget * 0.3, say)
    say(f"{strategy.name}: {len(changes)} orderings can be weakened by a step, in {len(scenarios)} scenarios")
    known = reasons or {}
    why = {one: known.get(f"{strategy.name}: {one.key}", known.get(one.key, "")) for one in changes}
    own = {one.name for one in (*more, *strategy.scenarios)}
    for where in changes.values():  # what was written for this strategy first, then what is small
        where.sort(key=lambda one: (one.scenario.name not in own, one.longest))
    results = [
        Weakened(change, where, why[change], left=list(where))
        for change, where in sorted(changes.items(), key=lambda item: (item[0].place, item[0].operation, item[0].now))
    ]
    for graphs, share in (*QUICK, (None, 1.0)):
        todo = [one for one in results if not one.failure and one.left]
        for number, one in enumerate(sorted(todo, key=lambda one: bool(one.why))):
            now = time.monotonic()
            weaken(strategy, one, now + max(began + budget * share - now, 0.5) / (len(todo) - number), graphs)
    for one in results:
        say(str(one))
    states = [one.state for one in results]
    say(
        f"{states.count('needed')} needed; {states.count('not needed')} not needed in these scenarios, which are small "
        f"and finite: a reason to look, not a proof; {states.count('open')} open, for want of time"
    )
    return results
