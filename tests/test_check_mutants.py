"""Broken copies of a protocol: each is found without being told the schedule; in the mended ones nothing is."""

import time
from types import FunctionType

import pytest
from check_history import flushes_all, skips_one_user, vmacache_with
from check_mutants import INSIDE_OUT, LOCKLESS, MENDED, MUTANTS

from benchframe.check.command import run_check_command, scenario
from benchframe.check.hunt import Hunt, Verdict, make_case, replay
from benchframe.registry import load
from benchframe.scenario import Call, Scenario, Setup, lookup, munmap
from benchframe.strategy import Strategy, resolve
from benchframe.trace.events import Kind


def hunt(strategy: Strategy, one: Scenario, budget: float = 60.0) -> Verdict:
    """Search for failures of ``strategy`` in one scenario."""
    return Hunt(make_case(one, resolve(strategy, load().strategies))).run(time.monotonic() + budget)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    """One thing broken, one scenario: a failure of the expected kind, and the same again from its replay string."""
    strategy, where, kinds = MUTANTS[name]
    verdict = hunt(strategy, scenario(where))
    assert verdict.findings, f"nothing found in {verdict.coverage}"
    assert any(kind in finding.kind for finding in verdict.findings for kind in kinds.split("|"))
    assert all(finding.stable for finding in verdict.findings)
    case = make_case(scenario(where), resolve(strategy, load().strategies))
    again = replay(case, verdict.findings[0].replay)
    assert again.failure is not None
    assert again.failure.kind == verdict.findings[0].kind


@pytest.mark.parametrize("name", MENDED)
def test_mended_is_clean(name: str) -> None:
    """The same text with the mend: every interleaving is right."""
    strategy, where = MENDED[name]
    verdict = hunt(strategy, scenario(where))
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete


def _many(space: Setup) -> None:
    for number in range(8):
        space.map(4 * number, 2)


def test_rotation_hides_a_subtree() -> None:
    """B10: a walk without the lock believes "not found" while the tree is being rebuilt."""
    one = Scenario("rotation", "a walk beside an erase", _many, ((lookup(28),), (munmap(12, 2),)))
    verdict = hunt(LOCKLESS, one)
    assert any(f.kind == "stale answer" and "no VMA" in f.text for f in verdict.findings), verdict.findings


def test_a_deadlock_of_one_task_is_told() -> None:
    """A strategy that waits for itself fails in the set-up, with the line that says so."""
    said: list[str] = []
    strategy = resolve(INSIDE_OUT, load().strategies)
    assert run_check_command([strategy], ["lookup-munmap"], 5.0, say=said.append) == 1
    assert any("deadlock: waits for mmap_lock" in line for line in said), said


# ---- B15: a cache's sequence number that wraps -----------------------------------------------------------------


def _many_small(space: Setup) -> None:
    """Y at page 0; six more, in other slots of the cache than Y."""
    for number in range(7):
        space.map(8 * number + (1 if number else 0), 1)


def _gone(number: int, task: int) -> Call:
    call = munmap(8 * number + 1, 1)
    return Call(f"{call.label} by task {task}", {**call.columns, "task": task})


WRAP = (
    *(_gone(number, 0) for number in (1, 2, 3)),  # the number is 3, the last before it wraps
    lookup(0),  # Y is in a slot, number 3
    _gone(4, 0),  # the number becomes 0; with one user nothing is flushed
    Call("a second task joins", {"kind": Kind.THREAD, "len": 1}),
    _gone(5, 1),
    _gone(6, 1),
    Call("munmap of Y by task 1", {**munmap(0, 1).columns, "task": 1}),  # the number is 3 again
    lookup(0),
)


@pytest.mark.parametrize(("overflow", "found"), [(skips_one_user, True), (flushes_all, False)])
def test_sequence_overflow(overflow: FunctionType, found: bool) -> None:
    """B15 (CVE-2018-17182) with a counter of two bits: a skipped flush leaves a freed VMA in a valid slot."""
    strategy = Strategy("b15", "vmacache, counter of two bits", index="rbtree_gap", cache=vmacache_with(overflow))
    verdict = hunt(strategy, Scenario("wrap", "the number wraps, then a task joins", _many_small, (WRAP,)))
    assert verdict.coverage.complete
    kinds = [finding.kind for finding in verdict.findings]
    assert kinds == (["use after free"] if found else []), verdict.findings
