"""The protocols after the RFC in the common scenarios: nothing found; complete where the interleavings are few."""

import time

import pytest

from benchframe.check.checker import Hunt, make_case
from benchframe.check.command import scenario
from benchframe.registry import load

PROTOCOLS = ("per_vma_rwsem", "per_vma_refcnt", "rcu_rbtree", "spf_seqcount", "spf_mmseq", "rcu_fault")
FEW = (
    "lookup-munmap",
    "lookup-merge",
    "fault-munmap-signal",
    "lookup-munmap-table",
    "fault-munmap-neighbour",
    "fault-munmap-region",
    "fault-mprotect",
    "fault-mremap",
    "fault-fork",
    "stack-lookup",
)
MANY = ("fault-munmap", "fault-remap", "merge-then-lookup", "stack-stack")


@pytest.mark.parametrize("where", FEW)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_right_in_every_interleaving(name: str, where: str) -> None:
    """Searched to the end."""
    verdict = Hunt(make_case(scenario(where), load().strategy(name))).run(time.monotonic() + 100)
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete, verdict.coverage


@pytest.mark.parametrize("where", MANY)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_nothing_found_for_a_while(name: str, where: str) -> None:
    """`benchframe check` with a longer budget searches these to the end, too."""
    verdict = Hunt(make_case(scenario(where), load().strategy(name))).run(time.monotonic() + 0.4)
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.executions  # one at least, however busy the machine is
