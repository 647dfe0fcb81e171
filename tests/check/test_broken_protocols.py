"""Broken copies of a protocol: each is found without being told the schedule; in the mended ones nothing is."""

import time

import pytest
from support.mutants import INSIDE_OUT, MENDED, MUTANTS

from benchframe.check.checker import Hunt, Verdict, make_case, replay
from benchframe.check.command import run_check_command, scenario
from benchframe.registry import load
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy, resolve


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


def test_a_deadlock_of_one_task_is_told() -> None:
    """A strategy that waits for itself fails in the set-up, with the line that says so."""
    said: list[str] = []
    strategy = resolve(INSIDE_OUT, load().strategies)
    assert run_check_command([strategy], ["lookup-munmap"], 5.0, say=said.append) == 1
    assert any("deadlock: waits for mmap_lock" in line for line in said), said
