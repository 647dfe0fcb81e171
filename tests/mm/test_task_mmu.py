"""Reading all VMAs: the same answer from every strategy and the oracle, in one read or many; what a torn walk shows."""

import time

import numpy as np
import pytest
from support.space import BASE, PAGE, Kit, registry

from benchframe import stream
from benchframe.api import Protocol, Strategy, native
from benchframe.check.cases import wrong_lines
from benchframe.check.checker import Hunt, Verdict, make_case
from benchframe.check.command import scenario
from benchframe.events import Kind
from benchframe.kernel import NULL, index_find
from benchframe.mm.vma import CHECKSUM, COUNT_SHIFT
from benchframe.oracle import Oracle
from benchframe.strategy import resolve
from benchframe_plugins import per_vma_refcnt
from benchframe_plugins.per_vma_refcnt import lock_next_vma_under_mmap_lock, vma_refcount_put, vma_start_read


@pytest.mark.parametrize("name", sorted(registry().strategies))
def test_every_strategy_reads_what_the_oracle_has(name: str) -> None:
    """In one read, and by 1 (PROCMAP_QUERY) and 3 VMAs; by a task of another address space, too; and when empty."""
    kit, right = Kit(name), Oracle()
    assert kit.maps() == (0, 0)
    rng = np.random.default_rng(7)
    for page, count, prot in rng.integers((0, 1, 0), (90, 9, 3), (40, 3)).tolist():
        for space in (kit, right):
            if prot:
                assert space.mmap(BASE + page * PAGE, count * PAGE, prot, 0x32) > 0
            else:
                assert space.munmap(BASE + page * PAGE, count * PAGE) == 0
    number, checksum = right.maps(0, 0) >> COUNT_SHIFT, right.maps(0, 0) & CHECKSUM
    assert number == len(kit.layout()) > 10
    assert [kit.maps(lines) for lines in (0, 1, 3)] == [(number, checksum)] * 3
    child = kit.fork()
    child.munmap(BASE, 99 * PAGE)
    child.machine.call(Kind.WALK, mm=kit.number, task=child.task)
    assert int(child.machine.arrays["answer_base"][0]["ret"]) == right.maps(0, 0)
    kit.validate()


def test_what_others_change_does_not_count() -> None:
    """VMAs inside the given range are left out of the answer; one that reaches out of it is not."""
    kit, right = Kit(), Oracle()
    for space in (kit, right):
        for page in (0, 2, 4, 6):
            space.mmap(BASE + page * PAGE, PAGE, 3, 0x32)
    low, length = BASE + 2 * PAGE, 3 * PAGE
    found = kit.machine.call(Kind.WALK, addr=low, len=length)
    assert found == right.maps(low, low + length)
    assert found >> COUNT_SHIFT == 2
    assert right.maps(low, low + length - 1) >> COUNT_SHIFT == 3


def test_the_answer_is_sensitive() -> None:
    """Another bound of one VMA, or two VMAs as one, gives another answer."""
    answers = set()
    for ranges in ([(0, 4), (5, 9)], [(0, 4), (5, 8)], [(0, 4), (6, 9)], [(0, 9)], [(0, 4)]):
        kit = Kit()
        for first, end in ranges:
            kit.map(first, end - first)
        answers.add(kit.maps())
    assert len(answers) == 5


# ---- beside a mapper ------------------------------------------------------------------------------------------------


def hunted(strategy: Strategy) -> Verdict:
    """walk-split, searched to the end."""
    return Hunt(make_case(scenario("walk-split"), strategy), 1).run(time.monotonic() + 100)


@pytest.mark.parametrize("name", ["rbtree", "rcu_fault", "per_vma_refcnt"])
def test_no_part_is_missing(name: str) -> None:
    """Under mmap_lock, under RCU, under one VMA's lock after another."""
    verdict = hunted(registry().strategy(name))
    assert not verdict.findings, verdict.findings
    assert verdict.coverage.complete


@native
def next_without_a_second_look(mm, task, vma, addr):
    """lock_next_vma, which believes a gap between ``addr`` and the VMA although a writer came."""
    if vma != NULL:
        vma_refcount_put(mm, vma)
    vma = index_find(mm, addr)
    if vma != NULL and vma_start_read(mm, vma) != 1:
        return lock_next_vma_under_mmap_lock(mm, task, addr)
    return vma


def test_a_gap_that_is_believed_is_found() -> None:
    """Between the walk of the tree and the VMA's lock mprotect cuts the VMA; its lower part is left out."""
    index = registry().strategy("maple_rcu").index
    broken = Protocol(**{**per_vma_refcnt.HOOKS, "get_next_vma": next_without_a_second_look},
                      bind=per_vma_refcnt.protocol().binding)  # fmt: skip
    (finding,) = hunted(resolve(Strategy("gap", "", index, protocol=broken), registry().strategies)).findings
    assert finding.kind == "stale answer"
    assert finding.text.endswith("was not shown, which was mapped all the time")


def test_lines_that_cannot_be() -> None:
    """A range that no layout has; a range of all that is missing; half of what was joined meanwhile is enough."""
    two, one = [(1, 0, 8, 0), (2, 8, 16, 0)], [(1, 0, 16, 0)]
    assert wrong_lines([(0, 8), (8, 16)], [two, one]) == ""
    assert wrong_lines([(0, 8), (0, 16)], [two, one]) == ""
    assert "at no moment" in wrong_lines([(0, 12)], [two, one])
    assert "not shown" in wrong_lines([(0, 8)], [two, one])
    assert wrong_lines([(0, 8)], [two, [(1, 0, 8, 0)]]) == ""


def test_the_workload() -> None:
    """One mapper and two scanners: each walk leaves out the mapper's place alone, and nothing else changes."""
    trace = registry().spec("proc-maps:vmas=20,turns=3").trace(0, 1)
    timed = trace.events[trace.setup :]
    walks = timed[timed["kind"] == Kind.WALK]
    assert sorted(timed["task"].tolist()) == [0] * 6 + [1, 2]
    maps = timed[timed["kind"] == Kind.MMAP]
    assert (walks["addr"] < maps["addr"][0]).all()
    assert (walks["addr"] + walks["len"] > maps["addr"][0] + stream.PAGE).all()
    from benchframe.oracle import replay

    answers = replay(trace.events)
    assert set((answers.ret[trace.setup :][timed["kind"] == Kind.WALK] >> COUNT_SHIFT).tolist()) == {20}
