"""Four pointers per task to VMAs found before: `task->vmacache`, Linux 3.15 to 6.0, in front of the augmented rb-tree.

History: Davidlohr Bueso, commit 615d6e8756c8 (3.15), after a second pointer per mm was refused as too ad hoc. Slots
were chosen by page number; 4.19 chose them by 2 MiB region (`vmacache_pmd`), which put the right slot first in 70 %
of the hits instead of 25 %. The sequence number had 32 bits and an overflow path until CVE-2018-17182 (4.19); with
64 there is none. 6.1 dropped the cache: with the maple tree it no longer paid.

Layout: task_struct holds a sequence number and four slots, 40 bytes; mm_struct holds the number that is current.
```
  mm.vmacache_seqnum  7           task.vmacache_seqnum  7      equal: the slots are good
                                  slots  [ 0 | 1 | 2 | 3 ]     slot = (addr >> 12) & 3, or (addr >> 21) & 3
```
Lookup: if the numbers differ, take the mm's, empty the slots, miss. Else probe the slots, in order 0 to 3 with the page
hash, from the hashed one on with the region hash; a hit is a VMA that contains addr. find_vma stores the tree's result
in the hashed slot, so one VMA may be in several.

Invalidated by one increment of mm's number: munmap (detach_vmas_to_be_unmapped) and a VMA that a merge removes
(__vma_unlink). Not by insert, resize, split, mprotect or stack growth: the object stays valid, and its bounds are read
again. A new task starts with empty slots, whatever its number (vmacache_flush in copy_mm, exec_mmap); a new mm starts
with number 0.

Cost: a hit is the task's line, the mm's line, and for each slot probed two lines of a VMA: up to 4.18 a probe looks at
vm_mm first (WARN_ON_ONCE), which is in the second. 4.19 does so with CONFIG_DEBUG_VM_VMACACHE only, so there it is one.
A full miss reads up to four VMAs before the tree, which costs more than no cache. Nothing shared is written by a
lookup. Published: system boot 50.61 % to 73.45 % hits against mmap_cache, kernel build 75.28 % to 88.09 %, ebizzy 1.06
% to 99.97 %.

Concurrency: slots are the task's own; the number is written under mmap_lock for write, read under it for read.
`vmacache_32` is the code of 3.15 with a counter of 8 bits instead of 32, so that it wraps in a short run: when the
number becomes 0, the slots of every task of the mm are emptied (vmacache_flush_all). 3.16 omitted this for an mm with
one user (6b4ebc3a9078), which overlooks a task that joins later: B15, the bug behind CVE-2018-17182. This strategy does
not have the bug.
Sources: Linux 3.15, 4.18 and 4.19 mm/vmacache.c, include/linux/vmacache.h; commits 615d6e8756c8, 7a9cdebdcc17;
the idea before it: 1383337039.2653.18.camel@buesod1.americas.hpqcorp.net.
"""

from benchframe.api import Cache, Strategy, hook, hookimpl, native
from benchframe.kernel import NULL, PAGE_SHIFT, PMD_SHIFT, TASK, VMA

VMACACHE_SIZE = 4
VMACACHE_MASK = VMACACHE_SIZE - 1
SMALL_SEQNUM_MASK = 255
"""`vmacache_32`: the counter's width, 8 bits."""


@hook("cache")
def vmacache_hash(mm, addr):
    """The slot for ``addr``. By page number unless bound to another function (VMACACHE_HASH, 3.15 to 4.18)."""
    return (addr >> PAGE_SHIFT) & VMACACHE_MASK


@hook("cache")
def vmacache_first(mm, addr):
    """The slot that a lookup probes first: 0 up to 4.18."""
    return 0


@native
def vmacache_hash_pmd(mm, addr):
    """VMACACHE_HASH since 4.19: by 2 MiB region; also the first slot that a lookup probes."""
    return (addr >> PMD_SHIFT) & VMACACHE_MASK


@hook("cache")
def vmacache_foreign(mm, vma):
    """WARN_ON_ONCE(vma->vm_mm != mm): whether a slot holds another mm's VMA. It never does, but up to 4.18 each probe
    checked."""
    return VMA(mm, vma).vm_mm != mm.id


@native
def unasked(mm, vma):
    """Since 4.19: with CONFIG_DEBUG_VM_VMACACHE only."""
    return 0


@native
def vmacache_slot(mm, task, slot):
    """The content of slot 0 to 3."""
    t = TASK(mm, task)
    if slot == 0:
        return t.vmacache0
    if slot == 1:
        return t.vmacache1
    if slot == 2:
        return t.vmacache2
    return t.vmacache3


@native
def vmacache_flush(mm, task):
    """Empty all slots."""
    t = TASK(mm, task)
    t.vmacache0 = NULL
    t.vmacache1 = NULL
    t.vmacache2 = NULL
    t.vmacache3 = NULL
    return 0


@native
def vmacache_valid(mm, task):
    """Whether the cache belongs to this mm and is current. A stale one is emptied and made current."""
    t = TASK(mm, task)
    if t.mm != mm.id:
        return 0
    if t.vmacache_seqnum != mm.vmacache_seqnum:
        t.vmacache_seqnum = mm.vmacache_seqnum
        vmacache_flush(mm, task)
        return 0
    return 1


@native
def vmacache_find(mm, task, addr):
    """A cached VMA that contains ``addr``, NULL if none of the four does."""
    if not vmacache_valid(mm, task):
        return NULL
    first = vmacache_first(mm, addr)
    probe = 0
    while probe < VMACACHE_SIZE:
        vma = vmacache_slot(mm, task, (first + probe) & VMACACHE_MASK)
        if vma != NULL:
            if vmacache_foreign(mm, vma):
                return NULL
            v = VMA(mm, vma)
            if v.vm_start <= addr and addr < v.vm_end:
                return vma
        probe += 1
    return NULL


@native
def vmacache_update(mm, task, addr, vma):
    """find_vma found ``vma`` in the tree: store it in the slot of ``addr``."""
    t = TASK(mm, task)
    if t.mm != mm.id:
        return 0
    slot = vmacache_hash(mm, addr)
    if slot == 0:
        t.vmacache0 = vma
    elif slot == 1:
        t.vmacache1 = vma
    elif slot == 2:
        t.vmacache2 = vma
    else:
        t.vmacache3 = vma
    return 0


@hook("cache")
def vmacache_overflow(mm):
    """The number was raised. With 64 bits it never wraps."""
    return 0


@native
def vmacache_invalidate(mm):
    """One increment makes every task's slots stale."""
    mm.vmacache_seqnum += 1
    mm.nr_invalidations += 1
    vmacache_overflow(mm)
    return 0


@native
def unlinked(mm, vma, prev):
    """__vma_unlink: the VMA is freed next."""
    return vmacache_invalidate(mm)


@native
def mm_init(mm):
    """Number 0, no tasks known; strategy3 is the highest task number seen, for the flush of all tasks."""
    mm.vmacache_seqnum = 0
    mm.strategy3 = 0
    return 0


@native
def task_init(mm, task):
    """A new task of this mm has an empty cache (vmacache_flush in copy_mm, exec_mmap). A clone has its parent's number,
    here the mm's, so its first miss has nothing to empty."""
    TASK(mm, task).vmacache_seqnum = mm.vmacache_seqnum
    vmacache_flush(mm, task)
    if task > mm.strategy3:
        mm.strategy3 = task
    return 0


@native
def vmacache_flush_all(mm):
    """3.15: the counter has wrapped to 0; empty the slots of every task that runs in this mm. O(tasks)."""
    mm.vmacache_seqnum &= SMALL_SEQNUM_MASK
    if mm.vmacache_seqnum == 0:
        task = 1
        while task <= mm.strategy3:
            if TASK(mm, task).mm == mm.id:
                vmacache_flush(mm, task)
            task += 1
    return 0


def vmacache(pmd: bool = False, small: bool = False) -> Cache:
    """The cache by page or by region, with a 64-bit or a small counter."""
    bind = {}
    if pmd:
        bind = {"vmacache_hash": vmacache_hash_pmd, "vmacache_first": vmacache_hash_pmd, "vmacache_foreign": unasked}
    if small:
        bind["vmacache_overflow"] = vmacache_flush_all
    return Cache(
        find=vmacache_find,
        store=vmacache_update,
        detached=vmacache_invalidate,
        unlinked=unlinked,
        mm_init=mm_init,
        task_init=task_init,
        bind=bind,
    )


@hookimpl
def benchframe_strategies():
    """By page, by region, and with a counter that wraps; all over the tree with gaps, as in those kernels."""
    tree = "rbtree_gap"
    return [
        Strategy("vmacache", "4 VMAs per task, slot by page, 64-bit sequence, 3.15 to 4.18", tree, vmacache()),
        Strategy("vmacache_pmd", "4 VMAs per task, slot by 2 MiB region, 4.19 to 6.0", tree, vmacache(pmd=True)),
        Strategy("vmacache_32", "vmacache with a counter that wraps, as in 3.15 (8 bits)", tree, vmacache(small=True)),
    ]
