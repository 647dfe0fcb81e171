"""The search sees every outcome that brute force sees, and how few executions it needs."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from support.toyworld import Instruction, Toy, outcome, random_programs

from benchframe.check.execution import Replay, Run, World, decode, encode, execute
from benchframe.check.search import Coverage, Explorer, brute_force, explore

MOST = 400
"""Programs with more interleavings are drawn again: brute force would take too long."""


def maker(programs: list[list[Instruction]]) -> Callable[[], World]:
    """A fresh world of these programs each time."""
    return lambda: Toy(programs)


def both(programs: list[list[Instruction]]) -> tuple[set[Any], set[Any], int, Coverage] | None:
    """Outcomes by brute force and by search, executions of each; None if brute force is too large."""
    every: set[Any] = set()
    runs = brute_force(maker(programs), lambda run: every.add(outcome(run)), MOST)
    if runs >= MOST:
        return None
    found: set[Any] = set()

    def see(run: Run) -> bool:
        if run.outcome != "blocked":
            found.add(outcome(run))
        return True

    return every, found, runs, explore(maker(programs), see)


@pytest.mark.parametrize(
    ("seed", "count", "tasks", "length", "locks", "waits"),
    [
        (1, 100, 2, 6, False, False),
        (2, 120, 3, 3, False, False),
        (3, 100, 3, 4, True, False),
        (4, 60, 3, 4, True, True),
        (5, 25, 4, 3, True, True),
    ],
)
def test_agrees_with_brute_force(seed: int, count: int, tasks: int, length: int, locks: bool, waits: bool) -> None:
    """400 random programs in all: the sets of reachable outcomes are equal, with fewer executions."""
    rng = random.Random(seed)
    slow = fast = done = 0
    while done < count:
        programs = random_programs(rng, tasks, length, locks, waits)
        result = both(programs)
        if result is None:
            continue
        every, found, runs, coverage = result
        assert found == every, f"{programs}: missed {every - found}, invented {found - every}"
        assert coverage.complete
        slow, fast, done = slow + runs, fast + coverage.executions, done + 1
    assert fast < slow / 2, f"{slow} interleavings, {fast} executions"


def test_independent_tasks_need_one_execution() -> None:
    """Three tasks with three writes each to words of their own: 1 680 interleavings, one that matters."""
    programs = [[("write", f"{task}{i}", 1) for i in range(3)] for task in range(3)]
    assert explore(maker(programs), lambda run: True).executions == 1


def test_late_read_is_found() -> None:
    """`R x` beside `R x; W x`: looking back only at the last access of x would miss the order in which R is late."""
    found = both([[("read", "x")], [("read", "x"), ("write", "x", 1)]])
    assert found is not None
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_pruned_subtrees_hide_no_race() -> None:
    """The four operations on which plain DPOR with sleep sets loses an outcome."""
    found = both([[("write", "x", 1)], [("write", "y", 1), ("read", "x")], [("read", "y"), ("read", "x")]])
    assert found is not None
    assert found[0] == found[1]


def test_deadlock_is_found() -> None:
    """Two locks taken in opposite order: the search meets the deadlock."""
    take = [("lock", "l"), ("lock", "m"), ("unlock", "m"), ("unlock", "l")]
    other = [("lock", "m"), ("lock", "l"), ("unlock", "l"), ("unlock", "m")]
    outcomes: set[str] = set()

    def see(run: Run) -> bool:
        outcomes.add(run.outcome)
        return True

    explore(maker([take, other]), see)
    assert {"deadlock", "done"} <= outcomes


def test_a_cut_search_is_not_complete() -> None:
    """Stopped by a number of executions, the search does not call itself complete."""
    programs: list[list[Instruction]] = [[("add", "x", 1)] * 3] * 3
    coverage = Explorer(maker(programs)).explore(lambda run: True, most=5)
    assert coverage.executions == 5
    assert not coverage.complete


def test_livelock_is_truncated() -> None:
    """An execution longer than the limit counts as truncated, and then nothing is complete."""
    programs: list[list[Instruction]] = [[("add", "x", 1)] * 50]
    explorer = Explorer(maker(programs), limit=20)
    coverage = explorer.explore(lambda run: True)
    assert coverage.truncated == 1
    assert not coverage.complete


@pytest.mark.parametrize("seed", range(5))
def test_replay_string_round_trip(seed: int) -> None:
    """A random schedule, written as text and read back, leads to the same end."""
    rng = random.Random(seed)
    programs = random_programs(rng, 3, 6, True, True)
    run = execute(maker(programs), lambda step, enabled, pending, trace: rng.choice(enabled))
    replay = Replay(decode(encode(run.schedule)))
    again = execute(maker(programs), replay)
    assert replay.missed == 0
    assert outcome(again) == outcome(run)
    assert again.schedule == run.schedule
