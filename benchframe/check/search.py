"""Which executions to run: source-DPOR with sleep sets, and PCT sampling for programs that are too large."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from benchframe.check.execution import ADDS, Access, Link, Op, Program, Run, Step, conflict, execute

# ----------------------------------------------------------------------------------------------------------------------
# Every distinct interleaving, once or nearly so: source-DPOR with sleep sets.
#
# Two executions differ only if two conflicting steps come in another order. After each execution the search looks for
# *races* - conflicting steps whose order nothing forces - and plans an execution with each of them turned round.
# Source sets: Abdulla, Aronis, Jonsson, Sagonas, "Optimal Dynamic Partial Order Reduction", POPL 2014. A sleep set
# keeps a task from running again before something that it conflicts with has run.
#
# Two points that are easily wrong. A blocking operation races with the step that *blocked* it, not with the one that
# let it go, so all earlier conflicting steps are looked at, not just the last. And an operation that is still pending
# when an execution ends (deadlock, failure) races too.


@dataclass
class Coverage:
    """How far a search went. ``complete`` only if nothing was cut off: then every interleaving is represented."""

    executions: int = 0
    blocked: int = 0
    truncated: int = 0
    steps: int = 0
    longest: int = 0
    seconds: float = 0.0
    complete: bool = False

    def add(self, run: Run) -> None:
        """Count one execution."""
        self.executions += 1
        self.blocked += run.outcome == "blocked"
        self.truncated += run.outcome == "truncated"
        self.steps += len(run.trace)
        self.longest = max(self.longest, len(run.trace))


class _Node:
    """A point of the current execution: which tasks can run, which one ran, which still must run, which need not."""

    __slots__ = ("accesses", "chosen", "enabled", "plan", "sleep")

    def __init__(self, enabled: list[int], sleep: dict[int, list[Access]], chosen: int) -> None:
        self.enabled = enabled
        self.sleep = sleep
        self.chosen = chosen
        self.plan = {chosen}
        self.accesses: list[Access] = []


class Nondeterminism(Exception):
    """The same schedule led to another execution: the program depends on more than the schedule. A bug of the
    program."""


class Explorer:
    """The search over ``program``. Memory O(longest execution); time O(steps x tasks + conflicts) per execution."""

    def __init__(self, program: Program, limit: int = 5000) -> None:
        self.program = program
        self.limit = limit
        self.coverage = Coverage()
        self._stack: list[_Node] = []
        self._first = 0
        self._pairs: frozenset[tuple[int, int]] = frozenset()

    def explore(
        self, on_run: Callable[[Run], bool], deadline: float | None = None, most: int | None = None
    ) -> Coverage:
        """Continue until ``on_run`` returns False, ``deadline`` (time.monotonic) passes, ``most`` executions are done,
        or all have been seen."""
        began = time.monotonic()
        self.coverage.complete = False
        while True:
            run = execute(self.program, self._choose, self.limit)
            self.coverage.add(run)
            for number, step in enumerate(run.trace):
                self._stack[number].accesses = step.op.accesses
            if run.world.flushers and not self._pairs:
                pairs = run.world.flushers.items()
                self._pairs = frozenset(pairs) | frozenset((task, flusher) for flusher, task in pairs)
            go_on = on_run(run)
            self._find_races(run)
            more = self._next()
            if not more:
                self.coverage.complete = self.coverage.truncated == 0
            late = deadline is not None and time.monotonic() >= deadline
            if not more or not go_on or late or (most is not None and self.coverage.executions >= most):
                break
        self.coverage.seconds += time.monotonic() - began
        return self.coverage

    def restart(self) -> None:
        """Drop all plans; keep the counts."""
        self._stack, self._first = [], 0

    def _choose(self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int | None:
        stack = self._stack
        if step < len(stack):
            chosen = stack[step].chosen
            if chosen not in enabled:
                raise Nondeterminism(f"step {step}: task {chosen} could run before, and now cannot")
            return chosen
        sleep: dict[int, list[Access]] = {}
        last = -1
        if step:
            above = stack[-1]
            above.accesses = done = trace[-1].op.accesses
            last = above.chosen
            sleep = {task: its for task, its in above.sleep.items() if not self._conflict(task, its, last, done)}
        if last in enabled and last not in sleep:
            chosen = last
        else:
            chosen = next((task for task in enabled if task not in sleep), -1)
            if chosen < 0:
                return None
        stack.append(_Node(enabled, sleep, chosen))
        return chosen

    def _next(self) -> bool:
        """Go back to the last point that still has a plan."""
        stack = self._stack
        while stack:
            node = stack[-1]
            node.sleep[node.chosen] = node.accesses
            left = node.plan - node.sleep.keys()
            if left:
                node.chosen = min(left)
                self._first = len(stack) - 1
                return True
            stack.pop()
        return False

    def _conflict(self, task: int, accesses: list[Access], other: int, others: list[Access]) -> bool:
        """Whether two steps of these tasks do not commute."""
        if self._pairs and (task, other) in self._pairs:
            return _link(accesses, others)
        return conflict(accesses, others)

    # ---- races -------------------------------------------------------------------------------------------------------

    def _find_races(self, run: Run) -> None:
        """Plan the other order of every race whose second step is new in this execution."""
        width = len(run.world.bodies)
        zero = [0] * width
        clocks: list[list[int]] = []  # of each step: how many steps of each task come before or at it
        latest: list[list[int]] = [zero] * width  # of each task's last step
        seen: dict[Hashable, list[tuple[int, Hashable, int]]] = {}
        trace, first = run.trace, self._first
        tasks = [step.task for step in trace]
        for number, step in enumerate(trace):
            task, base = step.task, latest[step.task]
            earlier = _earlier(seen, step.op.accesses)
            if earlier and self._pairs:
                earlier = self._foreign(earlier, task, step.op, run, tasks)
            if number >= first and earlier:
                self._plan(run, number, step.op, task, base, earlier, clocks, tasks)
            clock = base
            if earlier:
                clock = base[:]
                for other in earlier:
                    theirs = clocks[other]
                    if theirs[tasks[other]] > clock[tasks[other]]:
                        clock = [x if x > y else y for x, y in zip(clock, theirs, strict=True)]
            clock = clock[:]
            clock[task] = base[task] + 1
            clocks.append(clock)
            latest[task] = clock
            for key, part, write in step.op.accesses:
                seen.setdefault(key, []).append((number, part, write))
        if run.outcome != "done":
            for task, op in enumerate(run.pending):
                if op is not None and (earlier := _earlier(seen, op.accesses)):
                    if self._pairs:
                        earlier = self._foreign(earlier, task, op, run, tasks)
                    self._plan(run, len(trace), op, task, latest[task], earlier, clocks, tasks)

    def _foreign(self, earlier: list[int], task: int, op: Op, run: Run, tasks: list[int]) -> list[int]:
        """``earlier`` without apparent conflicts: those between a task and its own store buffer."""
        return [
            number
            for number in earlier
            if (task, tasks[number]) not in self._pairs or _link(run.trace[number].op.accesses, op.accesses)
        ]

    def _plan(
        self,
        run: Run,
        number: int,
        op: Op,
        task: int,
        base: list[int],
        earlier: list[int],
        clocks: list[list[int]],
        tasks: list[int],
    ) -> None:
        """Step ``number`` (``op`` of ``task``) conflicts with the steps ``earlier``: plan each reversal."""
        possible = op.possible
        known = base
        for other in earlier:  # from the last to the first
            owner = tasks[other]
            theirs = clocks[other]
            if owner == task or theirs[owner] <= known[owner]:
                continue
            if possible is None or op.linked:
                # Only immediate races: what comes before another conflicting step is found after that reversal.
                known = [x if x > y else y for x, y in zip(known, theirs, strict=True)]
                if op.linked and _link(run.trace[other].op.accesses, op.accesses):
                    continue  # it necessarily came first
            else:
                cause = run.trace[other].op
                exact = not op.loose and not cause.loose and _single(cause) and cause.before is not None
                if exact and not possible(cause.before):
                    continue  # it was blocked before that step anyway
            self._reverse(run, other, number, op, task, clocks, tasks)

    def _reverse(
        self, run: Run, other: int, number: int, op: Op, task: int, clocks: list[list[int]], tasks: list[int]
    ) -> None:
        """Plan to run, at point ``other``, a task that leads to step ``number`` without step ``other``."""
        owner, seq = tasks[other], clocks[other][tasks[other]]
        between = [k for k in range(other + 1, number) if clocks[k][owner] < seq]
        initials: list[int] = []
        met: set[int] = set()
        for position, k in enumerate(between):
            its = tasks[k]
            if its in met:
                continue
            met.add(its)
            clock = clocks[k]
            if not any(clock[tasks[m]] >= clocks[m][tasks[m]] for m in between[:position]):
                initials.append(its)
        if task not in met and not any(
            self._conflict(tasks[m], run.trace[m].op.accesses, task, op.accesses) for m in between
        ):
            initials.append(task)
        node = self._stack[other]
        plan, sleep = node.plan, node.sleep
        if any(initial in plan or initial in sleep for initial in initials):
            return
        able = [initial for initial in initials if initial in node.enabled]
        if able:
            plan.add(task if task in able else able[0])


def _link(first: Sequence[Access], second: Sequence[Access]) -> bool:
    """Whether a Link orders two steps."""
    links = [(key, part) for key, part, _ in second if isinstance(key, Link)]
    return bool(links) and any((key, part) in links for key, part, _ in first)


def _single(op: Op) -> bool:
    """Whether ``op`` touched a single location, apart from links."""
    return len(op.accesses) == 1 or all(isinstance(key, Link) for key, _, _ in op.accesses[1:])


def _earlier(seen: dict[Hashable, list[tuple[int, Hashable, int]]], accesses: list[Access]) -> list[int]:
    """Numbers of the earlier steps that conflict, the last first."""
    found: list[int] = []
    for key, part, write in accesses:
        for number, other_part, other_write in seen.get(key, ()):
            if (
                (write or other_write)
                and write * other_write != ADDS * ADDS
                and (part == other_part or part is None or other_part is None)
            ):
                found.append(number)
    if len(accesses) > 1:
        found = sorted(set(found))
    found.reverse()
    return found


def explore(
    program: Program, on_run: Callable[[Run], bool], deadline: float | None = None, most: int | None = None
) -> Coverage:
    """Search ``program``; see :meth:`Explorer.explore`."""
    return Explorer(program).explore(on_run, deadline, most)


def brute_force(program: Program, on_run: Callable[[Run], None], most: int = 1_000_000) -> int:
    """Every interleaving without reduction, for comparison; returns their number (at most ``most``)."""
    stack: list[tuple[list[int], int]] = []

    def choose(step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int | None:
        if step == len(stack):
            stack.append((enabled, 0))
        options, index = stack[step]
        return options[index]

    count = 0
    while count < most:
        on_run(execute(program, choose))
        count += 1
        while stack and stack[-1][1] + 1 == len(stack[-1][0]):
            stack.pop()
        if not stack:
            break
        options, index = stack[-1]
        stack[-1] = (options, index + 1)
    return count


# ----------------------------------------------------------------------------------------------------------------------
# Random interleavings, where there are too many to see all: uniform choice, and PCT with its bound.
#
# PCT (Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler with Probabilistic Guarantees of Finding
# Bugs", ASPLOS 2010): tasks get random priorities, the highest that can run runs, and at d - 1 random steps the
# running task falls to priority i, below all initial ones. One run finds a bug of depth d with probability >= 1 / (n
# k^(d-1)) for n tasks and k steps.


class Uniform:
    """Each enabled task with equal probability."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int:
        return self._random.choice(enabled)


class Pct:
    """One execution's priorities: ``tasks`` tasks, about ``steps`` steps, bugs of depth ``depth``."""

    def __init__(self, seed: int, tasks: int, steps: int, depth: int) -> None:
        draw = random.Random(seed)
        self._priority = [depth + rank for rank in draw.sample(range(tasks), tasks)]
        self._changes = {step: depth - 1 - i for i, step in enumerate(draw.choices(range(max(steps, 1)), k=depth - 1))}

    def __call__(self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int:
        chosen = max(enabled, key=self._priority.__getitem__)
        if step in self._changes:
            self._priority[chosen] = self._changes[step]
            chosen = max(enabled, key=self._priority.__getitem__)
        return chosen


def pct_bound(tasks: int, steps: int, depth: int, runs: int) -> float:
    """A lower bound of the probability that ``runs`` runs find a bug of depth ``depth``.

    >>> round(pct_bound(3, 60, 2, 829), 2)
    0.99
    """
    once = 1 / (tasks * max(steps, 1) ** (depth - 1))
    return 1.0 - float((1 - once) ** runs)
