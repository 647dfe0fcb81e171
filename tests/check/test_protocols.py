"""The protocols after the RFC in the common scenarios: nothing found; complete where the interleavings are few."""

import time
from dataclasses import replace
from types import FunctionType

import pytest

from benchframe.check.cases import CaseWorld
from benchframe.check.checker import Hunt, Verdict, make_case
from benchframe.check.command import scenario
from benchframe.check.execution import execute
from benchframe.check.jobs import scenarios_of
from benchframe.check.weak import GraphCase, GraphWorld
from benchframe.check.weak_hunt import GraphHunt
from benchframe.dialect import native
from benchframe.dialect.functions import Native
from benchframe.registry import load
from benchframe_plugins import vma_lock_2m
from benchframe_plugins.speculation import CUT

PROTOCOLS = ("per_vma_rwsem", "per_vma_refcnt", "rcu_rbtree", "spf_seqcount", "spf_mmseq", "rcu_fault", "vma_lock_2m")
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


@pytest.mark.parametrize("name", ["maple", "maple_rcu", "per_vma_refcnt", "vma_lock_2m", "linux-6.4", "linux-6.18"])
def test_the_records_of_a_maple_tree_are_enough(name: str) -> None:
    """Each scenario runs once to its end, the first task first: a strategy's own slabs have the records, nodes and big
    nodes among them, that the set-up and all tasks need in the checker's small machine."""
    strategy = load().strategy(name)
    for one in scenarios_of(strategy):
        run = execute(make_case(one, strategy).program, lambda step, enabled, pending, trace: enabled[0])
        assert (run.outcome, run.failure) == ("done", None), one.name


@pytest.mark.parametrize("name", ["spf_seqcount", "spf_mmseq"])
def test_a_fault_is_not_refused_for_another_part(name: str) -> None:
    """What a speculation read while a VMA was split and one part lost its rights is no reason to refuse a fault."""
    strategy = load().strategy(name)
    verdict = Hunt(make_case(scenario("fault-mprotect-part", strategy), strategy)).run(time.monotonic() + 100)
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete


@native
def wait_for_nobody(mm, number):  # type: ignore[no-untyped-def]
    """In the place of a wait for the readers of a VMA, or of a PTE page."""
    return 0


@pytest.mark.parametrize(
    ("where", "forgotten"), [("granule-cut", vma_lock_2m.wait_for_table), ("granule-first", vma_lock_2m.wait_for_vma)]
)
def test_a_writer_waits_for_every_count_of_its_vma(where: str, forgotten: Native) -> None:
    """vma_lock_2m counts a VMA's readers beside the VMA and in its PTE pages. A writer that forgets one of them
    changes what a fault still holds."""
    names = {**vma_lock_2m.start_write.__globals__, forgotten.__name__: wait_for_nobody}
    start_write = native(FunctionType(vma_lock_2m.start_write.__code__, names, "start_write"))
    strategy = load().strategy("vma_lock_2m")
    broken = replace(strategy, binding={**strategy.binding, "vma_start_write": start_write})
    assert Hunt(make_case(scenario(where, strategy), broken), 1).run(time.monotonic() + 100).findings


@native
def held_by_nobody(mm, vma):  # type: ignore[no-untyped-def]
    """In the place of a reference that madvise takes: the pages are given up under no lock at all."""
    return 1


@native
def put_nothing(mm, vma):  # type: ignore[no-untyped-def]
    """And nothing is put afterwards."""
    return 0


def test_advice_on_pages_holds_the_vma() -> None:
    """MADV_DONTNEED under one VMA's lock, beside munmap of that VMA: right to the end of the search. Without the
    reference the page table is freed under it."""
    strategy = load().strategy("per_vma_refcnt")
    case = scenario("madvise-munmap", strategy)
    verdict = Hunt(make_case(case, strategy)).run(time.monotonic() + 100)
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete
    advise = strategy.binding["madvise_pages"]
    names = {**advise.__globals__, "vma_start_read": held_by_nobody, "vma_refcount_put": put_nothing}
    unheld = native(FunctionType(advise.__code__, names, "madvise_under_vma_lock"))
    broken = replace(strategy, binding={**strategy.binding, "madvise_pages": unheld})
    assert Hunt(make_case(case, broken), 1).run(time.monotonic() + 100).findings


@pytest.mark.parametrize("model", ["interleavings", "graphs"])
def test_an_answer_from_the_middle_of_a_call(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """munmap of a part cuts the VMA before it removes the part: who gets what was cut off, while it is there, is
    right. A VMA's number is even in between, so some execution does."""
    strategy = load().strategy("spf_seqcount")

    def searched() -> Verdict:
        if model == "graphs":
            return GraphHunt(GraphCase(CUT, strategy), 1).run(time.monotonic() + 100)
        return Hunt(make_case(CUT, strategy), 1).run(time.monotonic() + 100)

    verdict = searched()
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete
    for world in (CaseWorld, GraphWorld):
        monkeypatch.setattr(world, "changed", lambda world, number, since: None)
    (finding,) = searched().findings
    assert finding.text.startswith("T0: write fault, page 1 gave VMA #"), "and it is that which makes it right"


@pytest.mark.parametrize("where", MANY)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_nothing_found_for_a_while(name: str, where: str) -> None:
    """`benchframe check` with a longer budget searches these to the end, too."""
    verdict = Hunt(make_case(scenario(where), load().strategy(name))).run(time.monotonic() + 0.4)
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.executions  # one at least, however busy the machine is
