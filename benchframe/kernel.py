"""The header file of strategy code: the model's records, flags and constants, primitives, locks, and the functions of
its mm that a strategy builds on. All names are the kernel's, and stay between versions.

==================  ====================================================================================================
records             :data:`VMA`, :data:`MM`, :data:`TASK`, :data:`PAGE`, :data:`PTE`, :data:`FILE`: ``VMA(mm, i)`` is
                    the i-th vm_area_struct; :data:`NULL` is 0. docs/dialect.md has every field
memory              :func:`READ_ONCE` to :func:`cmpxchg`, barriers, waits: docs/dialect.md; :func:`fls`
the hooks to call   :func:`index_find`, :func:`count`, :func:`mmap_read_lock` ...: what the strategy's other parts fill
locks               :func:`spinlock`, :func:`rwsem`, :func:`seqcount`, :func:`refcount`, :func:`waitqueue`: each makes
                    the functions of one lock in fields of a record (docs/locks.md)
RCU                 :func:`rcu_read_lock`, :func:`kfree_rcu`, :func:`free_typesafe_by_rcu` ...
mm                  :func:`find_vma`, :func:`pmd_slot`, :func:`arena_alloc`, :func:`expand_stack` ...
==================  ====================================================================================================
"""

from benchframe.dialect import (
    NULL,
    READ_ONCE,
    WRITE_ONCE,
    cmpxchg,
    cpu_relax,
    fetch_add,
    fls,
    load_acquire,
    smp_mb,
    smp_rmb,
    smp_wmb,
    store_release,
    wait_interruptible,
    wait_then_add,
    wait_until,
    wait_while,
    wait_while_interruptible,
    xchg,
)
from benchframe.mm.arena import arena_alloc, arena_free
from benchframe.mm.defaults import read_lock, read_unlock, write_downgrade, write_lock, write_unlock
from benchframe.mm.find import find_vma
from benchframe.mm.flags import E_PSE, PG_RESERVED, VM_ACCESS, VM_GROWSDOWN, VM_READ, VM_SHARED, VM_WRITE
from benchframe.mm.fork import mmdrop, mmgrab
from benchframe.mm.hooks import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    COUNT_RETRY,
    SITE_ACCESS,
    SITE_ANON,
    SITE_END,
    SITE_FILE,
    SITE_SWAP,
    SITE_TABLE,
    SITE_WP,
    count,
    index_find,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_lock,
    mmap_write_unlock,
)
from benchframe.mm.layout import (
    ARENA_PRIVATE0,
    ARENA_TABLE,
    ARENA_VMA,
    FILE,
    MM,
    PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
    PTE,
    TASK,
    VMA,
)
from benchframe.mm.pagetable import next_step, pmd_slot, spin_lock, spin_unlock
from benchframe.mm.rcu import free_typesafe_by_rcu, kfree_rcu, rcu_read_lock, rcu_read_unlock, synchronize_rcu
from benchframe.mm.records import start_gap, vma_free_now
from benchframe.mm.stack import expand_stack, grow_as_held, grow_under_write_lock
from benchframe.mm.sync.lockstat import lock_acquired, lock_contended
from benchframe.mm.sync.mmap_lock import mmap_down_read_trylock, mmap_down_write_trylock
from benchframe.mm.sync.refcount import refcount
from benchframe.mm.sync.rwsem import rwsem
from benchframe.mm.sync.seqcount import seqcount
from benchframe.mm.sync.spinlock import spinlock
from benchframe.mm.sync.waitqueue import waitqueue

__all__ = [
    "ARENA_PRIVATE0",
    "ARENA_TABLE",
    "ARENA_VMA",
    "COUNT_FALLBACK",
    "COUNT_HIT",
    "COUNT_LOOKUP",
    "COUNT_RETRY",
    "E_PSE",
    "FILE",
    "MM",
    "NULL",
    "PAGE",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "PG_RESERVED",
    "PMD_SHIFT",
    "PMD_SIZE",
    "PTE",
    "READ_ONCE",
    "SITE_ACCESS",
    "SITE_ANON",
    "SITE_END",
    "SITE_FILE",
    "SITE_SWAP",
    "SITE_TABLE",
    "SITE_WP",
    "TASK",
    "VMA",
    "VM_ACCESS",
    "VM_GROWSDOWN",
    "VM_READ",
    "VM_SHARED",
    "VM_WRITE",
    "WRITE_ONCE",
    "arena_alloc",
    "arena_free",
    "cmpxchg",
    "count",
    "cpu_relax",
    "expand_stack",
    "fetch_add",
    "find_vma",
    "fls",
    "free_typesafe_by_rcu",
    "grow_as_held",
    "grow_under_write_lock",
    "index_find",
    "kfree_rcu",
    "load_acquire",
    "lock_acquired",
    "lock_contended",
    "mmap_down_read_trylock",
    "mmap_down_write_trylock",
    "mmap_read_lock",
    "mmap_read_unlock",
    "mmap_write_downgrade",
    "mmap_write_lock",
    "mmap_write_unlock",
    "mmdrop",
    "mmgrab",
    "next_step",
    "pmd_slot",
    "rcu_read_lock",
    "rcu_read_unlock",
    "read_lock",
    "read_unlock",
    "refcount",
    "rwsem",
    "seqcount",
    "smp_mb",
    "smp_rmb",
    "smp_wmb",
    "spin_lock",
    "spin_unlock",
    "spinlock",
    "start_gap",
    "store_release",
    "synchronize_rcu",
    "vma_free_now",
    "wait_interruptible",
    "wait_then_add",
    "wait_until",
    "wait_while",
    "wait_while_interruptible",
    "waitqueue",
    "write_downgrade",
    "write_lock",
    "write_unlock",
    "xchg",
]
