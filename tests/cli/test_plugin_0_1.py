"""A plugin written for 0.1 still loads, runs and is checked: the names that it imports, the hooks that it fills."""

import re
import time
import warnings
from pathlib import Path

import pytest

from benchframe import kernel, workloads
from benchframe.check.checker import Hunt, make_case
from benchframe.check.command import scenario
from benchframe.check.conform import Conformance
from benchframe.registry import load
from benchframe.strategy import Moved
from benchframe.units import strategy_digest

HERE = Path(__file__).resolve().parents[1]
OLD = (HERE / "data" / "two_entry_0_1.py.txt").read_text()
NAMES = re.findall(
    r"\w+",
    """
    ARENA_PRIVATE0 ARENA_TABLE ARENA_VMA COUNT_FALLBACK COUNT_HIT COUNT_LOOKUP COUNT_RETRY CSource Cache EVENT E_PSE
    FILE FaultFlag FileEntry Index Kind MM NIL NULL PAGE PAGE_SHIFT PAGE_SIZE PG_RESERVED PMD_SHIFT PMD_SIZE PTE
    Parameter PrivateSlab Protocol READ_ONCE SITE_ACCESS SITE_ANON SITE_END SITE_FILE SITE_SWAP SITE_TABLE SITE_WP
    Strategy TASK Trace TraceMeta UNKNOWN VMA VM_ACCESS VM_GROWSDOWN VM_READ VM_SHARED VM_WRITE WRITE_ONCE Workload
    arena_alloc arena_free cmpxchg count cpu_relax expand_stack fetch_add find_vma free_typesafe_by_rcu grow_as_held
    grow_under_write_lock hook hookimpl index_find kfree_rcu load_acquire lock_acquired lock_contended
    mmap_down_read_trylock mmap_down_write_trylock mmap_read_lock mmap_read_unlock mmap_write_downgrade
    mmap_write_lock mmap_write_unlock mmdrop mmgrab native next_step pmd_slot rcu_read_lock rcu_read_unlock
    read_lock read_trace read_unlock refcount rwsem scenario seqcount smp_mb smp_rmb smp_wmb spin_lock spin_unlock
    spinlock start_gap store_release stream synchronize_rcu trace_workload vma_free_now wait_interruptible
    wait_then_add wait_until wait_while wait_while_interruptible waitqueue write_downgrade write_lock write_unlock
    xchg
    """,
)
"""What benchframe.api had in 0.1."""


def test_every_name_of_0_1_is_in_the_api() -> None:
    """All of them can be imported from benchframe.api, and what has moved says where to."""
    from benchframe import api

    for name in NAMES:
        if name in api.__all__:
            assert getattr(api, name) is not None
            continue
        home = kernel if name in kernel.__all__ else workloads
        with pytest.warns(Moved, match=rf"^{name} is in {home.__name__} now, no longer in benchframe.api$"):
            assert getattr(api, name) is getattr(home, name)


def test_the_example_of_0_1(tmp_path: Path) -> None:
    """examples/benchframe-two-entry as 0.1 had it: it loads with one note and no warning, is the same strategy as
    today's, answers every call as the oracle does, and breaks in no interleaving."""
    path = tmp_path / "two_entry.py"
    path.write_text(OLD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = load([path])
    assert not known.problems
    (note,) = known.notes
    assert note.startswith("plugin two_entry: NULL is in benchframe.kernel now, no longer in benchframe.api (and ")
    assert note.endswith("more names); the old imports work until 0.3")
    strategy = known.strategy("two-entry")
    today = load([HERE.parent / "examples" / "benchframe-two-entry" / "benchframe_two_entry.py"])
    assert not today.notes
    assert strategy_digest(strategy) == strategy_digest(today.strategy("two-entry"))
    assert not Conformance(strategy).run(100, 7, time.monotonic() + 60).failure
    verdict = Hunt(make_case(scenario("lookup-munmap"), strategy)).run(time.monotonic() + 60)
    assert verdict.coverage.complete
    assert not verdict.findings
