"""Races that Linux once had: with the bug put back the checker finds it, unasked; with the mend it finds nothing."""

import time

import pytest
from historic import HISTORIC

from benchframe.check.hunt import Hunt, make_case
from benchframe.check.scenario import SIZES, plain_runner
from benchframe.mm import flags
from benchframe.mm.machine import Machine, Parameters
from benchframe.mm.space import Space
from benchframe.registry import load
from benchframe.strategy import Strategy, resolve

KNOWN = load()
LONG = {"B26"}
"""Scenarios whose interleavings are too many for a test: searched for a while with the mend."""


def strategy(one: str | Strategy) -> Strategy:
    """By name, or made in the module historic."""
    return KNOWN.strategy(one) if isinstance(one, str) else resolve(one, KNOWN.strategies)


@pytest.mark.parametrize("bug", HISTORIC)
def test_found(bug: str) -> None:
    """One failure of the expected kind, the same again from its replay string."""
    broken, _, scenario, words = HISTORIC[bug]
    verdict = Hunt(make_case(scenario, strategy(broken)), most=12 if bug == "B9" else 1).run(time.monotonic() + 200)
    found = [f"{finding.kind}: {finding.text}" for finding in verdict.findings]
    assert any(text.startswith(words) for text in found), (found, verdict.coverage)
    assert all(finding.stable for finding in verdict.findings)


@pytest.mark.parametrize("bug", HISTORIC)
def test_mended(bug: str) -> None:
    """The same scenario with the mend: nothing, in every interleaving where they are few enough."""
    _, mended, scenario, _ = HISTORIC[bug]
    verdict = Hunt(make_case(scenario, strategy(mended))).run(time.monotonic() + (3 if bug in LONG else 200))
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete or bug in LONG


@pytest.mark.parametrize(("rule", "answer"), [(0, -flags.EEXIST), (flags.RULE_NOREPLACE_417, None)])
def test_noreplace(rule: int, answer: int | None) -> None:
    """B29: 4.17 asked find_vma about the first address only, so a mapping that begins inside is silently replaced."""
    parameters = Parameters(rules=Parameters().rules | rule)
    machine = Machine(plain_runner(KNOWN.strategy("rbtree")), SIZES, parameters)
    space, at, page = Space(machine), 0x10000000, 4096
    fixed = flags.MAP_PRIVATE | flags.MAP_ANONYMOUS | flags.MAP_FIXED_NOREPLACE
    assert space.mmap(at + 2 * page, 2 * page, 1, fixed) == at + 2 * page
    assert space.mmap(at, 4 * page, 3, fixed) == (at if answer is None else answer)
    replaced = [row[:3] for row in space.layout()] == [(at, at + 4 * page, 3)]
    assert replaced == (answer is None)
