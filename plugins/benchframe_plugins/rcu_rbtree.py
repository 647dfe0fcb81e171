"""The RFC author's third version: an RCU-walked rb-tree, a reference count per VMA, no check at commit. December 2009.

History: KAMEZAWA Hiroyuki, "asynchronous page fault", 25 December 2009, a week after the series that `pmdcache` is. It
drops the cache of one VMA per page-table page; a fault walks the tree itself under RCU, and takes a reference to the
VMA that it finds. Zijlstra: the contention moves from mmap_sem's line to the VMA's. His own series (`spf_seqcount`)
followed.

Layout: `vm_refcnt` (1 while linked), a wait queue in the VMA, VMAs freed by RCU.

Lookup: walk under rcu_read_lock; a VMA that contains the address, if its count is not zero and can be raised; NULL
means "take the lock". A walk during a rotation may miss a VMA (B10), which only costs taking the lock.

Unmapping: after the VMA has left the tree its own reference is dropped, and the writer sleeps until no task holds it.
Then its pages are unmapped.

`rcu_rbtree_v3` is this version, as posted. Its wake-up comes when *one* reference is left, but the sleeper waits for
*none*: a fault that ends after the writer has gone to sleep never wakes it (B9, seen by Minchan Kim; Kamezawa's version
of 5 January 2010 takes 10 000 000 off the count and waits for minus that). And writers wait only for a VMA that is
removed, by munmap or a merge: one that is split, moved or extended changes under its holders, and the split-off part is
unmapped without waiting for them. One bug of the patch is not kept: when a speculative fault failed, it released a
mmap_sem that it had not taken, and kept its reference (as B30).

`rcu_rbtree` keeps the idea and fixes both. vma_start_write, which comes before every change, waits for the holders: it
first drops the VMA's own reference, so that no new holders come, and restores it when mmap_lock is released or the VMA
leaves the tree. The last holder wakes the writer, at zero, inside an RCU section, because the writer frees the VMA
next. A list holds the VMAs that are being changed.

Cost: the walk, two atomics on the VMA's third line; nothing at commit. A first write that needs an anon_vma takes
mmap_lock, since it looks at neighbours.

Concurrency: VMAs are freed after a grace period. A held VMA keeps its bounds, and page tables are freed only with their
VMAs. The reference is taken by an acquire, so that the VMA is looked at after that: a writer may have changed it and
given it back before (without: W11, a fault that saw the anon_vma from before an mremap). Stack growth happens
under mmap_lock for read and moves one start down. Text: the code that all such faults share is in `speculation`, the
list in `vma_writers`.
Sources: 20091225105140.263180e8.kamezawa.hiroyu@jp.fujitsu.com (on 2.6.33-rc2) and the replies of 27 and 28 December
2009; 20100105163939.a3f146fb.kamezawa.hiroyu@jp.fujitsu.com.
"""

from benchframe.api import Protocol, Strategy, hookimpl, native, scenario
from benchframe.kernel import (
    NULL,
    TASK,
    VMA,
    fetch_add,
    rcu_read_lock,
    rcu_read_unlock,
    read_unlock,
    refcount,
    smp_wmb,
    waitqueue,
)
from benchframe_plugins import speculation, vma_writers
from benchframe_plugins.speculation import usable, walk
from benchframe_plugins.vma_writers import enlist, mm_write_downgrade, mm_write_unlock

REFS = refcount("vm_refcnt")
inc_not_zero = REFS.refcount_inc_not_zero_acquire
refcount_read, set_release = REFS.refcount_read, REFS.refcount_set_release
QUEUE = waitqueue("cache_wait")
prepare_to_wait, wake_ups, schedule, finish_wait = (
    QUEUE.prepare_to_wait,
    QUEUE.wake_ups,
    QUEUE.schedule,
    QUEUE.finish_wait,
)
wake_up = QUEUE.wake_up


# ---- readers ---------------------------------------------------------------------------------------------------------


@native
def vma_put(mm, task, vma):
    """Remove a holder; the last one wakes the writer. The RCU section keeps the queue's memory."""
    rcu_read_lock(mm, task)
    v = VMA(mm, vma)
    if fetch_add(v, "vm_refcnt", -1) == 1:
        wake_up(v)
    rcu_read_unlock(mm, task)
    return 0


@native
def find_vma_speculative(mm, task, addr):
    """A held VMA that contains ``addr``; NULL if the fault needs the lock."""
    rcu_read_lock(mm, task)
    vma = walk(mm, addr)
    if vma != NULL:
        if not inc_not_zero(VMA(mm, vma)):
            vma = NULL
        elif not usable(mm, VMA(mm, vma), addr):
            vma_put(mm, task, vma)
            vma = NULL
    rcu_read_unlock(mm, task)
    return vma


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def wait_for_holders(mm, vma):
    """wait_event(count == 0)."""
    v = VMA(mm, vma)
    since = prepare_to_wait(v)
    while refcount_read(v) != 0:
        schedule(v, since)
        since = wake_ups(v)
    finish_wait(v)
    return 0


@native
def start_write(mm, vma):
    """No holders, now or until mmap_lock is released. Not for a stack that grows under mmap_lock for read, and only
    once."""
    v = VMA(mm, vma)
    if mm.owner == 0 or v.vm_sequence != 0:
        return 0
    v.vm_sequence = 1
    enlist(mm, vma)
    if fetch_add(v, "vm_refcnt", -1) != 1:
        wait_for_holders(mm, vma)
    return 0


@native
def end_write(mm, vma):
    """Allow holders again."""
    v = VMA(mm, vma)
    v.vm_sequence = 0
    set_release(v, 1)
    return 0


@native
def attach(mm, vma):
    """The VMA is complete: take the tree's own reference. Linking the VMA must come after the stores to its fields: a
    reader finds it by a plain store to the tree, and its walk reads the fields before it takes a reference (as in
    spf_seqcount; the mail has no barrier either)."""
    set_release(VMA(mm, vma), 1)
    smp_wmb()
    return 0


# ---- as posted -------------------------------------------------------------------------------------------------------


@native
def posted_put(mm, task, vma):
    """vma_put of the mail: wakes when one reference is left. The waiter has already dropped its own, so this is one too
    early, and the last holder wakes no one."""
    t = TASK(mm, task)
    if not t.speculative:
        return read_unlock(mm, task)
    t.speculative = 0
    v = VMA(mm, vma)
    if fetch_add(v, "vm_refcnt", -1) - 1 == 1:
        wake_up(v)
    return 0


@native
def posted_detach(mm, vma):
    """invalidate_vma_before_free, after rb_erase: drop the tree's reference, wait until none is left."""
    v = VMA(mm, vma)
    fetch_add(v, "vm_refcnt", -1)
    return wait_for_holders(mm, vma)


READERS = {"speculate": find_vma_speculative, "speculation_end": vma_put}
MENDED = {
    **speculation.HOOKS,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_start_write": start_write,
    "vma_attach": attach,
    "vma_free": vma_writers.free_vma,
}
POSTED = {
    **speculation.HOOKS,
    "vma_put": posted_put,
    "vma_attach": attach,
    "vma_detach": posted_detach,
    "vma_free": speculation.free_vma,
}


FREED = ("free_vma < detach_range", "free_vma < vma_remove_merged")
KNOWN_BUGS = (
    scenario.KnownBug(
        "B9",
        "the last holder does not wake the writer",
        (
            "posted_put",
            "find_vma_speculative",
            "schedule",
            "wake_up",
            "rb_find",
            "refcount_inc_not_zero_acquire",
            "down_read_any",
            "down_write_any",
            "walk",
        ),
        kind="deadlock",
        says="*waits for * of vma #*",
    ),
    scenario.KnownBug(
        "waker",
        "the queue is looked at after the count is down: the VMA may be gone",
        ("wake_up < posted_put",),
        dangling=False,
        freed=FREED,
    ),
    scenario.KnownBug(
        "anon_vma",
        "mremap takes the anon_vma of a VMA that is held; its neighbours are not",
        ("anon_vma_choose < anon_vma_prepare < fill_none",),
        dangling=False,
        scenarios=("fault-mremap-neighbour",),
        freed=FREED,
    ),
    scenario.KnownBug(
        "anon_vma",
        "as above",
        ("move_vma", "spin_lock", "anon_vma_choose"),
        kind="broken invariant",
        scenarios=("fault-mremap-neighbour",),
        says="VMA #*: anon_vma * with a chain of 0",
    ),
)


@hookimpl
def benchframe_strategies():
    """The fixed version, and the one as posted; over the plain tree."""
    return [
        Strategy(
            "rcu_rbtree",
            "RCU-walked rb-tree, a reference count per VMA: the RFC's third version, mended",
            "rbtree",
            protocol=Protocol(bind={**READERS, "end_write": end_write}, **MENDED),
            scenarios=(speculation.TWICE,),
        ),
        Strategy(
            "rcu_rbtree_v3",
            "the same as posted on 25 December 2009, with its lost wake-up (B9)",
            "rbtree",
            protocol=Protocol(bind=READERS, **POSTED),
            known_bugs=KNOWN_BUGS,
        ),
    ]
