"""Speculative page faults under a sequence count per VMA: Peter Zijlstra, January 2010.

History: the answer to the RFC of December 2009. No holders and no waiting: VMAs are freed by RCU, and a fault notices
when a writer has overtaken it. Laurent Dufour maintained it until 2019 (with an rwlock around the tree, as the
unprotected walk worried reviewers); it was refused for its complexity, and shipped in Android.

Layout: `vm_sequence` in each VMA, odd while a writer changes it; a VMA that has left the tree stays odd for ever, which
represents RB_CLEAR_NODE and vma_is_dead.
```
  VMA.vm_sequence  4 at rest    5 a writer is at it, or it is gone         task: the number it saw
```
Lookup: walk the rb-tree under RCU, with no lock; note the VMA's number (odd: give up); then check the range, the
anon_vma, and the number again.

Commit: with the page table's lock held, before an entry is set, check that the number is the same. Then no writer had
begun when the lock was taken; one that begins now has to take that lock to clear the entry.

Writers: the number of every VMA that a call changes becomes odd before the change and even when mmap_lock is released.
The patch of 2010 wrote it only in vma_adjust, for the VMA and the next; the versions from 2014 on around
unmap_page_range, too, and Dufour's in mprotect, madvise and more. Here it stays odd as long as the lock is held, so
that no argument about the steps in between is needed. A list holds the VMAs that are being changed.

Not speculated: where a page table is missing (tables for a VMA that is gone leaked, B11), where an anon_vma is, kernel
mode.

Differences from 2010: there the page table was walked and locked first, then plain find_vma was called, which reads and
writes mmap_cache; and neither the anon_vma nor the file was checked. Here nothing shared is written.

Cost: the walk and four loads of one number. Only writers of the same VMA disturb it.

Concurrency: VMAs and page tables are freed after a grace period (SRCU then, since faults sleep; Dufour lost 20 % to
its callbacks), and the section lasts to the end of the fault. A walk through a rotating tree may miss; then mmap_lock
is taken. Stack growth happens under mmap_lock for read and moves one start down.
Text: the code that all such faults share is in `speculation`, the list in `vma_writers`.
Sources: 20100104182429.833180340@chello.nl, its 3/8 (the number) and 6/8 (handle_speculative_fault), and replies;
Dufour's v11 (1526555193-7242-1-git-send-email-ldufour@linux.vnet.ibm.com).
"""

from benchframe.api import Protocol, Strategy, hookimpl, native
from benchframe.kernel import NULL, SITE_END, SITE_TABLE, TASK, VMA, rcu_read_lock, rcu_read_unlock, seqcount, smp_wmb
from benchframe_plugins import speculation
from benchframe_plugins.speculation import exchanged, release_table, section_end, usable, walk
from benchframe_plugins.vma_writers import enlist, free_vma, mm_write_downgrade, mm_write_unlock

SEQ = seqcount("vm_sequence")
raw_read, retry, write_begin, write_end = (
    SEQ.raw_read_seqcount,
    SEQ.read_seqcount_retry,
    SEQ.write_seqcount_begin,
    SEQ.write_seqcount_end,
)


# ---- the lookup ------------------------------------------------------------------------------------------------------


@native
def find_vma_speculative(mm, task, addr):
    """A VMA found without a lock, inside the RCU section in which it is valid; NULL, outside any section, if the fault
    needs the lock."""
    rcu_read_lock(mm, task)
    vma = walk(mm, addr)
    if vma != NULL:
        seq = raw_read(VMA(mm, vma))
        if not seq & 1 and usable(mm, VMA(mm, vma), addr) and not retry(VMA(mm, vma), seq):
            TASK(mm, task).strategy0 = seq
            return vma
    rcu_read_unlock(mm, task)
    return NULL


@native
def valid(mm, task, vma, site):
    """Whether a speculation may commit here. Never where a table is missing; at the end it has already committed."""
    t = TASK(mm, task)
    if not t.speculative or site == SITE_END:
        return 1
    if site == SITE_TABLE:
        return 0
    return 1 - retry(VMA(mm, vma), t.strategy0)


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def start_write(mm, vma):
    """Make the number odd until mmap_lock is released. Not for a stack that grows under mmap_lock for read."""
    v = VMA(mm, vma)
    if mm.owner == 0 or v.vm_sequence & 1:
        return 0
    write_begin(v)
    return enlist(mm, vma)


@native
def end_write(mm, vma):
    """Make the number even."""
    write_end(VMA(mm, vma))
    return 0


@native
def attach(mm, vma):
    """Complete the new VMA before any store to the tree can make it visible. rb_link_node and rotations store without
    ordering, as the patch of 2010 did: without this, `benchframe check --memory lkmm` finds a VMA with its bounds still
    unset."""
    smp_wmb()
    return 0


HOOKS = {
    **speculation.HOOKS,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_valid": valid,
    "vma_start_write": start_write,
    "vma_attach": attach,
    "vma_free": free_vma,
    "table_release": release_table,
}


def protocol(**changed):
    """The protocol, with some hooks replaced (None: the default)."""
    bind = {"speculate": find_vma_speculative, "speculation_end": section_end, "end_write": end_write}
    return Protocol(bind=bind, **exchanged(HOOKS, changed))


@hookimpl
def benchframe_strategies():
    """The strategy over the plain tree, as in 2.6.33."""
    return [
        Strategy(
            "spf_seqcount",
            "speculative faults: a sequence count per VMA, over rb-tree, 2010",
            "rbtree",
            protocol=protocol(),
            scenarios=(speculation.PART,),
        )
    ]
