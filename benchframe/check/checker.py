"""The checker of one case: search, sampling, a shorter schedule, and the counterexample as a text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchframe.check.cases import Case, CaseWorld
from benchframe.check.execution import (
    ENDLESS,
    MISTAKES,
    PATIENCE,
    READS,
    Broken,
    Endless,
    Op,
    Replay,
    Run,
    Step,
    World,
    decode,
    encode,
    execute,
    patience,
    told,
    wild,
)
from benchframe.check.memory import MachineWorld, describe
from benchframe.check.search import Coverage, Explorer, Pct, pct_bound
from benchframe.check.tso import TsoCase
from benchframe.dialect.records import DialectError, WildAccess
from benchframe.mm.layout import FILE, MM, PAGE, PTE, TASK, VMA
from benchframe.scenario import Chain, Scenario, Sites
from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# Which functions took part in a failure: what tells one race from another when both show in one place.
#
# Names of functions change less often than lines, so known bugs are told by them
# (:class:`benchframe.scenario.KnownBug`).

SET_UP = "set-up"
WRITERS = 2
POINTERS = frozenset(
    name for slab in (MM, VMA, PAGE, PTE, TASK, FILE) for name, field in slab.struct.members.items() if field.pointer
)
"""Fields of the model's records that may hold the number of a record; in a strategy's own slabs all may. A flag that
happens to be equal is no source."""


def sites_of(run: Run) -> Sites:
    """The sites of ``run``, a failed execution in which every access was a step with its place. O(steps)."""
    failure, world = run.failure, run.world
    if failure is None or not isinstance(world, MachineWorld):
        return Sites()
    freed = world.freed_by.get(failure.key, ())
    if failure.chain:
        return Sites(failure.chain, freed, _source(run, failure.key, failure.chain))
    return Sites(tuple(sorted(_stopped(run))), freed)


def _stopped(run: Run) -> set[str]:
    """Functions in which a task stopped for another although it was not at its end: where the schedule went elsewhere,
    and where tasks that are not done wait."""
    world = run.world
    left = [op for number, op in enumerate(run.pending) if op is not None and not world.daemons[number]]
    found = {op.place[2] for op in left if op.place is not None}
    following: dict[int, str] = {}
    for at in range(len(run.trace) - 1, -1, -1):
        step = run.trace[at]
        if at + 1 < len(run.trace) and run.trace[at + 1].task != step.task and step.task in following:
            found.add(following[step.task])
        if step.op.place is not None and not world.daemons[step.task]:
            following[step.task] = step.op.place[2]
    return found


def _source(run: Run, key: tuple[str, int] | None, chain: Chain) -> Chain:
    """The last load in ``chain``'s functions that gave the number of record ``key``, and the stores before it."""
    if key is None:  # a NULL dereference: the story's last steps say where the NULL came from
        return ()
    task, trace = run.failed_task, run.trace
    assert isinstance(run.world, MachineWorld)
    private = {slab.base for slab in run.world.memory.machine.private}
    at = len(trace)
    while at > 0:
        at -= 1
        step = trace[at]
        if step.task != task or step.op.kind != "load" or step.op.value != key[1] or step.op.place is None:
            continue
        location = step.op.accesses[0][:2]
        assert isinstance(location[0], tuple)
        name = re.sub(r" #?\d+", "", describe(location[0], location[1], run.world.memory))
        field, own = name.rpartition("."), location[0][0] in private
        if location[0] != key and step.op.place[2] in chain and (own or not field[1] or field[2] in POINTERS):
            break
    else:
        return ()
    writers = [
        before.op.place[2]
        for before in reversed(trace[:at])
        if before.op.place is not None
        and any(access[:2] == location and access[2] != READS for access in before.op.accesses)
    ]
    return (name, *[*writers, SET_UP][:WRITERS])


# ----------------------------------------------------------------------------------------------------------------------
# A failure as a story: what broke, what each task did step by step, what became of the record, how to see it again.

MOST = 48
"""Lines of the table of steps; from longer ones the middle is left out."""


def tell(case: Case, run: Run, command: str) -> str:
    """The story of ``run``, an exact execution of ``case``; ``command`` runs it again."""
    failure = run.failure or Broken("nothing", "this execution is right")
    world = run.world
    assert isinstance(world, CaseWorld)
    scenario = case.scenario
    lines = [f"{failure.kind}: {failure.text}", f"  scenario {scenario.name}: {scenario.summary}"]
    for number, calls in enumerate(scenario.tasks):
        lines.append(f"  T{number}: {', then '.join(call.label for call in calls)}")
    lines += ["", *_table(case, run), ""]
    if run.outcome == "deadlock":
        for number, op in enumerate(run.pending):
            if op is not None and not world.daemons[number]:
                lines.append(f"  {world.names[number]} waits: {_what(op, world)}  {_place(op)}")
    lines += _life(run, world, failure)
    lines.append(f"  again: {command}")
    return "\n".join(lines)


def _table(case: Case, run: Run) -> list[str]:
    """The steps on memory that tasks share, and the last one."""
    interesting = case.memory.shared
    rows = []
    for number, step in enumerate(run.trace):
        if step.op.accesses[0][:2] in interesting or number == len(run.trace) - 1:
            rows.append((number + 1, run.world.names[step.task], _what(step.op, run.world), _place(step.op)))
    rows += [(at, run.world.names[task], what, where) for at, task, what, where in run.world.traced]
    rows.sort(key=lambda row: row[0])  # stable: what a task traces comes after its step
    cut = len(rows) > MOST
    shown = rows if not cut else [*rows[: MOST // 3], *rows[-(MOST - MOST // 3) :]]
    widths = [max((len(str(row[column])) for row in shown), default=1) for column in range(3)]
    lines = [f"  {'step':>{max(widths[0], 4)}}  {'task':{max(widths[1], 4)}}  {'what':{widths[2]}}  where"]
    for at, row in enumerate(shown):
        if cut and at == MOST // 3:
            lines.append(f"  ... {len(rows) - MOST} steps ...")
        cells = f"  {row[0]:>{max(widths[0], 4)}}  {row[1]:{max(widths[1], 4)}}  {row[2]:{widths[2]}}  {row[3]}"
        lines.append(cells.rstrip())
    return lines


def _what(op: Op, world: World) -> str:
    key, part, _ = op.accesses[0]
    assert isinstance(key, tuple)
    assert isinstance(world, MachineWorld)
    if key[0] == "rcu queue" and op.kind == "kfree_rcu" and op.value:
        which, slot = op.value[-1]
        return f"kfree_rcu of {describe((world.base(which), slot), None, world.memory)}"
    if key[0] in ("rcu", "rcu queue"):
        return f"grace period: T{key[1]} is in no section" if op.kind == "grace period" else op.kind
    where = describe(key, part, world.memory)
    value = _value(op.value)
    if op.kind == "load" and op.value is None:
        return f"load {where}"
    if op.kind == "load":
        return f"{where} is {value}"
    if op.kind in ("store", "add", "exchange", "lock") and op.value is not None:
        return f"{op.kind} {where} = {value}"
    return f"{op.kind} {where}" if op.value is None else f"{op.kind} {where} ({value})"


def _value(value: object) -> str:
    return hex(value) if isinstance(value, int) and value > 4096 else str(value)


def _place(op: Op) -> str:
    if op.place is None:
        return ""
    file, line, function = op.place
    return f"{Path(file).name}:{line} {function}" if function != "_body" else ""  # an RCU thread has no text


def _life(run: Run, world: CaseWorld, failure: Broken) -> list[str]:
    """When the record of the failure was made and freed."""
    key = failure.key
    if key is None:
        return []
    lines = [f"  the life of {describe(key, None, world.memory)}:"]
    if key in world.born:
        task, step = world.born[key]
        lines.append(f"    made by {world.names[task]} at step {step}")
    else:
        lines.append("    made in the set-up")
    if key in world.dead:
        task, step = world.dead[key]
        lines.append(f"    freed by {world.names[task]} at step {step}")
        lines.append(f"    used by {world.names[run.trace[-1].task] if run.trace else '?'} at step {len(run.trace)}")
    return lines


# ----------------------------------------------------------------------------------------------------------------------
# Looking for failures in one case: the search, with what it learns; then sampling; then a shorter schedule.

DEPTH = 3
"""Depth of the bugs that sampling aims at: two changes of priority."""
LIMIT = 5000
"""Steps of an execution before it is called cut."""
LIVELOCK = "livelock"
FAIR, QUANTA = 2000, (1, 2, 3, 5, 8)
"""Steps of a fair execution that is called endless, and how many steps in turn each task gets in the attempts."""
SHORTENINGS = 150
"""Replays spent on a shorter schedule."""


@dataclass(frozen=True)
class Finding:
    """A failure, with the schedule (every access a step) that leads to it again."""

    scenario: str
    kind: str
    text: str
    replay: str
    signature: tuple[str, ...]
    stable: bool = True
    function: str = ""
    """Where it showed."""
    sites: Sites = field(default_factory=Sites)
    """Functions that took part."""
    known: str = ""
    """Which of the strategy's known bugs it is."""
    twin: Finding | None = None
    """Of a failure in an execution graph that is an interleaving, too: the same as that."""


@dataclass
class Verdict:
    """What came of a case. ``bound`` is the chance that sampling would have met a bug of depth ``DEPTH``, 0 if the
    search was complete and nothing was sampled."""

    scenario: Scenario
    coverage: Coverage
    findings: list[Finding] = field(default_factory=list)
    sampled: int = 0
    bound: float = 0.0
    learned: int = 0
    unconfirmed: int = 0
    """Failures that did not come again when every access was a step: a bug of the checker."""


class Hunt:
    """One case under search. One failure of each kind and place is kept, ``most`` of them.

    ``tick`` is called after each execution with how many there were, ``found`` with each new failure and its schedule.
    """

    def __init__(
        self,
        case: Case,
        most: int = 12,
        tick: Callable[[int], None] = lambda executions: None,
        found: Callable[[Broken, str], None] = lambda failure, schedule: None,
    ) -> None:
        self.case = case
        self.most = most
        self._tick, self._found = tick, found
        self._fair_tried = False
        self._stopped = False
        """By an endless loop: every execution would meet it again, and each takes seconds."""
        self.buffered = case.memory_model == "tso"
        self.explorer = Explorer(case.program)
        self.failures: dict[tuple[str, ...], Run] = {}
        self.verdict = Verdict(case.scenario, self.explorer.coverage)

    def run(self, deadline: float) -> Verdict:
        """Search until all is seen or ``deadline`` (time.monotonic) is near, then sample until it, then shorten."""
        now = time.monotonic()
        self.search(now + (deadline - now) * 0.7)
        if not self.verdict.coverage.complete and not self.failures:
            self._sample(deadline)
        for signature, run in self.failures.items():
            self.verdict.findings.append(finding_of(self.case, signature, run))
        return self.verdict

    def learn_shared(self, most: int = 40) -> None:
        """A short search, for what tasks share: a story shows the steps on that."""
        for _ in range(8):
            self.explorer.explore(lambda run: not self.case.memory.discovered - self.case.memory.shared, most=most)
            if not self.case.memory.learn():
                return
            self.explorer.restart()

    def search(self, deadline: float) -> None:
        """Search until all is seen, ``deadline`` or ``most`` failures; what tasks share is learned."""
        memory = self.case.memory

        def see(run: Run) -> bool:
            self._note(run)
            self._tick(self.verdict.coverage.executions)
            self._stopped |= run.failure is not None and run.failure.places[:1] == (ENDLESS,)
            return not self._stopped and len(self.failures) < self.most and not memory.discovered - memory.shared

        while True:
            coverage = self.explorer.explore(see, deadline)
            late = self._stopped or time.monotonic() >= deadline or len(self.failures) >= self.most
            if memory.learn():
                coverage.complete = False
                if not late:
                    self.explorer.restart()
                    self.verdict.learned += 1
                    continue
            return

    def _note(self, run: Run) -> None:
        if run.outcome == "truncated" and not self._fair_tried:
            self._fair_tried = True
            run = endless(self.case) or run
            if run.failure is not None:
                self._keep(signature_of(run), run)
            return
        if run.failure is None or (self.buffered and self.case.memory.discovered - self.case.memory.shared):
            return
        # A schedule in steps of what is shared now; later the same schedule may mean less, so it is made exact at once.
        signature = signature_of(run)
        if signature not in self.failures:
            again = exact(self.case, run.schedule)
            if again.failure is None:
                self.verdict.unconfirmed += 1
            else:
                self._keep(signature, again)

    def _keep(self, signature: tuple[str, ...], run: Run) -> None:
        assert run.failure is not None
        self.failures[signature] = run
        self._found(run.failure, encode(run.schedule, self.case.memory_model))

    def _sample(self, deadline: float) -> None:
        tasks = len(self.case.program().bodies)
        steps = max(self.verdict.coverage.longest, 1)
        while not self.failures and (self.verdict.sampled == 0 or time.monotonic() < deadline):
            run = execute(self.case.program, Pct(self.verdict.sampled, tasks, steps, DEPTH))
            self.verdict.sampled += 1
            self._note(run)
            self._tick(self.verdict.coverage.executions + self.verdict.sampled)
            self.case.memory.learn()
        self.verdict.bound = pct_bound(tasks, steps, DEPTH, self.verdict.sampled)


def finding_of(case: Case, signature: tuple[str, ...], run: Run) -> Finding:
    """The failure of ``run``, an exact execution, with a shorter schedule if there is one."""
    assert run.failure is not None
    best = shorten(case, run) if run.failure.kind != LIVELOCK else run
    text = encode(best.schedule, case.memory_model)
    again = replay(case, text)
    stable = again.failure is not None and str(again.failure) == str(best.failure)
    failure = best.failure or run.failure
    told = failure.text + answered(again)
    return Finding(case.scenario.name, failure.kind, told, text, signature, stable, failure.function, sites_of(again))


def answered(run: Run) -> str:
    """Of a wrong answer: which line took the VMA from where. Empty if nobody did, or ``run`` failed otherwise."""
    failure = run.failure
    if failure is None or failure.kind != "stale answer" or failure.key is None or not isinstance(run.world, CaseWorld):
        return ""
    (answer,) = [a for a in run.world.answers if (a.task, a.ended) == failure.at]
    for step in reversed(run.trace[answer.began : answer.ended]):
        op = step.op
        if step.task == answer.task and op.kind == "load" and op.value == failure.key[1] and op.place is not None:
            what = describe(*op.accesses[0][:2], run.world.memory)  # type: ignore[arg-type]
            return f"; from {what}, in {_place(op)}"
    return ""


def signature_of(run: Run) -> tuple[str, ...]:
    """What makes two failures the same: the kind, and where in the text it showed."""
    assert run.failure is not None
    return signature_text(run.failure)


def signature_text(failure: Broken) -> tuple[str, ...]:
    """The same, of a failure that no run comes with."""
    return (failure.kind, *failure.places) if failure.places else (failure.kind, failure.text)


class _Exact:
    """A schedule in steps of shared locations, followed where every access is a step."""

    def __init__(self, case: Case, schedule: Sequence[int]) -> None:
        self._shared = set(case.memory.shared)
        self._schedule = iter(schedule)
        self._blocked: set[int] = set()
        self._seen: list[Op | None] = []

    def _is_point(self, task: int, op: Op) -> bool:
        if op.point is not None:
            return op.point
        return op.accesses[0][:2] in self._shared or len(op.accesses) > 1 or task in self._blocked

    def __call__(
        self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]
    ) -> int | None:
        self._seen += [None] * (len(pending) - len(self._seen))
        for task, op in enumerate(pending):
            if op is not self._seen[task]:
                self._seen[task] = op
                self._blocked.discard(task)
                if op is not None and task not in enabled:
                    self._blocked.add(task)
        for task in enabled:
            op = pending[task]
            assert op is not None
            if not self._is_point(task, op):
                return task
        return next(self._schedule, None)


def exact(case: Case, schedule: Sequence[int]) -> Run:
    """The execution of ``schedule`` again, with every access a step and its place in the text."""
    with visible(case):
        return execute(case.program, _Exact(case, schedule))


def replay(case: Case, text: str) -> Run:
    """Run a replay string. ReplayError if it is none."""
    return follow(case, text)[0]


def follow(case: Case, text: str) -> tuple[Run, int]:
    """As :func:`replay`, and how many steps could not be followed, since another task was to run."""
    schedule = Replay(decode(text))
    with visible(case):
        run = execute(case.program, schedule, max(LIMIT, len(schedule.schedule)) if "(" not in text else FAIR)
    if run.outcome == "truncated":
        _call_livelock(run)
    return run, schedule.missed


class _InTurn:
    """A fair scheduler: each task that can go on, ``quantum`` steps at a time."""

    def __init__(self, quantum: int) -> None:
        self._quantum, self._left, self._current = quantum, quantum, -1

    def __call__(self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int:
        if self._current in enabled and self._left > 0:
            self._left -= 1
            return self._current
        self._current = next((task for task in enabled if task > self._current), enabled[0])
        self._left = self._quantum - 1
        return self._current


def endless(case: Case) -> Run | None:
    """An execution that does not end although every task gets its turn: a livelock; None if none was found."""
    for quantum in QUANTA:
        with visible(case):
            run = execute(case.program, _InTurn(quantum), FAIR)
        if run.outcome == "truncated":
            _call_livelock(run)
            return run
    return None


def _call_livelock(run: Run) -> None:
    last = {step.task: step for step in run.trace[-200:]}
    where = [f"{run.world.names[task]} in {step.op.place[2]}" for task, step in sorted(last.items()) if step.op.place]
    lines = tuple(f"{Path(s.op.place[0]).name}:{s.op.place[2]}" for _, s in sorted(last.items()) if s.op.place)
    text = f"no end after {len(run.trace)} steps, although every task is scheduled: {', '.join(where)}"
    run.failure, run.outcome = Broken(LIVELOCK, text, lines), "failed"


class visible:
    """While open, every access of ``case`` is a step, with its place in the text."""

    def __init__(self, case: Case) -> None:
        self._memory = case.memory

    def __enter__(self) -> None:
        self._memory.all_visible = self._memory.record = True

    def __exit__(self, *error: object) -> None:
        self._memory.all_visible = self._memory.record = False


def shorten(case: Case, run: Run) -> Run:
    """The same failure with fewer changes of task, if some are needless. At most SHORTENINGS replays."""
    best, tries, progress = run, 0, True
    with visible(case):
        while progress and tries < SHORTENINGS:
            progress = False
            for candidate in _simpler(best.schedule):
                tries += 1
                found = execute(case.program, Replay(candidate))
                same = found.failure is not None and best.failure is not None
                if same and signature_of(found) == signature_of(best) and _switches(found) < _switches(best):
                    best, progress = found, True
                    break
                if tries >= SHORTENINGS:
                    break
    return best


def _switches(run: Run) -> tuple[int, int]:
    return sum(a != b for a, b in zip(run.schedule, run.schedule[1:], strict=False)), len(run.schedule)


def _simpler(schedule: Sequence[int]) -> Iterator[list[int]]:
    """The schedule with two neighbouring stretches exchanged, so that stretches of one task meet."""
    stretches: list[tuple[int, int]] = []
    for task in schedule:
        if stretches and stretches[-1][0] == task:
            stretches[-1] = (task, stretches[-1][1] + 1)
        else:
            stretches.append((task, 1))
    for at in range(len(stretches) - 1):
        swapped = [*stretches[:at], stretches[at + 1], stretches[at], *stretches[at + 2 :]]
        yield [task for task, count in swapped for _ in range(count)]


def make_case(scenario: Scenario, strategy: Strategy, memory_model: str = "sc") -> Case:
    """The case, with store buffers if ``memory_model`` is "tso".

    Raises Broken (kind "set-up", or what it is if an access is wrong) if the strategy cannot even do the set-up alone.
    """
    try:
        with patience(PATIENCE):
            return TsoCase(scenario, strategy) if memory_model == "tso" else Case(scenario, strategy)
    except WildAccess as error:
        raise Broken(error.kind, f"in the set-up: {told(error)}", (), None, wild(error).function) from error
    except (DialectError, Endless, *MISTAKES) as error:
        raise Broken("set-up", f"the set-up by itself fails: {told(error)}") from error


__all__ = ["CaseWorld", "Finding", "Hunt", "Verdict", "exact", "make_case", "replay", "shorten"]
