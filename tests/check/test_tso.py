"""Store buffers: the litmus tests of x86, the search against two kinds of brute force, a race that only they show."""

import random
import time
from functools import partial
from typing import Any

import pytest
from support.small_protocols import PLAIN_VERSION, TWIN_VERSION
from support.toyworld import Instruction, Toy, TsoToy, outcome, random_programs

from benchframe.check.checker import Hunt, make_case, replay
from benchframe.check.command import run_check_command, scenario
from benchframe.check.execution import Run
from benchframe.check.search import brute_force, explore
from benchframe.registry import load
from benchframe.strategy import resolve

KNOWN = load()
STORE_BUFFERING: list[list[Instruction]] = [
    [("write", "x", 1), ("read", "y")],
    [("write", "y", 1), ("read", "x")],
]
MESSAGE_PASSING: list[list[Instruction]] = [
    [("write", "data", 1), ("write", "flag", 1)],
    [("read", "flag"), ("read", "data")],
]


def answers(programs: list[list[Instruction]], kind: type[Toy]) -> set[tuple[Any, ...]]:
    """What the tasks can see, by the search."""
    found = set()

    def see(run: Run) -> bool:
        if run.outcome == "done":
            found.add(tuple(run.world.results[: len(programs)]))
        return True

    assert explore(lambda: kind(programs), see).complete
    return found


def machine(programs: list[list[Instruction]]) -> set[tuple[Any, ...]]:
    """The same by another way: every state of an abstract x86 machine (program counters, buffers, memory)."""
    start = (tuple(0 for _ in programs), tuple(() for _ in programs), (), tuple(() for _ in programs))
    todo, seen, ends = [start], {start}, set()
    while todo:
        counters, buffers, memory, answered = todo.pop()
        values = dict(memory)
        following = []
        for task, program in enumerate(programs):
            if buffers[task]:
                (name, value), *rest = buffers[task]
                after = tuple(sorted({**values, name: value}.items()))
                following.append((counters, _with(buffers, task, tuple(rest)), after, answered))
            if counters[task] == len(program):
                continue
            what, name, *more = program[counters[task]]
            moved = _with(counters, task, counters[task] + 1)
            if what == "write":
                following.append((moved, _with(buffers, task, (*buffers[task], (name, more[0]))), memory, answered))
            elif what == "read":
                own = [value for where, value in buffers[task] if where == name]
                value = own[-1] if own else values.get(name, 0)
                following.append((moved, buffers, memory, _with(answered, task, (*answered[task], value))))
            elif not buffers[task] and what == "fence":
                following.append((moved, buffers, memory, answered))
            elif not buffers[task] and what == "add":
                before = values.get(name, 0)
                after = tuple(sorted({**values, name: before + more[0]}.items()))
                following.append((moved, buffers, after, _with(answered, task, (*answered[task], before))))
        if not following:
            ends.add(answered)
        todo += [state for state in following if state not in seen]
        seen.update(following)
    return ends


def _with(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])


def test_store_buffering() -> None:
    """Both tasks may miss the other's store with buffers, and only with buffers; a fence mends it."""
    assert ((0,), (0,)) in answers(STORE_BUFFERING, TsoToy)
    assert ((0,), (0,)) not in answers(STORE_BUFFERING, Toy)
    fenced = [[program[0], ("fence", ""), program[1]] for program in STORE_BUFFERING]
    assert answers(fenced, TsoToy) == answers(STORE_BUFFERING, Toy)


def test_an_atomic_operation_empties_the_buffer() -> None:
    """An update of any word between store and load is a fence, too."""
    programs = [[program[0], ("add", f"own{task}", 1), program[1]] for task, program in enumerate(STORE_BUFFERING)]
    seen = {(first[-1], second[-1]) for first, second in answers(programs, TsoToy)}
    assert seen == {(0, 1), (1, 0), (1, 1)}


def test_message_passing() -> None:
    """Stores become visible in their order: who sees the flag sees the data."""
    assert answers(MESSAGE_PASSING, TsoToy) == {((), (0, 0)), ((), (0, 1)), ((), (1, 1))}


def test_own_stores_are_seen() -> None:
    """A task reads what it stored, however late others see it; and two tasks can disagree on who was first."""
    programs: list[list[Instruction]] = [
        [("write", "x", 1), ("read", "x"), ("read", "y")],
        [("write", "y", 1), ("read", "y"), ("read", "x")],
    ]
    seen = answers(programs, TsoToy)
    assert all(first[0] == second[0] == 1 for first, second in seen)
    assert ((1, 0), (1, 0)) in seen


def test_independent_reads_of_independent_writes() -> None:
    """No two readers see two stores in opposite orders (IRIW): there is one memory."""
    programs: list[list[Instruction]] = [
        [("write", "x", 1)],
        [("write", "y", 1)],
        [("read", "x"), ("read", "y")],
        [("read", "y"), ("read", "x")],
    ]
    assert ((), (), (1, 0), (1, 0)) not in answers(programs, TsoToy)


def test_a_wait_sees_own_stores() -> None:
    """Waiting for what the task itself has stored does not wait for the buffer."""
    programs: list[list[Instruction]] = [
        [("write", "x", 1), ("wait", "x"), ("read", "y")],
        [("write", "y", 1), ("wait", "y"), ("read", "x")],
    ]
    assert ((1, 0), (1, 0)) in answers(programs, TsoToy)


def plain_programs(rng: random.Random, tasks: int, length: int) -> list[list[Instruction]]:
    """Reads, writes, atomic updates and fences over two words."""
    kinds = ["read", "read", "write", "write", "add", "fence"]
    programs: list[list[Instruction]] = []
    for _ in range(tasks):
        drawn = [(rng.choice(kinds), rng.choice("xy"), rng.randint(1, 2)) for _ in range(rng.randint(1, length))]
        programs.append([(what, name) if what in ("read", "fence") else (what, name, n) for what, name, n in drawn])
    return programs


@pytest.mark.parametrize(("seed", "count", "tasks", "length"), [(1, 150, 2, 4), (2, 60, 3, 2)])
def test_agrees_with_the_abstract_machine(seed: int, count: int, tasks: int, length: int) -> None:
    """Random programs: what the tasks can see is what the abstract machine says, no more and no less."""
    rng = random.Random(seed)
    for _ in range(count):
        programs = plain_programs(rng, tasks, length)
        assert answers(programs, TsoToy) == machine(programs), programs


@pytest.mark.parametrize(("seed", "count", "tasks", "length"), [(3, 60, 2, 4), (4, 30, 3, 2)])
def test_agrees_with_brute_force(seed: int, count: int, tasks: int, length: int) -> None:
    """Random programs with locks and waits, too: the outcomes of every interleaving with every flush."""
    rng = random.Random(seed)
    done = 0
    while done < count:
        programs = random_programs(rng, tasks, length, True, True)
        make = partial(TsoToy, programs)
        every: set[Any] = set()
        if brute_force(make, lambda run, every=every: every.add(outcome(run)), 800) >= 800:  # type: ignore[misc]
            continue
        found: set[Any] = set()

        def see(run: Run, found: set[Any] = found) -> bool:
            if run.outcome != "blocked":
                found.add(outcome(run))
            return True

        assert explore(make, see).complete
        assert found == every, f"{programs}: missed {every - found}, invented {found - every}"
        done += 1


def test_the_search_is_small() -> None:
    """Stores that nobody else looks at cost no execution: one, for three tasks with three of them."""
    programs: list[list[Instruction]] = [[("write", f"{task}{i}", 1) for i in range(3)] for task in range(3)]
    assert explore(lambda: TsoToy(programs), lambda run: True).executions == 1


# ---- strategies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_a_barrier_that_is_needed(memory: str) -> None:
    """The repaired twin with a plain store of the version and no smp_mb before the holders are counted: right if stores
    are seen at once, a use after free with store buffers. With the barriers nothing is found."""
    for strategy, right in ((PLAIN_VERSION, memory == "sc"), (TWIN_VERSION, True)):
        case = make_case(scenario("fault-munmap"), resolve(strategy, KNOWN.strategies), memory)
        verdict = Hunt(case).run(time.monotonic() + 60)
        assert bool(verdict.findings) is not right, verdict.findings
        assert verdict.coverage.complete or verdict.findings
        for finding in verdict.findings:
            assert finding.stable
            assert finding.replay.startswith("v1-tso:")
            again = replay(case, finding.replay)
            assert again.failure is not None
            assert finding.text.startswith(again.failure.text)  # which may go on with where the record was found


@pytest.mark.parametrize("name", ["rbtree", "pmdcache_rcu"])
@pytest.mark.parametrize("where", ["fault-munmap", "lookup-merge", "faults-fork", "fault-mprotect"])
def test_right_strategies_are_clean(name: str, where: str) -> None:
    """Store buffers bring no false alarm."""
    verdict = Hunt(make_case(scenario(where), KNOWN.strategy(name), "tso")).run(time.monotonic() + 60)
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete


def test_shared_locations_are_enough() -> None:
    """With every access a step, and so every store buffered, the search finds the same failures."""
    learned = Hunt(make_case(scenario("lookup-munmap"), KNOWN.strategy("pmdcache"), "tso"), most=99)
    verdict = learned.run(time.monotonic() + 60)
    assert verdict.findings
    whole = make_case(scenario("lookup-munmap"), KNOWN.strategy("pmdcache"), "tso")
    kinds = set()

    def see(run: Run) -> bool:
        if run.failure is not None:
            kinds.add((run.failure.kind, *run.failure.places))
        return True

    whole.memory.all_visible = True
    from benchframe.check.search import Explorer

    Explorer(whole.program).explore(see, time.monotonic() + 100, 3000)
    assert kinds <= {finding.signature for finding in verdict.findings}
    assert kinds


def test_the_report_says_which_model() -> None:
    """The command names the memory model, and the story's command leads to the same end without an option for it."""
    said: list[str] = []
    strategy = KNOWN.strategy("pmdcache")
    assert run_check_command([strategy], ["lookup-munmap"], 20, memory="tso", say=said.append) == 1
    assert "total store order" in said[0]
    story = next(text for text in said if text.startswith("use after free"))
    string = story.splitlines()[-1].split("--replay ")[1]
    assert string.startswith("v1-tso:")
    again: list[str] = []
    assert run_check_command([strategy], ["lookup-munmap"], again=string, say=again.append) == 1
    assert again[0].splitlines()[:-1] == story.splitlines()[:-1]
