"""An anonymous fault entirely under RCU, which writes nothing shared. After Matthew Wilcox, 2021.

History: in the discussion of Laurent Dufour's and Michel Lespinasse's speculative faults Wilcox proposed a simpler way:
hold the RCU read lock over the walk of the tree, the page tables and the fault itself, take the page table's lock, and
check there whether the VMA is unchanged; take a reference only where the fault must sleep. Zijlstra said in the same
thread about reference counts in the VMA that with one huge VMA it "was a total loss". Linux nevertheless chose
reference counts (`per_vma_refcnt`). This strategy is the comparison: the same tree, the same sequence numbers for
writers, no reference.

Layout: `vm_lock_seq` in each VMA and the mm's `mm_lock_seq`, as per-VMA locks have them since 6.4.
```
  vm_lock_seq == mm_lock_seq   a writer is at it          task: the vm_lock_seq that it saw
```
Lookup: walk the maple tree under RCU; note the VMA's number; if it equals the mm's, a writer is changing the VMA: take
mmap_lock. Then check whether it is still in the tree (the walk may have found a VMA that a writer has removed since),
the range and the anon_vma. Numbers only grow, and a writer gives each VMA that it changes a new one: so the number is a
version, although it was designed as a lock.

Commit: with the page table's lock held, before an entry is set: the number is the same. A writer that begins now has to
take that lock to clear the entry.

Writers: vma_start_write stores the mm's number; it does not wait. mmap_write_unlock raises the mm's number. The store
is a release: who sees it has to see the mm's number as this writer found it, which the writer before has raised. With
an older one the two differ, and the VMA would pass for unlocked (W12). In 6.4 WRITE_ONCE is enough: its readers take
vm_lock first, and its up_write is the release.
vma_start_write is called before a VMA leaves the tree, so a reader that found it before sees another number; a reader
that finds it later sees that it is detached.

Faults that take mmap_lock: where a page table is missing (its allocation may sleep: Wilcox takes a reference there,
this takes mmap_lock), files, and a first write that needs an anon_vma.

Readers of /proc/PID/maps take no lock either: bounds that were read count if the VMA's number is still the same, and a
gap if a second walk, made with the number known, finds the same VMA. Whoever meets a writer takes mmap_lock for the
rest of its read. No patch did this: the first form of 6.17's series compared the mm's number, which any writer changes.

Cost: the walk, three loads of two numbers. No atomic operation. Only writers of the same VMA disturb it.

Concurrency: VMAs and page tables are freed after a grace period; the section lasts to the end of the fault.
Text: the code that all such faults share is in `speculation`; writing ends as in 6.4, in `per_vma_rwsem`.
Sources: linux-mm, April 2021, replies to the series "Speculative page faults" (spinics linux-mm msg252369); Linux 6.4
include/linux/mm.h for the numbers. The commit check is this file's own: no patch was posted.
"""

from benchframe.api import Protocol, Strategy, hookimpl, native
from benchframe.kernel import (
    NULL,
    READ_ONCE,
    SITE_END,
    SITE_TABLE,
    TASK,
    VMA,
    WRITE_ONCE,
    grow_under_write_lock,
    index_find,
    load_acquire,
    rcu_read_lock,
    rcu_read_unlock,
    read_lock,
    read_unlock,
    smp_rmb,
    smp_wmb,
    store_release,
)
from benchframe_plugins import speculation
from benchframe_plugins.per_vma_rwsem import mm_write_downgrade, mm_write_unlock
from benchframe_plugins.speculation import exchanged, free_vma, release_table, section_end, usable

# ---- the fault -------------------------------------------------------------------------------------------------------


@native
def find_vma_under_rcu(mm, task, addr):
    """A VMA found without a lock, inside the RCU section in which it is valid; NULL, outside any section, if the fault
    needs the lock."""
    rcu_read_lock(mm, task)
    vma = index_find(mm, addr)
    if vma != NULL:
        v = VMA(mm, vma)
        seq = load_acquire(v, "vm_lock_seq")
        if seq != load_acquire(mm, "mm_lock_seq") and READ_ONCE(v, "detached") == 0:
            if v.vm_file == 0 and usable(mm, v, addr):
                TASK(mm, task).strategy0 = seq
                return vma
    rcu_read_unlock(mm, task)
    return NULL


@native
def valid(mm, task, vma, site):
    """Whether the fault may commit. 0 where a table is missing; 1 at the end, since it has already committed; else
    whether no writer has started on the VMA since it was found."""
    t = TASK(mm, task)
    if not t.speculative or site == SITE_END:
        return 1
    if site == SITE_TABLE:
        return 0
    smp_rmb()
    return int(READ_ONCE(VMA(mm, vma), "vm_lock_seq") == t.strategy0)


# ---- readers of the whole address space ------------------------------------------------------------------------------


@native
def lock_vma_range(mm, task):
    """An RCU section, which lasts to the end of the read or until a writer is met."""
    TASK(mm, task).speculative = 1
    return rcu_read_lock(mm, task)


@native
def get_next_vma(mm, task, vma, addr):
    """The first VMA with ``addr < vm_end``; its number, for ``valid``. If a writer is at it, mmap_lock for the rest of
    the read."""
    t = TASK(mm, task)
    if not t.speculative:
        if vma == NULL:
            return index_find(mm, addr)
        return VMA(mm, vma).vm_next
    found = index_find(mm, addr)
    if found == NULL:
        return NULL
    v = VMA(mm, found)
    seq = load_acquire(v, "vm_lock_seq")
    if seq != load_acquire(mm, "mm_lock_seq") and READ_ONCE(v, "detached") == 0:
        if addr < READ_ONCE(v, "vm_end"):
            smp_rmb()
            if READ_ONCE(v, "vm_start") <= addr or index_find(mm, addr) == found:
                t.strategy0 = seq
                return found
    rcu_read_unlock(mm, task)
    t.speculative = 0
    read_lock(mm, task)
    return index_find(mm, addr)


@native
def unlock_vma_range(mm, task, vma):
    """The end of the section, or mmap_read_unlock."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return rcu_read_unlock(mm, task)
    return read_unlock(mm, task)


MAPS = {"lock_vma_range": lock_vma_range, "get_next_vma": get_next_vma, "unlock_vma_range": unlock_vma_range}
"""/proc/PID/maps without a lock."""


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def start_write(mm, vma):
    """vma_start_write: a new number, before any change. Does not wait. The release is for what the writers before this
    one have stored, the barrier for what this one stores next."""
    v = VMA(mm, vma)
    if v.vm_lock_seq != mm.mm_lock_seq:
        store_release(v, "vm_lock_seq", mm.mm_lock_seq)
        smp_wmb()
    return 0


@native
def attach(mm, vma):
    """A new VMA is not started; but in an mm that is being written it is started before any reader can find it."""
    WRITE_ONCE(VMA(mm, vma), "vm_lock_seq", -1)
    if mm.owner != 0:
        start_write(mm, vma)
    return 0


HOOKS = {
    **speculation.HOOKS,
    **MAPS,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_valid": valid,
    "vma_grow": grow_under_write_lock,
    "vma_start_write": start_write,
    "vma_attach": attach,
    "vma_free": free_vma,
    "table_release": release_table,
}


def protocol(**changed):
    """The protocol, with some hooks replaced (None: the default)."""
    bind = {"speculate": find_vma_under_rcu, "speculation_end": section_end}
    return Protocol(bind=bind, **exchanged(HOOKS, changed))


@hookimpl
def benchframe_strategies():
    """The strategy over the maple tree in RCU mode, as `per_vma_refcnt`."""
    return [
        Strategy(
            "rcu_fault",
            "anonymous faults wholly under RCU, nothing shared is written, over maple, after Wilcox 2021",
            "maple_rcu",
            protocol=protocol(),
        )
    ]
