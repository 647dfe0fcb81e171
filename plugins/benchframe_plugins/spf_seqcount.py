"""Speculative page faults under a sequence count per VMA: Peter Zijlstra, January 2010.

History: the answer to the RFC of December 2009. No holders and no waiting: VMAs are freed by RCU, and a fault that was
overtaken notices it. Laurent Dufour carried it to 2019 (with an rwlock around the tree, as the unprotected walk
worried reviewers); it was refused for its complexity, and shipped in Android.

Layout: `vm_sequence` in each VMA, odd while a writer is at it; a VMA that has left the tree stays odd for ever, which
stands for RB_CLEAR_NODE and vma_is_dead.
```
  VMA.vm_sequence  4 at rest    5 a writer is at it, or it is gone         task: the number it saw
```
Lookup: walk the rb-tree under RCU, with no lock; note the VMA's number (odd: give up); then the range, the anon_vma,
and the number again.

Commit: with the page table's lock held, before an entry is set: the number is the same. Then no writer had begun when
the lock was taken; one that begins now has to take that lock to clear the entry.

Writers: the number of every VMA that a call changes becomes odd before the change and even when mmap_lock is given
back. The kernel's patch ended it with vma_adjust and unmap_page_range; here it lasts as long as the lock, so that no
step in between must be argued about. VMAs begun are on a list from `mm.strategy1` through the VMAs' strategy words.

Not speculated: where a page table is missing (tables for a VMA that is gone leaked, B11), where an anon_vma is, kernel
mode.

Cost: the walk and four loads of one number; nothing shared is written. Only writers of this VMA disturb.

Concurrency: VMAs and page tables are freed after a grace period (SRCU then, since faults sleep; Dufour lost 20 % to
its callbacks), and the section lasts to the end of the fault. A walk through a rotating tree may miss; then mmap_lock
is taken. Stack growth happens under mmap_lock for read and moves one start down. Sources:
20100104182429.833180340@chello.nl and replies; Dufour's v11 (1526555193-7242-1-git-send-email-ldufour@...).
"""

from benchframe.api import (
    ARENA_TABLE,
    ARENA_VMA,
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    READ_ONCE,
    SITE_END,
    SITE_TABLE,
    TASK,
    VM_SHARED,
    VM_WRITE,
    VMA,
    Protocol,
    Strategy,
    count,
    find_vma,
    hookimpl,
    kfree_rcu,
    native,
    rcu_read_lock,
    rcu_read_unlock,
    read_lock,
    read_unlock,
    seqcount,
    write_downgrade,
    write_unlock,
)

STEPS = 64
"""More steps down than any rb-tree of this many VMAs has."""
SEQ = seqcount("vm_sequence")
raw_read, retry, write_begin, write_end = (
    SEQ.raw_read_seqcount,
    SEQ.read_seqcount_retry,
    SEQ.write_seqcount_begin,
    SEQ.write_seqcount_end,
)


# ---- the lookup ------------------------------------------------------------------------------------------------------


@native
def walk(mm, addr):
    """find_vma without a lock: a VMA that contained ``addr`` when it was looked at, NULL for "do not know"."""
    node = READ_ONCE(mm, "mm_rb")
    steps = 0
    while node != NULL and steps < STEPS:
        v = VMA(mm, node)
        if addr < READ_ONCE(v, "vm_end"):
            if READ_ONCE(v, "vm_start") <= addr:
                return node
            node = READ_ONCE(v, "rb_left")
        else:
            node = READ_ONCE(v, "rb_right")
        steps += 1
    return NULL


@native
def usable(mm, vma, addr):
    """Does it cover ``addr``, and will the fault not need its neighbours for an anon_vma?"""
    v = VMA(mm, vma)
    if v.vm_start > addr or addr >= v.vm_end:
        return 0
    if v.anon_vma != 0:
        return 1
    return (v.vm_file != 0 or mm.thp == 0) and v.vm_flags & (VM_WRITE | VM_SHARED) != VM_WRITE


@native
def get_speculative(mm, task, addr):
    """A VMA found without a lock, inside a section that ``put`` ends; else mmap_lock and find_vma."""
    rcu_read_lock(mm, task)
    vma = walk(mm, addr)
    if vma != NULL:
        seq = raw_read(VMA(mm, vma))
        if not seq & 1 and usable(mm, vma, addr) and not retry(VMA(mm, vma), seq):
            TASK(mm, task).strategy0 = seq
            TASK(mm, task).speculative = 1
            count(mm, task, COUNT_LOOKUP)
            count(mm, task, COUNT_HIT)
            return vma
    rcu_read_unlock(mm, task)
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def get_locked(mm, task, addr):
    """mmap_lock for read, then find_vma."""
    TASK(mm, task).speculative = 0
    read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put(mm, task, vma):
    """The section ends, or mmap_read_unlock."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return rcu_read_unlock(mm, task)
    return read_unlock(mm, task)


@native
def valid(mm, task, vma, site):
    """May a speculation commit here? Never where a table is missing; at the end it has committed already."""
    t = TASK(mm, task)
    if not t.speculative or site == SITE_END:
        return 1
    if site == SITE_TABLE:
        return 0
    return 1 - retry(VMA(mm, vma), t.strategy0)


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def start_write(mm, vma):
    """The number becomes odd until mmap_lock is given back. Not for a stack that grows under mmap_lock for read."""
    v = VMA(mm, vma)
    if mm.owner == 0 or v.vm_sequence & 1:
        return 0
    write_begin(v)
    v.strategy0 = mm.strategy1
    v.strategy1 = NULL
    if mm.strategy1 != NULL:
        VMA(mm, mm.strategy1).strategy1 = vma
    mm.strategy1 = vma
    return 0


@native
def forget(mm, vma):
    """Take it off the list of VMAs begun: it stays odd."""
    v = VMA(mm, vma)
    if v.strategy1 != NULL:
        VMA(mm, v.strategy1).strategy0 = v.strategy0
    elif mm.strategy1 == vma:
        mm.strategy1 = v.strategy0
    if v.strategy0 != NULL:
        VMA(mm, v.strategy0).strategy1 = v.strategy1
    return 0


@native
def end_write_all(mm):
    """The numbers of all VMAs begun become even."""
    vma = mm.strategy1
    mm.strategy1 = NULL
    while vma != NULL:
        v = VMA(mm, vma)
        following = v.strategy0
        v.strategy0 = NULL
        v.strategy1 = NULL
        write_end(v)
        vma = following
    return 0


@native
def mm_write_unlock(mm, task):
    """mmap_write_unlock."""
    end_write_all(mm)
    return write_unlock(mm, task)


@native
def mm_write_downgrade(mm, task):
    """mmap_write_downgrade."""
    end_write_all(mm)
    return write_downgrade(mm, task)


@native
def free_vma(mm, vma):
    """It is dead: odd for ever. A walker may still be at it."""
    forget(mm, vma)
    return kfree_rcu(mm, ARENA_VMA, vma)


@native
def release_table(mm, table):
    """A fault may be on its way to the table's lock."""
    return kfree_rcu(mm, ARENA_TABLE, table)


HOOKS = {
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_get": get_speculative,
    "vma_get_locked": get_locked,
    "vma_put": put,
    "vma_valid": valid,
    "vma_start_write": start_write,
    "vma_free": free_vma,
    "table_release": release_table,
}


def protocol(**changed):
    """The protocol, with some hooks exchanged (None: the default)."""
    hooks = {name: function for name, function in {**HOOKS, **changed}.items() if function is not None}
    return Protocol(**hooks)


@hookimpl
def benchframe_strategies():
    """Over the plain tree, as 2.6.33 had it."""
    return [
        Strategy(
            "spf_seqcount",
            "speculative faults: a sequence count per VMA, over rb-tree, 2010",
            "rbtree",
            protocol=protocol(),
        )
    ]
