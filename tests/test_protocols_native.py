"""Protocols without mmap_lock in real threads: every answer is right, nothing is held or left when they have ended."""

import pytest

from benchframe.engine.native import Session
from benchframe.engine.threaded import ThreadSession
from benchframe.registry import load

KNOWN = load()


@pytest.mark.parametrize("name", ["per_vma_refcnt"])
def test_faults_beside_mappers(name: str) -> None:
    """Three threads fault, two map and unmap, on two cores or fewer than threads: validate_mm holds afterwards."""
    spec = KNOWN.workload("mixed").spec("mixed:mappers=2")
    session = ThreadSession(KNOWN.strategy(name), spec.trace(0, 3), 3, layout_seed=1)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    assert session.counts()["hit_rate"] > 0.5


@pytest.mark.parametrize("name", ["per_vma_refcnt", "rcu_rbtree", "spf_seqcount", "spf_mmseq"])
def test_few_faults_take_mmap_lock(name: str) -> None:
    """One thread: only first writes and growing stacks go to mmap_lock; no VMA stays marked after a stack has grown."""
    session = Session(KNOWN.strategy(name), KNOWN.workload("redis-load").spec("redis-load").trace(0), layout_seed=1)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    counts = session.counts()
    assert counts["fallbacks"] < 0.05 * counts["faults"]
    assert counts["retries"] < 0.02 * counts["faults"]
