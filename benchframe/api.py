"""All that a plugin may import, and nothing else: the promise that benchframe keeps between versions.

=================  ===================================================================================
for                names
=================  ===================================================================================
any plugin         :data:`hookimpl`
workloads          :class:`Workload`, :class:`Parameter`, :class:`Trace`, :class:`TraceMeta`,
                   :func:`read_trace`, :func:`trace_workload`, :mod:`stream` (rows and layouts in bulk)
events             :class:`Kind`, :class:`FaultFlag`, :data:`EVENT`, :data:`NIL`, :data:`UNKNOWN`
strategies         :class:`Strategy` = :class:`Index` + :class:`Cache` + :class:`Protocol`, :class:`PrivateSlab`
                   :mod:`scenario`: scenarios for the checker, and races that are known
strategy code      :func:`native`, :func:`hook`, :data:`NULL`, the slabs VMA, PAGE, PTE, TASK, MM, FILE, atomics and
                   ordered accesses, and the model's own functions that a strategy builds on; :class:`CSource`: in C
locks              :func:`spinlock`, :func:`rwsem`, :func:`seqcount`, :func:`refcount`, :func:`waitqueue`: each makes
                   the functions of one lock in fields of a record
=================  ===================================================================================

A name is imported from its home when it is first asked for, so a plugin pays only for what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchframe import scenario, stream
    from benchframe.cstrategy import CSource
    from benchframe.dialect import (
        NULL,
        READ_ONCE,
        WRITE_ONCE,
        Field,
        cmpxchg,
        cpu_relax,
        fetch_add,
        fls,
        hook,
        load_acquire,
        native,
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
    from benchframe.events import EVENT, NIL, UNKNOWN, FaultFlag, Kind
    from benchframe.hookspecs import hookimpl
    from benchframe.mm.defaults import read_lock, read_unlock, write_downgrade, write_lock, write_unlock
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
        find_vma,
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
    from benchframe.mm.locks import (
        lock_acquired,
        lock_contended,
        mmap_down_read_trylock,
        mmap_down_write_trylock,
        refcount,
        rwsem,
        seqcount,
        spinlock,
        waitqueue,
    )
    from benchframe.mm.pagetable import next_step, pmd_slot, spin_lock, spin_unlock
    from benchframe.mm.slab import (
        arena_alloc,
        arena_free,
        free_typesafe_by_rcu,
        kfree_rcu,
        rcu_read_lock,
        rcu_read_unlock,
        synchronize_rcu,
    )
    from benchframe.mm.vma import expand_stack, grow_as_held, grow_under_write_lock, start_gap, vma_free_now
    from benchframe.strategy import Cache, Index, PrivateSlab, Protocol, Strategy
    from benchframe.trace.meta import FileEntry, TraceMeta
    from benchframe.trace.trace import Trace, read_trace
    from benchframe.workload import Parameter, Workload, trace_workload

__all__ = [
    "ARENA_PRIVATE0",
    "ARENA_TABLE",
    "ARENA_VMA",
    "COUNT_FALLBACK",
    "COUNT_HIT",
    "COUNT_LOOKUP",
    "COUNT_RETRY",
    "EVENT",
    "E_PSE",
    "FILE",
    "MM",
    "NIL",
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
    "UNKNOWN",
    "VMA",
    "VM_ACCESS",
    "VM_GROWSDOWN",
    "VM_READ",
    "VM_SHARED",
    "VM_WRITE",
    "WRITE_ONCE",
    "CSource",
    "Cache",
    "FaultFlag",
    "Field",
    "FileEntry",
    "Index",
    "Kind",
    "Parameter",
    "PrivateSlab",
    "Protocol",
    "Strategy",
    "Trace",
    "TraceMeta",
    "Workload",
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
    "hook",
    "hookimpl",
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
    "native",
    "next_step",
    "pmd_slot",
    "rcu_read_lock",
    "rcu_read_unlock",
    "read_lock",
    "read_trace",
    "read_unlock",
    "refcount",
    "rwsem",
    "scenario",
    "seqcount",
    "smp_mb",
    "smp_rmb",
    "smp_wmb",
    "spin_lock",
    "spin_unlock",
    "spinlock",
    "start_gap",
    "store_release",
    "stream",
    "synchronize_rcu",
    "trace_workload",
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

_HOMES = {
    "benchframe": (
        "scenario",
        "stream",
    ),
    "benchframe.cstrategy": ("CSource",),
    "benchframe.dialect": (
        "Field",
        "NULL",
        "READ_ONCE",
        "WRITE_ONCE",
        "cmpxchg",
        "cpu_relax",
        "fetch_add",
        "fls",
        "hook",
        "load_acquire",
        "native",
        "smp_mb",
        "smp_rmb",
        "smp_wmb",
        "store_release",
        "wait_interruptible",
        "wait_then_add",
        "wait_until",
        "wait_while",
        "wait_while_interruptible",
        "xchg",
    ),
    "benchframe.events": (
        "EVENT",
        "FaultFlag",
        "Kind",
        "NIL",
        "UNKNOWN",
    ),
    "benchframe.hookspecs": ("hookimpl",),
    "benchframe.mm.defaults": (
        "read_lock",
        "read_unlock",
        "write_downgrade",
        "write_lock",
        "write_unlock",
    ),
    "benchframe.mm.flags": (
        "E_PSE",
        "PG_RESERVED",
        "VM_ACCESS",
        "VM_GROWSDOWN",
        "VM_READ",
        "VM_SHARED",
        "VM_WRITE",
    ),
    "benchframe.mm.fork": (
        "mmdrop",
        "mmgrab",
    ),
    "benchframe.mm.hooks": (
        "COUNT_FALLBACK",
        "COUNT_HIT",
        "COUNT_LOOKUP",
        "COUNT_RETRY",
        "SITE_ACCESS",
        "SITE_ANON",
        "SITE_END",
        "SITE_FILE",
        "SITE_SWAP",
        "SITE_TABLE",
        "SITE_WP",
        "count",
        "find_vma",
        "index_find",
        "mmap_read_lock",
        "mmap_read_unlock",
        "mmap_write_downgrade",
        "mmap_write_lock",
        "mmap_write_unlock",
    ),
    "benchframe.mm.layout": (
        "ARENA_PRIVATE0",
        "ARENA_TABLE",
        "ARENA_VMA",
        "FILE",
        "MM",
        "PAGE",
        "PAGE_SHIFT",
        "PAGE_SIZE",
        "PMD_SHIFT",
        "PMD_SIZE",
        "PTE",
        "TASK",
        "VMA",
    ),
    "benchframe.mm.locks": (
        "lock_acquired",
        "lock_contended",
        "mmap_down_read_trylock",
        "mmap_down_write_trylock",
        "refcount",
        "rwsem",
        "seqcount",
        "spinlock",
        "waitqueue",
    ),
    "benchframe.mm.pagetable": (
        "next_step",
        "pmd_slot",
        "spin_lock",
        "spin_unlock",
    ),
    "benchframe.mm.slab": (
        "arena_alloc",
        "arena_free",
        "free_typesafe_by_rcu",
        "kfree_rcu",
        "rcu_read_lock",
        "rcu_read_unlock",
        "synchronize_rcu",
    ),
    "benchframe.mm.vma": (
        "expand_stack",
        "grow_as_held",
        "grow_under_write_lock",
        "start_gap",
        "vma_free_now",
    ),
    "benchframe.strategy": (
        "Cache",
        "Index",
        "PrivateSlab",
        "Protocol",
        "Strategy",
    ),
    "benchframe.trace.meta": (
        "FileEntry",
        "TraceMeta",
    ),
    "benchframe.trace.trace": (
        "Trace",
        "read_trace",
    ),
    "benchframe.workload": (
        "Parameter",
        "Workload",
        "trace_workload",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import ``name`` from its home and keep it here (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"benchframe.api has no {name!r}")
    home = import_module(_HOME[name])
    # A submodule is an attribute of its package only once it has been imported.
    found = getattr(home, name) if hasattr(home, name) else import_module(f"{home.__name__}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
