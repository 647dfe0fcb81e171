"""Is the strategy interface enough? Two protocols of docs/strategy-interface.md, written with it.

A speculative fault under a per-mm seqcount (Lespinasse, 2021) and the per-VMA refcount of Linux 6.15, each over the
plain rb-tree. They must compile, answer every event as the oracle does, and really go without mmap_lock.
"""

from collections.abc import Mapping

import pytest
from support.compile import compiled

from benchframe.api import Protocol, Strategy, native
from benchframe.dialect import Hook, is_native
from benchframe.dialect.functions import referenced
from benchframe.engine.session import Session
from benchframe.kernel import (
    ARENA_VMA,
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    READ_ONCE,
    SITE_SWAP,
    TASK,
    VMA,
    WRITE_ONCE,
    cmpxchg,
    count,
    fetch_add,
    find_vma,
    kfree_rcu,
    load_acquire,
    read_lock,
    read_unlock,
    store_release,
    wait_until,
    write_lock,
    write_unlock,
)
from benchframe.mm.hooks import BY_NAME, index_find
from benchframe.mm.replay import mapping_event
from benchframe.mm.smp import REPLACE
from benchframe.registry import Registry, load
from benchframe.strategy import resolve

EXCLUDED = 1 << 30
"""VMA_LOCK_OFFSET: a writer keeps new readers out."""


@native
def get_locked(mm, task, addr):  # type: ignore[no-untyped-def]
    """The way under mmap_lock."""
    TASK(mm, task).speculative = 0
    read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def speculated(mm, task):  # type: ignore[no-untyped-def]
    """Note that this fault holds no mmap_lock."""
    TASK(mm, task).speculative = 1
    count(mm, task, COUNT_LOOKUP)
    return count(mm, task, COUNT_HIT)


# ---- per-mm seqcount --------------------------------------------------------------------------------------------


@native
def seq_write_lock(mm, task):  # type: ignore[no-untyped-def]
    """down_write; the count becomes odd."""
    write_lock(mm, task)
    fetch_add(mm, "strategy0", 1)
    return 0


@native
def seq_write_unlock(mm, task):  # type: ignore[no-untyped-def]
    """The count becomes even; up_write."""
    fetch_add(mm, "strategy0", 1)
    return write_unlock(mm, task)


@native
def seq_get(mm, task, addr):  # type: ignore[no-untyped-def]
    """Walk without a lock; good if nobody wrote meanwhile."""
    seq = load_acquire(mm, "strategy0")
    if not seq & 1:
        vma = index_find(mm, addr)
        if vma != NULL and VMA(mm, vma).vm_start <= addr and load_acquire(mm, "strategy0") == seq:
            TASK(mm, task).strategy0 = seq
            speculated(mm, task)
            return vma
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def seq_put(mm, task, vma):  # type: ignore[no-untyped-def]
    """Nothing is held, or mmap_lock."""
    if TASK(mm, task).speculative:
        TASK(mm, task).speculative = 0
        return 0
    return read_unlock(mm, task)


@native
def seq_valid(mm, task, vma, site):  # type: ignore[no-untyped-def]
    """Commit only if no writer came."""
    t = TASK(mm, task)
    return not t.speculative or load_acquire(mm, "strategy0") == t.strategy0


# ---- per-VMA refcount -------------------------------------------------------------------------------------------


@native
def ref_get(mm, task, addr):  # type: ignore[no-untyped-def]
    """lock_vma_under_rcu: one more reader, unless detached, excluded, or write-locked; then look again."""
    vma = index_find(mm, addr)
    if vma != NULL:
        v = VMA(mm, vma)
        old = 0
        if v.vm_start <= addr and READ_ONCE(v, "vm_lock_seq") != READ_ONCE(mm, "mm_lock_seq"):
            old = READ_ONCE(v, "vm_refcnt")
        while old != 0 and old < EXCLUDED - 1:
            seen = cmpxchg(v, "vm_refcnt", old, old + 1)
            if seen == old:
                unlocked = v.vm_lock_seq != load_acquire(mm, "mm_lock_seq")
                if unlocked and v.vm_mm == mm.id and v.vm_start <= addr and addr < v.vm_end:
                    speculated(mm, task)
                    return vma
                fetch_add(v, "vm_refcnt", -1)
                seen = 0
            old = seen
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def ref_put(mm, task, vma):  # type: ignore[no-untyped-def]
    """vma_end_read, or mmap_read_unlock."""
    if TASK(mm, task).speculative:
        TASK(mm, task).speculative = 0
        fetch_add(VMA(mm, vma), "vm_refcnt", -1)
        return 0
    return read_unlock(mm, task)


@native
def ref_valid(mm, task, vma, site):  # type: ignore[no-untyped-def]
    """6.4 gave swap-ins back; a held VMA cannot change."""
    return site != SITE_SWAP or not TASK(mm, task).speculative


@native
def ref_start_write(mm, vma):  # type: ignore[no-untyped-def]
    """vma_start_write. Without a writer (mm.owner 0) it is a stack that grows: no unlock would take the mark off."""
    v = VMA(mm, vma)
    if v.vm_lock_seq == mm.mm_lock_seq or mm.owner == 0:
        return 0
    fetch_add(v, "vm_refcnt", EXCLUDED)
    wait_until(v, "vm_refcnt", -2, EXCLUDED)
    WRITE_ONCE(v, "vm_lock_seq", mm.mm_lock_seq)
    fetch_add(v, "vm_refcnt", -EXCLUDED)
    return 0


@native
def ref_attach(mm, vma):  # type: ignore[no-untyped-def]
    """vma_mark_attached."""
    VMA(mm, vma).vm_lock_seq = -1
    store_release(VMA(mm, vma), "vm_refcnt", 1)
    return 0


@native
def ref_free(mm, vma):  # type: ignore[no-untyped-def]
    """vma_mark_detached, vm_area_free."""
    WRITE_ONCE(VMA(mm, vma), "vm_refcnt", 0)
    VMA(mm, vma).vm_mm = 0
    return kfree_rcu(mm, ARENA_VMA, vma)


@native
def ref_write_unlock(mm, task):  # type: ignore[no-untyped-def]
    """vma_end_write_all, up_write."""
    store_release(mm, "mm_lock_seq", mm.mm_lock_seq + 1)
    return write_unlock(mm, task)


SEQCOUNT = Protocol(
    mmap_write_lock=seq_write_lock,
    mmap_write_unlock=seq_write_unlock,
    vma_get=seq_get,
    vma_get_locked=get_locked,
    vma_put=seq_put,
    vma_valid=seq_valid,
)
REFCOUNT = Protocol(
    mmap_write_unlock=ref_write_unlock,
    vma_get=ref_get,
    vma_get_locked=get_locked,
    vma_put=ref_put,
    vma_valid=ref_valid,
    vma_start_write=ref_start_write,
    vma_attach=ref_attach,
    vma_free=ref_free,
)


@pytest.fixture(scope="module")
def known() -> Registry:
    """What is installed."""
    return load()


@pytest.fixture(scope="module", params=["seqcount", "refcount"])
def strategy(request: pytest.FixtureRequest, known: Registry) -> Strategy:
    """One of the two, resolved."""
    protocols: Mapping[str, Protocol] = {"seqcount": SEQCOUNT, "refcount": REFCOUNT}
    made = Strategy(f"proof-{request.param}", "see the module", index="rbtree", protocol=protocols[request.param])
    return compiled(resolve(made, known.strategies))


@pytest.mark.parametrize("workload", ["python-json", "redis-load", "sh-pipeline", "mmap-churn:events=2000", "ebizzy"])
def test_protocol_fits(strategy: Strategy, known: Registry, workload: str) -> None:
    """Every answer is the oracle's; nearly every user lookup goes without mmap_lock; nothing stays held."""
    spec = known.workload(workload.partition(":")[0]).spec(workload)
    session = Session(strategy, spec.trace(0), layout_seed=1)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    counts = session.counts()
    assert counts["hit_rate"] > 0.9
    assert counts["fallbacks"] < 0.02 * counts["lookups"]
    machine = session.machine
    assert not machine.arrays["mm_base"]["mmap_lock"].any()
    vmas = machine.arrays["vma_base"]
    held = vmas["vm_refcnt"][vmas["vm_mm"] > 0]
    assert set(held.tolist()) <= ({1} if "refcount" in strategy.name else {0})


def test_mapping_operations_call_no_hook_in_vain() -> None:
    """Every hook that code compiled once for all strategies names is reached through the hook entry, with and without
    threads; the replay's own hooks are bound, so the entry need not know those that are hot alone."""
    found: set[str] = set()
    seen: set[object] = set()

    def visit(function: object) -> None:
        if function in seen:
            return
        seen.add(function)
        for obj in referenced(function).values():  # type: ignore[arg-type]
            if isinstance(obj, Hook):
                found.add(obj.name)
            elif is_native(obj):
                visit(obj)

    for function in (mapping_event, *REPLACE.values()):
        visit(function)
    assert {"index_erase", "cache_munmap", "vma_free"} < found
    assert [name for name in sorted(found) if not BY_NAME[name].called] == []
