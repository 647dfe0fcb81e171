"""Protocols without mmap_lock, compiled: right answers in threads, nothing held or left, what a fault takes."""

import pytest
from support.compile import compiled
from support.counting import numbers
from support.space import Kit

from benchframe.engine.session import Session
from benchframe.engine.threads import ThreadSession
from benchframe.registry import load

KNOWN = load()


@pytest.mark.parametrize("name", ["linux-6.18"])
def test_faults_beside_mappers(name: str) -> None:
    """Three threads fault, two map and unmap, on two cores or fewer than threads: validate_mm holds afterwards. It also
    finds each VMA and node in one place of the allocator's, sheaves per thread."""
    spec = KNOWN.workload("mixed").spec("mixed:mappers=2")
    session = ThreadSession(compiled(KNOWN.strategy(name), threads=True), spec.trace(0, 3), 3, layout_seed=1)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    assert session.counts()["hit_rate"] > 0.5


@pytest.mark.parametrize("name", ["per_vma_refcnt", "rcu_rbtree", "spf_seqcount", "spf_mmseq"])
def test_few_faults_take_mmap_lock(name: str) -> None:
    """One thread: only first writes and growing stacks go to mmap_lock; no VMA stays marked after a stack has grown."""
    spec = KNOWN.workload("redis-load").spec("redis-load")
    session = Session(compiled(KNOWN.strategy(name)), spec.trace(0), layout_seed=1)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    counts = session.counts()
    assert counts["fallbacks"] < 0.05 * counts["faults"]
    assert counts["retries"] < 0.02 * counts["faults"]


def test_6_4_does_not_lock_a_files_vma() -> None:
    """lock_vma_under_rcu asks vma_is_anonymous before it takes the lock: a file costs the walk alone."""
    counted = numbers("per_vma_rwsem", "page_fault3:mib=1")
    assert counted["fault.n"] > 0
    assert counted.get("fault.lines.vma_lock", 0) == 0
    assert counted["mapping.lines.vma_lock"] > 0
    assert numbers("per_vma_rwsem", "page_fault1:mib=1")["fault.lines.vma_lock"] > 0


def test_the_mms_number_while_somebody_writes() -> None:
    """mm_lock_seq of 6.4 is raised when mmap_lock is given back; that of 6.15 is a seqcount, odd in between."""
    for name, steps in (("per_vma_rwsem", [0, 0, 1]), ("per_vma_refcnt", [0, 1, 2])):
        kit = Kit(name)
        seen = [int(kit.mm["mm_lock_seq"])]
        for hook in ("mmap_write_lock", "mmap_write_unlock"):
            kit.runner.hook(hook, 1)
            seen.append(int(kit.mm["mm_lock_seq"]))
        assert [number - seen[0] for number in seen] == steps, name
